"""Scenes drawn with Pillow from a grammar: the embedded data set, nothing to download.

Image `index` of a split depends on (seed, split, index) alone, so it is the same in every process and
on every platform, however many images are asked for; pictures are drawn when they are read.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random

from models.datasets.base import CaptionedImage, Split
from models.datasets.drawing import draw_scene
from models.datasets.grammar import GRAMMAR_VERSION, Scene, compose_scene, write_references
from models.errors import ConfigError, ImageError
from models.files import content_key

# Below 32 pixels a small star is a blot; above 1024 drawing is no longer a matter of a millisecond.
SIZE_RANGE = (32, 1024)


@dataclass(frozen=True)
class SceneDataset:
    """Drawn scenes; `counts` are the images of train, validation and test."""

    counts: tuple[int, int, int]
    size: int
    seed: int
    name: str = "scenes"
    may_publish_images: bool = True

    @property
    def fingerprint(self) -> str:
        """Hash of the options and of GRAMMAR_VERSION."""
        return content_key(self.name, GRAMMAR_VERSION, self.counts, self.size, self.seed)

    def images(self, split: Split) -> Sequence[CaptionedImage]:
        """Captioned scenes, in the order of their index."""
        return _describe(self, split)

    def read(self, image_id: str) -> bytes:
        """A PNG of size x size pixels. Raises ImageError for an id that is not of this data set."""
        split, index = self._locate(image_id)
        rng, scene = _scene(self.seed, split, index)
        file = io.BytesIO()
        draw_scene(rng, scene, self.size).save(file, "PNG", compress_level=1)
        return file.getvalue()

    def count(self, split: Split) -> int:
        """How many images a split has."""
        return self.counts[list(Split).index(split)]

    def _locate(self, image_id: str) -> tuple[Split, int]:
        split, _, digits = image_id.removesuffix(".png").rpartition("-")
        if split in list(Split) and digits.isdecimal() and int(digits) < self.count(Split(split)):
            return Split(split), int(digits)
        raise ImageError(f"no scene '{image_id}'. Ids look like 'test-00000.png'; images() lists them.")


def open_scenes(
    data: Path | None,
    *,
    train: int = 4000,
    validation: int = 200,
    test: int = 200,
    size: int = 64,
    seed: int = 2012,
) -> SceneDataset:
    """The drawn data set. Raises ConfigError for a directory (there is none) or impossible numbers."""
    if data is not None:
        raise ConfigError(f"data set 'scenes' is drawn, not read; received --data {data}. Leave it out.")
    if not SIZE_RANGE[0] <= size <= SIZE_RANGE[1]:
        raise ConfigError(f"scenes are {SIZE_RANGE[0]} to {SIZE_RANGE[1]} pixels wide; received size={size}.")
    if min(train, validation, test) < 0:
        raise ConfigError(
            f"a split has 0 images or more; received train={train}, validation={validation}, test={test}."
        )
    return SceneDataset((train, validation, test), size, seed)


@lru_cache(maxsize=12)
def _describe(dataset: SceneDataset, split: Split) -> tuple[CaptionedImage, ...]:
    described = []
    for index in range(dataset.count(split)):
        rng, scene = _scene(dataset.seed, split, index)
        described.append(CaptionedImage(f"{split}-{index:05}.png", write_references(rng, scene)))
    return tuple(described)


def _scene(seed: int, split: Split, index: int) -> tuple[Random, Scene]:
    # A string seeds through SHA-512, which does not depend on PYTHONHASHSEED.
    rng = Random(f"scenes {GRAMMAR_VERSION} {seed} {split} {index}")
    return rng, compose_scene(rng, split)
