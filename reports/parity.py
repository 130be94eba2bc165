"""Do captions match across runtimes, and where they don't, why: the section of every report and of a parity page. Pure.

The first line answers; a table by row, tensors beneath it, then some of the captions that differ, grouped by cause.
"""

import html
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from bench.parity.record import Cause, Choice, Divergence, Parity, ParityRow
from bench.parity.shown import Shown, choose_shown, faults, is_float
from reports.text import DASH, enumerate_names, escape, name_text, path_address, percent, plain, table
from reports.word_diff import mark_differences

# What each cause means, in the order in which they are told; docs/parity.md has the rules.
MEANINGS: Mapping[Cause, str] = {
    Cause.TIE_FLIP: "the reference itself hardly preferred its word, by no more than the arithmetic's noise: harmless",
    Cause.ENCODER: "from the reference's features the row says the reference's word: its encoder is to blame",
    Cause.DRIFT: "from the reference's state the row says the reference's word: errors added up over the words before",
    Cause.DECODER: "even from the reference's features and state the step says another word",
    Cause.PREPROCESSING: "the same file became another tensor; from the reference's tensor the captions agree",
    Cause.END_OF_SENTENCE: "one caption ends where the other goes on",
    Cause.VOCABULARY: "the logits are the reference's in another order: the ids mean other words",
    Cause.MASKING: "the decoder's state is zero or stands still where the reference's moves",
    Cause.UNKNOWN: "no rule explains it",
    Cause.NOT_EXAMINED: "the run's plan has only the first differing images of a row replayed; see the others for why",
}
# The tensors that the table tells; a parity page tells all.
HEADLINE_TENSORS = ("features", "state_h", "logits")


def parity_section(rows: Sequence[ParityRow], images: int, pictures: Mapping[str, str], *, full: bool = False) -> str:
    """The whole section, "" where nothing was compared. `full`: every tensor of every row."""
    compared = [row for row in rows if row.searches]
    if not compared:
        return ""
    parts = (
        answer(compared, images),
        _matrix(compared),
        _tensor_table(compared, full=full),
        _divergences(compared, pictures),
    )
    return "\n\n".join(part for part in parts if part)


def answer(rows: Sequence[ParityRow], images: int) -> str:
    """Do they match? In two or three sentences."""
    floats = [row for row in rows if is_float(row)]
    integers = [row for row in rows if not is_float(row)]
    references = list(dict.fromkeys(parity.reference for row in rows for parity in row.searches))
    against = enumerate_names([name_text(name) for name in references], limit=2)
    sentences = [f"Compared word for word with {against} on {images} images."]
    if floats:
        sentences.append(f"**{_count(floats, 'fp32 or fp16 row')}: {_agreement(floats)}.**")
    if integers:
        sentences.append(f"{_count(integers, 'row')} with integers: {_agreement(integers)}.")
    return " ".join(sentences)


def _count(rows: Sequence[ParityRow], what: str) -> str:
    return f"{len(rows)} {what}{'s' if len(rows) > 1 else ''}"


def _agreement(rows: Sequence[ParityRow]) -> str:
    """How many captions differ over these rows, and why."""
    causes = Counter(cause for row in rows for parity in row.searches for cause in parity.causes.values())
    shares = [parity.captions_identical for row in rows for parity in row.searches]
    if min(shares) == 1:
        return "every caption is the reference's" + (", with a beam too" if any(row.beam3 for row in rows) else "")
    least = f"at least {percent(min(shares))} of the captions are the reference's"
    if not causes:
        return f"{least}; why the others differ was {Cause.NOT_EXAMINED}"
    total = sum(causes.values())
    if not any(faults(row) for row in rows):
        return (
            f"{least}, and all {total} that differ are ties" if total > 1 else f"{least}; the one that differs is a tie"
        )
    told = ", ".join(f"{cause} {count}" for cause, count in _by_cause(causes))
    return f"{least}; of the {total} that differ: {told}"


def _by_cause(causes: Counter[Cause]) -> Iterator[tuple[Cause, int]]:
    """Causes that occur, in the order of `MEANINGS`."""
    return ((cause, causes[cause]) for cause in MEANINGS if causes[cause])


def _matrix(rows: Sequence[ParityRow]) -> str:
    headers = (
        "recipe @ runtime", "same file", "same tensor", "words", "beam 3: same file", "same tensor", "words",
        "why captions differ",
    )  # fmt: skip
    cells = [[name_text(row.name), *_shares(row.greedy), *_shares(row.beam3), _why(row)] for row in _by_reference(rows)]
    note = (
        "Share of captions that are the reference's. Same file: each runtime prepares the image itself, in a process "
        "and environment of its own. Same tensor: all graphs get the reference's pixels. Every runtime runs the same "
        "decode loop, so what differs comes from the graphs; a fused row holds a greedy loop in its file, and has no "
        "beam."
    )
    several = len({parity.reference for row in rows for parity in row.searches}) > 1
    listed = f" {_references(rows)}" if several else ""
    return f"{note}{listed}\n\n{table(headers, cells, words=(0, 7))}"


def _by_reference(rows: Sequence[ParityRow]) -> list[ParityRow]:
    """Rows of one reference together, in the order of the run."""
    references = list(dict.fromkeys(row.searches[0].reference for row in rows))
    return sorted(rows, key=lambda row: references.index(row.searches[0].reference))


def _references(rows: Sequence[ParityRow]) -> str:
    named = ", ".join(name_text(name) for name in dict.fromkeys(row.searches[0].reference for row in rows))
    return f"Each row is compared with its captioner's fp32 row after the same techniques: {named}."


def _shares(parity: Parity | None) -> tuple[str, str, str]:
    if parity is None:
        return DASH, DASH, DASH
    return (
        percent(parity.captions_identical),
        percent(parity.graph_captions_identical),
        percent(parity.tokens_identical),
    )


def _why(row: ParityRow) -> str:
    """Counts by cause, greedy and beam together."""
    causes = Counter(cause for parity in row.searches for cause in parity.causes.values())
    if causes:
        return ", ".join(f"{cause} {count}" for cause, count in _by_cause(causes))
    return DASH if all(parity.captions_identical == 1 for parity in row.searches) else str(Cause.NOT_EXAMINED)


def _tensor_table(rows: Sequence[ParityRow], *, full: bool) -> str:
    """How far tensors are from the reference's, given the same pixels and the same words."""
    headers = ("recipe @ runtime", "tensor", "largest", "mean", "cosine", "SNR (dB)", "passes from")
    cells = [
        [
            name_text(row.name),
            name_text(name),
            f"{found.max_abs:.2g}",
            f"{found.mean_abs:.2g}",
            _cosine(found.cosine),
            DASH if found.snr_db is None else f"{found.snr_db:.0f}",
            f"{found.tolerance:.1g}",
        ]
        for row in _by_reference(rows)
        for name, found in row.searches[0].tensors.items()
        if full or name in HEADLINE_TENSORS
    ]
    if not cells:
        return ""
    note = (
        "Tensors given the same pixels and the same words: largest and mean difference, lowest cosine, signal to "
        "noise, and the smallest tolerance (absolute and relative, as in `numpy.allclose`) where they pass as equal."
    )
    return f"{note}\n\n{table(headers, cells, words=(0, 1))}"


def _cosine(value: float) -> str:
    """As many nines as it has, six at most."""
    return "1" if value >= 1 - 5e-7 else f"{value:.6f}".rstrip("0")


def _divergences(rows: Sequence[ParityRow], pictures: Mapping[str, str]) -> str:
    chosen = choose_shown(rows)
    totals = Counter(cause for row in rows for parity in row.searches for cause in parity.causes.values())
    return "\n\n".join(
        f"{_heading(cause, totals[cause])}\n\n" + "\n\n".join(_shown(item, pictures) for item in shown)
        for cause, shown in chosen.items()
    )


def _heading(cause: Cause, total: int) -> str:
    if not total:  # of a format that did not know causes
        return "**Some of the captions that differ** (why was not examined)"
    return f"**{str(cause).capitalize()}** ({total}): {MEANINGS[cause]}."


def _shown(item: Shown, pictures: Mapping[str, str]) -> str:
    found = item.divergence
    theirs, own = mark_differences(found.reference_caption, found.caption)
    lines = [
        f"{_picture(found.image, pictures)}{name_text(found.image)}",
        f"- {name_text(item.reference)}: {theirs}",
        f"- {enumerate_names([name_text(name) for name in item.rows], limit=3)}: {own}",
        f"- {_details(found)}",
    ]
    return "\n".join([lines[0], "", *lines[1:]])


def _picture(image: str, pictures: Mapping[str, str]) -> str:
    if image not in pictures:
        return ""
    source = html.escape(path_address(pictures[image]))
    return f'<img src="{source}" alt="test image {html.escape(plain(image))}" width="160">\n\n'


def _details(found: Divergence) -> str:
    """Where they part, how sure each was, how far the tensors are apart, and what brings the word back."""
    parts = [f"They part at word {found.first_step + 1}"]
    if found.reference_choices:
        parts.append(f"the reference has {_choices(found.reference_choices)}")
    if found.choices:
        parts.append(f"the row {_choices(found.choices)}")
    if found.margin is not None:
        limit = "" if found.noise is None else f" (a tie up to {found.noise:.2g})"
        parts.append(f"margin {found.margin:.2g} nats{limit}")
    if found.errors:
        parts.append(f"relative errors {', '.join(f'{name} {_share(e)}' for name, e in found.errors.items())}")
    given = [
        f"{label} says \u201c{escape(word)}\u201d"
        for label, word in (
            ("from the reference's features it", found.word_from_features),
            ("from its state too it", found.word_from_state),
        )
        if word is not None
    ]
    reason = [escape(found.reason)] if found.reason else []
    return "; ".join([*parts, *given, *reason]) + "."


def _choices(choices: Sequence[Choice]) -> str:
    return ", ".join(
        f"\u201c{escape(c.word)}\u201d {math.exp(c.log_probability):.1%}".replace("%", " %") for c in choices
    )


def _share(error: float) -> str:
    return f"{error * 100:.1f} %" if error >= 0.001 else f"{error:.0e}"
