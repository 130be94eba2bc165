"""A worker process: `python -m bench.worker describe RUNTIME` or `python -m bench.worker caption JOB OUT`.

It runs in the runtime's own environment, so it imports neither TensorFlow nor the scorers.
"""

import contextlib
import dataclasses
import importlib
import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.captioning import FusedCaptioner, LoadedCaptioner, load_sessions
from bench.environment import describe_environment, peak_rss_bytes, resident_bytes
from bench.job import Job
from bench.runtimes import find_runtime, runtime_version
from bench.shared_encoder import SharedEncoder
from convert.artifact import load_artifact
from models.decoding import Caption
from models.errors import CaptionbenchError
from models.files import write_atomic, write_text_atomic
from models.preprocessing import tensor_hash
from models.vocabulary import START

# Images whose tensors are kept to compare runtimes number by number.
PROBE_IMAGES = 8


def caption(job: Job, out: Path) -> None:
    """Caption the job's images in every search that is offered; write `out` and the probe tensors beside it."""
    runtime = find_runtime(job.runtime)
    before = _resident_with(runtime.module)
    with load_sessions(load_artifact(Path(job.artifact)), runtime, threads=job.threads) as loaded:
        grown = resident_bytes() - before
        captions, pixels = {}, {}
        encoder = SharedEncoder(loaded, Path(job.features) if job.features else None)
        for index, (image, encoded) in enumerate(job.read_images()):
            prepared = loaded.preprocess(encoded, image)
            inputs = encoder.encode(index, prepared)
            captions[image] = {s: _described(loaded, loaded.decode(inputs, s)[0]) for s in loaded.searches}
            pixels[image] = tensor_hash(prepared[0])
        peak = peak_rss_bytes()
        probe = {} if isinstance(loaded, FusedCaptioner) else _probe(loaded, job)
        encoder.keep()
    write_atomic(out.with_suffix(".npz"), lambda file: np.savez(file, **probe))  # type: ignore[arg-type]
    table = {
        "captions": captions,
        "pixels": pixels,
        "peak_rss_bytes": peak,
        "loaded_bytes": grown,
        "runtime_version": runtime_version(runtime),
    }
    write_text_atomic(out, json.dumps(table) + "\n")


def _resident_with(module: str) -> int:
    """Resident bytes once the runtime's module is there: what an artifact takes is counted from here."""
    with contextlib.suppress(ImportError):  # loading says what is missing, and what to do
        importlib.import_module(module)
    return resident_bytes()


def describe(runtime: str) -> dict[str, Any]:
    """The runtime's version here ("" when absent) and the environment that would run it."""
    names = sorted({found.metadata["Name"] for found in importlib.metadata.distributions()})
    environment = describe_environment(names)
    return {
        "version": runtime_version(find_runtime(runtime)),
        "environment": dataclasses.asdict(environment),
    }


def _described(loaded: LoadedCaptioner, found: Caption) -> dict[str, Any]:
    return {"caption": loaded.sentence(found), "ids": found.ids, "log_probability": found.log_probability}


def _probe(loaded: LoadedCaptioner, job: Job) -> dict[str, NDArray[Any]]:
    """Encoder outputs and first logits of the first images, one at a time as they are captioned."""
    rows = []
    for name, encoded in list(job.read_images())[:PROBE_IMAGES]:
        inputs = dict(loaded.encode(loaded.preprocess(encoded, name)))
        logits, _ = loaded.step(np.array([START], np.int32), inputs)
        rows.append({"features": inputs["features"], "logits": logits})
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def main(arguments: list[str]) -> int:
    """Run one command; errors a user can cause become one line and status 2."""
    try:
        if arguments[0] == "describe":
            print(json.dumps(describe(arguments[1])))
        else:
            caption(Job.read(Path(arguments[1])), Path(arguments[2]))
    except CaptionbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
