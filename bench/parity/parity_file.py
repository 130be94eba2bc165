"""ParityRun <-> `parity.json`; strict in what it reads."""

import dataclasses
import json
from pathlib import Path

from bench.parity.record import ParityRun
from bench.result_file import compact_json, from_json
from models.errors import ArtifactError
from models.files import write_text_atomic

PARITY_FILE = "parity.json"
_AGAIN = "Run `captionbench parity` again."


def write_parity(run: ParityRun, path: Path) -> None:
    """Write the file whole or not at all."""
    write_text_atomic(path, compact_json(dataclasses.asdict(run)))


def read_parity(path: Path) -> ParityRun:
    """Read what `write_parity` wrote. Raises ArtifactError when missing, damaged, of another format or foreign."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"no parity results at {path}. {_AGAIN}") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is damaged: {error}. {_AGAIN}") from error
    version = table.get("format_version") if isinstance(table, dict) else None
    if version != ParityRun.__dataclass_fields__["format_version"].default:
        raise ArtifactError(f"{path} is not a parity.json of this version (format_version {version!r}). {_AGAIN}")
    try:
        run: ParityRun = from_json(ParityRun, table)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(f"{path} is damaged: {error}. {_AGAIN}") from error
    return run
