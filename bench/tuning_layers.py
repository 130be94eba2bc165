"""Which layer to leave in float next: by how much less noise reaches the words' logits, for each byte that it adds.

The noise is that of the real runtime on the real integer graph with one more layer in float, against fp32, over a few
captions whose words are given (teacher forcing); an encoder's noise is taken through the fp32 step, so that layers of
both halves compare. Quantizing one graph anew takes a fraction of a second (`convert.variants`), captions are not
scored. After a layer is chosen, the others' gains are stale; as gains mostly shrink, only those that come first in line
are measured again (lazy greedy: Minoux, "Accelerated greedy algorithms for maximizing submodular set functions", 1978).
"""

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.captioning import LoadedCaptioner, load_sessions
from bench.runtimes import Runtime
from bench.statistics import FloatArray
from convert.artifact import ENCODER, Artifact
from convert.recipe import Graph, Recipe
from convert.scheme import Precision, Scheme
from convert.variants import Variants
from models.decoding import Search
from models.progress import say
from models.vocabulary import START

# Captions whose logits are compared: some 200 words.
PROBE_IMAGES = 24


class Half(StrEnum):
    """The graph that a layer is part of."""

    ENCODER = ENCODER
    DECODER = str(Graph.STEP)


def scheme_of(recipe: Recipe, half: Half) -> Scheme:
    """How a half is stored."""
    return recipe.encoder if half is Half.ENCODER else recipe.decoder


def with_scheme(recipe: Recipe, half: Half, scheme: Scheme) -> Recipe:
    """The recipe with another scheme for one half."""
    return replace(recipe, encoder=scheme) if half is Half.ENCODER else replace(recipe, decoder=scheme)


@dataclass(frozen=True)
class Revert:
    """A layer that goes back to float; the whole half where `layer` is "".

    Noise: mean square of the logits' error over that of the logits, each without its mean over words.
    """

    half: Half
    layer: str
    added_bytes: int
    noise_int8: float  # with it in integers, and what was reverted before it in float
    noise_float: float

    @property
    def gain(self) -> float:
        """Noise taken away for each byte added; below zero where it only adds."""
        return (self.noise_int8 - self.noise_float) / max(self.added_bytes, 1)


def snr_db(noise: float) -> float:
    """Signal to noise in decibels of a relative noise."""
    return math.inf if noise <= 0 else -10 * math.log10(noise)


class Probe:
    """The logits of an fp32 artifact over a few images, and how far other graphs are from them."""

    def __init__(self, artifact: Artifact, runtime: Runtime, images: Sequence[tuple[str, bytes]]) -> None:
        self.artifact = artifact
        self.runtime = runtime
        with load_sessions(artifact, runtime, threads=1) as loaded:
            self._pixels = [loaded.preprocess(encoded, name) for name, encoded in images]
            captions = [loaded.decode(loaded.encode(pixels), Search.GREEDY)[0] for pixels in self._pixels]
            self._words = [(START, *caption.ids[:-1]) for caption in captions]
            self._logits = self._run(loaded)
        self._power = float(np.mean(self._logits**2))

    def noise(self, graphs: Mapping[Half, Path]) -> float:
        """The relative noise with these graphs in the place of the artifact's own."""
        changed = replace(
            self.artifact, graphs=dict(self.artifact.graphs) | {str(half): path for half, path in graphs.items()}
        )
        with load_sessions(changed, self.runtime, threads=1) as loaded:
            return float(np.mean((self._run(loaded) - self._logits) ** 2)) / max(self._power, 1e-30)

    def _run(self, loaded: LoadedCaptioner) -> FloatArray:
        """Logits of every word, without their mean, which no softmax sees: (words said, vocabulary)."""
        rows = np.concatenate(
            [
                row
                for pixels, words in zip(self._pixels, self._words, strict=True)
                for row in _forced(loaded, pixels, words)
            ]
        ).astype(np.float64)
        centred: FloatArray = rows - rows.mean(axis=1, keepdims=True)
        return centred


def _forced(
    loaded: LoadedCaptioner, pixels: NDArray[np.float32], words: Sequence[int]
) -> Iterator[NDArray[np.float32]]:
    """The logits after each of these words."""
    inputs = dict(loaded.encode(pixels))
    for word in words:
        logits, state = loaded.step(np.array([word], np.int32), inputs)
        inputs |= state
        yield logits


class LayerOrder:
    """The layers of a base recipe in the order in which to leave them in float, found as far as it is asked for.

    A half that is not INT8_STATIC can't be reverted layer by layer; it comes last, whole.
    """

    def __init__(self, probe: Probe, variants: Mapping[Half, Variants], base: Recipe, built: Artifact) -> None:
        """`built`: the base's artifact."""
        self.base = base
        self._probe = probe
        self._variants = variants
        static = [half for half in Half if scheme_of(base, half).precision is Precision.INT8_STATIC]
        self._state = {half: scheme_of(base, half) for half in static}
        self._measured: dict[tuple[Half, Scheme], tuple[int, float]] = {}
        self._layers: list[tuple[Half, str]] = []
        self._queue: list[tuple[float, int, int, Revert]] = []  # (-gain, place in _layers, layers in float then, it)
        for half in static:
            say(f"measuring {len(variants[half].layers)} layers of the {half} on {probe.runtime.name}")
            for layer in variants[half].layers:
                self._layers.append((half, layer))
                self._push(len(self._layers) - 1)
        self._wholes = [
            Revert(half, "", 0, probe.noise({half: built.graphs[half]}), 0.0) for half in Half if half not in static
        ]
        self._count = len(self._layers) + len(self._wholes)
        self._found: list[Revert] = []

    def __len__(self) -> int:
        return self._count

    def first(self, count: int) -> list[Revert]:
        """The first `count` of the order."""
        while len(self._found) < min(count, len(self)):
            self._found.append(self._next())
        return self._found[:count]

    def recipe(self, reverts: Iterable[Revert]) -> Recipe:
        """The base with these in float; a half without an integer layer is stored as FP16 instead."""
        chosen = {(revert.half, revert.layer) for revert in reverts}
        recipe = self.base
        for half in {half for half, _ in chosen}:
            known = [layer for of, layer in self._layers if of is half]
            kept = tuple(layer for layer in known if (half, layer) in chosen)
            whole = (half, "") in chosen or kept == tuple(known)
            scheme = Scheme(Precision.FP16) if whole else replace(scheme_of(self.base, half), float_layers=kept)
            recipe = with_scheme(recipe, half, scheme)
        return recipe

    def _next(self) -> Revert:
        while self._queue:
            _, place, layers_then, revert = heapq.heappop(self._queue)
            if layers_then == len(self._state[revert.half].float_layers):
                self._state[revert.half] = self._reverted(revert.half, revert.layer)
                return revert
            self._push(place)
        return self._wholes.pop(0)

    def _push(self, place: int) -> None:
        half, layer = self._layers[place]
        before, after = (self._measure(half, scheme) for scheme in (self._state[half], self._reverted(half, layer)))
        revert = Revert(half, layer, after[0] - before[0], before[1], after[1])
        heapq.heappush(self._queue, (-revert.gain, place, len(self._state[half].float_layers), revert))

    def _reverted(self, half: Half, layer: str) -> Scheme:
        scheme = self._state[half]
        return replace(scheme, float_layers=(*scheme.float_layers, layer))

    def _measure(self, half: Half, scheme: Scheme) -> tuple[int, float]:
        """(bytes of the graph, noise)"""
        if (half, scheme) not in self._measured:
            path = self._variants[half].quantize(scheme)
            self._measured[half, scheme] = path.stat().st_size, self._probe.noise({half: path})
        return self._measured[half, scheme]
