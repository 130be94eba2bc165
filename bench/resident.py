"""How much memory a loaded model keeps: the growth of a process of its own, `python -m bench.resident FILE THREADS`."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from models.errors import ArtifactError

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_SECONDS = 600.0


def resident_bytes(path: Path, *, threads: int) -> int:
    """Growth in resident bytes while a fresh process, its runtime imported, loads a file. Raises ArtifactError."""
    command = [sys.executable, "-m", "bench.resident", str(path.absolute()), str(threads)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        env=os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise ArtifactError(f"can't load {path} to measure its memory: {said}. Try without --resident.")
    return int(done.stdout.split()[-1])


def _onnx_loader(threads: int) -> Callable[[str], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return lambda path: onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _tflite_loader(threads: int) -> Callable[[str], Any]:
    from ai_edge_litert.interpreter import Interpreter

    def load(path: str) -> Any:
        interpreter = Interpreter(path, num_threads=threads)
        interpreter.allocate_tensors()
        return interpreter

    return load


def _measure(path: str, threads: int) -> int:
    """Resident bytes that loading adds to this process."""
    load = (_onnx_loader if path.endswith(".onnx") else _tflite_loader)(threads)
    gc.collect()
    process = psutil.Process()
    before = process.memory_info().rss
    loaded = load(path)
    after = process.memory_info().rss
    del loaded
    return after - before


if __name__ == "__main__":
    print(_measure(sys.argv[1], int(sys.argv[2])))
