"""ONNX Runtime on its CPU execution provider."""

from pathlib import Path
from typing import Any

from bench.runtimes.base import PlainSession, Session
from convert.artifact import OUTPUT_SUFFIX
from convert.recipe import Format
from models.decoding import Tensors
from models.errors import ArtifactError, MissingPackageError


class OnnxRuntime:
    """onnxruntime.InferenceSession, all graph optimizations, operators one after the other."""

    name = "onnxruntime"
    package = "onnxruntime"
    module = "onnxruntime"
    formats: tuple[Format, ...] = (Format.ONNX,)
    by_default = True

    def load(self, path: Path, *, threads: int) -> Session:
        """Load one .onnx file. Raises ArtifactError when onnxruntime can't read it."""
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise MissingPackageError(
                "runtime 'onnxruntime' needs onnxruntime: pip install -e '.[onnxruntime]'."
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # An encoder and a decoder session each have a pool of threads that spin for more work; on few cores the one's
        # spinning starves the other. Stopping it when a call returns made a caption on two cores 2.5 times faster.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.log_severity_level = 3  # errors only; warnings are about unused initializers
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions share no public base class
            raise ArtifactError(f"onnxruntime can't load {path}: {error}") from error
        return _OnnxSession(session)


class _OnnxSession(PlainSession):
    def __init__(self, session: Any) -> None:
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]
        self._names = [name.removesuffix(OUTPUT_SUFFIX) for name in self._outputs]

    def run(self, feeds: Tensors) -> Tensors:
        return dict(zip(self._names, self._session.run(self._outputs, feeds), strict=True))
