"""A parity worker: `python -m bench.parity.worker trace JOB FOLDER` or `... examine JOB TRACE OUT`.

It runs in the runtime's own environment, so it imports neither TensorFlow nor the scorers.
"""

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.captioning import load_sessions
from bench.parity.findings import examine
from bench.parity.job import ParityJob
from bench.parity.replay import trace_images
from bench.parity.trace import Trace, TraceWriter, check_comparable, head_of, open_trace
from bench.runtimes import find_runtime, runtime_version
from convert.artifact import load_artifact
from models.errors import CaptionbenchError
from models.files import write_text_atomic


def trace(job: ParityJob, folder: Path) -> None:
    """Trace the job's images into a new folder."""
    runtime, artifact = find_runtime(job.runtime), load_artifact(Path(job.artifact))
    head = head_of(artifact, job.runtime, runtime_version(runtime), job.fingerprint)
    with load_sessions(artifact, runtime, threads=job.threads) as loaded:
        trace_images(loaded, job, _files(job, job.images, None), TraceWriter(folder, head))


def examine_row(job: ParityJob, folder: Path, out: Path) -> None:
    """Compare the job's row with a trace; write what was found."""
    reference, artifact = open_trace(folder), load_artifact(Path(job.artifact))
    check_comparable(reference.head, artifact, job.fingerprint, reference.head.recipe)
    images = tuple(dict.fromkeys([*job.images, *job.probes]))
    with load_sessions(artifact, find_runtime(job.runtime), threads=job.threads) as loaded:
        found = examine(loaded, reference, job, _files(job, images, reference))
    write_text_atomic(out, json.dumps(dataclasses.asdict(found)) + "\n")


def _files(job: ParityJob, images: tuple[str, ...], reference: Trace | None) -> Iterator[tuple[str, bytes]]:
    """(id, encoded file), from the data set or from what was saved with the trace."""
    dataset = job.dataset.open() if job.dataset else None
    for image in images:
        if dataset is not None:
            yield image, dataset.read(image)
        elif reference is not None:
            yield image, reference.encoded(image)


def main(arguments: list[str]) -> int:
    """Run one command; errors a user can cause become one line and status 2."""
    verb, job, *paths = arguments
    try:
        if verb == "trace":
            trace(ParityJob.read(Path(job)), Path(paths[0]))
        else:
            examine_row(ParityJob.read(Path(job)), Path(paths[0]), Path(paths[1]))
    except CaptionbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
