"""Structured pruning of decoders: whole units go, of the LSTM and of the layers as wide as it.

Each decoder kind declares which space every axis of its weights lies in; units of one space vanish together.
`config.units` is the width of all of them, so that each space keeps as many, its own most important ones.
"""

import bisect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.compression.operations import multiply_adds
from models.decoders import Decoder, DecoderConfig, build_decoder
from models.errors import ConfigError
from models.layers import Arithmetic, Output

BLOCK = 8  # CPU kernels work in blocks

# Layer -> spaces of the axes of each of its weights. "" stays; "4 lstm" holds the four gates of every unit;
# "lstm grid" is one space after the other, as a concatenation puts them.
Axes = Mapping[str, tuple[tuple[str, ...], ...]]
_LSTM = (("", "4 lstm"), ("lstm", "4 lstm"), ("4 lstm",))
_AXES: Mapping[str, Axes] = {
    # The projected image is added to the LSTM's output, so both are one space.
    "merge": {
        "image_projection": (("", "lstm"), ("lstm",)),
        "lstm": _LSTM,
        "hidden": (("lstm", "hidden"), ("hidden",)),
    },
    "attention": {
        "grid_projection": (("", "grid"), ("grid",)),
        "initial_h": (("grid", "lstm"), ("lstm",)),
        "initial_c": (("grid", "lstm"), ("lstm",)),
        "key": (("grid", ""),),
        "lstm": _LSTM,
        "question": (("lstm", ""), ("",)),
        "hidden": (("lstm grid", "hidden"), ("hidden",)),
    },
}
_READERS = {
    Output.DENSE: {"words": (("hidden", ""), ("",))},
    Output.TIED: {"words_projection": (("hidden", ""), ("",))},
}


def slim_decoder(decoder: Decoder, config: DecoderConfig, *, units: int) -> tuple[Decoder, DecoderConfig]:
    """A decoder of `units` units with the weights of the most important ones. Raises ConfigError."""
    axes = decoder_axes(config)
    if not 0 < units <= config.units:
        raise ConfigError(f"a decoder of {config.units} units keeps from 1 to all of them; received {units}.")
    if {config.arithmetic, config.prepare_arithmetic} != {Arithmetic.FLOAT}:
        raise ConfigError("a decoder whose INT8 ranges were learned can't lose units: slim it first.")
    weights = {name: decoder.sequence.get_layer(name).get_weights() for name in axes}
    kept = {
        space: np.sort(np.argsort(-score, kind="stable")[:units]) for space, score in _scores(weights, axes).items()
    }
    smaller = replace(config, units=units)
    built = build_decoder(smaller)
    for layer in built.sequence.layers:
        if not layer.weights:
            continue
        old = decoder.sequence.get_layer(layer.name).get_weights()
        if layer.name in axes:
            old = [_take(w, spaces, kept, config.units) for w, spaces in zip(old, axes[layer.name], strict=True)]
        layer.set_weights(old)
    return built, smaller


def units_for_share(config: DecoderConfig, share: float) -> int:
    """The most units, in blocks of 8, with at most `share` of a step's multiply-adds. Raises ConfigError."""
    decoder_axes(config)
    if not 0 < share < 1:
        raise ConfigError(f"the share of multiply-adds must lie between 0 and 1; received {share:g}.")
    wanted = share * multiply_adds(build_decoder(config).step)

    def is_too_large(blocks: int) -> bool:
        return multiply_adds(build_decoder(replace(config, units=blocks * BLOCK)).step) > wanted

    # Multiply-adds grow with the units, so that halving finds the most that fit.
    blocks = bisect.bisect_left(range(1, config.units // BLOCK + 1), True, key=is_too_large)
    if blocks:
        return blocks * BLOCK
    raise ConfigError(
        f"a decoder '{config.kind}' of {config.units} units can't be slimmed to {share:.0%} of its multiply-adds: its "
        "words and embedding alone need more. Keep a larger share, or reduce the vocabulary."
    )


def decoder_axes(config: DecoderConfig) -> Axes:
    """The axes of a decoder's weights that have units. Raises ConfigError for a kind that declares none."""
    if config.kind not in _AXES:
        raise ConfigError(f"decoder '{config.kind}' does not declare its units; known are {', '.join(_AXES)}.")
    return {**_AXES[config.kind], **_READERS[Output(config.output)]}


def _scores(weights: Mapping[str, list[NDArray[Any]]], axes: Axes) -> dict[str, NDArray[np.float64]]:
    """Importance of each unit of each space: norms over all that goes in and out, tensors weighed alike."""
    scores: dict[str, NDArray[np.float64]] = {}
    for name, tensors in weights.items():
        for weight, spaces in zip(tensors, axes[name], strict=True):
            for axis, label in enumerate(spaces):
                for space, part in _parts(weight, axis, label):
                    norms = np.sqrt((part.astype(np.float64) ** 2).reshape(len(part), -1).sum(axis=1))
                    scores[space] = scores.get(space, 0) + norms / max(float(norms.mean()), 1e-12)
    return scores


def _parts(weight: NDArray[Any], axis: int, label: str) -> list[tuple[str, NDArray[Any]]]:
    """(space, what belongs to each of its units, units first)."""
    first = np.moveaxis(weight, axis, 0)
    if not label:
        return []
    if label.startswith("4 "):
        gates = first.reshape(4, -1, *first.shape[1:])
        return [(label[2:], np.moveaxis(gates, 0, -1))]
    spaces = label.split()
    return list(zip(spaces, np.split(first, len(spaces)), strict=True))


def _take(
    weight: NDArray[Any], spaces: tuple[str, ...], kept: Mapping[str, NDArray[np.intp]], units: int
) -> NDArray[Any]:
    for axis, label in enumerate(spaces):
        if label:
            weight = np.take(weight, _indices(label, kept, units), axis=axis)
    return weight


def _indices(label: str, kept: Mapping[str, NDArray[np.intp]], units: int) -> NDArray[np.intp]:
    """Where an axis keeps its units."""
    if label.startswith("4 "):
        return np.concatenate([kept[label[2:]] + gate * units for gate in range(4)])
    return np.concatenate([kept[space] + place * units for place, space in enumerate(label.split())])
