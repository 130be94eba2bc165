"""The weights that techniques work on: kernels and tables by layer, chosen by scope, kind or name."""

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.captioner import Captioner
from models.compression.base import Ask, Reached, Scope
from models.compression.encoder_qat import float_kernels, is_quantized
from models.errors import ConfigError, unknown_name

# Below this a tensor saves nothing and its layer loses much: attention's energy vector, first convolutions.
MINIMUM_ELEMENTS = 1024

# Kinds that `layers=` takes besides names of layers; LSTM layers hold their weights in a cell.
KINDS = {"conv": "Conv2D", "dense": "Dense", "embedding": "Embedding", "lstm": "LSTM"}
# Weight variables by class of layer; biases, batch norms and depthwise kernels (small; TF-MOT leaves them too) stay.
_WEIGHTS = {
    "Conv2D": ("kernel",),
    "Dense": ("kernel",),
    "Embedding": ("embeddings",),
    "LSTM": ("kernel", "recurrent_kernel"),
}


@dataclass(frozen=True)
class Weight:
    """A variable of a layer. `half` tells whether it is of the encoder or of the decoder."""

    half: Scope
    layer: str
    kind: str  # a key of KINDS
    name: str
    variable: Any

    @property
    def values(self) -> NDArray[np.float32]:
        """A copy of the values."""
        array: NDArray[np.float32] = self.variable.numpy()
        return array

    def reached(self) -> Reached:
        """What the values are like now."""
        values = self.values
        zeros = float(np.mean(values == 0))
        return Reached(self.layer, self.name, values.size, zeros, len(np.unique(values)))


def choose_weights(captioner: Captioner, ask: Ask, scope: Scope) -> list[Weight]:
    """The weights of a scope, or those of `layers=a|b` (kinds, names or patterns). Raises ConfigError."""
    weights = [w for w in all_weights(captioner) if scope is Scope.CAPTIONER or w.half is scope]
    names = [name for name in ask.option("layers", "").split("|") if name]
    for name in names:
        if not any(_matches(weight, name) for weight in weights):
            known = [weight.layer for weight in weights] + list(KINDS)
            raise unknown_name(f"layer of the {scope} in '{ask}'", name, dict.fromkeys(known))
    chosen = [w for w in weights if not names or any(_matches(w, name) for name in names)]
    large = [w for w in chosen if names or np.prod(w.variable.shape) >= MINIMUM_ELEMENTS]
    if not large:
        raise ConfigError(
            f"'{ask}': the {scope} has no weight of at least {MINIMUM_ELEMENTS} values; name some layers."
        )
    return large


def all_weights(captioner: Captioner) -> Iterator[Weight]:
    """Kernels and tables of encoder and decoder, of any size."""
    for half, model in ((Scope.ENCODER, captioner.encoder), (Scope.DECODER, captioner.decoder.sequence)):
        if is_quantized(model):
            for name, variable in float_kernels(model).items():
                kind = "conv" if len(variable.shape) == 4 else "dense"
                yield Weight(half, name, kind, "kernel", variable)
            continue
        for layer in _layers(model):
            yield from _layer_weights(half, layer)


def _layers(model: Any) -> Iterator[Any]:
    """Layers with nested models opened."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _layers(layer)
        else:
            yield layer


def _layer_weights(half: Scope, layer: Any) -> Iterator[Weight]:
    kind = _kind(layer)
    if kind is None:
        return
    holder = getattr(layer, "cell", layer)
    for name in _WEIGHTS[KINDS[kind]]:
        variable = getattr(holder, name, None)
        if variable is not None and hasattr(variable, "assign"):
            yield Weight(half, layer.name, kind, name, variable)


def _kind(layer: Any) -> str | None:
    """By what the layer holds, so that quantization-aware layers count like those they stand for."""
    if hasattr(layer, "cell") and hasattr(layer.cell, "recurrent_kernel"):
        return "lstm"
    if hasattr(layer, "embeddings"):
        return "embedding"
    kernel = getattr(layer, "kernel", None)
    if kernel is None or hasattr(layer, "depthwise_kernel"):
        return None
    return {2: "dense", 4: "conv"}.get(len(kernel.shape))


def _matches(weight: Weight, name: str) -> bool:
    return name in (weight.kind, weight.half) or fnmatch.fnmatchcase(weight.layer, name)


def describe(weights: Sequence[Weight]) -> tuple[Reached, ...]:
    """What each weight is like now."""
    return tuple(weight.reached() for weight in weights)
