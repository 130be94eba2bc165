"""Greedy and beam search, written once over a step function, so that every runtime runs the same algorithm.

A step takes one token a row and the decoder's inputs, and returns logits and the new state. Rows are
captions in progress (images, or images x beam). NumPy only.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from models.vocabulary import END, PAD, START, UNK

Tensors = Mapping[str, NDArray[np.generic]]
# (token int32 (rows,), inputs by name, first axis rows) -> (logits float32 (rows, words), new state by name)
Step = Callable[[NDArray[np.int32], Tensors], tuple[NDArray[np.float32], Tensors]]

# Never part of a caption: they may be predicted early in training, but tell a reader nothing.
FORBIDDEN = (PAD, START, UNK)
# Exponent of the length that a beam's score is divided by: 0 favours short captions; 1 is the mean log-probability of a
# word. Chosen on Flickr8k's validation split (MobileNetV2 + attention, beam 3): CIDEr 0.457 at 0.5, 0.464 at 0.7 (which
# Wu et al. 2016, arXiv 1609.08144, section 7, use for translations), 0.477 at 1 and 0.478 at 1.3.
LENGTH_EXPONENT = 1.0


class Search(StrEnum):
    """How a caption is searched for; the name is what `--search` takes."""

    GREEDY = "greedy"
    BEAM3 = "beam3"


BEAM_WIDTHS = {Search.GREEDY: 1, Search.BEAM3: 3}


@dataclass(frozen=True, slots=True)
class Caption:
    """Token ids without START; END is included when the caption ended by itself."""

    ids: tuple[int, ...]
    log_probability: float


def decode(step: Step, inputs: Tensors, *, search: Search, max_length: int) -> list[Caption]:
    """Caption every row of `inputs` (features and initial state, first axis images)."""
    if search is Search.GREEDY:
        return decode_greedy(step, inputs, max_length=max_length)
    return decode_beam(step, inputs, beam=BEAM_WIDTHS[search], max_length=max_length)


def without_end(step: Step) -> Step:
    """The step, never ending: so that captions can be made to take the same number of steps."""

    def endless(token: NDArray[np.int32], inputs: Tensors) -> tuple[NDArray[np.float32], Tensors]:
        logits, state = step(token, inputs)
        logits = logits.copy()  # a runtime may own its output
        logits[:, END] = -np.inf
        return logits, state

    return endless


def decode_greedy(step: Step, inputs: Tensors, *, max_length: int) -> list[Caption]:
    """The likeliest word at each step, at most `max_length` of them; ends when every row has ended."""
    rows = _row_count(inputs)
    token = np.full(rows, START, np.int32)
    current = dict(inputs)
    words: list[list[int]] = [[] for _ in range(rows)]
    scores = np.zeros(rows)
    active = np.ones(rows, bool)
    for _ in range(max_length):
        logits, state = step(token, current)
        current.update(state)
        log_probabilities = log_softmax(logits)
        token = log_probabilities.argmax(axis=1).astype(np.int32)
        for row in np.flatnonzero(active):
            words[row].append(int(token[row]))
            scores[row] += log_probabilities[row, token[row]]
        active &= token != END
        if not active.any():
            break
    return [Caption(tuple(ids), float(score)) for ids, score in zip(words, scores, strict=True)]


@dataclass(frozen=True, slots=True)
class BeamStep:
    """One step of one image's beam: token ids and total log-probability of what was considered, kept and ended."""

    considered: tuple[Caption, ...]  # the best 3 * beam, best first
    kept: tuple[Caption, ...]
    ended: tuple[Caption, ...]  # in this step


def decode_beam(
    step: Step,
    inputs: Tensors,
    *,
    beam: int,
    max_length: int,
    observe: Callable[[int, BeamStep], None] | None = None,
) -> list[Caption]:
    """The best of `beam` captions kept in parallel for each image, scored per length**LENGTH_EXPONENT.

    `observe` is told each image's steps (its index in the batch, and what was kept).
    """
    images = _row_count(inputs)
    current = {name: np.repeat(value, beam, axis=0) for name, value in inputs.items()}
    beams = [_Beam.start(beam) for _ in range(images)]
    for index, started in enumerate(beams) if observe else ():
        started.observe = functools.partial(observe, index) if observe else None
    for _ in range(max_length):
        tokens = np.concatenate([b.last_tokens() for b in beams])
        logits, state = step(tokens, current)
        current.update(state)
        log_probabilities = log_softmax(logits).reshape(images, beam, -1)
        parents = np.concatenate(
            [b.advance(log_probabilities[i]) + i * beam for i, b in enumerate(beams)],
        )
        if all(b.is_settled() for b in beams):
            break
        current = {name: value[parents] for name, value in current.items()}
    return [b.best() for b in beams]


class _Beam:
    """The captions in progress of one image."""

    def __init__(self, ids: list[tuple[int, ...]], scores: NDArray[np.float64]) -> None:
        self.ids = ids
        self.scores = scores
        self.ended: list[Caption] = []
        self.observe: Callable[[BeamStep], None] | None = None

    @classmethod
    def start(cls, beam: int) -> "_Beam":
        # Only one of the identical first rows may spread, or all would stay equal for ever.
        return cls([()] * beam, np.array([0.0] + [-np.inf] * (beam - 1)))

    def last_tokens(self) -> NDArray[np.int32]:
        return np.array([ids[-1] if ids else START for ids in self.ids], np.int32)

    def advance(self, log_probabilities: NDArray[np.float64]) -> NDArray[np.intp]:
        """Keep the best continuations; returns which row each one continues."""
        beam, words = log_probabilities.shape
        if self.is_settled():  # so that a caption does not depend on which images share its batch
            return np.arange(beam)
        totals = (self.scores[:, None] + log_probabilities).ravel()
        # Twice the beam: even if half of them end, a full beam goes on. Stable sort: ties by lowest id. Only
        # the first `beam` may end, or an unlikely early end would beat captions still in progress.
        order = np.argsort(-totals, kind="stable")[: 2 * beam]
        kept: list[tuple[int, tuple[int, ...], float]] = []
        for rank, index in enumerate(order):
            parent, word = divmod(int(index), words)
            ids = (*self.ids[parent], word)
            if word == END and rank < beam and np.isfinite(totals[index]):
                self.ended.append(Caption(ids, float(totals[index])))
            elif word != END and len(kept) < beam:
                kept.append((parent, ids, float(totals[index])))
        if self.observe:
            self.observe(self._describe(totals, words, kept))
        self.ids = [ids for _, ids, _ in kept]
        self.scores = np.array([score for _, _, score in kept])
        return np.array([parent for parent, _, _ in kept], np.intp)

    def _describe(
        self, totals: NDArray[np.float64], words: int, kept: Sequence[tuple[int, tuple[int, ...], float]]
    ) -> BeamStep:
        """This step; `self.ids` are still those that it continued."""
        best = np.argsort(-totals, kind="stable")[: 3 * len(self.ids)]
        length = len(self.ids[0]) + 1
        return BeamStep(
            tuple(
                Caption((*self.ids[int(i) // words], int(i) % words), float(totals[i]))
                for i in best
                if np.isfinite(totals[i])
            ),
            tuple(Caption(ids, score) for _, ids, score in kept),
            tuple(caption for caption in self.ended if len(caption.ids) == length),
        )

    def is_settled(self) -> bool:
        """Whether enough captions have ended for the beam to be full of them."""
        return len(self.ended) >= len(self.ids)

    def best(self) -> Caption:
        alive = [Caption(ids, float(s)) for ids, s in zip(self.ids, self.scores, strict=True)]
        return max(self.ended or alive, key=normalised_score)


def normalised_score(caption: Caption) -> float:
    """What a beam ranks its captions by."""
    return caption.log_probability / float(max(len(caption.ids), 1) ** LENGTH_EXPONENT)


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-probabilities in float64, FORBIDDEN words at minus infinity."""
    wide = logits.astype(np.float64)
    wide[:, list(FORBIDDEN)] = -np.inf
    wide -= wide.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return result


def _row_count(inputs: Tensors) -> int:
    return len(next(iter(inputs.values())))
