"""Images that `captionbench tune` judges on: how many, what artifacts say of them, and their CIDEr image by image."""

import dataclasses
import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.captioning import caption_all, load_sessions
from bench.cider import PreparedReferences, cider_scores, prepare_references
from bench.quality import split_references
from bench.runtimes import Runtime, runtime_version
from bench.statistics import FloatArray, bootstrap_ci95
from convert.artifact import Artifact
from convert.store import Store
from models.datasets import CaptionedImage, Dataset, Split
from models.datasets.scenes import SceneDataset
from models.decoding import Search
from models.errors import ConfigError
from models.files import content_key, write_text_atomic
from models.progress import track

# Below this a bootstrap over images says nothing.
MINIMUM_IMAGES = 20
# Images that tell how widely CIDEr scatters before the number of images is chosen.
PILOT_IMAGES = 400
# Scenes are drawn, so there are as many as one has time for.
MOST_DRAWN_IMAGES = 4000
# The half width of the 95 % interval that the chosen number of images should reach, as a share of the allowed drop.
WANTED_HALF_WIDTH = 0.5
# Raised when a change makes the same artifact say something else of the same image.
CAPTION_VERSION = 1


def images_of(dataset: Dataset, split: Split, count: int) -> tuple[Dataset, Sequence[CaptionedImage]]:
    """The first `count` images of a split and the data set that reads them; 0 for as many as there are.

    More scenes are drawn than the suite has, because image i is the same however many are asked for. Raises ConfigError
    for fewer than MINIMUM_IMAGES.
    """
    if isinstance(dataset, SceneDataset):
        place = list(Split).index(split)
        counts = list(dataset.counts)
        counts[place] = max(counts[place], count or MOST_DRAWN_IMAGES)
        dataset = dataclasses.replace(dataset, counts=(counts[0], counts[1], counts[2]))
    images = dataset.images(split)
    images = images[: count or len(images)]
    if len(images) < MINIMUM_IMAGES:
        raise ConfigError(
            f"an interval of CIDEr needs at least {MINIMUM_IMAGES} {split} images; {dataset.name} gives "
            f"{len(images)}. Give --images a larger number, or the data set more {split} images."
        )
    return dataset, images


def images_needed(pilot_half_width: float, allowed: float, available: int) -> int:
    """How many images narrow a 95 % interval to WANTED_HALF_WIDTH of the allowed drop, both in CIDEr.

    A half width shrinks with the square root of the number of images. At least the pilot's, in hundreds.
    """
    wanted = WANTED_HALF_WIDTH * allowed
    times = (pilot_half_width / wanted) ** 2 if wanted > 0 else math.inf
    if PILOT_IMAGES * times > available:
        return available
    return min(available, max(PILOT_IMAGES, math.ceil(PILOT_IMAGES * times / 100) * 100))


@dataclasses.dataclass(frozen=True)
class Examination:
    """Some images on one runtime. What an artifact says is kept in the store, by block of images."""

    store: Store
    runtime: Runtime
    dataset: Dataset
    fingerprint: str  # of the suite's data set, which does not change when more scenes are drawn
    images: Sequence[CaptionedImage]

    def captions(self, artifact: Artifact) -> dict[str, str]:
        """Greedy captions by image id, one image at a time as a device would."""
        said: dict[str, str] = {}
        for block in (self.images[:PILOT_IMAGES], self.images[PILOT_IMAGES:]):
            if block:
                said |= self._caption_block(artifact, block)
        return said

    def scores(self, captions: Mapping[str, str]) -> FloatArray:
        """CIDEr-D (0..10) of each caption."""
        return cider_scores(
            {image: words for image, (words,) in split_references({k: [v] for k, v in captions.items()}).items()},
            self._references,
        )

    @functools.cached_property
    def _references(self) -> PreparedReferences:
        return prepare_references(split_references({image.id: image.references for image in self.images}))

    def _caption_block(self, artifact: Artifact, images: Sequence[CaptionedImage]) -> dict[str, str]:
        ids = [image.id for image in images]
        version = runtime_version(self.runtime)
        key = content_key("tune", CAPTION_VERSION, artifact.sha256, self.runtime.name, version, self.fingerprint, ids)

        def make(folder: Path) -> dict[str, Any]:
            write_text_atomic(folder / "captions.json", json.dumps(dict(self._say(artifact, ids)), ensure_ascii=False))
            return {"recipe": artifact.recipe.name, "runtime": self.runtime.name, "images": len(ids)}

        entry = self.store.build("captions", key, f"captions of {artifact.recipe.name}", make)
        captions: dict[str, str] = json.loads((entry.path / "captions.json").read_text(encoding="utf-8"))
        return captions

    def _say(self, artifact: Artifact, ids: Sequence[str]) -> Iterator[tuple[str, str]]:
        encoded = ((name, self.dataset.read(name)) for name in track(ids, f"captioning {artifact.recipe.name}"))
        # One thread: two sessions that wait for each other's threads are slower on graphs as small as a step.
        with load_sessions(artifact, self.runtime, threads=1) as loaded:
            for name, found in caption_all(loaded, encoded, [Search.GREEDY]):
                yield name, loaded.sentence(found[Search.GREEDY])


def paired_ci95(scores: FloatArray, reference: FloatArray, *, resamples: int = 1000) -> tuple[float, float]:
    """95 % interval of the mean of `scores - reference`, both by image; as `bench.quality.paired_difference_ci95`."""
    differences = scores - reference
    return bootstrap_ci95(
        differences[:, None], lambda sums: sums[:, 0] / len(differences), seed=2012, resamples=resamples
    )
