"""Scores agree with coco-caption and NLTK; intervals, constant captions and errors behave."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import corpus_bleu

from bench import constant_caption
from bench.cider import prepare_references
from bench.constant_caption import best_constant_caption
from bench.quality import cider_mean, paired_difference_ci95, paired_differences, score_captions
from bench.result import Quality
from models.errors import DataError

# Both sides are sums of float64, in another order; coco-caption prints three digits.
TOLERANCE = 1e-6

REFERENCES = {
    "beach": (
        "two children build a sandcastle near the water",
        "a boy and a girl are digging in the wet sand",
        "kids play on the beach with a red bucket",
        "two kids build something out of sand",
    ),
    "bicycle": (
        "a cyclist in a yellow jersey climbs a steep road",
        "a man rides his bicycle up the mountain",
        "a person on a racing bike passes a stone wall",
        "a cyclist rides up a hill",
    ),
    "kitchen": (
        "an old woman stirs a pot on the stove",
        "a woman is cooking soup in a small kitchen",
        "a woman in an apron stands at the stove",
        "a lady cooks dinner",
    ),
    "market": (
        "people shop for vegetables at an outdoor market",
        "a crowd of people walks between market stalls",
        "a man sells tomatoes to a woman at a market",
        "shoppers look at fruit under blue umbrellas",
    ),
    "snow": (
        "a skier jumps over a bump in the snow",
        "a person in a green jacket skis down a hill",
        "someone is skiing down the mountain",
        "a skier is in the air above the snow",
    ),
}
CAPTIONS = {
    "beach": "two children play in the sand near the water",
    "bicycle": "a man rides a bicycle up a hill",
    "kitchen": "a woman is cooking in a kitchen",
    "market": "people walk through a market with a dog",
    "snow": "a skier is skiing down the mountain in the snow",
}

sentences = st.lists(st.sampled_from(["a", "b", "c", "d", "dog", "runs"]), max_size=12).map(" ".join)
# pycocoevalcap fails where no reference holds a word: max() of no document frequencies.
reference_sentences = sentences.filter(bool)
images = st.lists(st.tuples(sentences, st.lists(reference_sentences, min_size=1, max_size=5)), min_size=1, max_size=6)


def coco_scores(captions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> list[float]:
    """BLEU-1..4, ROUGE-L and CIDEr-D of pycocoevalcap, without its Java tokenizer."""
    bleu = pytest.importorskip("pycocoevalcap.bleu.bleu").Bleu(4)
    rouge = pytest.importorskip("pycocoevalcap.rouge.rouge").Rouge()
    cider = pytest.importorskip("pycocoevalcap.cider.cider").Cider()
    theirs: Any = {image: list(sentences) for image, sentences in references.items()}
    ours: Any = {image: [captions[image]] for image in theirs}
    return [
        *bleu.compute_score(theirs, ours, verbose=0)[0],
        rouge.compute_score(theirs, ours)[0],
        cider.compute_score(theirs, ours)[0],
    ]


def our_scores(quality: Quality) -> list[float]:
    return [
        *(quality.bleu_1, quality.bleu_2, quality.bleu_3, quality.bleu_4),
        *(quality.rouge_l, quality.cider),
    ]


def test_scores_agree_with_coco_caption() -> None:
    expected = coco_scores(CAPTIONS, REFERENCES)
    assert our_scores(score_captions(CAPTIONS, REFERENCES)) == pytest.approx(expected, abs=TOLERANCE)
    assert cider_mean(CAPTIONS, REFERENCES) == pytest.approx(expected[-1], abs=TOLERANCE)
    assert all(score > 0.05 for score in expected)  # the comparison is not of zeros


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(images)
def test_scores_agree_with_coco_caption_on_any_captions(corpus: list[tuple[str, list[str]]]) -> None:
    captions = {str(image): caption for image, (caption, _) in enumerate(corpus)}
    references = {str(image): tuple(sentences) for image, (_, sentences) in enumerate(corpus)}
    quality = score_captions(captions, references, resamples=20)
    assert our_scores(quality) == pytest.approx(coco_scores(captions, references), abs=TOLERANCE)


def test_paper_bleu_is_nltk_with_markers_on_cleaned_text() -> None:
    captions = {"a": "A dog's ball rolls over 3 green hills!", "b": "two dogs run"}
    references = {
        "a": ("The dog ball rolls over green hills .", "A ball rolls over the hill"),
        "b": ("two dogs run in X-ray light", "dogs play"),
    }
    # One-letter words, digits and punctuation go; "dog's" loses its sign and becomes one word.
    hypotheses = ["startseq dogs ball rolls over green hills endseq", "startseq two dogs run endseq"]
    cleaned = [
        ["startseq the dog ball rolls over green hills endseq", "startseq ball rolls over the hill endseq"],
        ["startseq two dogs run in xray light endseq", "startseq dogs play endseq"],
    ]
    expected = corpus_bleu(
        [[sentence.split() for sentence in group] for group in cleaned],
        [sentence.split() for sentence in hypotheses],
        weights=[(1.0,), (0.5, 0.5), (0.3, 0.3, 0.3), (0.25, 0.25, 0.25, 0.25)],
    )
    quality = score_captions(captions, references)
    received = (quality.paper_bleu_1, quality.paper_bleu_2, quality.paper_bleu_3, quality.paper_bleu_4)
    assert received == pytest.approx(expected, abs=1e-12)


def test_paper_bleu_is_zero_when_an_order_has_no_match() -> None:
    quality = score_captions({"a": "purple elephants"}, {"a": ("a small dog",)})
    assert quality.paper_bleu_1 == pytest.approx(0.5)  # the two markers
    assert (quality.paper_bleu_2, quality.paper_bleu_3, quality.paper_bleu_4) == (0, 0, 0)


def test_empty_captions_score_zero() -> None:
    quality = score_captions(dict.fromkeys(REFERENCES, ""), REFERENCES)
    assert our_scores(quality) == [0.0] * 6
    assert quality.bleu_4_ci95 == quality.cider_ci95 == (0.0, 0.0)
    assert (quality.caption_length_mean, quality.distinct_captions) == (0.0, 1)


def test_nothing_against_nothing_scores_zero() -> None:
    # coco-caption gives ROUGE-L 1 here (two empty words agree) and its CIDEr-D raises ValueError.
    assert our_scores(score_captions({"a": ""}, {"a": ("", ".")})) == [0.0] * 6


def test_perfect_captions_score_one() -> None:
    quality = score_captions({image: group[0] for image, group in REFERENCES.items()}, REFERENCES)
    assert our_scores(quality)[:5] == pytest.approx([1.0] * 5)
    assert quality.bleu_4_ci95 == pytest.approx((1.0, 1.0))


def test_quality_describes_captions_and_protocol() -> None:
    references = {**REFERENCES, "beach": REFERENCES["beach"][:3]}
    quality = score_captions({**CAPTIONS, "snow": CAPTIONS["bicycle"].upper()}, references)
    assert quality.images == 5
    assert quality.distinct_captions == 4
    assert quality.caption_length_mean == pytest.approx((9 + 8 + 7 + 8 + 8) / 5)
    assert quality.protocol == (
        "coco|tok:captionbench-1|case:lower|refs:3-4|markers:no|bleu:closest-len|cider:D,n4,s6,idf:test|v1"
    )
    assert "|refs:4|" in score_captions(CAPTIONS, REFERENCES).protocol


def test_intervals_hold_the_score_and_repeat_by_seed() -> None:
    quality = score_captions(CAPTIONS, REFERENCES, seed=7)
    for score, (low, high) in (
        (quality.bleu_4, quality.bleu_4_ci95),
        (quality.cider, quality.cider_ci95),
    ):
        assert low < score < high
    assert score_captions(CAPTIONS, REFERENCES, seed=7) == quality
    assert score_captions(CAPTIONS, REFERENCES, seed=8).cider_ci95 != quality.cider_ci95


def test_order_of_images_does_not_matter() -> None:
    turned = dict(reversed(CAPTIONS.items()))
    assert our_scores(score_captions(turned, REFERENCES)) == pytest.approx(
        our_scores(score_captions(CAPTIONS, REFERENCES))
    )


def test_paired_difference_tells_better_from_equal() -> None:
    constant = dict.fromkeys(CAPTIONS, "a man in a shirt")
    low, high = paired_difference_ci95(CAPTIONS, constant, REFERENCES)
    assert 0 < low < cider_mean(CAPTIONS, REFERENCES) - cider_mean(constant, REFERENCES) < high
    shuffled = dict(reversed(CAPTIONS.items()))
    assert paired_difference_ci95(CAPTIONS, shuffled, REFERENCES) == (0.0, 0.0)


def test_paired_differences_hold_those_of_the_scores() -> None:
    constant = dict.fromkeys(CAPTIONS, "a man in a shirt")
    cider, bleu_4 = paired_differences(CAPTIONS, constant, REFERENCES)
    mine, base = score_captions(CAPTIONS, REFERENCES), score_captions(constant, REFERENCES)
    assert cider == paired_difference_ci95(CAPTIONS, constant, REFERENCES)
    assert bleu_4[0] < mine.bleu_4 - base.bleu_4 < bleu_4[1]


def test_same_captions_in_another_order_differ_by_nothing() -> None:
    shuffled = dict(reversed(CAPTIONS.items()))
    assert paired_differences(CAPTIONS, shuffled, REFERENCES) == ((0.0, 0.0), (0.0, 0.0))


def test_paired_interval_is_narrower_than_that_of_one_score() -> None:
    """One word of one image differs: what makes images hard is common to both sides."""
    other = {**CAPTIONS, "bicycle": "a man rides his bicycle up a hill"}
    for (low, high), alone in zip(
        paired_differences(other, CAPTIONS, REFERENCES),
        (score_captions(CAPTIONS, REFERENCES).cider_ci95, score_captions(CAPTIONS, REFERENCES).bleu_4_ci95),
        strict=True,
    ):
        assert 0 <= low < high
        assert high - low < alone[1] - alone[0]


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(images, st.randoms(use_true_random=False))
def test_paired_differences_turn_round_with_the_captions(corpus: list[tuple[str, list[str]]], random: Random) -> None:
    captions = {str(image): caption for image, (caption, _) in enumerate(corpus)}
    references = {str(image): tuple(sentences) for image, (_, sentences) in enumerate(corpus)}
    said = list(captions.values())
    random.shuffle(said)
    other = dict(zip(captions, said, strict=True))
    there = paired_differences(captions, other, references, resamples=50)
    back = paired_differences(other, captions, references, resamples=50)
    for (low, high), (low_back, high_back) in zip(there, back, strict=True):
        assert low <= high
        assert (low, high) == pytest.approx((-high_back, -low_back), abs=1e-9)


@pytest.mark.parametrize(
    ("captions", "references", "message"),
    [
        ({}, {}, "no captions"),
        ({"a": "dog", "b": "cat"}, {"a": ("dog",)}, r"1 captions without references \(b"),
        ({"a": "dog"}, {"a": ("dog",), "b": ("cat",)}, r"1 references without captions \(b"),
        ({"a": "dog"}, {"a": ()}, "image 'a' needs a list"),
        ({"a": "dog"}, {"a": "dog"}, "image 'a' needs a list"),
    ],
)
def test_scoring_refuses_what_does_not_fit(captions: Any, references: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        score_captions(captions, references)
    with pytest.raises(DataError, match=message):
        cider_mean(captions, references)


def test_constant_caption_is_the_best_of_the_candidates() -> None:
    candidates = [*CAPTIONS.values(), "a woman is in the snow", "a man", "A MAN .", "", "of the on"]
    best = best_constant_caption(candidates, REFERENCES)
    exact = {c: cider_mean(dict.fromkeys(REFERENCES, c), REFERENCES) for c in candidates}
    assert exact[best.caption] == max(exact.values()) > 0
    assert best.quality == score_captions(dict.fromkeys(REFERENCES, best.caption), REFERENCES)
    assert best.quality.distinct_captions == 1


def test_constant_caption_survives_the_preselection(monkeypatch: pytest.MonkeyPatch) -> None:
    words = sorted({word for group in REFERENCES.values() for sentence in group for word in sentence.split()})
    generator = np.random.default_rng(2012)
    candidates = [sentence for group in REFERENCES.values() for sentence in group]
    candidates += [" ".join(generator.choice(words, size=generator.integers(1, 12))) for _ in range(200)]
    monkeypatch.setattr(constant_caption, "FINALISTS", len(candidates))
    expected = best_constant_caption(candidates, REFERENCES)
    monkeypatch.setattr(constant_caption, "FINALISTS", 20)
    assert best_constant_caption(candidates, REFERENCES) == expected


@pytest.mark.parametrize(("candidates", "references"), [([], REFERENCES), (["."], REFERENCES), (["a"], {})])
def test_constant_caption_refuses_nothing(candidates: list[str], references: Any) -> None:
    with pytest.raises(DataError, match="constant caption needs"):
        best_constant_caption(candidates, references)


def test_unknown_words_are_as_rare_as_those_of_one_image() -> None:
    prepared = prepare_references({"a": [["red", "dog"]], "b": [["dog"]]})
    weights = prepared.vector(["red", "unheard", "dog"]).weights
    assert weights["red",] == weights["unheard",] == pytest.approx(np.log(2))
    assert weights["dog",] == 0
