"""Artifact: what was built. A folder that can be copied to a device: graphs, vocabulary, contract, manifest."""

import dataclasses
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from convert.coverage import GraphCoverage
from convert.recipe import Format, Graph, Recipe
from convert.saturation import OverflowRisk
from convert.scheme import parse_scheme
from convert.store import read_manifest
from models.errors import ArtifactError, ConfigError
from models.files import content_digest
from models.preprocessing import Preprocessing
from models.vocabulary import Vocabulary

ENCODER = "encoder"
# ONNX wants every name once, so an output that carries on an input (state_h) gets this suffix there.
OUTPUT_SUFFIX = "_out"


@dataclass(frozen=True)
class Contract:
    """What a driver must know to caption: how to make the tensor, and the decoder's sizes."""

    preprocessing: Preprocessing
    max_length: int  # most words of a caption, END included
    units: int  # width of the state tensors


@dataclass(frozen=True)
class Artifact:
    """A built artifact. `graphs` maps "encoder" and the decoder graph's name to paths; a fused one has one for both."""

    path: Path
    recipe: Recipe
    contract: Contract
    graphs: Mapping[str, Path]
    sha256: str  # of the manifest, so of everything
    weights_int8: float | None
    coverage: Mapping[str, GraphCoverage]  # by graph; empty for formats that hold no integers
    saturation: Mapping[str, OverflowRisk]  # by graph; of ONNX graphs in INT8 only
    tools: Mapping[str, str]
    size_bytes: Mapping[str, Any]  # total, encoder, decoder, deflated; None for the halves of a fused one

    @property
    def decoder_graph(self) -> Path:
        """The file (or folder) of the decoder."""
        return self.graphs[self.recipe.graph]

    def vocabulary(self) -> Vocabulary:
        """The words of the logits."""
        return Vocabulary.load(self.path / "vocabulary.json")


def artifact_facts(
    recipe: Recipe, contract: Contract, folder: Path, graphs: Mapping[str, str], **more: Any
) -> dict[str, Any]:
    """What goes into the manifest of an artifact whose graphs lie in `folder`."""
    sizes = {part: _size_bytes(folder / name) for part, name in graphs.items()}
    return {
        "recipe": dataclasses.asdict(recipe) | {"encoder": str(recipe.encoder), "decoder": str(recipe.decoder)},
        "graphs": dict(graphs),
        "contract": {
            "preprocessing": contract.preprocessing.to_json(),
            "max_length": contract.max_length,
            "units": contract.units,
        },
        "size_bytes": {
            "total": sum(sizes.values()),
            "encoder": sizes.get(ENCODER),
            "decoder": None if recipe.graph is Graph.FUSED else sizes[recipe.graph],
            "deflated": _deflated_bytes([folder / name for name in graphs.values()]),
        },
        **more,
    }


def load_artifact(path: Path) -> Artifact:
    """Read and verify an artifact. Raises ArtifactError when it is missing, corrupt or something else."""
    if not path.is_dir():
        raise ArtifactError(f"no artifact at {path}; `captionbench build` prints where it puts them.")
    manifest = read_manifest(path)
    facts = manifest["facts"]
    try:
        table = facts["recipe"]
        recipe = Recipe(
            table["captioner"],
            Format(table["format"]),
            parse_scheme(table["encoder"])[0],
            parse_scheme(table["decoder"])[0],
            Graph(table["graph"]),
            table["technique"],
        )
        given = facts["contract"]
        contract = Contract(Preprocessing.from_json(given["preprocessing"]), given["max_length"], given["units"])
        graphs = {part: path / name for part, name in facts["graphs"].items()}
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise ArtifactError(f"{path} is not an artifact of this version: {error}. Build it again.") from error
    return Artifact(
        path,
        recipe,
        contract,
        graphs,
        content_digest(manifest["files"]),
        facts.get("weights_int8"),
        {name: GraphCoverage(**found) for name, found in facts.get("coverage", {}).items()},
        {name: OverflowRisk(**found) for name, found in facts.get("saturation", {}).items()},
        facts["tools"],
        facts["size_bytes"],
    )


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def _size_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in _files(path))


def _deflated_bytes(paths: list[Path]) -> int:
    """Bytes of one zip archive (deflate level 6) with these files: what a download would weigh."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for path in paths:
            for file in _files(path):
                archive.write(file, str(file.relative_to(path.parent)))
    return buffer.getbuffer().nbytes
