"""The one tokenizer: the vocabulary is built with it and every metric counts its tokens.

coco-caption's tokenizer is Stanford's PTBTokenizer, a Java program, so it can't be a dependency.
On caption text the two agree but for four things. PTB splits contractions ("dog's" -> "dog 's",
"don't" -> "do n't"); here they stay whole, and are kept as found in text that is split already.
PTB keeps symbols (& # $ %) as tokens; here they are dropped with the punctuation. PTB keeps dots and
commas inside numbers and abbreviations ("3.5", "p.m."); here they separate. Quotes and final
apostrophes ("dogs'") vanish from both.
"""

import unicodedata

# What English contractions leave behind a split; only these keep a leading apostrophe.
_CLITICS = frozenset({"s", "m", "d", "re", "ve", "ll"})
_JOINERS = "'-"
_TYPOGRAPHIC = {"\u2019": "'", "\u02bc": "'", "\u2010": "-", "\u2011": "-"}


class _CharacterTable(dict[int, str]):
    """Code point -> what `str.translate` puts in its place; filled as characters are met."""

    def __missing__(self, code: int) -> str:
        self[code] = _replacement(chr(code))
        return self[code]


def _replacement(character: str) -> str:
    if character in _JOINERS or character in _TYPOGRAPHIC:
        return _TYPOGRAPHIC.get(character, character)
    category = unicodedata.category(character)
    if category == "Cf":  # invisible: soft hyphens, joiners, byte order marks
        return ""
    return " " if category[0] in "PSZ" or category == "Cc" else character


_TABLE = _CharacterTable()


def tokenize(sentence: str) -> list[str]:
    """Lower-case words: split at space and punctuation, hyphens and apostrophes kept inside words."""
    text = unicodedata.normalize("NFC", sentence).translate(_TABLE).lower()
    return [word for chunk in text.split() if (word := _trim(chunk))]


def _trim(chunk: str) -> str:
    word = chunk.strip(_JOINERS)
    return f"'{word}" if chunk.startswith("'") and word in _CLITICS else word
