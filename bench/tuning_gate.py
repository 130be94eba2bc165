"""What `captionbench tune` must keep: a share of CIDEr, and a size. Parsed once; judged the same way everywhere."""

import re
from dataclasses import dataclass
from enum import StrEnum

from models.errors import ConfigError

_NUMBER = r"(?P<number>\d+(?:\.\d+)?|\.\d+)"
_SIZE = re.compile(rf"{_NUMBER}\s*(?P<unit>[a-z]*)", re.IGNORECASE)
_SHARE = re.compile(rf"{_NUMBER}\s*(?P<percent>%?)")
_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


class Verdict(StrEnum):
    """What a gate says of an artifact."""

    PASSES = "passes"
    LOSES_QUALITY = "loses quality"
    TOO_LARGE = "too large"  # its captions are good enough
    FAILS_BOTH = "too large, loses quality"


@dataclass(frozen=True)
class Gate:
    """`max_drop`: share (0..1) of the reference's CIDEr that may be lost; no size means any size."""

    max_drop: float
    max_size_bytes: int | None = None

    def lowest_bound(self, reference_cider: float) -> float:
        """The least that the lower 95 % bound of the CIDEr difference may be: zero or below."""
        return -self.max_drop * reference_cider

    def fits(self, size_bytes: int) -> bool:
        """Whether an artifact of this size is small enough."""
        return self.max_size_bytes is None or size_bytes <= self.max_size_bytes

    def judge(self, size_bytes: int, bound: float, reference_cider: float) -> Verdict:
        """`bound`: the lower 95 % bound of the artifact's CIDEr minus the reference's, over the same images."""
        keeps, fits = bound >= self.lowest_bound(reference_cider), self.fits(size_bytes)
        if keeps:
            return Verdict.PASSES if fits else Verdict.TOO_LARGE
        return Verdict.LOSES_QUALITY if fits else Verdict.FAILS_BOTH


def parse_size(text: str) -> int:
    """Bytes of `3MB`, `3 MB`, `500kB` or `3MiB` (2**20). Raises ConfigError."""
    match = _SIZE.fullmatch(text.strip())
    unit = match["unit"].lower() if match else ""
    size = round(float(match["number"]) * _UNITS[unit]) if match and unit in _UNITS else 0
    if size < 1:
        raise ConfigError(f"--max-size is a number above zero and a unit, e.g. 3MB, 500kB or 3MiB; received '{text}'.")
    return size


def parse_share(text: str) -> float:
    """The share (0..1) of `1%`, `0.5 %` or `0.01`. Raises ConfigError."""
    match = _SHARE.fullmatch(text.strip())
    share = float(match["number"]) / (100 if match["percent"] else 1) if match else 1.0
    if share >= 1:
        raise ConfigError(f"--max-cider-drop is a share of CIDEr below all of it, e.g. 1% or 0.01; received '{text}'.")
    return share
