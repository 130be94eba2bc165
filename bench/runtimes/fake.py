"""A runtime without a model, for testing the harness and for timing what it costs itself."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.runtimes.base import PlainSession, Session
from convert.artifact import ENCODER
from convert.recipe import Format
from models.decoding import Caption, Search, Tensors
from models.vocabulary import END, START

FIRST_WORD = END + 2  # the first id behind the special words


class FakeRuntime:
    """Loads any path. The step says words 4, 5, 6 and END, whatever the image is."""

    name = "fake"
    package = "numpy"
    module = "numpy"
    formats: tuple[Format, ...] = tuple(Format)
    by_default = False

    def __init__(self, *, words: int = 3, vocabulary_size: int = 8) -> None:
        self.words = words
        self.vocabulary_size = vocabulary_size
        self.calls: list[str] = []

    def load(self, path: Path, *, threads: int) -> Session:
        """A session named by the file: an encoder or a step."""
        self.calls.append(f"load {path.stem}")
        return _FakeSession(self._encode if path.stem == ENCODER else self._step)

    def _encode(self, feeds: Tensors) -> Tensors:
        self.calls.append("encode")
        return {"features": feeds["image"].mean(axis=(1, 2))}

    def _step(self, feeds: Tensors) -> Tensors:
        self.calls.append("step")
        logits = np.zeros((len(feeds["token"]), self.vocabulary_size), np.float32)
        for row, token in zip(logits, feeds["token"], strict=True):
            following = FIRST_WORD if token == START else int(token) + 1
            row[following if following < FIRST_WORD + self.words else END] = 5.0
        return {"logits": logits, "state_h": feeds["state_h"], "state_c": feeds["state_c"]}


class IdleCaptioner:
    """In the place of a loaded captioner: says the same caption at once, so that only the harness takes time."""

    def caption(self, encoded: bytes, search: Search, name: str) -> Caption:
        """Always the same."""
        return _IDLE

    def sentence(self, caption: Caption) -> str:
        """Always the same."""
        return ""


_IDLE = Caption((END,), 0.0)


class _FakeSession(PlainSession):
    def __init__(self, call: Callable[[Tensors], Tensors]) -> None:
        self._call = call

    def run(self, feeds: Tensors) -> Tensors:
        return self._call(feeds)
