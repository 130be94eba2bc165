"""A plan that has only the first differing captions examined: which those are, and what is said of the others."""

from collections.abc import Callable, Mapping

import pytest

from bench.measure import Captioned
from bench.parity.agreement import compare_captions
from bench.parity.evidence import Examined
from bench.parity.examining import images_to_replay
from bench.parity.record import Cause
from convert.artifact import Artifact
from convert.recipe import Format, Recipe
from models.decoding import Search

IMAGES = ("1.jpg", "2.jpg", "3.jpg", "4.jpg")


def captioned(ids: Mapping[str, list[int]], pixels: str = "same") -> Captioned:
    found = {image: {"caption": str(said), "ids": said, "log_probability": -1.0} for image, said in ids.items()}
    return Captioned({Search.GREEDY: found}, {}, 0, 0, "1", dict.fromkeys(ids, pixels))


REFERENCE = captioned({image: [4, 5] for image in IMAGES})
OTHER = captioned({"1.jpg": [4, 5], "2.jpg": [4, 6], "3.jpg": [6], "4.jpg": [7]})


@pytest.mark.parametrize(("limit", "expected"), [(0, ["2.jpg", "3.jpg", "4.jpg"]), (2, ["2.jpg", "3.jpg"]), (9, None)])
def test_first_differing_images_are_replayed(limit: int, expected: list[str] | None) -> None:
    assert images_to_replay(OTHER, REFERENCE, IMAGES, limit) == (expected or ["2.jpg", "3.jpg", "4.jpg"])


def test_images_that_were_prepared_differently_are_replayed_too() -> None:
    same_words = captioned({image: [4, 5] for image in IMAGES}, pixels="other")
    assert images_to_replay(same_words, REFERENCE, IMAGES, 3) == ["1.jpg", "2.jpg", "3.jpg"]


def test_caption_that_was_not_replayed_says_so_and_still_counts(build: Callable[[Recipe], Artifact]) -> None:
    artifact = build(Recipe("tiny-merge", Format.TFLITE))
    examined = Examined(margin_rms=None, tensors={}, evidence={})
    parity = compare_captions(Search.GREEDY, "reference", REFERENCE, OTHER, artifact, examined, listed=None)
    assert parity.captions_identical == 0.25
    assert parity.causes == dict.fromkeys(["2.jpg", "3.jpg", "4.jpg"], Cause.NOT_EXAMINED)
    failed = compare_captions(Search.GREEDY, "reference", REFERENCE, OTHER, artifact, "it broke", listed=None)
    assert {(found.cause, found.reason) for found in failed.divergences} == {(Cause.UNKNOWN, "it broke")}
