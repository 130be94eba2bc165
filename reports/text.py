"""Data as Markdown text and numbers as people read them; units are scaled here and nowhere else."""

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import quote

from bench.measurement import Latency

DASH = "–"  # a value that was not reached; the status column says why
SAME = "≈"  # no difference that the run can tell from noise

_SPECIAL = re.compile(r"[\\`*_{}\[\]|~$#]")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9._/+:,=@()-]+(?: [A-Za-z0-9._/+:,=@()-]+)*")
_WEB_ADDRESS = re.compile(r"https?://[A-Za-z0-9._~/?#=&%+:@-]+")
_RIGHT_TO_LEFT = {"R", "AL"}
# Explicit direction marks could reorder the rest of a table row, so they are not passed on.
_DIRECTION_MARKS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def plain(text: str) -> str:
    """`text` on one line: white space collapsed, unprintable characters shown as U+FFFD."""
    return "".join(_printable(character) for character in " ".join(text.split()))


def _printable(character: str) -> str:
    hidden = unicodedata.category(character) in {"Cc", "Cs"}
    return "�" if hidden or unicodedata.bidirectional(character) in _DIRECTION_MARKS else character


def escape(text: str) -> str:
    """Markdown that reads as exactly `plain(text)`, in a paragraph, a list or a table cell."""
    text = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _SPECIAL.sub(lambda match: "\\" + match[0], text)
    text = re.sub(r"^([-+=])", r"\\\1", text)  # would open a list or underline a heading
    text = re.sub(r"^(\d+)([.)])", r"\1\\\2", text)  # would open a numbered list
    return text.replace("://", "&#58;//").replace("www.", "www&#46;")  # would become links


def caption_text(caption: str) -> str:
    """A caption in quotation marks; right-to-left text is isolated from its surroundings."""
    if not plain(caption):
        return "*(empty caption)*"
    text = escape(caption)
    if any(unicodedata.bidirectional(character) in _RIGHT_TO_LEFT for character in caption):
        text = f"\u2068{text}\u2069"  # first-strong isolate ... pop isolate
    return f"“{text}”"


def name_text(name: str) -> str:
    """A name as code where that is safe, as escaped text where it is not."""
    return f"`{name}`" if _PLAIN_NAME.fullmatch(name) else escape(name)


def link(label: str, address: str) -> str:
    """A link when `address` is a plain web address, otherwise text."""
    if _WEB_ADDRESS.fullmatch(address):
        return f"[{escape(label)}]({address})"
    return escape(f"{label}: {address}")


def path_address(path: str) -> str:
    """A relative path as it must be written in a link."""
    return quote(path, safe="/")


def code_block(text: str) -> str:
    """A fenced block; the fence is longer than any run of backticks inside."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}sh\n{text.strip()}\n{fence}"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, words: Sequence[int] = (0,)) -> str:
    """A GitHub table of cells that are already Markdown; columns in `words` align left, numbers right."""
    rule = [":--" if column in words else "--:" for column in range(len(headers))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headers, rule, *rows))


def milliseconds(seconds: float | None) -> str:
    """Three significant digits, never in scientific notation."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    value = seconds * 1e3
    if value <= 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(value)))
    return f"{value:.{digits}f}"


def interval(ends: tuple[float, float], show: Callable[[float], str]) -> str:
    """Both ends in square brackets."""
    return f"[{show(ends[0])}, {show(ends[1])}]"


def median_with_interval(latency: Latency | None) -> str:
    """Milliseconds with their 95 % interval."""
    if latency is None:
        return DASH
    return f"{milliseconds(latency.median)} {interval(latency.ci95, milliseconds)}"


def megabytes(size: int | None) -> str:
    """Millions of bytes with two decimals; below 0.1 the unit is written out as kB."""
    if size is None:
        return DASH
    return f"{size / 1e6:.2f}" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def megabytes_with_unit(size: int) -> str:
    """A size inside a sentence."""
    text = megabytes(size)
    return text if text.endswith("kB") else f"{text} MB"


def gigabytes(size: int) -> str:
    """Thousands of millions of bytes, one decimal."""
    return f"{size / 1e9:.1f} GB"


def ratio(value: float | None) -> str:
    """How many times: two digits below 10, whole above."""
    if value is None or not math.isfinite(value):
        return DASH
    if value < 1:
        return f"{value:.2f}x"
    return f"{value:.1f}x" if value < 10 else f"{value:.0f}x"


def ratio_with_interval(value: float, interval: tuple[float, float] | None) -> str:
    """How many times, with as many digits as the interval bears, three at most."""
    if interval is None or not all(map(math.isfinite, (value, *interval))):
        return ratio(value)
    half_width = max((interval[1] - interval[0]) / 2, 0.01)
    digits = max(0, min(math.ceil(-math.log10(half_width)), 2 - math.floor(math.log10(max(value, 1)))))
    return f"{value:.{digits}f}x [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def score(value: float | None) -> str:
    """A quality score, three decimals."""
    return DASH if value is None or not math.isfinite(value) else f"{value:.3f}"


def signed(value: float, *, digits: int = 3) -> str:
    """A change, with its sign where it has one when rounded."""
    return f"{round(value, digits) or 0.0:{'+' if round(value, digits) else ''}.{digits}f}".replace("-", "−")


def signed_percent(share: float) -> str:
    """A change as a share, with its sign."""
    return f"{signed(share * 100, digits=1)} %"


def microseconds(seconds: float) -> str:
    """Two significant digits."""
    return f"{seconds * 1e6:.2g} µs" if seconds < 1e-4 else f"{seconds * 1e6:.0f} µs"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def spread(values: Iterable[float], show: Callable[[float], str]) -> str:
    """The least and the largest value, or the one that both are when shown."""
    ordered = sorted(values)
    low, high = show(ordered[0]), show(ordered[-1])
    return low if low == high else f"{low} to {high}"


def percent(share: float | None) -> str:
    """A share 0..1 with one decimal; what is not whole never rounds to 100 % (or to 0 %)."""
    if share is None or not math.isfinite(share):
        return DASH
    if share in (0, 1):
        return f"{share * 100:.0f} %"
    return f"{min(max(share * 100, 0.1), 99.9):.1f} %"


def enumerate_names(names: Sequence[str], *, limit: int = 4) -> str:
    """Names joined by commas; beyond `limit` they are counted."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
