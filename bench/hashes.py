"""What a run was made of, as hashes: two runs can only be compared where these say that they can."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

from bench.suite import Suite
from models.files import content_digest

_ROOT = Path(__file__).parent.parent
# What makes artifacts and measures them. Reports are drawn from results.json and the command line only passes options
# on (the plan that came of them is in results.json), so neither can change a measurement.
CODE = ("models", "convert", "bench")


def run_hashes(suite: Suite, images: Sequence[str], fingerprint: str) -> dict[str, str]:
    """Hex SHA-256 of the code, of the suite as parsed, and of the images in order with their data set's fingerprint."""
    return {
        "code": code_hash(),
        "suite": content_digest(dataclasses.asdict(suite.table)),
        "images": content_digest(fingerprint, list(images)),
    }


def code_hash(root: Path = _ROOT) -> str:
    """Hex SHA-256 of the names and contents of the Python sources below `root`, whichever way lines end."""
    digest = hashlib.sha256()
    for name, path in sorted((p.relative_to(root).as_posix(), p) for part in CODE for p in (root / part).rglob("*.py")):
        content = path.read_bytes().replace(b"\r\n", b"\n")
        # Lengths keep what moves from one file to the next from giving the same bytes.
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
