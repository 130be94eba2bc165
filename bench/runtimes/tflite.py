"""TFLite through LiteRT (`ai-edge-litert`), driven by signature so that tensors are matched by name."""

from pathlib import Path
from typing import Any

from bench.runtimes.base import PlainSession, Session
from convert.recipe import Format
from models.decoding import Tensors
from models.errors import ArtifactError, MissingPackageError

SIGNATURE = "serving_default"


class TfliteRuntime:
    """LiteRT's interpreter on the CPU (XNNPACK, as it comes)."""

    name = "tflite"
    package = "ai-edge-litert"
    module = "ai_edge_litert.interpreter"
    formats: tuple[Format, ...] = (Format.TFLITE,)
    by_default = True

    def load(self, path: Path, *, threads: int) -> Session:
        """Load one .tflite file. Raises ArtifactError when LiteRT can't read it."""
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ModuleNotFoundError as error:
            raise MissingPackageError("runtime 'tflite' needs ai-edge-litert: pip install -e '.[tflite]'.") from error
        try:
            interpreter = Interpreter(str(path), num_threads=threads)
            return _TfliteSession(interpreter, interpreter.get_signature_runner(SIGNATURE))
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(f"LiteRT can't load {path}: {error}") from error


class _TfliteSession(PlainSession):
    def __init__(self, interpreter: Any, runner: Any) -> None:
        self._interpreter = interpreter
        self._runner = runner

    def run(self, feeds: Tensors) -> Tensors:
        outputs: Tensors = self._runner(**feeds)
        return outputs
