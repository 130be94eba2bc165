"""How captions lie in `results.json`: each row's as what differs from the row before it that says most of the same.

Conversions of one captioner nearly agree, so that a suite of a hundred rows and a thousand images stays small enough to
commit. What is read back is what was measured, caption by caption.
"""

from collections.abc import Mapping
from typing import Any

# The row whose captions a row's are a change of, in a row's table.
SAME_AS = "captions_as"


def pack_captions(table: dict[str, Any]) -> None:
    """Leave out of each row the captions that an earlier row says on the same images, in place."""
    whole: dict[str, Mapping[str, str]] = {}
    for row in table["rows"]:
        captions = row["captions"]
        nearest = max(whole, key=lambda name: _agreement(whole[name], captions), default="")
        whole[_name(row)] = captions
        if nearest and _agreement(whole[nearest], captions):
            row[SAME_AS] = nearest
            row["captions"] = {i: text for i, text in captions.items() if whole[nearest][i] != text}


def unpack_captions(table: dict[str, Any]) -> None:
    """Put back what `pack_captions` left out, in place. Raises KeyError for a row that stands nowhere before."""
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


def _agreement(theirs: Mapping[str, str], ours: Mapping[str, str]) -> int:
    """Images with the same caption; 0 for rows that captioned different images."""
    return sum(theirs[i] == text for i, text in ours.items()) if theirs.keys() == ours.keys() else 0


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['recipe']} @ {row['runtime']}"
