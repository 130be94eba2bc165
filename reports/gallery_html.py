"""The gallery of a page: cards that scripts filter and that are whole without them. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from reports.gallery import Card, Said, make_gallery
from reports.report import Report
from reports.text import plain
from reports.word_diff import split_differences

# Up to so many rows stand by their names beside a caption; more by their numbers.
NAMED_ROWS = 8


def gallery_section(report: Report, pictures: Mapping[str, str]) -> str:
    """Controls, the key to the rows and a card for each image; "" where nothing was captioned.

    `pictures`: by image id, a data address. Nothing in it is trusted: all text is escaped.
    """
    cards = make_gallery(report)
    if not cards:
        return ""
    names = _short_names(report)
    shown = "\n".join(_card(card, names, pictures.get(card.image, "")) for card in cards)
    return (
        f'{_summary(cards, names)}\n{_controls(cards, names, report)}\n{_key(names)}\n<div id="cards">\n{shown}\n</div>'
    )


def _short_names(report: Report) -> list[str]:
    """Row names, without the captioner's where there is only one."""
    captioners = {item.row.captioner for item in report.rows}
    only = f"{next(iter(captioners))}." if len(captioners) == 1 else ""
    return [plain(item.name.removeprefix(only)) for item in report.rows]


def _summary(cards: Sequence[Card], names: Sequence[str]) -> str:
    numbered = " Row 1 is the first row of the table at the top." if len(names) > NAMED_ROWS else ""
    differing = sum(bool(card.causes) for card in cards)
    return (
        f"<p>{len(cards)} images; on {differing} of them some row's caption is not that of the row it is compared "
        f"with. Words that differ are <mark>marked</mark>.{numbered}</p>"
    )


def _controls(cards: Sequence[Card], names: Sequence[str], report: Report) -> str:
    causes = Counter(cause for card in cards for cause in set(card.causes.values()))
    options = "".join(
        f'<option value="{escape(cause)}">{escape(cause)} ({count})</option>' for cause, count in causes.most_common()
    )
    rows = "".join(f'<option value="{n}">{n}: {escape(name)}</option>' for n, name in enumerate(names, start=1))
    pick = (
        '<label>Pictures, from your copy of the data <input type="file" id="folder" webkitdirectory multiple></label>'
        if any(card.image not in report.results.pictures for card in cards)
        else ""
    )
    return (
        '<form class="controls" id="gallery-controls" hidden>'
        '<label>Captions <select id="differ"><option value="">all</option>'
        f'<option value="any">that differ</option>{options}</select></label>'
        f'<label>of <select id="row"><option value="">any row</option>{rows}</select></label>'
        '<label>Words <input type="search" id="words" autocomplete="off"></label>'
        f'{pick}<output id="found" role="status"></output></form>'
    )


def _key(names: Sequence[str]) -> str:
    if len(names) <= NAMED_ROWS:
        return ""
    items = "".join(f"<li>{escape(name)}</li>" for name in names)
    return f"<details><summary>Rows by number</summary><ol>{items}</ol></details>"


def _card(card: Card, names: Sequence[str], picture: str) -> str:
    causes = " ".join(f"{row}:{_word(cause)}" for row, cause in card.causes.items())
    name = escape(plain(card.image), quote=True)
    image = f'<img src="{escape(picture, quote=True)}" alt="" width="160" loading="lazy">' if picture else ""
    people = "".join(f"<li>{_quote(text)}</li>" for text in card.people)
    wrote = f"<details><summary>people wrote</summary><ul>{people}</ul></details>" if people else ""
    captioned = sum(len(said.rows) for said in card.said)
    said = "".join(_said(group, names, captioned) for group in card.said)
    return (
        f'<article class="card" data-image="{name}" data-differ="{causes}">{image}<div><h3>{name}</h3>'
        f"<ul>{said}</ul>{wrote}</div></article>"
    )


def _word(cause: str) -> str:
    return cause.replace(" ", "_")


def _said(said: Said, names: Sequence[str], captioned: int) -> str:
    who = f"all {captioned} rows" if len(said.rows) == captioned > 1 else _rows(said.rows, names)
    caption = _marked(said) if said.reference not in (None, said.caption) else _quote(said.caption)
    why = Counter(said.causes.values()).most_common()
    told = ", ".join(cause if count == 1 or len(why) == 1 else f"{cause} ({count})" for cause, count in why)
    note = f' <span class="why">{escape(told)}</span>' if told else ""
    return f'<li>{caption} <span class="who">{who}</span>{note}</li>'


def _rows(rows: Sequence[int], names: Sequence[str]) -> str:
    if len(names) <= NAMED_ROWS:
        return escape(", ".join(names[row - 1] for row in rows))
    return f"rows {', '.join(_ranges(rows))}" if len(rows) > 1 else f"row {rows[0]}"


def _ranges(rows: Sequence[int]) -> Iterable[str]:
    """1, 2, 3, 7 as 1-3, 7."""
    start = last = rows[0]
    for row in [*rows[1:], 0]:
        if row == last + 1:
            last = row
            continue
        yield str(start) if start == last else f"{start}{'–' if last > start + 1 else ', '}{last}"
        start = last = row


def _quote(caption: str) -> str:
    """Right-to-left text is isolated from what stands beside it."""
    text = plain(caption)
    return f"<q><bdi>{escape(text)}</bdi></q>" if text else "<em>(empty caption)</em>"


def _marked(said: Said) -> str:
    pieces = split_differences(said.reference or "", said.caption)[1]
    if not pieces:
        return "<em>(empty caption)</em>"
    words = " ".join(f"<mark>{escape(text)}</mark>" if differs else escape(text) for text, differs in pieces)
    # What is missing leaves nothing to mark.
    missing = "" if any(differs for _, differs in pieces) else ' <mark class="missing">…</mark>'
    return f"<q><bdi>{words}{missing}</bdi></q>"
