"""Profiles of a row: each graph of an artifact under its runtime's profiler, in that runtime's own environment.

As a worker: `python -m bench.row_profiles ARTIFACT RUNTIME THREADS OUT`. The encoder sees one picture of noise, and the
decoder what the encoder made of it, so that all shapes are those of a caption.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.captioning import FusedCaptioner, LoadedCaptioner, load_sessions
from bench.measurement import GraphProfile
from bench.profiling import Hints, Profile, hints_of_coverage, profile_of
from bench.runtimes import find_runtime
from convert.artifact import ENCODER, Artifact, load_artifact
from convert.recipe import Format, Graph
from convert.store import Store
from models.decoding import Tensors
from models.errors import CaptionbenchError
from models.files import content_key, write_text_atomic
from models.vocabulary import START

if TYPE_CHECKING:
    from bench.launcher import Launcher

# Raised when a change makes the same artifact's profile another.
PROFILE_VERSION = 1
SEED = 2012
# Formats whose runtime has a profiler that tells operators' times to a program.
PROFILED = (Format.ONNX, Format.TFLITE)
_WRITTEN = "profiles.json"


def profile_artifact(
    store: Store, launcher: "Launcher", artifact: Artifact, runtime: str, version: str, threads: int
) -> dict[str, GraphProfile]:
    """Where the time of each graph goes; from the store when this artifact was profiled here before.

    Never raises: where there is no profile, a reason stands in its place. Failures are not kept.
    """
    if artifact.recipe.format not in PROFILED or runtime not in ("onnxruntime", "tflite"):
        return _unknown(artifact, f"{runtime} has no profiler that tells a program the time of each operator")
    key = content_key(PROFILE_VERSION, artifact.sha256, runtime, version, threads)

    def make(folder: Path) -> dict[str, Any]:
        _run_worker(launcher, runtime, [str(artifact.path), runtime, str(threads), str(folder / _WRITTEN)])
        return {"artifact": artifact.recipe.name}

    try:
        entry = store.build("profiles", key, f"profiles of {artifact.recipe.name}", make)
        return read_profiles(json.loads((entry.path / _WRITTEN).read_text(encoding="utf-8")))
    except Exception as error:  # a profile explains a row: whatever goes wrong here must not cost the row
        return _unknown(artifact, f"the profiler failed: {error}")


def _run_worker(launcher: "Launcher", runtime: str, arguments: list[str]) -> None:
    launcher.run(runtime, ["-m", "bench.row_profiles", *arguments])


def _unknown(artifact: Artifact, reason: str) -> dict[str, GraphProfile]:
    return {str(graph): GraphProfile({}, (), reason) for graph in artifact.graphs}


def read_profiles(table: Mapping[str, Any]) -> dict[str, GraphProfile]:
    """What the worker wrote."""
    return {
        graph: GraphProfile(found["shares"], tuple((name, share) for name, share in found["top"]), found["reason"])
        for graph, found in table.items()
    }


def profile_graphs(artifact: Artifact, runtime: str, threads: int) -> dict[str, GraphProfile]:
    """Profile every graph of an artifact here and now. Raises as loading the artifact on the runtime does."""
    with load_sessions(artifact, find_runtime(runtime), threads=threads) as loaded:
        feeds = _feeds(loaded)
    return {str(graph): _profile(artifact, graph, feeds[graph], threads) for graph in artifact.graphs}


def _profile(artifact: Artifact, graph: str, feeds: Tensors, threads: int) -> GraphProfile:
    coverage = artifact.coverage.get(graph)
    hints = hints_of_coverage(coverage) if coverage else Hints()
    return graph_profile(profile_of(artifact.graphs[graph], hints, threads=threads, feeds=feeds))


def graph_profile(profile: Profile) -> GraphProfile:
    """A profile as results keep it."""
    shares = {str(kind): share for kind, share in (profile.shares or {}).items()}
    return GraphProfile(shares, profile.top, profile.reason)


def _feeds(loaded: LoadedCaptioner) -> dict[str, Tensors]:
    """What each graph takes for one picture and its first word."""
    pixels = loaded.preprocess(_noise())
    inputs = loaded.encode(pixels)
    graph = loaded.artifact.recipe.graph
    if isinstance(loaded, FusedCaptioner):
        return {graph: inputs}
    token = {} if graph is Graph.PREFIX else {"token": np.array([START], np.int32)}
    return {ENCODER: {"image": pixels}, graph: {**token, **inputs}}


def _noise() -> bytes:
    """A picture of random colours, as a PNG file."""
    from PIL import Image

    pixels = np.random.default_rng(SEED).integers(0, 256, (64, 64, 3), np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def main(arguments: list[str]) -> int:
    """Profile one artifact; errors a user can cause become one line and status 2."""
    artifact, runtime, threads, out = arguments
    try:
        profiles = profile_graphs(load_artifact(Path(artifact)), runtime, int(threads))
    except CaptionbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    table = {graph: dataclasses.asdict(profile) for graph, profile in profiles.items()}
    write_text_atomic(Path(out), json.dumps(table) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
