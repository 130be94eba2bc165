"""LiteRT's own profiler: `python -m bench.litert_profiler MODEL FEEDS THREADS WARM_UP RUNS OUT`.

It runs in a process of its own, because the C interface behind it (`bench.litert_library`) may end the process where it
has changed. Its clock counts whole microseconds.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.litert_library import ProfiledModel, ProfilerError
from models.decoding import Tensors
from models.errors import CaptionbenchError
from models.files import write_text_atomic

ROOT = Path(__file__).resolve().parent.parent
BATCHES = 5  # that the runs are told apart in
TIMEOUT_SECONDS = 300.0
OperatorTimes = list[tuple[str, float]]  # (kernel, time in any unit), in the order they run; names repeat

_OPERATOR = re.compile(r"\s*(\S.*?)\s+[\d.]+\s+[\d.]+\s+[\d.]+\s+([\d.]+)%.*\[(?:Builtin|Delegate|Custom)\]:\d+\s*")


def operator_times(path: Path, feeds: Tensors, *, threads: int, warm_up: int, runs: int) -> OperatorTimes:
    """Time of each kernel, measured in a new process. Inputs without feeds are random at batch 1 (zeros for integers).

    Raises ProfilerError.
    """
    import numpy as np

    with tempfile.TemporaryDirectory() as work:
        given, out = Path(work) / "feeds.npz", Path(work) / "operators.json"
        np.savez(given, **{name: np.asarray(value) for name, value in feeds.items()})  # type: ignore[arg-type]
        arguments = [str(path.resolve()), str(given), str(threads), str(warm_up), str(runs), str(out)]
        _run_child(["-m", "bench.litert_profiler", *arguments])
        found: OperatorTimes = [(name, spent) for name, spent in json.loads(out.read_text(encoding="utf-8"))]
    return found


def _run_child(arguments: list[str]) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProfilerError(f"LiteRT's profiler gave no answer in {TIMEOUT_SECONDS:.0f} s") from None
    if done.returncode:
        raise ProfilerError(_why(done.returncode, done.stderr))


def _why(status: int, stderr: str) -> str:
    """A known limit in words, else the last error."""
    if found := re.search(r"Failed to set custom allocation for output tensor (\S+)", stderr):
        return f"LiteRT's profiler can't take the output '{found[1]}', whose shape is not fixed before a run"
    if status < 0:
        return f"LiteRT's profiler was ended by signal {-status}"
    said = [line.removeprefix("error: ") for line in stderr.splitlines() if line.startswith(("ERROR", "error"))]
    return f"LiteRT's profiler failed: {said[-1] if said else f'status {status}'}"


def read_summary(text: str) -> OperatorTimes:
    """The kernels of the first table, with their shares of the time in percent."""
    table = text.split("Top by", maxsplit=1)[0]
    return [(found[1], float(found[2])) for line in table.splitlines() if (found := _OPERATOR.fullmatch(line))]


def typical_times(tables: Sequence[OperatorTimes]) -> OperatorTimes:
    """The median share of each kernel: a run during which the machine did something else does not count."""
    alike = [table for table in tables if [name for name, _ in table] == [name for name, _ in tables[0]]]
    return [(rows[0][0], statistics.median(share for _, share in rows)) for rows in zip(*alike, strict=True)]


def main(arguments: list[str]) -> int:
    """Profile one model; a failure is one line and status 2."""
    import numpy as np

    model, given, threads, warm_up, runs, out = arguments
    try:
        with np.load(given) as feeds:
            profiled = ProfiledModel(Path(model), int(threads))
            inputs = profiled.inputs(dict(feeds))
        outputs = profiled.outputs()
        profiled.run(inputs, outputs, int(warm_up))
        tables = [read_summary(profiled.summary(inputs, outputs, int(runs) // BATCHES)) for _ in range(BATCHES)]
    except (CaptionbenchError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_text_atomic(Path(out), json.dumps(typical_times(tables)))
    sys.stdout.flush()
    os._exit(0)  # leaves LiteRT's objects to the system, in whatever order they would have to be freed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
