"""Words <-> ids."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ArtifactError
from models.vocabulary import END, SPECIAL_WORDS, START, UNK, Vocabulary, pad_captions

words = st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=6)


def test_build_keeps_frequent_words_most_frequent_first() -> None:
    vocabulary = Vocabulary.build(["A dog runs.", "a dog sits", "a cat"], minimum_count=2)
    assert vocabulary.words == (*SPECIAL_WORDS, "a", "dog")


def test_build_does_not_depend_on_the_order_of_sentences() -> None:
    sentences = ["a b", "b c", "c a", "d d"]
    assert Vocabulary.build(sentences, minimum_count=1) == Vocabulary.build(sentences[::-1], minimum_count=1)


def test_encode_marks_ends_and_unknown_words() -> None:
    vocabulary = Vocabulary.build(["a dog"], minimum_count=1)
    assert vocabulary.encode("A bird, a dog") == [START, 4, UNK, 4, 5, END]


@given(st.lists(words, min_size=1, max_size=12))
def test_decode_undoes_encode(sentence: list[str]) -> None:
    vocabulary = Vocabulary.build([" ".join(sentence)], minimum_count=1)
    assert vocabulary.decode(vocabulary.encode(" ".join(sentence))) == " ".join(sentence)


def test_decode_stops_at_end() -> None:
    vocabulary = Vocabulary.build(["a dog"], minimum_count=1)
    assert vocabulary.decode([4, END, 5]) == "a"


@given(st.lists(words, max_size=20, unique=True))
def test_load_returns_what_was_saved(tmp_path_factory: pytest.TempPathFactory, kept: list[str]) -> None:
    path = tmp_path_factory.mktemp("vocabulary") / "v.json"
    vocabulary = Vocabulary((*SPECIAL_WORDS, *kept))
    vocabulary.save(path)
    assert Vocabulary.load(path) == vocabulary


@pytest.mark.parametrize("content", ["", "{}", "[1, 2]", '["a", "b", "c", "d"]', "\udcff"])
def test_load_refuses_what_is_no_vocabulary(tmp_path: Path, content: str) -> None:
    path = tmp_path / "v.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ArtifactError):
        Vocabulary.load(path)


def test_pad_captions_pads_behind_and_cuts() -> None:
    assert np.array_equal(pad_captions([[1, 4, 2], [1, 4, 5, 6, 2]], 4), [[1, 4, 2, 0], [1, 4, 5, 6]])
