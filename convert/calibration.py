"""Feeds for static quantization: tensors that the graphs really see, from training images only.

Images are read again at each pass and never kept, so memory does not grow with their number.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.artifact import ENCODER
from models.captioner import Captioner, encoder_graph, initial_inputs
from models.datasets.base import CaptionedImage, Dataset, Split
from models.errors import ConfigError, UnsupportedError
from models.keras import tensorflow
from models.preprocessing import Preprocessing, preprocess
from models.vocabulary import END, START

Feed = dict[str, NDArray[Any]]

CALIBRATION_IMAGES = 64
# Step feeds are drawn from all steps of all captions; more than this changes ranges little.
CALIBRATION_STEPS = 256


@dataclass(frozen=True)
class CalibrationPlan:
    """Which images calibrate: the first training images, or those named."""

    images: int = CALIBRATION_IMAGES
    ids: tuple[str, ...] = ()

    def choose(self, dataset: Dataset) -> Sequence[CaptionedImage]:
        """The images. Raises ConfigError when one is not a training image of the data set, or when there are none."""
        training = dataset.images(Split.TRAIN)
        if not self.ids:
            if self.images < 1:
                raise ConfigError(f"calibration needs at least one image; received {self.images}.")
            return training[: self.images]
        by_id = {image.id: image for image in training}
        for name in self.ids:
            if name not in by_id:
                raise ConfigError(
                    f"calibration image '{name}' is {_elsewhere(name, dataset)} of {dataset.name}: ranges may only "
                    "come from training images, or the scores would be of images that were seen. Remove it."
                )
        return [by_id[name] for name in self.ids]


def _elsewhere(name: str, dataset: Dataset) -> str:
    for split in Split:
        if any(image.id == name for image in dataset.images(split)):
            return f"a {split} image"
    return "no image"


@dataclass(frozen=True)
class ImageFeeds:
    """The encoder's feeds, one image each; read anew by every iteration. Raises ImageError for a broken image."""

    dataset: Dataset
    contract: Preprocessing
    images: Sequence[CaptionedImage]

    def __iter__(self) -> Iterator[Feed]:
        for image in self.images:
            yield {"image": preprocess(self.dataset.read(image.id), self.contract, name=image.id)[None]}


@dataclass(frozen=True)
class Calibration:
    """Feeds by graph name; each has a batch of one, and can be iterated again."""

    by_graph: Mapping[str, Iterable[Feed]] = field(default_factory=dict)

    def feeds(self, graph: str) -> Iterator[Feed]:
        """The feeds of one graph. Raises UnsupportedError for a graph that is never calibrated."""
        if graph not in self.by_graph:
            raise UnsupportedError(
                f"static ranges of the graph '{graph}' are not recorded, only those of {', '.join(self.by_graph)}: "
                "the graph 'step' gives the same captions and can be quantized"
            )
        return iter(self.by_graph[graph])


def record_calibration(
    captioner: Captioner, dataset: Dataset, plan: CalibrationPlan | None = None, *, steps: int = CALIBRATION_STEPS
) -> Calibration:
    """Caption the chosen training images and keep what enters the step; the encoder's feeds are read when needed."""
    images = ImageFeeds(dataset, captioner.preprocessing, (plan or CalibrationPlan()).choose(dataset))
    encode = tensorflow().function(encoder_graph(captioner))

    def all_steps() -> Iterator[Feed]:
        for feed in images:
            prepared = {name: value.numpy() for name, value in encode(feed["image"], training=False).items()}
            yield from _greedy_steps(captioner, prepared)

    return Calibration({ENCODER: images, "step": _sample(all_steps(), steps)})


def _sample(feeds: Iterable[Feed], size: int) -> list[Feed]:
    """`size` of the feeds, each as likely as another, in one pass (Vitter's algorithm R, 1985; fixed seed)."""
    random = np.random.default_rng(0)
    kept: list[Feed] = []
    for seen, feed in enumerate(feeds):
        if seen < size:
            kept.append(feed)
        elif (place := int(random.integers(seen + 1))) < size:
            kept[place] = feed
    return kept


def _greedy_steps(captioner: Captioner, prepared: Feed) -> Iterator[Feed]:
    """The feeds of every step of one greedy caption."""
    feed = dict(initial_inputs(prepared, captioner.config.units))
    token = np.array([START], np.int32)
    for _ in range(captioner.max_length):
        taken = {**feed, "token": token}
        yield taken
        outputs = {k: v.numpy() for k, v in captioner.decoder.step(taken, training=False).items()}
        token = outputs.pop("logits").argmax(axis=1).astype(np.int32)
        feed |= outputs
        if token[0] == END:
            return
