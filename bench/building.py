"""Trains, compresses and exports what a suite names and the store lacks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.job import DatasetReference
from bench.quality import cider_mean
from bench.suite import Suite
from convert.artifact import Artifact, load_artifact
from convert.build import ArtifactBuilder, train
from convert.compress import check_techniques, compress
from convert.machine import describe_defaults, machine_kind
from convert.recipe import Format, Recipe
from convert.scheme import INTEGER
from convert.store import Entry, Store
from models.datasets import Dataset
from models.errors import CaptionbenchError, CompressionError, ConversionError, TrainingError
from models.keras import release_memory
from models.progress import say


@dataclass(frozen=True)
class Built:
    """Captioners by name and technique, and artifacts; an artifact that could not be built is the error."""

    captioners: Mapping[tuple[str, str], Entry]
    artifacts: Mapping[Recipe, Artifact | CaptionbenchError]


def build_suite(suite: Suite, store: Store, dataset: Dataset) -> Built:
    """Train and export what the store lacks. A recipe that fails does not stop the others."""
    if any(_has_onnx_integers(recipe) for recipe in suite.recipes):
        say(describe_defaults(machine_kind()))
    dense = {spec.name: train(store, spec, dataset, cider_mean) for spec in suite.table.captioners}
    pairs = list(dict.fromkeys((recipe.captioner, recipe.technique) for recipe in suite.recipes))
    for name, entry in dense.items():
        chains = [technique for captioner, technique in pairs if captioner == name]
        check_techniques(store, entry, chains, dataset, cider_mean)
    captioners: dict[tuple[str, str], Entry] = {}
    artifacts: dict[Recipe, Artifact | CaptionbenchError] = {}
    for name, technique in pairs:
        recipes = [r for r in suite.recipes if (r.captioner, r.technique) == (name, technique)]
        try:
            entry = compress(store, dense[name], technique, dataset, cider_mean)
        except (CompressionError, TrainingError) as error:
            say(f"{name} {technique}: {error}")
            artifacts |= dict.fromkeys(recipes, error)
            continue
        captioners[name, technique] = entry
        with ArtifactBuilder(store, entry, dataset, suite.table.calibration) as builder:
            artifacts |= _build_recipes(builder, recipes)
        release_memory()
    new = sum(not entry.reused for entry in captioners.values())
    say(f"{new} of {len(captioners)} captioners trained or compressed now, {len(artifacts)} artifacts")
    return Built(captioners, artifacts)


def _has_onnx_integers(recipe: Recipe) -> bool:
    return recipe.format is Format.ONNX and not {recipe.encoder.precision, recipe.decoder.precision}.isdisjoint(INTEGER)


def _build_recipes(builder: ArtifactBuilder, recipes: Sequence[Recipe]) -> dict[Recipe, Artifact | CaptionbenchError]:
    """The artifacts of one captioner."""
    artifacts: dict[Recipe, Artifact | CaptionbenchError] = {}
    for recipe in recipes:
        try:
            artifacts[recipe] = load_artifact(builder.build(recipe).path)
        except ConversionError as error:
            say(f"{recipe.name}: {error}")
            artifacts[recipe] = error
    return artifacts


def open_suite_dataset(suite: Suite, data: Path | None) -> Dataset:
    """The data set of a suite. Raises DataError when it can't be had."""
    return dataset_reference(suite, data).open()


def dataset_reference(suite: Suite, data: Path | None) -> DatasetReference:
    """The data set of a suite, as a worker is told of it."""
    return DatasetReference(suite.table.dataset, str(data.absolute()) if data else "", suite.table.dataset_options)
