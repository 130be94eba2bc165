"""TensorFlow as one deploys it (SavedModel signatures), and as the 2020 study ran it (`model.predict`)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.runtimes.base import PlainSession, Session
from convert.recipe import Format
from models.decoding import Tensors
from models.errors import ConfigError
from models.keras import keras, tensorflow


class TensorFlowRuntime:
    """SavedModel signatures, called as TensorFlow functions."""

    name = "tensorflow"
    package = "tensorflow"
    module = "tensorflow"
    formats: tuple[Format, ...] = (Format.SAVED_MODEL,)
    by_default = True

    def load(self, path: Path, *, threads: int) -> Session:
        """Load one SavedModel."""
        tf = tensorflow()
        _set_threads(threads)
        module = tf.saved_model.load(str(path))
        function = module.signatures["serving_default"]

        def call(feeds: Tensors) -> Tensors:
            outputs = function(**{name: tf.constant(value) for name, value in feeds.items()})
            return {name: value.numpy() for name, value in outputs.items()}

        return _KerasSession(call, keep=module)


class KerasPredictRuntime:
    """`model.predict` once a word: the 2020 study's loop, a baseline and nothing that one would deploy."""

    name = "keras_predict"
    package = "tf_keras"
    module = "tf_keras"
    formats: tuple[Format, ...] = (Format.KERAS,)
    by_default = True

    def load(self, path: Path, *, threads: int) -> Session:
        """Load one Keras file."""
        _set_threads(threads)
        model = keras().models.load_model(path, compile=False)

        def call(feeds: Tensors) -> Tensors:
            given: Any = feeds if isinstance(model.input, dict) else next(iter(feeds.values()))
            outputs: Tensors = model.predict(given, verbose=0)
            return outputs

        return _KerasSession(call, keep=model)


class _KerasSession(PlainSession):
    def __init__(self, call: Callable[[Tensors], Tensors], *, keep: object) -> None:
        self._call = call
        self._keep = keep  # a signature does not keep the variables of its module alive

    def run(self, feeds: Tensors) -> Tensors:
        return self._call(feeds)


def _set_threads(threads: int) -> None:
    """Fix the thread counts. TensorFlow takes them only before its first operation: raises ConfigError after it."""
    threading = tensorflow().config.threading
    if threading.get_intra_op_parallelism_threads() == threads:
        return
    try:
        threading.set_intra_op_parallelism_threads(threads)
        threading.set_inter_op_parallelism_threads(1)
    except RuntimeError as error:
        raise ConfigError(
            f"TensorFlow is already running in this process with other thread counts; received threads={threads}. "
            "Load the artifact in a process of its own."
        ) from error
