"""Pictures that a run leaves beside its results, where the licence of the data set lets them be shown."""

from collections.abc import Iterable
from pathlib import Path

from models.datasets import Dataset
from models.files import write_bytes_atomic


def write_pictures(dataset: Dataset, images: Iterable[str], out: Path) -> dict[str, str]:
    """Copy images into `out/images`; by image id, the path relative to `out`. Empty where none may be shown."""
    if not dataset.may_publish_images:
        return {}
    return {image: _write(dataset.read(image), image, out) for image in dict.fromkeys(images)}


def _write(encoded: bytes, image: str, out: Path) -> str:
    suffix = ".png" if encoded.startswith(b"\x89PNG") else ".jpg"
    name = f"images/{Path(image).stem}{suffix}"
    write_bytes_atomic(out / name, encoded)
    return name
