"""Feeds for static quantization: tensors that the graphs really see, from training images only."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.artifact import ENCODER
from models.captioner import Captioner, encoder_graph, initial_inputs
from models.datasets.base import Dataset, Split
from models.keras import tensorflow
from models.preprocessing import preprocess
from models.vocabulary import END, START

Feed = dict[str, NDArray[Any]]

CALIBRATION_IMAGES = 64
# Step feeds are drawn from all steps of all captions; more than this changes ranges little.
CALIBRATION_STEPS = 256


@dataclass(frozen=True)
class Calibration:
    """Feeds by graph name; each has a batch of one."""

    by_graph: Mapping[str, list[Feed]]

    def feeds(self, graph: str) -> Iterator[Feed]:
        """The feeds of one graph."""
        return iter(self.by_graph[graph])


def record_calibration(captioner: Captioner, dataset: Dataset, *, images: int = CALIBRATION_IMAGES) -> Calibration:
    """Run the captioner on the first training images and keep what enters encoder and step."""
    contract = captioner.preprocessing
    chosen = dataset.images(Split.TRAIN)[:images]
    pixels = [preprocess(dataset.read(image.id), contract, name=image.id)[None] for image in chosen]
    encode = tensorflow().function(encoder_graph(captioner))
    steps: list[Feed] = []
    for batch in pixels:
        prepared = {name: value.numpy() for name, value in encode(batch, training=False).items()}
        steps += _greedy_steps(captioner, prepared)
    keep = np.random.default_rng(0).permutation(len(steps))[:CALIBRATION_STEPS]
    return Calibration({ENCODER: [{"image": p} for p in pixels], "step": [steps[i] for i in keep]})


def _greedy_steps(captioner: Captioner, prepared: Feed) -> list[Feed]:
    """The feeds of every step of one greedy caption."""
    feed = dict(initial_inputs(prepared, captioner.config.units))
    token = np.array([START], np.int32)
    feeds: list[Feed] = []
    for _ in range(captioner.max_length):
        feeds.append({**feed, "token": token})
        outputs = {k: v.numpy() for k, v in captioner.decoder.step(feeds[-1], training=False).items()}
        token = outputs.pop("logits").argmax(axis=1).astype(np.int32)
        feed |= outputs
        if token[0] == END:
            break
    return feeds
