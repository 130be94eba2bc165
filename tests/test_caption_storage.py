"""Captions in `results.json`: packed small, and read back as they were measured."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.caption_storage import IMAGES, SAME_AS, TEXTS, pack_captions, unpack_captions, unpack_changes

CAPTIONS = st.dictionaries(st.sampled_from(["1.jpg", "2.jpg", "3.jpg"]), st.sampled_from(["a dog", "a cat", ""]))


CAUSES = st.dictionaries(st.sampled_from(["1.jpg", "2.jpg", "3.jpg", "4.jpg"]), st.sampled_from(["drift", "encoder"]))


def table_of(captions: list[dict[str, str]], causes: list[dict[str, str]] | None = None) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [
        {"recipe": f"r{i}", "runtime": "tflite", "captions": found} for i, found in enumerate(captions)
    ]
    for row, found in zip(rows, causes or (), strict=False):
        row["parity"] = {"causes": found}
    return {"baseline": "r0 @ tflite", "rows": rows}


@given(st.lists(CAPTIONS, max_size=6), st.lists(CAUSES, max_size=6))
def test_captions_and_causes_are_read_back_as_they_were(
    captions: list[dict[str, str]], causes: list[dict[str, str]]
) -> None:
    table = table_of(copy.deepcopy(captions), copy.deepcopy(causes))
    pack_captions(table)
    unpack_captions(json.loads(json.dumps(table)))
    unpack_captions(table)
    assert table == table_of(captions, causes)


def test_row_keeps_only_what_the_nearest_row_does_not_say() -> None:
    dense = {"1": "a dog", "2": "a cat", "3": "a man", "4": "a man"}
    pruned = {"1": "a tree", "2": "a bus", "3": "a bus", "4": "a man"}
    quantized = pruned | {"1": "a dog"}
    table = table_of([dense, pruned, quantized])
    pack_captions(table)
    assert table[IMAGES] == ["1", "2", "3", "4"]
    assert table[TEXTS] == ["a dog", "a cat", "a man", "a tree", "a bus"]
    assert [(row.get(SAME_AS), row["captions"]) for row in table["rows"]] == [
        (None, {"images": [0, 1, 2, 3], "texts": [0, 1, 2, 2]}),
        ("r0 @ tflite", {"images": [0, 1, 2], "texts": [3, 4, 4]}),
        ("r1 @ tflite", {"images": [0], "texts": [0]}),
    ]


def test_images_are_listed_by_their_cause() -> None:
    table = table_of([{"1": "a dog", "2": "a cat"}], [{"1": "drift", "2": "drift"}])
    pack_captions(table)
    assert table["rows"][0]["parity"]["causes"] == {"drift": [0, 1]}


def test_rows_that_captioned_other_images_stand_alone() -> None:
    table = table_of([{"1": "a dog", "2": "a cat"}, {"1": "a dog"}])
    pack_captions(table)
    assert table["rows"][1]["captions"] == {"images": [0], "texts": [0]}
    assert SAME_AS not in table["rows"][1]


def test_captions_of_format_6_are_read() -> None:
    table = table_of([{"1": "a dog", "2": "a cat"}, {"1": "a bus"}])
    table["rows"][1][SAME_AS] = "r0 @ tflite"
    unpack_changes(table)
    assert table["rows"][1]["captions"] == {"1": "a bus", "2": "a cat"}


def test_place_that_is_not_there_is_told() -> None:
    table = table_of([{"1": "a dog"}])
    pack_captions(table)
    table["rows"][0]["captions"]["texts"] = [7]
    with pytest.raises(IndexError):
        unpack_captions(table)
