"""The registry of runtimes: a new one costs one module and one line here."""

from bench.runtimes.base import Runtime, Session, runtime_version
from bench.runtimes.fake import FakeRuntime
from bench.runtimes.keras_tf import KerasPredictRuntime, TensorFlowRuntime
from bench.runtimes.onnx_runtime import OnnxRuntime
from bench.runtimes.tflite import TfliteRuntime
from convert.recipe import Format
from models.errors import unknown_name

__all__ = ["RUNTIMES", "Runtime", "Session", "find_runtime", "runtime_version", "runtimes_for"]

_ALL: tuple[Runtime, ...] = (
    TensorFlowRuntime(),
    KerasPredictRuntime(),
    TfliteRuntime(),
    OnnxRuntime(),
    FakeRuntime(),
)
RUNTIMES: dict[str, Runtime] = {runtime.name: runtime for runtime in _ALL}


def find_runtime(name: str) -> Runtime:
    """Look a runtime up. Raises ConfigError naming the nearest valid name."""
    if name not in RUNTIMES:
        raise unknown_name("runtime", name, RUNTIMES)
    return RUNTIMES[name]


def runtimes_for(format_: Format) -> list[str]:
    """Names of the runtimes that a suite measures a format on when it names none."""
    return [r.name for r in RUNTIMES.values() if r.by_default and format_ in r.formats]
