"""Faults planted in a runtime, each in one place, for the tests that say what a replay must call them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.runtimes.base import PlainSession, Runtime, Session
from convert.artifact import ENCODER
from convert.recipe import Format
from models.decoding import Tensors
from models.vocabulary import END

Change = Callable[[Tensors], Tensors]


def unchanged(tensors: Tensors) -> Tensors:
    return tensors


class FaultyRuntime:
    """Another runtime whose encoder's or step's inputs and outputs are changed on their way."""

    by_default = False

    def __init__(
        self, runtime: Runtime, *, pixels: Change = unchanged, encoded: Change = unchanged, stepped: Change = unchanged
    ) -> None:
        self.name, self.package, self.module = runtime.name, runtime.package, runtime.module
        self.formats: tuple[Format, ...] = runtime.formats
        self._runtime, self._pixels, self._encoded, self._stepped = runtime, pixels, encoded, stepped

    def load(self, path: Path, *, threads: int) -> Session:
        session = self._runtime.load(path, threads=threads)
        if path.stem == ENCODER:
            return _FaultySession(session, self._pixels, self._encoded)
        return _FaultySession(session, unchanged, self._stepped)


class _FaultySession(PlainSession):
    def __init__(self, session: Session, before: Change, after: Change) -> None:
        self._session, self._before, self._after = session, before, after

    def run(self, feeds: Tensors) -> Tensors:
        return self._after(dict(self._session.run(self._before(feeds))))


def noisy(names: tuple[str, ...], size: float, seed: int = 5) -> Change:
    """The same error at every call, `size` times as large as the tensor's own spread."""

    def change(tensors: Tensors) -> Tensors:
        return {name: _with_noise(value, size, seed) if name in names else value for name, value in tensors.items()}

    return change


def _with_noise(value: NDArray[Any], size: float, seed: int) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).standard_normal(value.shape) * size * np.std(value)
    noisy_value: NDArray[np.float32] = (value + noise).astype(np.float32)
    return noisy_value


def shifted_words(tensors: Tensors) -> Tensors:
    """The vocabulary is shifted by one: every logit stands in its neighbour's place."""
    return {**tensors, "logits": np.roll(tensors["logits"], 1, axis=1)}


def other_end(word: int) -> Change:
    """The id of the end is another word's, and the other way round."""

    def change(tensors: Tensors) -> Tensors:
        logits = tensors["logits"].copy()
        logits[:, [END, word]] = logits[:, [word, END]]
        return {**tensors, "logits": logits}

    return change


def zero_state(tensors: Tensors) -> Tensors:
    """What a masked step leaves in some runtimes."""
    return {name: np.zeros_like(value) if name.startswith("state") else value for name, value in tensors.items()}
