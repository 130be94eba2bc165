"""A suspect layer as a folder of its own: a model, inputs, what the reference makes of them, and a script to see it.

The script needs NumPy and the runtime, and nothing of this project, so that it can go into an upstream issue.
"""

import hashlib
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bench.parity.bisect import Bisection, Suspect
from models.files import write_atomic, write_text_atomic

_RUNTIMES = {".onnx": "onnxruntime", ".tflite": "ai-edge-litert"}

_HEAD = '''"""Runs one layer on the inputs beside it and compares with what the reference made of them.

Ends with status 1 when it is out of tolerance. Needs numpy and {package}.
"""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
TOLERANCE = {tolerance}  # root mean square of the difference over that of the reference
'''

_ONNX = """
import onnxruntime


def run(feeds):
    session = onnxruntime.InferenceSession(str(HERE / "model.onnx"), providers=["CPUExecutionProvider"])
    return session.run(None, {value.name: feeds[value.name] for value in session.get_inputs()})[0]
"""

_TFLITE = '''
from ai_edge_litert.interpreter import Interpreter


def stored(value, detail):
    """In the tensor's own type."""
    kind, (scale, zero) = detail["dtype"], detail["quantization"]
    if not scale or not np.issubdtype(kind, np.integer) or np.issubdtype(value.dtype, np.integer):
        return value.astype(kind)
    limits = np.iinfo(kind)
    return np.clip(np.round(value / scale) + zero, limits.min, limits.max).astype(kind)


def run(feeds):
    interpreter = Interpreter(str(HERE / "model.tflite"))
    for detail in interpreter.get_input_details():
        interpreter.resize_tensor_input(detail["index"], feeds[str(detail["index"])].shape)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], stored(feeds[str(detail["index"])], detail))
    interpreter.invoke()
    detail = interpreter.get_output_details()[0]
    output, (scale, zero) = interpreter.get_tensor(detail["index"]), detail["quantization"]
    return (output.astype(np.float32) - zero) * scale if scale else output
'''

_TAIL = """

def main():
    inputs, expected = np.load(HERE / "inputs.npz"), np.load(HERE / "expected.npz")
    differences, power = [], 0.0
    for case in expected.files:
        feeds = {name.rsplit("@", 1)[0]: inputs[name] for name in inputs.files if name.endswith("@" + case)}
        output = np.asarray(run(feeds), np.float64)
        if output.ndim == 4 and output.shape != expected[case].shape:
            axes = (0, 2, 3, 1) if output.transpose(0, 2, 3, 1).shape == expected[case].shape else (0, 3, 1, 2)
            output = output.transpose(axes)
        differences.append(output.ravel() - expected[case].ravel())
        power += float((expected[case].astype(np.float64) ** 2).sum())
    difference = np.concatenate(differences)
    error = float(np.sqrt((difference**2).sum() / power))
    print(f"largest difference {np.abs(difference).max():.3g}, relative error {error:.3g}, tolerance {TOLERANCE:g}")
    return int(error > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
"""


def write_reproduction(found: Bisection, suspect: Suspect, folder: Path, *, said: str) -> Path:
    """Write the folder whole, in place of an earlier run's; returns it. `said`: versions and rows, for the README."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        _fill(made, found, suspect, said)
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        made.rename(folder)
    return folder


def _fill(folder: Path, found: Bisection, suspect: Suspect, said: str) -> None:
    suffix = suspect.part.path.suffix
    model = folder / f"model{suffix}"
    shutil.copyfile(suspect.part.path, model)
    inputs = {f"{name}@{i}": value for i, feeds in enumerate(suspect.inputs) for name, value in feeds.items()}
    expected = {str(i): value for i, value in enumerate(suspect.expected)}
    write_atomic(folder / "inputs.npz", lambda file: np.savez(file, **inputs))  # type: ignore[arg-type]
    write_atomic(folder / "expected.npz", lambda file: np.savez(file, **expected))  # type: ignore[arg-type]
    head = _HEAD.format(package=_RUNTIMES[suffix], tolerance=found.tolerance)
    write_text_atomic(folder / "reproduce.py", head + (_ONNX if suffix == ".onnx" else _TFLITE) + _TAIL)
    write_text_atomic(folder / "README.md", _readme(found, suspect, model, said))


def _readme(found: Bisection, suspect: Suspect, model: Path, said: str) -> str:
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    return f"""# {suspect.layer}

The first layer of the {found.graph} whose output is out of tolerance: relative error {suspect.error:.3g} after all
layers before it, {suspect.local_error:.3g} alone on the reference's own values; tolerance {found.tolerance:g}.

{said}

`python reproduce.py` (NumPy and {_RUNTIMES[model.suffix]}) runs `{model.name}` (SHA-256 {digest}) on `inputs.npz`, and
compares with `expected.npz`, what the reference makes of them.
"""
