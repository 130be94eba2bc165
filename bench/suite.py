"""A suite: what to train, build and measure. Data (TOML), not code; parsed once, strictly."""

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from bench.runtimes import find_runtime, runtimes_for
from bench.setting import RunPlan
from convert.calibration import CalibrationPlan
from convert.recipe import Format, Graph, Recipe, expand_recipes
from models.compression.chain import NONE, canonical_technique
from models.datasets import DATASETS
from models.decoders import decoder_entry
from models.encoders import encoder_entry
from models.errors import ConfigError, unknown_name
from models.spec import CaptionerSpec

SUITES = Path(__file__).parent / "suites"


@dataclass(frozen=True)
class Cell:
    """One row to come: a recipe on a runtime."""

    recipe: Recipe
    runtime: str
    note: str = ""

    @property
    def name(self) -> str:
        """The slug of the row."""
        return f"{self.recipe.name} @ {self.runtime}"


@dataclass(frozen=True)
class BuildTable:
    """`[[builds]]`: every technique, format and precision, on every runtime (by default all that read the format)."""

    captioner: str
    formats: tuple[str, ...]
    precisions: tuple[str, ...]
    graph: str = Graph.STEP
    runtimes: tuple[str, ...] = ()
    techniques: tuple[str, ...] = (NONE,)
    quick: bool = True  # whether a quick run has these rows too
    note: str = ""  # about these rows, for the reader of the report


@dataclass(frozen=True)
class SuiteTable:
    """The TOML file as it is written."""

    title: str
    dataset: str
    captioners: tuple[CaptionerSpec, ...]
    builds: tuple[BuildTable, ...]
    baseline: str  # "RECIPE @ RUNTIME"
    test_images: int = 0  # 0 for all
    dataset_options: Mapping[str, Any] = field(default_factory=dict)
    plan: RunPlan = field(default_factory=RunPlan)
    calibration: CalibrationPlan = field(default_factory=CalibrationPlan)


@dataclass(frozen=True)
class Suite:
    """A parsed and validated suite."""

    name: str
    table: SuiteTable
    cells: tuple[Cell, ...]

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """What to build, each once, in the order of the cells."""
        return tuple(dict.fromkeys(cell.recipe for cell in self.cells))

    @property
    def sightless(self) -> frozenset[str]:
        """Captioners whose random encoder makes their captions worthless: their rows have no quality."""
        return frozenset(spec.name for spec in self.table.captioners if spec.sees_nothing)

    @property
    def baseline(self) -> Cell:
        """The row that speed-ups and parity refer to."""
        return next(cell for cell in self.cells if cell.name == self.table.baseline)


def quick_suite(suite: Suite) -> Suite:
    """The rows of a quick run."""
    builds = tuple(build for build in suite.table.builds if build.quick)
    return _validated(suite.name, dataclasses.replace(suite.table, builds=builds))


def suite_names() -> list[str]:
    """The suites that come with the project."""
    return sorted(path.stem for path in SUITES.glob("*.toml"))


def load_suite(name_or_path: str) -> Suite:
    """Read a suite by name, or from the path of a TOML file. Raises ConfigError with the key that is wrong."""
    path = Path(name_or_path)
    if path.suffix != ".toml":
        if name_or_path not in suite_names():
            raise unknown_name("suite", name_or_path, suite_names())
        path = SUITES / f"{name_or_path}.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"can't read suite {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error
    return _validated(path.stem, parse_table(SuiteTable, table, str(path)))


def _validated(name: str, table: SuiteTable) -> Suite:
    if table.dataset not in DATASETS:
        raise unknown_name("data set", table.dataset, DATASETS)
    for spec in table.captioners:
        encoder_entry(spec.encoder)
        decoder_entry(spec.decoder)
    captioners = [spec.name for spec in table.captioners]
    cells = tuple(cell for build in table.builds for cell in _cells(build, captioners))
    names = [cell.name for cell in cells]
    if table.baseline not in names:
        raise unknown_name(f"baseline in suite '{name}'", table.baseline, names)
    return Suite(name, table, tuple(dict.fromkeys(cells)))


def _cells(build: BuildTable, captioners: list[str]) -> list[Cell]:
    if build.captioner not in captioners:
        raise unknown_name("captioner", build.captioner, captioners)
    for runtime in build.runtimes:
        find_runtime(runtime)
    return [
        Cell(recipe, runtime, build.note)
        for recipe in expand_recipes(
            build.captioner, build.formats, build.precisions, build.graph, map(canonical_technique, build.techniques)
        )
        for runtime in build.runtimes or runtimes_for(Format(recipe.format))
        if recipe.format in find_runtime(runtime).formats
    ]


def parse_table(kind: Any, table: Any, where: str) -> Any:
    """A TOML value as `kind`: a dataclass, tuple, mapping, enum or scalar. Raises ConfigError naming the key."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(kind, table, where)
    if origin is tuple:
        if not isinstance(table, list):
            raise ConfigError(f"{where} must be a list; received {table!r}.")
        return tuple(parse_table(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(table))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        if table not in set(kind):
            raise unknown_name(f"value of {where}", str(table), kind)
        return kind(table)
    expected = Mapping if origin is not None else kind
    if kind is float and isinstance(table, int) and not isinstance(table, bool):
        return float(table)
    if not isinstance(table, expected) or isinstance(table, bool) != (kind is bool):
        raise ConfigError(f"{where} must be {_type_name(expected)}; received {table!r}.")
    return table


def _parse_dataclass(kind: Any, table: Any, where: str) -> Any:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} must be a table; received {table!r}.")
    hints = typing.get_type_hints(kind)
    for key in table:
        if key not in hints:
            close = difflib.get_close_matches(key, hints, n=1, cutoff=0.5)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise ConfigError(f"{where}: unknown key '{key}'.{hint} Known: {', '.join(sorted(hints))}.")
    required = [f.name for f in dataclasses.fields(kind) if _is_required(f) and f.name not in table]
    if required:
        raise ConfigError(f"{where}: missing {', '.join(required)}.")
    return kind(**{key: parse_table(hints[key], value, f"{where}: {key}") for key, value in table.items()})


def _is_required(declared: dataclasses.Field[Any]) -> bool:
    return declared.default is dataclasses.MISSING and declared.default_factory is dataclasses.MISSING


def _type_name(kind: Any) -> str:
    names = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
    return names.get(kind, "a table") if not isinstance(kind, types.GenericAlias) else "a table"
