"""Exports to TensorFlow's own formats: SavedModels (what one deploys) and Keras files (the study's baseline)."""

from pathlib import Path
from typing import Any

from convert.calibration import Calibration
from convert.graphs import GraphFunction
from convert.scheme import Precision, Scheme
from models.errors import UnsupportedError
from models.keras import tensorflow

SIGNATURE = "serving_default"


def save_signature(graph: GraphFunction, path: Path) -> None:
    """Write a SavedModel whose signature takes and returns named tensors."""
    tf = tensorflow()
    module = tf.Module()
    # The variables alone: holding the Keras model would also store its Python objects, as many bytes again.
    module.held = list(graph.model.variables)

    @tf.function(input_signature=list(graph.signature.values()))  # type: ignore[untyped-decorator]
    def serve(*tensors: object) -> object:
        return graph.function(dict(zip(graph.signature, tensors, strict=True)))

    module.serve = serve
    tf.saved_model.save(module, str(path), signatures={SIGNATURE: serve})


def export_saved_model(graph: GraphFunction, scheme: Scheme, calibration: Calibration, folder: Path) -> str:
    """Write `NAME/`. Raises UnsupportedError for anything but fp32."""
    _require_fp32("saved_model", scheme)
    save_signature(graph, folder / graph.name)
    return graph.name


def export_keras(graph: GraphFunction, scheme: Scheme, calibration: Calibration, folder: Path) -> str:
    """Write `NAME.keras`. Raises UnsupportedError for anything but fp32, and for layers that are not Keras' own."""
    _require_fp32("keras", scheme)
    _require_known_layers(graph.model)
    graph.model.save(folder / f"{graph.name}.keras")
    return f"{graph.name}.keras"


def _require_known_layers(model: Any) -> None:
    """Raises UnsupportedError for layers that Keras alone could not make again from their names."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            _require_known_layers(layer)
        elif not type(layer).__module__.startswith(("tf_keras.", "keras.")):
            raise UnsupportedError(
                f"a .keras file names its layers by class, and '{type(layer).__name__}' is none of Keras' own "
                "(techniques 'tie' and 'qat'): nobody else could load it. Ask for saved_model, tflite or onnx",
                thread="https://www.tensorflow.org/guide/keras/serialization_and_saving#custom_objects",
            )


def _require_fp32(format_name: str, scheme: Scheme) -> None:
    if scheme.precision is not Precision.FP32:
        raise UnsupportedError(
            f"format '{format_name}' holds fp32 only: TensorFlow quantizes only on the way to TFLite",
            thread="https://www.tensorflow.org/model_optimization/guide/quantization/post_training",
        )
