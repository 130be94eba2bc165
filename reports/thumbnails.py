"""The pictures beside a results file as data addresses, small enough that a page can hold a thousand."""

import base64
import io
from pathlib import Path

from PIL import Image

from bench.result import Results

# Bytes that the pictures of a page may take, so that a page of a thousand stays under 15 MB.
BUDGET = 6_000_000
SMALL = 4096  # bytes up to which a file is taken as it is
# Longest side in pixels and JPEG quality, the best first; a page shows 160 pixels, which phones draw with 320.
_SIZES = ((320, 75), (160, 65))
_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


def read_thumbnails(results: Results, folder: Path) -> dict[str, str]:
    """By image id, of the pictures that results name and that are there; one that can't be read is left out."""
    examples = {example.image: example.picture for example in results.examples if example.picture}
    paths = {**examples, **results.pictures}
    limit = BUDGET // max(1, len(paths))
    found = {image: _thumbnail(folder / path, limit) for image, path in paths.items()}
    return {image: address for image, address in found.items() if address}


def _thumbnail(path: Path, limit: int) -> str:
    """The data address of a picture of about `limit` bytes at most, "" where it can't be read."""
    try:
        content = path.read_bytes()
        if len(content) > SMALL or path.suffix.lower() not in _TYPES:
            return _address(_shrunk(content, limit), "image/jpeg")
    except (OSError, ValueError):
        return ""
    return _address(content, _TYPES[path.suffix.lower()])


def _shrunk(content: bytes, limit: int) -> bytes:
    """The picture as JPEG: the largest of `_SIZES` that keeps to `limit`, else the smallest."""
    with Image.open(io.BytesIO(content)) as image:
        small = image.convert("RGB")
    for side, quality in _SIZES:
        small.thumbnail((side, side))
        file = io.BytesIO()
        small.save(file, "JPEG", quality=quality)
        if file.tell() <= limit:
            break
    return file.getvalue()


def _address(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
