"""Progress on standard error: a bar for people, sparse lines for logs. Standard output stays clean for machines."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")
_LOG_EVERY_SECONDS = 30.0

console = Console(stderr=True, soft_wrap=True, highlight=False)


def say(text: str) -> None:
    """One line about what is being done."""
    console.print(text, markup=False)


def track(items: Sequence[T], label: str) -> Iterator[T]:
    """The items, with a bar on a terminal, or a line every half minute in a log."""
    if console.is_terminal:
        with _progress() as progress:
            yield from progress.track(items, description=label)
        return
    shown = time.monotonic()
    for index, item in enumerate(items):
        yield item
        if time.monotonic() - shown > _LOG_EVERY_SECONDS:
            shown = time.monotonic()
            print(f"{label}: {index + 1}/{len(items)}", file=sys.stderr, flush=True)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True)


def track_bytes(blocks: Iterable[bytes], total: int, label: str) -> Iterator[bytes]:
    """The blocks of a download of `total` bytes (0: unknown), with a bar on a terminal."""
    if not console.is_terminal:
        yield from blocks
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(label, total=total or None)
        for block in blocks:
            progress.advance(task, len(block))
            yield block
