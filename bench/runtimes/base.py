"""The seam: what a runtime and a loaded graph look like to everything else."""

import importlib.metadata
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from convert.recipe import Format
from models.decoding import Tensors


class Session(Protocol):
    """A loaded graph; a context manager that frees it."""

    def run(self, feeds: Tensors) -> Tensors:
        """Named inputs -> named outputs (a state that is carried on keeps its name)."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Runtime(Protocol):
    """Something that loads an artifact's graphs. Constructing one is free and imports nothing heavy."""

    name: str
    package: str  # distribution whose version is the runtime's
    module: str  # what loading a graph imports
    formats: tuple[Format, ...]
    by_default: bool  # whether a suite that names no runtimes measures on this one

    def load(self, path: Path, *, threads: int) -> Session:
        """A ready session. Raises MissingPackageError where the environment lacks the package."""
        ...


class PlainSession:
    """The context-manager half of a session that the garbage collector frees."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


def runtime_version(runtime: Runtime) -> str:
    """The version of the runtime's package in this environment, "" where it is absent."""
    try:
        return importlib.metadata.version(runtime.package)
    except importlib.metadata.PackageNotFoundError:
        return ""
