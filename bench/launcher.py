"""Starts worker processes, each in its runtime's own environment, and tells why one failed."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.canary import CALIBRATION_SECONDS
from bench.disturbance import Watch
from models.errors import CaptionbenchError, ConfigError
from models.files import write_text_atomic

ROOT = Path(__file__).resolve().parent.parent
HARNESS = ROOT / "bench" / "test_latency.py"
# A worker that takes longer hangs; the slowest honest one (1000 photographs, VGG16) needs minutes.
TIMEOUT_SECONDS = 3600.0


class WorkerError(CaptionbenchError):
    """A worker process failed; the message is the last thing it said."""


@dataclass(frozen=True)
class Launcher:
    """`pythons`: runtime name -> interpreter of its environment; a runtime not named runs in this one."""

    pythons: Mapping[str, Path] = field(default_factory=dict)

    def python(self, runtime: str) -> Path:
        """The interpreter that runs a runtime. Raises ConfigError when it does not exist."""
        python = self.pythons.get(runtime, Path(sys.executable))
        if not python.is_file():
            raise ConfigError(f"--python {runtime}={python}: no such file; give the environment's interpreter.")
        return python

    def describe(self, runtime: str) -> dict[str, Any]:
        """Version of the runtime and the environment it runs in. Raises WorkerError."""
        output = self.run(runtime, ["-m", "bench.worker", "describe", runtime])
        described: dict[str, Any] = json.loads(output.splitlines()[-1])
        return described

    def caption(self, runtime: str, job: Path, out: Path) -> None:
        """Caption a job's images. Raises WorkerError."""
        self.run(runtime, ["-m", "bench.worker", "caption", str(job), str(out)])

    def calibrate(self, runtime: str, threads: int) -> float:
        """The canary's best time in seconds. Raises WorkerError."""
        return float(self.run(runtime, ["-m", "bench.canary", str(CALIBRATION_SECONDS), str(threads)]))

    def time(self, runtime: str, job: Path, out: Path) -> None:
        """Run the pytest-benchmark harness on a job; `out` also says what else the machine did. Raises WorkerError."""
        partial = out.with_suffix(".partial")
        options = ["-q", "-x", "-p", "no:cacheprovider", "--import-mode=importlib", f"--rootdir={ROOT}"]
        # The project's own pytest options are for its tests: here a framework's warning is no error.
        overrides = ["-o", "addopts=", "-o", "filterwarnings=", "-o", "xfail_strict=false"]
        harness = ["--job", str(job), f"--benchmark-json={partial}", "--benchmark-warmup=off"]
        with Watch() as watch:
            self.run(runtime, ["-m", "pytest", str(HARNESS), *options, *overrides, *harness])
        table = json.loads(partial.read_text(encoding="utf-8"))
        table |= {"seconds": watch.seconds, "disturbance": dataclasses.asdict(watch.disturbance)}
        write_text_atomic(out, json.dumps(table))
        partial.unlink()

    def run(self, runtime: str, arguments: Sequence[str]) -> str:
        """What a runtime's interpreter prints when it is given `arguments`. Raises WorkerError."""
        # A pytest around this process (PYTEST_XDIST_WORKER, PYTEST_ADDOPTS) is not the harness's business.
        # Without bytecode a worker compiles its runtime anew each time: seconds for TensorFlow.
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("PYTEST_") and name != "PYTHONDONTWRITEBYTECODE"
        }
        environment = inherited | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        try:
            done = subprocess.run(
                [str(self.python(runtime)), *arguments],
                capture_output=True,
                text=True,
                errors="replace",
                env=environment,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise WorkerError(f"no answer from {runtime} in {TIMEOUT_SECONDS:.0f} s") from None
        if done.returncode:
            raise WorkerError(_why(done))
        return done.stdout


def _why(done: subprocess.CompletedProcess[str]) -> str:
    """The last error line of a failed process, or the signal that ended it."""
    if done.returncode < 0:
        return f"the process was ended by signal {-done.returncode}"
    lines = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
    marked = [line for line in lines if line.startswith(("error:", "E  "))]
    chosen = (marked or lines or ["no output"])[-1]
    return chosen.removeprefix("error:").removeprefix("E  ").strip()
