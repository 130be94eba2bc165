"""Results <-> `results.json`, the only truth a report is made from; strict in what it reads."""

import dataclasses
import functools
import json
import re
import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from bench.caption_storage import pack_captions, unpack_captions, unpack_changes, unpack_from_baseline
from bench.result import FORMAT_VERSION, READABLE_VERSIONS, Results
from models.errors import ArtifactError
from models.files import write_text_atomic

RESULTS_FILE = "results.json"
_CUT_OFF = "it is cut off at its end. Copy it again, or run the suite again."
_P90_SAMPLES = 64  # without which a 90th percentile is an anecdote

# A file with two of these was meant as results, whatever else is wrong with it.
_OWN_KEYS = frozenset({"suite", "rows", "run_plan", "environment", "captioners"})
# What other JSON files have at their top, and what they are.
_FOREIGN: tuple[tuple[frozenset[str], str], ...] = (
    (
        frozenset({"benchmarks", "machine_info"}),
        "times of pytest-benchmark, which `pytest-benchmark compare` reads; give the results.json beside it",
    ),
    (frozenset({"benchmarks", "metadata"}), "times of pyperf"),
    (frozenset({"changes", "exit_status"}), "what `captionbench compare --json` printed; give the runs it compared"),
    (frozenset({"gate", "trials"}), "a tuning.json of `captionbench tune`"),
    (frozenset({"facts", "files"}), "the manifest of an artifact; give the results of a run that measured it"),
    (frozenset({"name", "dependencies"}), "a package.json of Node"),
    (frozenset({"name", "devDependencies"}), "a package.json of Node"),
    (frozenset({"name", "scripts"}), "a package.json of Node"),
)


def write_results(results: Results, path: Path) -> None:
    """Write the file whole or not at all; captions as `caption_storage` packs them."""
    table = dataclasses.asdict(results)
    pack_captions(table)
    write_text_atomic(path, compact_json(table))


def compact_json(table: Any) -> str:
    """JSON of a value a line, without indents, in which a list of numbers stands on one line: compared line by line."""
    text = json.dumps(table, indent=0, ensure_ascii=False)
    return re.sub(r"\[[\s\d.,eE+-]*\]", lambda numbers: re.sub(r"\s+", "", numbers[0]), text) + "\n"


def results_path(path: Path) -> Path:
    """The results file that a path means: itself, or the one in that folder."""
    return path / RESULTS_FILE if path.is_dir() else path


def read_results(path: Path) -> Results:
    """Read and validate; formats 1 and 2 are brought to this one.

    Raises ArtifactError when missing, damaged, of a newer format or something else than results.
    """
    table = _results_table(path, _parse(path))
    version = table["format_version"]
    try:
        _upgrade(table)
        return typing.cast(Results, from_json(Results, table))
    except KeyError as error:
        raise ArtifactError(f"{path} does not match results format {version}: it lacks {error}.") from error
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise ArtifactError(f"{path} does not match results format {version}: {error}") from error


def _parse(path: Path) -> Any:
    """The JSON of a file. Raises ArtifactError that says whether it is missing, empty, cut off or no JSON at all."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ArtifactError(f"no results at {path}; run `captionbench bench` first.") from None
    except (OSError, UnicodeDecodeError) as error:
        cut_off = isinstance(error, UnicodeDecodeError) and error.end == len(error.object)
        raise ArtifactError(f"{path} is not a results file: {_CUT_OFF if cut_off else error}") from error
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ArtifactError(f"{path} is not a results file: {_damage(text, error)}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise ArtifactError(f"{path} is not a results file: {error}") from error


def _damage(text: str, error: json.JSONDecodeError) -> str:
    if not text.strip():
        return "it is empty. Run the suite again."
    # Within a string, before what must follow, or within a number or a word, of which the last piece is left.
    if error.msg.startswith("Unterminated string") or re.fullmatch(r"[\w.+-]*\s*", text[error.pos :]):
        return _CUT_OFF
    return f"it is not JSON ({error}). Copy it again, or run the suite again."


def _results_table(path: Path, table: Any) -> dict[str, Any]:
    """The table of a results file of a known format. Raises ArtifactError that says what the file is instead."""
    if not isinstance(table, dict) or len(_OWN_KEYS & set(table)) < 2:
        raise ArtifactError(
            f"{path} is not a results file: it seems to be {_looks_like(table)}. "
            f"Give a {RESULTS_FILE} that `captionbench bench` wrote, or its folder."
        )
    version, known = table.get("format_version"), ", ".join(map(str, READABLE_VERSIONS))
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ArtifactError(
            f"{path} has results format {version}, of a newer captionbench; this one reads {known}. "
            "Update captionbench, or run the suite again with this one."
        )
    if version not in READABLE_VERSIONS:
        raise ArtifactError(f"{path} has results format {version!r}; this version reads {known}. Run the suite again.")
    return table


def _looks_like(table: Any) -> str:
    if not isinstance(table, dict):
        names = {list: "a JSON list", str: "a JSON string", type(None): "a JSON null"}
        return names.get(type(table), "a JSON number or truth value")
    for keys, name in _FOREIGN:
        if keys <= set(table):
            return name
    shown = ", ".join(f"'{key}'" for key in list(table)[:4])
    return f"a JSON object with {shown}" if shown else "an empty JSON object"


def _upgrade(table: dict[str, Any]) -> None:
    """Bring the table of an older format to this one, in place.

    From 1 to 2 and from 2 to 3 fields were added, and what is not known of them keeps its default. One was replaced
    in 3: the 90th percentile, which stood beside any number of samples and had no interval. Which sample belongs to
    which round was not kept before 3 and can't be found again: such samples count as one round. Before 6 captions were
    kept as what differs from the baseline's, before 7 with every id and sentence written out.
    """
    _unpack(table)
    if table["format_version"] < 3:
        for row in table["rows"]:
            for latency in row.get("latency_seconds", {}).values():
                p90 = latency.pop("p90")
                if latency["n"] >= _P90_SAMPLES:
                    latency["percentiles"] = {"p90": {"seconds": p90, "ci95": None}}
    table["format_version"] = FORMAT_VERSION


def _unpack(table: dict[str, Any]) -> None:
    """The captions of a file of any format."""
    version = table["format_version"]
    unpack = unpack_captions if version >= 7 else unpack_changes if version == 6 else unpack_from_baseline
    unpack(table)


def from_json(kind: Any, value: Any) -> Any:
    """Build `kind` (a dataclass, tuple, mapping, enum, optional or scalar) from parsed JSON."""
    if type(value) is kind:  # most of a file: numbers and captions
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else from_json(inner, value)
    if dataclasses.is_dataclass(kind):
        return _dataclass_from_json(kind, value)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"expected a list; received {value!r}")
        item_kinds = [arguments[0]] * len(value) if arguments[-1] is ... else arguments
        return tuple(from_json(k, v) for k, v in zip(item_kinds, value, strict=True))
    if origin is not None and issubclass(origin, Mapping):
        return {from_json(arguments[0], k): from_json(arguments[1], v) for k, v in value.items()}
    return value if kind is Any else _scalar_from_json(kind, value)


def _scalar_from_json(kind: Any, value: Any) -> Any:
    """A string, number or boolean of exactly that type (a whole number may stand for a float), or an enum."""
    if issubclass(kind, StrEnum):
        return kind(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"expected {kind.__name__}; received {value!r}")
    return value


def _dataclass_from_json(kind: Any, value: Mapping[str, Any]) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected {kind.__name__} as an object; received {value!r:.60}")
    hints = _type_hints(kind)
    unknown = sorted(set(value) - set(hints))
    if unknown:
        raise ValueError(f"{kind.__name__} has no field {', '.join(unknown)}")
    missing = [field.name for field in dataclasses.fields(kind) if _is_required(field) and field.name not in value]
    if missing:
        raise ValueError(f"{kind.__name__} lacks {', '.join(missing)}")
    return kind(**{name: from_json(hints[name], item) for name, item in value.items()})


@functools.cache
def _type_hints(kind: Any) -> Mapping[str, Any]:
    return typing.get_type_hints(kind)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
