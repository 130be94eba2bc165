"""Arrays of all images of a split, computed once and cached: pixels, or the features of a frozen encoder.

The cache is one float16 .npy file that is read as a memory map, so that memory stays constant; a
killed run goes on where it stopped.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.datasets.base import Dataset
from models.files import write_text_atomic
from models.preprocessing import Preprocessing, preprocess
from models.progress import track

BATCH = 32


def cached_features(
    path: Path,
    dataset: Dataset,
    images: Sequence[str],
    preprocessing: Preprocessing,
    encode: Callable[[NDArray[np.float32]], NDArray[Any]],
) -> NDArray[np.float16]:
    """`encode(pixels)` of each image, float16 (images, ...), as a read-only memory map of `path`."""
    if not path.is_file():
        _compute(path, dataset, images, preprocessing, encode)
    features: NDArray[np.float16] = np.load(path, mmap_mode="r")
    return features


def _compute(
    path: Path,
    dataset: Dataset,
    images: Sequence[str],
    preprocessing: Preprocessing,
    encode: Callable[[NDArray[np.float32]], NDArray[Any]],
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, progress = path.with_suffix(".partial.npy"), path.with_suffix(".progress.json")
    done = _images_done(partial, progress)
    array = np.load(partial, mmap_mode="r+") if done else None
    for start in track(range(done, len(images), BATCH), f"features of {len(images)} images"):
        names = images[start : start + BATCH]
        values = encode(np.stack([preprocess(dataset.read(n), preprocessing, name=n) for n in names]))
        if array is None:
            shape = (len(images), *values.shape[1:])
            array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=shape)
        array[start : start + len(names)] = values
        if start // BATCH % 16 == 15:
            array.flush()
            write_text_atomic(progress, json.dumps(start + len(names)))
    assert array is not None, "a data set has images"
    array.flush()
    partial.replace(path)
    progress.unlink(missing_ok=True)


def _images_done(partial: Path, progress: Path) -> int:
    """How many leading images of an interrupted run are safely on disk."""
    if not (partial.is_file() and progress.is_file()):
        return 0
    return int(json.loads(progress.read_text(encoding="utf-8")))
