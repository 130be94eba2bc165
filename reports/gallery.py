"""Every image of a run with what every row said of it, as data for a page. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.parity.record import Cause, Parity
from bench.result import Result, row_name
from reports.report import Report


@dataclass(frozen=True, slots=True)
class Said:
    """One caption of an image, and who said it: rows by their number, from 1, in the report's order.

    `reference` is what the first of these rows should have said, None for a reference itself; `causes` says of each
    row that differs from its own reference why.
    """

    caption: str
    rows: tuple[int, ...]
    reference: str | None
    causes: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Card:
    """One image: what people wrote (where it may be shown), and the captions, the baseline's first."""

    image: str
    people: tuple[str, ...]
    said: tuple[Said, ...]

    @property
    def causes(self) -> dict[int, str]:
        """Why captions are not their references', by row."""
        return {row: cause for said in self.said for row, cause in said.causes.items()}


def make_gallery(report: Report) -> list[Card]:
    """A card for every image that any row captioned: those whose captions differ first, in the order of the run."""
    rows = [item.row for item in report.rows]
    by_name = {row_name(row): row for row in rows}
    baseline = report.baseline.row.captions if report.baseline else {}
    images = dict.fromkeys(image for captions in (baseline, *(row.captions for row in rows)) for image in captions)
    examples = {example.image: example.references for example in report.results.examples}
    people = {**examples, **report.results.references}
    cards = [_card(image, people.get(image, ()), rows, by_name) for image in images]
    return sorted(cards, key=lambda card: not card.causes)


def _card(image: str, people: tuple[str, ...], rows: Sequence[Result], by_name: Mapping[str, Result]) -> Card:
    groups: dict[str, list[int]] = {}
    for number, row in enumerate(rows, start=1):
        if image in row.captions:
            groups.setdefault(row.captions[image], []).append(number)
    said = [_said(image, caption, numbers, rows, by_name) for caption, numbers in groups.items()]
    # Rows are in the report's order, so the first group is the baseline's where it captioned.
    return Card(image, people, (said[0], *sorted(said[1:], key=lambda group: -len(group.rows))))


def _said(
    image: str, caption: str, numbers: Sequence[int], rows: Sequence[Result], by_name: Mapping[str, Result]
) -> Said:
    references = {number: _reference(image, rows[number - 1], by_name) for number in numbers}
    causes = {
        number: _cause(image, rows[number - 1].parity)
        for number, reference in references.items()
        if reference is not None and reference != caption
    }
    first = next((text for text in references.values() if text is not None), None)
    return Said(caption, tuple(numbers), first, causes)


def _reference(image: str, row: Result, by_name: Mapping[str, Result]) -> str | None:
    """What the row that this one is compared with said; None for a reference."""
    if row.parity is None or row.parity.reference == row_name(row) or row.parity.reference not in by_name:
        return None
    return by_name[row.parity.reference].captions.get(image)


def _cause(image: str, parity: Parity | None) -> str:
    found: Cause | None = parity.causes.get(image) if parity else None
    return str(found or Cause.NOT_EXAMINED)
