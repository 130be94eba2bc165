"""Quantization-aware encoders through TF-MOT: build, settle their ranges, find kernels, strip, save and load."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import ArtifactError, ConfigError
from models.files import write_bytes_atomic
from models.keras import keras, model_optimization, tensorflow

FILES = ARCHITECTURE, WEIGHTS = "encoder.json", "encoder.weights.npz"
_PREFIX = "quant_"


def quantize_encoder(encoder: Any) -> Any:
    """A float encoder -> one that rounds as INT8 will, with the same weights, name and input tensor.

    The ranges of its activations are still TF-MOT's -6..6: call `settle_encoder_ranges` before anything is trained.
    Raises ConfigError for a layer that TF-MOT can't quantize, and for an encoder that is quantized already.
    """
    if is_quantized(encoder):
        raise ConfigError(f"encoder '{encoder.name}' is quantized already.")
    require_quantizable(encoder)
    quantized = model_optimization().quantization.keras.quantize_model(encoder, quantized_layer_name_prefix=_PREFIX)
    # Only the float architecture says what the layers were: TF-MOT replaces activations and kernels in place.
    quantized.float_architecture = encoder.to_json()
    return quantized


def is_quantized(encoder: Any) -> bool:
    """Whether an encoder came from `quantize_encoder`."""
    return hasattr(encoder, "float_architecture")


def require_quantizable(encoder: Any) -> None:
    """Raises ConfigError for a layer that TF-MOT can't quantize."""
    model_optimization()
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import default_8bit_quantize_registry

    registry = default_8bit_quantize_registry.Default8BitQuantizeRegistry()
    # TF-MOT handles a normalization together with the convolution before it.
    known = (keras().layers.InputLayer, keras().layers.BatchNormalization)
    for layer in encoder.layers:
        if isinstance(layer, keras().Model) or not (isinstance(layer, known) or registry.supports(layer)):
            raise ConfigError(
                f"quantization-aware training can't quantize layer '{layer.name}' of type {type(layer).__name__} "
                f"in encoder '{encoder.name}'. Use int8_static after training instead, or another encoder."
            )


def settle_encoder_ranges(quantized: Any, batches: Iterable[Any]) -> None:
    """Set all ranges of a quantized encoder from images float32 (batch, height, width, 3): the mean of the batches'.

    TF-MOT moves a range by a thousandth a batch, from -6..6; the features of an encoder with ranges like that are
    useless, and a short training would end before they are right. Normalizations are left as they are.
    """
    layers = list(_quantizing_layers(quantized))
    for layer in layers:
        for weight, quantizer, ranges in getattr(layer, "_weight_vars", ()):
            quantizer(weight, True, weights=ranges)
    seats = [seat for layer in layers for seat in _activation_quantizers(layer)]
    seated = [(holder, name, getattr(holder, name)) for holder, name in seats]
    try:
        for holder, name, quantizer in seated:
            setattr(holder, name, _settling(quantizer))
        for batch in batches:
            quantized(np.asarray(batch, np.float32), training=False)
    finally:
        for holder, name, quantizer in seated:
            setattr(holder, name, quantizer)


def _settling(quantizer: Any) -> Any:
    """A stand-in for a quantizer, or a list of one, that assigns the mean range so far before it rounds."""
    tf = tensorflow()
    if isinstance(quantizer, list):
        return [_settling(one) for one in quantizer]
    batches = 0

    def settle(inputs: Any, training: Any, weights: Any, **_: Any) -> Any:
        nonlocal batches
        batches += 1
        low, high = weights["min_var"], weights["max_var"]
        low.assign_add((tf.minimum(tf.reduce_min(inputs), 0.0) - low) / batches)
        high.assign_add((tf.maximum(tf.reduce_max(inputs), 1e-6) - high) / batches)
        return quantizer(inputs, False, weights=weights)

    return settle


def _quantizing_layers(quantized: Any) -> Iterator[Any]:
    return (layer for layer in quantized.layers if hasattr(layer, "quantize_config") or hasattr(layer, "quantizer"))


def _activation_quantizers(layer: Any) -> Iterator[tuple[Any, str]]:
    """Object and attribute of each quantizer of a layer's tensors."""
    if getattr(layer, "quantizer", None) is not None:  # QuantizeLayer, after the input
        yield layer, "quantizer"
    if getattr(layer, "_output_quantizers", None):
        yield layer, "_output_quantizers"
    for activation in getattr(layer, "_quantize_activations", ()):
        yield activation, "quantizer"


def float_kernels(quantized: Any) -> dict[str, Any]:
    """The kernel variable of each convolution and dense layer, by the name of the float layer."""
    found = {}
    for layer in _quantizing_layers(quantized):
        kernels = [weight for weight, _, _ in getattr(layer, "_weight_vars", ())]
        if kernels:
            found[layer.name.removeprefix(_PREFIX)] = kernels[0]
    return found


def strip_encoder(quantized: Any) -> Any:
    """The ordinary Keras encoder with the weights that a quantized one has by now."""
    encoder = keras().models.model_from_json(quantized.float_architecture)
    trained = {layer.name.removeprefix(_PREFIX): layer for layer in _quantizing_layers(quantized)}
    for layer in encoder.layers:
        if layer.weights:
            # By the last part of the name, e.g. "kernel:0": the wrapper's own order differs, and it holds ranges too.
            values = {_last_part(weight): weight for weight in trained[layer.name].weights}
            layer.set_weights([values[_last_part(weight)].numpy() for weight in layer.weights])
    return encoder


def _last_part(weight: Any) -> str:
    return str(weight.name).rsplit("/", 1)[-1]


def save_quantized_encoder(quantized: Any, folder: Path) -> None:
    """Write the float architecture and all weights, ranges included.

    Not as a `.keras` file: TF-MOT 0.8.1 writes one that does not load ("Layer 'quantize_layer' expected 5 variables,
    but received 3").
    """
    content = io.BytesIO()
    np.savez(content, *quantized.get_weights())
    write_bytes_atomic(folder / WEIGHTS, content.getvalue())
    write_bytes_atomic(folder / ARCHITECTURE, quantized.float_architecture.encode())


def load_quantized_encoder(folder: Path) -> Any:
    """Read what `save_quantized_encoder` wrote. Raises ArtifactError when a file is missing or damaged."""
    try:
        encoder = keras().models.model_from_json((folder / ARCHITECTURE).read_text(encoding="utf-8"))
        quantized = quantize_encoder(encoder)
        with np.load(folder / WEIGHTS, allow_pickle=False) as weights:
            quantized.set_weights([weights[name] for name in weights.files])
    except (OSError, ValueError, TypeError, KeyError, EOFError) as error:
        raise ArtifactError(f"{folder} holds no whole quantized encoder: {error}. Train it again.") from error
    return quantized
