"""Every error a user can cause or meet, in one small tree.

CaptionbenchError
├── ConfigError          a suite, recipe, option or name that does not parse
├── DataError            a data set, captions file or download that can't be used
│   └── ImageError       one image that can't be decoded
├── TrainingError        a training whose loss is no number any more
├── CompressionError     a technique that did not reach what was asked of it
├── ConversionError      a converter failed on a recipe
│   └── UnsupportedError a combination that can't work upstream, with the thread that says so
├── ArtifactError        an artifact or checkpoint that is missing, corrupt or of another version
└── MissingPackageError  a framework that the current environment does not hold

Messages say what was wrong, what was received, and what to do. The command line
prints them as one sentence and exits with status 2.
"""

import difflib
from collections.abc import Iterable


class CaptionbenchError(Exception):
    """Root of the errors that are shown to a user without a traceback."""


class ConfigError(CaptionbenchError):
    """A suite, recipe, option or name that does not parse."""


class DataError(CaptionbenchError):
    """A data set, captions file or download that can't be used."""


class ImageError(DataError):
    """One image that can't be decoded."""


class TrainingError(CaptionbenchError):
    """A training whose loss is no number any more."""


class CompressionError(CaptionbenchError):
    """A technique that did not reach what was asked of it."""


class ConversionError(CaptionbenchError):
    """A converter failed on a recipe."""


class UnsupportedError(ConversionError):
    """A combination that can't work upstream; `thread` links to where upstream says so."""

    def __init__(self, reason: str, *, thread: str = "") -> None:
        super().__init__(reason)
        self.thread = thread


class ArtifactError(CaptionbenchError):
    """An artifact or checkpoint that is missing, corrupt or of another version."""


class MissingPackageError(CaptionbenchError):
    """A framework that the current environment does not hold."""


def unknown_name(kind: str, received: str, known: Iterable[str]) -> ConfigError:
    """The error for a name outside a registry: names the nearest valid one and lists all."""
    names = sorted(known)
    close = difflib.get_close_matches(received, names, n=1, cutoff=0.5)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return ConfigError(f"unknown {kind} '{received}'.{hint} Known: {', '.join(names)}.")
