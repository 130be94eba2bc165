"""What stands around the rows of results.json: captioners, environment, examples, the constant caption."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.compression_record import Captioner, Compression
from bench.constant_caption import best_constant_caption
from bench.environment import describe_environment
from bench.published_pictures import write_pictures
from bench.result import ConstantCaption, Example, Result
from bench.result_file import from_json
from bench.setting import Environment
from convert.store import Entry
from models.datasets import CaptionedImage, Dataset, Split

EXAMPLES = 6
PACKAGES = (
    "tensorflow", "tf_keras", "tensorflow-model-optimization", "tf2onnx", "onnx", "onnxruntime", "ai-edge-litert",
    "numpy", "scipy", "pillow", "nltk", "pytest-benchmark",
)  # fmt: skip


def constant_caption(dataset: Dataset, references: Mapping[str, Sequence[str]]) -> ConstantCaption:
    """The best single training sentence given to every test image."""
    sentences = {text for image in dataset.images(Split.TRAIN) for text in image.references}
    return best_constant_caption(sorted(sentences), references)


def describe_captioner(entry: Entry, technique: str) -> Captioner:
    """What a trained captioner is, how its training went, and how it was compressed."""
    spec, card = entry.facts["spec"], entry.facts["card"]
    return Captioner(
        name=spec["name"],
        encoder=spec["encoder"],
        decoder=spec["decoder"],
        parameters=entry.facts["parameters"],
        vocabulary_size=card["vocabulary_size"],
        validation_cider=card["validation_cider"],
        epochs=card["epochs"],
        note=card["note"],
        technique=technique,
        compressions=tuple(from_json(Compression, dict(record)) for record in card.get("compressions", ())),
    )


def merge_environments(described: Mapping[str, dict[str, Any] | str]) -> Environment:
    """This machine, with the package versions of the build and of every runtime's environment.

    Where environments hold different versions of a package, all are listed.
    """
    environment = describe_environment(PACKAGES)
    held = [environment.packages, *(d["environment"]["packages"] for d in described.values() if not isinstance(d, str))]
    versions = {name: dict.fromkeys(packages[name] for packages in held if name in packages) for name in PACKAGES}
    return dataclasses.replace(environment, packages={name: ", ".join(v) for name, v in versions.items() if v})


def choose_examples(
    dataset: Dataset, test: Sequence[CaptionedImage], rows: Sequence[Result], out: Path
) -> tuple[Example, ...]:
    """The first test images, and then those whose captions differ between rows that have a quality."""
    captions = [row.captions for row in rows if row.captions and row.quality]
    differing = [i for i in test if len({c[i.id] for c in captions}) > 1]
    chosen = list(dict.fromkeys([*test[: EXAMPLES // 2], *differing, *test]))[:EXAMPLES]
    return tuple(_example(dataset, image, out) for image in chosen)


def _example(dataset: Dataset, image: CaptionedImage, out: Path) -> Example:
    if not dataset.may_publish_images:
        return Example(image.id, (), "")
    return Example(image.id, image.references, write_pictures(dataset, [image.id], out)[image.id])
