"""Captioned images: the registry of data sets.

A new data set costs one module and one line in `DATASETS`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from models.datasets.base import CaptionedImage, Dataset, Split
from models.datasets.flickr8k import open_flickr8k
from models.datasets.folder import open_folder
from models.datasets.scenes import open_scenes
from models.errors import ConfigError, unknown_name

__all__ = ["DATASETS", "CaptionedImage", "Dataset", "Split", "open_dataset"]

# Each opener takes the `--data` directory (or None) and the suite's keyword options.
DATASETS: dict[str, Callable[..., Dataset]] = {
    "scenes": open_scenes,
    "flickr8k": open_flickr8k,
    "folder": open_folder,
}


def open_dataset(name: str, data: Path | None, options: Mapping[str, Any]) -> Dataset:
    """Open a registered data set. Raises ConfigError for a name or option it does not have."""
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
    try:
        return DATASETS[name](data, **options)
    except TypeError as error:
        raise ConfigError(f"data set '{name}' does not take these options: {dict(options)}. {error}") from error
