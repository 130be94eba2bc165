"""Model files and artifact folders as a user names them, each with its ledger and what a runtime says of it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bench.profiling import Profile, hints_of_ledger, profile_of
from bench.resident import resident_bytes
from convert.artifact import load_artifact
from convert.ledger import SUFFIXES, Ledger, ledger_of
from convert.saturation import LayerSaturation, saturation_of
from models.errors import ArtifactError


@dataclass(frozen=True, slots=True)
class Inspection:
    """A ledger, and the profile if one was asked for."""

    ledger: Ledger
    profile: Profile | None = None
    saturation: tuple[LayerSaturation, ...] = ()  # by weights alone; of INT8 ONNX files, where it was asked for


def model_files(path: Path) -> tuple[Path, ...]:
    """The file itself, or the graphs of an artifact's folder. Raises ArtifactError."""
    if not path.is_dir():
        return (path,)
    artifact = load_artifact(path)
    if artifact.recipe.format not in [suffix.removeprefix(".") for suffix in SUFFIXES]:
        raise ArtifactError(
            f"can't inspect {path}: its format is {artifact.recipe.format}; only ONNX and TFLite say what is integer."
        )
    return tuple(artifact.graphs.values())


def inspect_files(
    path: Path, *, threads: int, with_profile: bool = False, with_resident: bool = False, with_saturation: bool = False
) -> Iterator[Inspection]:
    """The ledgers of a model file or of an artifact's graphs. Raises as `ledger_of`, and ArtifactError for folders."""
    for file in model_files(path):
        ledger = ledger_of(file)
        if with_resident:
            resident = resident_bytes(file, threads=threads)
            ledger = replace(ledger, sizes=replace(ledger.sizes, resident=resident))
        profile = profile_of(file, hints_of_ledger(ledger), threads=threads) if with_profile else None
        yield Inspection(ledger, profile, saturation_of(file, ()) if with_saturation and file.suffix == ".onnx" else ())
