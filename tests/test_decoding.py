"""Greedy and beam search over scripted steps, against exhaustive search."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.decoding import (
    FORBIDDEN,
    LENGTH_EXPONENT,
    Caption,
    Search,
    Step,
    Tensors,
    decode,
    decode_beam,
    decode_greedy,
    without_end,
)
from models.vocabulary import END, START

WORDS = 9


def table_step(table: NDArray[np.float32]) -> Step:
    """Logits looked up by (image, last token): a decoder whose every answer is known."""

    def step(token: NDArray[np.int32], inputs: Tensors) -> tuple[NDArray[np.float32], Tensors]:
        assert token.dtype == np.int32
        return table[inputs["image"].astype(int), token], {"count": inputs["count"] + 1}

    return step


def test_without_end_no_caption_ends() -> None:
    table = np.zeros((2, WORDS, WORDS), np.float32)
    table[:, :, END] = 9.0
    table[:, :, END + 3] = 1.0
    step = table_step(table)
    assert [len(c.ids) for c in decode(step, inputs(2), search=Search.GREEDY, max_length=5)] == [1, 1]
    endless = decode(without_end(step), inputs(2), search=Search.GREEDY, max_length=5)
    assert [c.ids for c in endless] == [(END + 3,) * 5] * 2
    assert table[0, 0, END] == 9.0  # the step's own logits are left alone


def inputs(images: int) -> dict[str, NDArray[np.float64]]:
    return {"image": np.arange(images, dtype=np.float64), "count": np.zeros(images)}


def random_table(seed: int, images: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 2, (images, WORDS, WORDS)).astype(np.float32)


def log_probabilities(row: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = row.astype(np.float64)
    wide[list(FORBIDDEN)] = -np.inf
    result: NDArray[np.float64] = wide - np.log(np.exp(wide).sum())
    return result


def best_by_trying_all(table: NDArray[np.float32], max_length: int) -> float:
    """The best normalised score of any caption that ends within `max_length` words."""
    scores = []
    allowed = [w for w in range(WORDS) if w not in FORBIDDEN and w != END]
    for length in range(max_length):
        for words in itertools.product(allowed, repeat=length):
            path = [START, *words, END]
            total = sum(log_probabilities(table[a])[b] for a, b in itertools.pairwise(path))
            scores.append(total / (length + 1) ** LENGTH_EXPONENT)
    return float(max(scores))


def normalised(caption: Caption) -> float:
    return caption.log_probability / float(len(caption.ids) ** LENGTH_EXPONENT)


@given(st.integers(0, 10_000))
def test_greedy_takes_the_likeliest_word_each_step(seed: int) -> None:
    table = random_table(seed, 1)
    (caption,) = decode_greedy(table_step(table), inputs(1), max_length=6)
    last = START
    for word in caption.ids:
        assert word == int(np.argmax(log_probabilities(table[0, last])))
        last = word
    assert caption.ids[-1] == END or len(caption.ids) == 6


@given(st.integers(0, 10_000))
@settings(max_examples=40)
def test_beam_is_never_worse_than_greedy(seed: int) -> None:
    step = table_step(random_table(seed, 1))
    (greedy,) = decode_greedy(step, inputs(1), max_length=5)
    (beam,) = decode_beam(step, inputs(1), beam=27, max_length=5)
    if greedy.ids[-1] == END:
        assert normalised(beam) >= normalised(greedy) - 1e-9


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_wide_beam_finds_the_best_caption(seed: int) -> None:
    table = random_table(seed, 1)
    table[..., END] += 2  # so that captions end, and trying all of them is honest
    (beam,) = decode_beam(table_step(table), inputs(1), beam=200, max_length=4)
    assert normalised(beam) == pytest.approx(best_by_trying_all(table[0], 4))


@given(st.integers(0, 10_000), st.sampled_from(Search))
@settings(max_examples=40)
def test_caption_does_not_depend_on_its_batch(seed: int, search: Search) -> None:
    table = random_table(seed, 4)
    together = decode(table_step(table), inputs(4), search=search, max_length=7)
    for image in range(4):
        alone = decode(table_step(table[image : image + 1]), inputs(1), search=search, max_length=7)
        assert alone == [together[image]]


@given(st.integers(0, 10_000), st.sampled_from(Search))
@settings(max_examples=40)
def test_captions_hold_no_special_words(seed: int, search: Search) -> None:
    table = random_table(seed, 2)
    table[..., list(FORBIDDEN)] += 50
    for caption in decode(table_step(table), inputs(2), search=search, max_length=5):
        assert not set(caption.ids) & set(FORBIDDEN)
        assert END not in caption.ids[:-1]
        assert 1 <= len(caption.ids) <= 5


def test_state_follows_its_beam() -> None:
    """Each row's state must be its parent's: here it counts the words behind it."""
    seen: list[NDArray[np.float64]] = []

    def step(token: NDArray[np.int32], given: Tensors) -> tuple[NDArray[np.float32], Tensors]:
        seen.append(np.asarray(given["sum"], np.float64))
        logits = np.full((len(token), WORDS), -5, np.float32)
        logits[:, 4:7] = [1.0, 0.9, 0.8]
        return logits, {"sum": np.asarray(given["sum"], np.float64) + token}

    (caption,) = decode_beam(step, {"sum": np.zeros(1)}, beam=3, max_length=4)
    assert caption.ids == (4, 4, 4, 4)
    assert set(seen[2]) <= {START + 4.0, START + 5.0, START + 6.0}
    assert seen[3].max() <= START + 12
