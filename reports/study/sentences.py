"""Single sentences given to every test image, in the study's protocol: what its BLEU pays for looking at nothing."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.quality import score_captions
from bench.result import Quality
from bench.result_file import from_json
from models.datasets import Dataset
from models.datasets.base import Split
from models.errors import ArtifactError
from models.files import write_text_atomic

# Six digits of four of the study's runs.
FOUR_RUNS = "two dogs are running through the grass"
# More than the study's best printed headline.
ABOVE_THE_BEST = "man in black is standing on the street"
SENTENCES = (FOUR_RUNS, "man is standing on the street", ABOVE_THE_BEST, "the in is on with and of")


def score_sentences(references: Mapping[str, Sequence[str]]) -> dict[str, Quality]:
    """By sentence, what it scores as the caption of every image."""
    return {sentence: score_captions(dict.fromkeys(references, sentence), references) for sentence in SENTENCES}


def write_sentences(dataset: Dataset, path: Path) -> None:
    """Score the sentences on the test split and keep the scores."""
    references = {image.id: image.references for image in dataset.images(Split.TEST)}
    scores = {sentence: dataclasses.asdict(quality) for sentence, quality in score_sentences(references).items()}
    write_text_atomic(path, json.dumps(scores, indent=1) + "\n")


def read_sentences(path: Path) -> dict[str, Quality]:
    """What `write_sentences` kept. Raises ArtifactError when there is none."""
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtifactError(
            f"no scores of sentences at {path}: {error}. Score them: python -m reports.study --data DIR"
        ) from error
    return {sentence: from_json(Quality, quality) for sentence, quality in scores.items()}
