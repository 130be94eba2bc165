"""Results <-> `results.json`, the only truth a report is made from; strict in what it reads."""

import dataclasses
import json
import re
import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from bench.result import READABLE_VERSIONS, Results
from models.errors import ArtifactError
from models.files import write_text_atomic


def write_results(results: Results, path: Path) -> None:
    """Write the file whole or not at all.

    A caption that is also the baseline's is left out and put back by `read_results`; lists of numbers stand on
    one line. Both keep a file of 1000 images small enough to commit.
    """
    table = dataclasses.asdict(results)
    shared = _baseline_captions(table)
    for row in table["rows"]:
        if row["captions"] is not shared:
            row["captions"] = {i: text for i, text in row["captions"].items() if shared.get(i) != text}
    text = json.dumps(table, indent=1, ensure_ascii=False)
    text = re.sub(r"\[[\s\d.,eE+-]*\]", lambda numbers: re.sub(r"\s+", "", numbers[0]), text)
    write_text_atomic(path, text + "\n")


def _baseline_captions(table: Mapping[str, Any]) -> dict[str, str]:
    """The baseline row's captions by image; empty where it has none."""
    for row in table["rows"]:
        if f"{row['recipe']} @ {row['runtime']}" == table["baseline"]:
            captions: dict[str, str] = row["captions"]
            return captions
    return {}


def read_results(path: Path) -> Results:
    """Read and validate. Raises ArtifactError when missing, malformed or of another version."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"no results at {path}; run `captionbench bench` first.") from None
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} is not a results file: {error}") from error
    version = table.get("format_version") if isinstance(table, dict) else None
    if version not in READABLE_VERSIONS:
        known = ", ".join(map(str, READABLE_VERSIONS))
        raise ArtifactError(f"{path} has results format {version!r}; this version reads {known}. Run the suite again.")
    try:
        shared = _baseline_captions(table)
        for row in table["rows"]:
            row["captions"] = shared | row["captions"] if row.get("quality") else row.get("captions", {})
        return typing.cast(Results, from_json(Results, table))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ArtifactError(f"{path} does not match results format {version}: {error}") from error


def from_json(kind: Any, value: Any) -> Any:
    """Build `kind` (a dataclass, tuple, mapping, enum, optional or scalar) from parsed JSON."""
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
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(value) - set(hints))
    if unknown:
        raise ValueError(f"{kind.__name__} has no field {', '.join(unknown)}")
    return kind(**{name: from_json(hints[name], item) for name, item in value.items()})
