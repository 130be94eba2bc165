"""What replays are judged by: differences of tensors, logits in another order, lost states, and where beams part."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bench.parity.beam import find_parting
from bench.parity.causes import TIE_LIMIT, judge, noise
from bench.parity.differences import DifferenceMeter, relative_error
from bench.parity.evidence import Evidence
from bench.parity.record import Cause
from bench.parity.reordering import find_moved
from bench.parity.state import is_state_lost
from models.decoding import BeamStep, Search, Tensors, decode_beam
from models.vocabulary import END

Array = NDArray[np.float32]


def logits(steps: int, words: int = 400, seed: int = 0) -> Array:
    return (np.random.default_rng(seed).standard_normal((steps, words)) * 3).astype(np.float32)


def with_snr(values: Array, snr_db: float, seed: int = 1) -> Array:
    scale = np.std(values) * 10 ** (-snr_db / 20)
    return (values + np.random.default_rng(seed).standard_normal(values.shape) * scale).astype(np.float32)


@settings(max_examples=60)
@given(st.integers(1, 15), st.floats(3, 80), st.integers(0, 99), st.sampled_from([40, 400, 3000]))
def test_noise_is_no_other_order(steps: int, snr_db: float, seed: int, words: int) -> None:
    reference = logits(steps, words, seed)
    assert find_moved(reference, with_snr(reference, snr_db, seed + 1)) == ()
    assert find_moved(reference, reference) == ()


@given(st.integers(2, 12), st.integers(4, 399), st.sampled_from([25.0, 40.0, 200.0]))
def test_exchanged_words_are_found(steps: int, word: int, snr_db: float) -> None:
    reference = logits(steps)
    reference[:, [END, word]] = [[9.0, -4.0]]
    own = with_snr(reference, snr_db)
    own[:, [END, word]] = own[:, [word, END]]
    assert find_moved(reference, own) == (END, word)


@given(st.integers(1, 12), st.integers(1, 399), st.sampled_from([20.0, 200.0]))
def test_shifted_words_are_found(steps: int, places: int, snr_db: float) -> None:
    reference = logits(steps)
    assert len(find_moved(reference, np.roll(with_snr(reference, snr_db), places, axis=1))) == 400


def test_any_order_of_equal_values_is_found() -> None:
    reference = logits(6)
    order = np.random.default_rng(3).permutation(400)
    assert len(find_moved(reference, reference[:, order])) > 390


def test_lost_states_are_those_that_stop_where_the_reference_moves() -> None:
    moving = {"state_h": logits(5, 8)}
    assert is_state_lost(moving, {"state_h": np.zeros((5, 8), np.float32)})
    assert is_state_lost(moving, {"state_h": np.repeat(moving["state_h"][:1], 5, axis=0)})
    assert not is_state_lost(moving, {"state_h": with_snr(moving["state_h"], 3.0)})
    assert not is_state_lost({"state_h": np.zeros((5, 8), np.float32)}, {"state_h": np.zeros((5, 8), np.float32)})
    assert not is_state_lost(moving, {"other": np.zeros((5, 8), np.float32)})


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 99))
def test_meter_adds_up_over_images_as_one_tensor_would(rows: list[int], seed: int) -> None:
    parts = [(logits(n, 7, seed + i), logits(n, 7, seed + 50 + i)) for i, n in enumerate(rows)]
    meter, whole = DifferenceMeter(), DifferenceMeter()
    for reference, own in parts:
        meter.add("x", reference, own)
    a, b = (np.concatenate([pair[i] for pair in parts]) for i in (0, 1))
    whole.add("x", a, b)
    found, expected = meter.results()["x"], whole.results()["x"]
    assert found.max_abs == expected.max_abs == pytest.approx(float(np.abs(a.astype(float) - b).max()))
    assert found.mean_abs == pytest.approx(expected.mean_abs)
    assert found.cosine == expected.cosine
    assert found.snr_db == pytest.approx(-20 * math.log10(relative_error(a, b)))
    theirs, own = a.astype(np.float64), b.astype(np.float64)
    assert np.allclose(own, theirs, rtol=found.tolerance * 1.001, atol=found.tolerance * 1.001)
    assert not np.allclose(own, theirs, rtol=found.tolerance * 0.999, atol=found.tolerance * 0.999)


def test_equal_tensors_need_no_tolerance() -> None:
    meter = DifferenceMeter()
    meter.add("x", np.zeros((2, 3)), np.zeros((2, 3)))
    found = meter.results()["x"]
    assert (found.max_abs, found.cosine, found.snr_db, found.tolerance) == (0, 1, None, 0)
    assert relative_error(np.zeros(3), np.zeros(3)) == 0
    assert relative_error(np.zeros(3), np.ones(3)) == math.inf


def beams(table: Array) -> tuple[tuple[int, ...], tuple[BeamStep, ...]]:
    """A beam search whose step looks its logits up by the last word."""
    steps: list[BeamStep] = []

    def step(token: NDArray[np.int32], inputs: Tensors) -> tuple[Array, Tensors]:
        return table[token], {}

    found = decode_beam(
        step, {"x": np.zeros((1, 1), np.float32)}, beam=3, max_length=8, observe=lambda _, s: steps.append(s)
    )
    plain = decode_beam(step, {"x": np.zeros((1, 1), np.float32)}, beam=3, max_length=8)
    assert found == plain  # watching changes nothing
    return found[0].ids, tuple(steps)


@settings(max_examples=200)
@given(st.integers(0, 10_000), st.sampled_from([1e-6, 1e-3, 0.1, 1.0]))
def test_beams_part_where_their_captions_do_by_no_more_than_the_error(seed: int, size: float) -> None:
    table = logits(9, 9, seed)
    table[:, END] += 2  # or none would end
    caption, steps = beams(table)
    other_caption, other_steps = beams(
        (table + np.random.default_rng(seed).uniform(-size, size, (9, 9))).astype(np.float32)
    )
    parting = find_parting(steps, other_steps)
    assert parting is not None
    if caption == other_caption:
        return
    assert parting.theirs.ids != parting.ours.ids
    # Each of two totals is off by at most twice the error at each of its words (its own logit, and the softmax's sum).
    assert parting.margin <= 4 * size * (parting.step + 1) + 1e-4


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"moved": (END, 9)}, Cause.END_OF_SENTENCE),
        ({"moved": (4, 5, 6)}, Cause.VOCABULARY),
        ({"pixels_equal": False, "token_from_pixels": 10}, Cause.PREPROCESSING),
        ({"state_lost": True}, Cause.MASKING),
        ({"margin": 1e-4}, Cause.TIE_FLIP),
        ({"token": END, "replayed_token": END}, Cause.END_OF_SENTENCE),
        ({"reference_token": None}, Cause.END_OF_SENTENCE),
        ({"token_from_features": 10}, Cause.ENCODER),
        ({"token_from_state": 10}, Cause.DRIFT),
        ({}, Cause.DECODER),
        ({"replayed_token": 12}, Cause.UNKNOWN),
        ({"replayed_token": None, "token_from_features": None}, Cause.UNKNOWN),
    ],
)
def test_first_rule_that_fits_counts(change: dict[str, object], cause: Cause) -> None:
    plain = {
        "reference_token": 10, "token": 11, "pixels_equal": True, "margin": 0.5, "replayed_token": 11,
        "token_from_features": 11, "token_from_state": 11,
    }  # fmt: skip
    evidence = Evidence("a.jpg", Search.GREEDY, 3, **(plain | change))  # type: ignore[arg-type]
    found, reason = judge(evidence, 1e-4)
    assert found is cause
    assert bool(reason) == (cause in (Cause.UNKNOWN, Cause.MASKING, Cause.VOCABULARY) or "moved" in change)


def test_noise_of_a_beam_grows_with_its_words() -> None:
    tie = Evidence("a.jpg", Search.BEAM3, 8, 10, 11, True, margin=8e-4, replayed_token=11, token_from_features=11)
    assert judge(tie, 1e-4)[0] is Cause.TIE_FLIP
    assert judge(Evidence("a.jpg", Search.GREEDY, 8, 10, 11, True, margin=8e-4), 1e-4)[0] is not Cause.TIE_FLIP
    assert noise(1.0) == TIE_LIMIT
