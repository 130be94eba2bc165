"""Two captions with the words that differ in bold. Pure."""

from difflib import SequenceMatcher
from itertools import groupby

from reports.text import caption_text, plain

# Runs of words: their text, and whether the other caption lacks them.
Pieces = list[tuple[str, bool]]


def split_differences(reference: str, own: str) -> tuple[Pieces, Pieces]:
    """Both captions as runs of words that both say and runs that only one of them does."""
    a, b = plain(reference).split(), plain(own).split()
    blocks = SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    same_a = {block.a + i for block in blocks for i in range(block.size)}
    same_b = {block.b + i for block in blocks for i in range(block.size)}
    return _pieces(a, same_a), _pieces(b, same_b)


def _pieces(words: list[str], same: set[int]) -> Pieces:
    runs = groupby(range(len(words)), key=lambda index: index not in same)
    return [(" ".join(words[index] for index in run), differs) for differs, run in runs]


def mark_differences(reference: str, own: str) -> tuple[str, str]:
    """Both captions as Markdown text in quotation marks; what only one of them says is bold."""
    theirs, mine = split_differences(reference, own)
    return _marked(theirs), _marked(mine)


def _marked(pieces: Pieces) -> str:
    if not pieces:
        return caption_text("")
    text = (f"**{_escaped(run)}**" if differs else _escaped(run) for run, differs in pieces)
    return f"\u201c{' '.join(text)}\u201d"


def _escaped(run: str) -> str:
    """As in a caption, without its quotation marks; each word for itself, as some begin like Markdown does."""
    return " ".join(caption_text(word)[1:-1] for word in run.split(" "))
