"""The tokenizer: what is a word, what is not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.tokens import tokenize


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("A dog runs .", ["a", "dog", "runs"]),
        ("A dog's ball, isn't it?", ["a", "dog's", "ball", "isn't", "it"]),
        ("do n't the dog 's", ["do", "n't", "the", "dog", "'s"]),
        ("the dogs' bowl 'quoted'", ["the", "dogs", "bowl", "quoted"]),
        ("a T-shirt -- blue-and-white - ", ["a", "t-shirt", "blue-and-white"]),
        ("2 men , 35mm", ["2", "men", "35mm"]),
        ("grass.The end", ["grass", "the", "end"]),
        ("“smart” dog’s … $ 5 & more", ["smart", "dog's", "5", "more"]),
        ("soft\u00adhyphen \ufeffmark no\u00a0break", ["softhyphen", "mark", "no", "break"]),
        ("ÉTÉ cafe\u0301", ["été", "café"]),
        ("कुत्ता दौड़ता है।", ["कुत्ता", "दौड़ता", "है"]),
        ("", []),
        (" . , ' - -- '' ", []),
    ],
)
def test_tokenize_splits_into_words(sentence: str, expected: list[str]) -> None:
    assert tokenize(sentence) == expected


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.text())
def test_tokenize_never_yields_empty_or_spaced_words(sentence: str) -> None:
    assert all(word and word.split() == [word] for word in tokenize(sentence))


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.text(alphabet="abS'’-. ,é5", max_size=30))
def test_tokenize_keeps_what_it_made(sentence: str) -> None:
    words = tokenize(sentence)
    assert tokenize(" ".join(words)) == words
