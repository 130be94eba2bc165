"""Two captions with the words that differ in bold. Pure."""

from difflib import SequenceMatcher

from reports.text import caption_text, plain


def mark_differences(reference: str, own: str) -> tuple[str, str]:
    """Both captions as Markdown text in quotation marks; what only one of them says is bold."""
    a, b = plain(reference).split(), plain(own).split()
    blocks = SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    same_a = {block.a + i for block in blocks for i in range(block.size)}
    same_b = {block.b + i for block in blocks for i in range(block.size)}
    return _marked(a, same_a), _marked(b, same_b)


def _marked(words: list[str], same: set[int]) -> str:
    """Runs of words that differ share one pair of marks."""
    if not words:
        return caption_text("")
    text: list[str] = []
    for index, word in enumerate(words):
        bold = index not in same
        opens = bold and (index == 0 or index - 1 in same)
        closes = bold and (index == len(words) - 1 or index + 1 in same)
        text.append(f"{'**' * opens}{_escaped(word)}{'**' * closes}")
    return f"\u201c{' '.join(text)}\u201d"


def _escaped(word: str) -> str:
    """As in a caption, without its quotation marks."""
    return caption_text(word)[1:-1]
