"""How much disk an installed package takes, with everything that it needs."""

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

# pytest needs it, and every environment that measures has pytest.
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from models.errors import MissingPackageError

# Bytecode is left out: some installers write it, others leave that to the first import.
_BYTECODE = ".pyc"


def installed_bytes(package: str) -> int:
    """Bytes of all files of a package and of what it requires here, each file once, bytecode left out.

    Raises MissingPackageError where the package is absent, or one of them does not list its files.
    """
    files = {path.resolve() for name in required_packages(package) for path in _files(name)}
    return sum(path.stat().st_size for path in files if path.is_file())


def required_packages(package: str) -> list[str]:
    """Normalised names of a package and of what it requires, directly or not, as far as that is installed.

    A requirement's markers are evaluated for this environment; extras count only where a requirement asks for them
    (PEP 508). Raises MissingPackageError where the package itself is absent.
    """
    wanted = [(package, "")]
    visited: set[tuple[str, str]] = set()
    found: dict[str, None] = {}
    while wanted:
        name, extra = wanted.pop()
        key = (canonicalize_name(name), extra)
        if key in visited:
            continue
        visited.add(key)
        try:
            requirements = metadata.requires(name) or ()
        except metadata.PackageNotFoundError:
            continue  # takes no disk
        found[key[0]] = None
        wanted += [pair for text in requirements for pair in _wanted(Requirement(text), extra)]
    if canonicalize_name(package) not in found:
        raise MissingPackageError(f"{package} is not installed here: pip install {package}.")
    return sorted(found)


def _wanted(requirement: Requirement, extra: str) -> Iterator[tuple[str, str]]:
    """What a requirement asks for, as (name, extra), of a package that was itself asked for with `extra`."""
    if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
        yield requirement.name, ""
        yield from ((requirement.name, wanted) for wanted in requirement.extras)


def _files(name: str) -> Iterator[Path]:
    files = metadata.files(name)
    if files is None:
        raise MissingPackageError(f"{name} has no list of its files (RECORD), so its size is unknown: pip install it.")
    return (Path(str(file.locate())) for file in files if file.suffix != _BYTECODE)
