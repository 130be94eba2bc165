"""How captions lie in `results.json`: each row's as what differs from the row before it that says most of the same.

Conversions of one captioner nearly agree, and captioners say much the same sentences, so that a suite of a hundred rows
and a thousand images stays small enough to commit. A sentence and an image's id stand once in the file, and rows hold
their places. What is read back is what was measured, caption by caption.
"""

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

# The row whose captions a row's are a change of, in a row's table.
SAME_AS = "captions_as"
# Ids of images and sentences, in the head.
IMAGES, TEXTS = "caption_images", "caption_texts"


def pack_captions(table: dict[str, Any]) -> None:
    """Leave out of each row the captions that an earlier row says on the same images, in place; number the others.

    So are the images with a cause, by cause: who reads the file sees at once which ones.
    """
    whole: dict[str, Mapping[str, str]] = {}
    images, texts = _Places(), _Places()
    for row in table["rows"]:
        captions = row["captions"]
        nearest = max(whole, key=lambda name: _agreement(whole[name], captions), default="")
        whole[_name(row)] = captions
        if nearest and _agreement(whole[nearest], captions):
            row[SAME_AS] = nearest
            captions = {i: text for i, text in captions.items() if whole[nearest][i] != text}
        row["captions"] = {"images": [images[i] for i in captions], "texts": [texts[t] for t in captions.values()]}
        for parity in _parities(row):
            parity["causes"] = _by_cause(parity["causes"], images)
    table[IMAGES], table[TEXTS] = list(images), list(texts)


def unpack_captions(table: dict[str, Any]) -> None:
    """Undo `pack_captions`, in place. Raises KeyError for a row that stands nowhere before, IndexError for a place."""
    images, texts = table.pop(IMAGES), table.pop(TEXTS)
    for row in table["rows"]:
        places = zip(row["captions"]["images"], row["captions"]["texts"], strict=True)
        row["captions"] = {images[image]: texts[text] for image, text in places}
        for parity in _parities(row):
            found = ((place, cause) for cause, places in parity["causes"].items() for place in places)
            parity["causes"] = {images[place]: cause for place, cause in sorted(found)}
    unpack_changes(table)


def unpack_changes(table: dict[str, Any]) -> None:
    """Put back what format 6 left out, in place. Raises KeyError for a row that stands nowhere before."""
    whole: dict[str, Mapping[str, str]] = {}
    for row in table["rows"]:
        if nearest := row.pop(SAME_AS, ""):
            row["captions"] = {**whole[nearest], **row["captions"]}
        whole[_name(row)] = row.get("captions", {})


def unpack_from_baseline(table: dict[str, Any]) -> None:
    """Put back what formats before 6 left out: of rows with quality, the captions that are also the baseline's."""
    shared: Mapping[str, str] = next((row["captions"] for row in table["rows"] if _name(row) == table["baseline"]), {})
    for row in table["rows"]:
        row["captions"] = {**shared, **row["captions"]} if row.get("quality") else row.get("captions", {})


class _Places(dict[str, int]):
    """Text -> its place, in the order of the first look."""

    def __init__(self) -> None:
        super().__init__()
        self._next = count()

    def __missing__(self, text: str) -> int:
        self[text] = next(self._next)
        return self[text]


def _parities(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What a row's table says of its searches."""
    return (parity for name in ("parity", "parity_beam3") if (parity := row.get(name)))


def _by_cause(causes: Mapping[str, str], images: _Places) -> dict[str, list[int]]:
    """Places of the images by cause."""
    found: dict[str, list[int]] = {}
    for image, cause in causes.items():
        found.setdefault(cause, []).append(images[image])
    return found


def _agreement(theirs: Mapping[str, str], ours: Mapping[str, str]) -> int:
    """Images with the same caption; 0 for rows that captioned different images."""
    return sum(theirs[i] == text for i, text in ours.items()) if theirs.keys() == ours.keys() else 0


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['recipe']} @ {row['runtime']}"
