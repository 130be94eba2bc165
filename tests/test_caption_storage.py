"""Captions in `results.json`: packed small, and read back as they were measured."""

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bench.caption_storage import SAME_AS, pack_captions, unpack_captions

CAPTIONS = st.dictionaries(st.sampled_from(["1.jpg", "2.jpg", "3.jpg"]), st.sampled_from(["a dog", "a cat", ""]))


def table_of(captions: list[dict[str, str]]) -> dict[str, Any]:
    rows = [{"recipe": f"r{i}", "runtime": "tflite", "captions": found} for i, found in enumerate(captions)]
    return {"baseline": "r0 @ tflite", "rows": rows}


@given(st.lists(CAPTIONS, max_size=6))
def test_captions_are_read_back_as_they_were(captions: list[dict[str, str]]) -> None:
    table = table_of(copy.deepcopy(captions))
    pack_captions(table)
    unpack_captions(table)
    assert table == table_of(captions)


def test_row_keeps_only_what_the_nearest_row_does_not_say() -> None:
    dense = {"1": "a dog", "2": "a cat", "3": "a man"}
    pruned = {"1": "a tree", "2": "a bus", "3": "a man"}
    quantized = pruned | {"1": "a bush"}
    table = table_of([dense, pruned, quantized])
    pack_captions(table)
    assert [(row.get(SAME_AS), row["captions"]) for row in table["rows"]] == [
        (None, dense),
        ("r0 @ tflite", {"1": "a tree", "2": "a bus"}),
        ("r1 @ tflite", {"1": "a bush"}),
    ]


def test_rows_that_captioned_other_images_stand_alone() -> None:
    table = table_of([{"1": "a dog", "2": "a cat"}, {"1": "a dog"}])
    pack_captions(table)
    assert table["rows"][1] == {"recipe": "r1", "runtime": "tflite", "captions": {"1": "a dog"}}
