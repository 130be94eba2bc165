"""Builds what a suite asks for, through the store: trained captioners and artifacts, each once."""

import dataclasses
import functools
import importlib.metadata
import itertools
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from convert.artifact import ENCODER, Contract, artifact_facts
from convert.calibration import Calibration, CalibrationPlan, record_calibration
from convert.coverage import coverage_of, weights_int8
from convert.exporters import EXPORTERS, ROUTES
from convert.fused import GreedyLoop, fuse
from convert.fused_tensorflow import fused_graph
from convert.graphs import GraphFunction, deployable_graphs, graph_fingerprint
from convert.layers import check_layers
from convert.machine import machine_kind, slow_choice
from convert.recipe import Format, Graph, Recipe
from convert.saturation import overflow_risk, saturation_of
from convert.scheme import INTEGER, STATIC, Precision, Scheme
from convert.store import Entry, Store
from models.captioner import Captioner, captioner_files, load_captioner, read_captioner_table, save_captioner
from models.datasets.base import Dataset
from models.encoders import encoder_entry
from models.files import content_key, sha256_of, write_bytes_atomic
from models.fitting import Score
from models.progress import say
from models.spec import CaptionerSpec
from models.training import train_captioner

# Raised when a change here or in `models` makes the same inputs give another captioner or artifact.
TRAINING_VERSION = 1
EXPORT_VERSION = 5
# The same for what is stored in half precision alone.
HALF_VERSION = 2

# Enough to see layers overflow, which they do on most images or on none.
OBSERVED_IMAGES = 4
SATURATION_FEEDS = 8

TOOLS = ("tensorflow", "tf_keras", "tf2onnx", "onnx", "onnxruntime")


def tool_versions() -> dict[str, str]:
    """Versions of the tools that shape an artifact's bytes."""
    return {name: importlib.metadata.version(name) for name in TOOLS}


def captioner_key(spec: CaptionerSpec, dataset: Dataset) -> str:
    """The address of a trained captioner: what it is trained from and how."""
    weights = Path(spec.weights)
    source = sha256_of(weights) if weights.is_file() else spec.weights
    revision = encoder_entry(spec.encoder).revision
    described = dataclasses.asdict(spec) | {"weights": source}
    # What came later is left out where it changes nothing, so that captioners trained before are found.
    for name in ("label_smoothing", "weight_averaging"):
        if not described[name]:
            del described[name]
    if revision > 1:
        described["revision"] = revision
    return content_key(TRAINING_VERSION, described, dataset.fingerprint, importlib.metadata.version("tf_keras"))


def train(store: Store, spec: CaptionerSpec, dataset: Dataset, score: Score) -> Entry:
    """The trained captioner of `spec`, trained now if it never was."""
    key = captioner_key(spec, dataset)

    def make(folder: Path) -> Mapping[str, Any]:
        say(f"training {spec.name} ({spec.encoder} + {spec.decoder}) on {dataset.name}")
        work = store.work("captioners", key)
        work.mkdir(parents=True, exist_ok=True)
        captioner = train_captioner(spec, dataset, work=work, cache=store.root / "features", score=score)
        save_captioner(captioner, folder)
        return {"spec": dataclasses.asdict(spec), "parameters": captioner.parameters, "card": dict(captioner.card)}

    entry = store.build("captioners", key, spec.name, make)
    say(f"captioner {spec.name}: {'reused' if entry.reused else 'trained'} ({key})")
    return entry


def adopt(store: Store, folder: Path) -> Entry:
    """A captioner that lies in a folder as an entry of the store. Raises ArtifactError when it is none."""
    table = read_captioner_table(folder)
    key = content_key("adopted", [sha256_of(path) for path in captioner_files(folder)])

    def make(target: Path) -> Mapping[str, Any]:
        captioner = load_captioner(folder)
        save_captioner(captioner, target)
        return {"spec": table["card"]["spec"], "parameters": captioner.parameters, "card": table["card"]}

    return store.build("captioners", key, str(folder), make)


def _warnings(recipe: Recipe) -> list[str]:
    """What is known against a recipe's integers on this machine."""
    if recipe.format is not Format.ONNX:
        return []
    reasons = [slow_choice(scheme, machine_kind()) for scheme in (recipe.encoder, recipe.decoder)]
    return list(dict.fromkeys(filter(None, reasons)))


class ArtifactBuilder:
    """Builds the artifacts of one trained captioner; loads Keras and calibrates only when something is missing.

    A context manager: what recipes share while they are built is removed at its end.
    """

    def __init__(
        self, store: Store, captioner: Entry, dataset: Dataset, calibration: CalibrationPlan | None = None
    ) -> None:
        self.store = store
        self.entry = captioner
        self.dataset = dataset
        self.plan = calibration or CalibrationPlan()
        self._scratch = tempfile.TemporaryDirectory()
        self._exported: dict[tuple[Format, str, Scheme], Path] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.cleanup()

    @functools.cached_property
    def captioner(self) -> Captioner:
        """The captioner in Keras."""
        return load_captioner(self.entry.path)

    @functools.cached_property
    def calibration(self) -> Calibration:
        """Feeds from training images; recorded at the first recipe that needs them."""
        return record_calibration(self.captioner, self.dataset, self.plan)

    @functools.cached_property
    def observed(self) -> Calibration:
        """Feeds to look at INT8 sums with: those of static ranges, fewer where none were needed."""
        if "calibration" in self.__dict__:
            return self.calibration
        return record_calibration(self.captioner, self.dataset, CalibrationPlan(OBSERVED_IMAGES))

    def build(self, recipe: Recipe) -> Entry:
        """The artifact of `recipe`. Raises ConversionError when a converter can't make it."""
        calibrated = {recipe.encoder.precision, recipe.decoder.precision} & STATIC
        inputs = [dataclasses.asdict(recipe), dataclasses.asdict(self.plan) if calibrated else {}]
        if Precision.FP16 in (recipe.encoder.precision, recipe.decoder.precision):
            inputs.append({"half": HALF_VERSION})
        key = content_key(EXPORT_VERSION, *inputs, self.entry.path.name, self.dataset.fingerprint, tool_versions())
        entry = self.store.build("artifacts", key, recipe.name, functools.partial(self._export, recipe))
        say(f"artifact {recipe.name}: {'reused' if entry.reused else 'built'} ({key})")
        return entry

    def _export(self, recipe: Recipe, folder: Path) -> Mapping[str, Any]:
        for warning in _warnings(recipe):
            say(f"warning: {recipe.name}: {warning}")
        halves = self._export_halves(recipe)
        if recipe.graph is Graph.FUSED:
            graphs = {str(Graph.FUSED): self._fuse(recipe, halves, folder)}
        else:
            graphs = {name: _copy_into(folder, path) for name, path in halves.items()}
        shutil.copy(self.entry.path / "vocabulary.json", folder)
        contract = Contract(self.captioner.preprocessing, self.captioner.max_length, self.captioner.config.units)
        return artifact_facts(
            recipe,
            contract,
            folder,
            graphs,
            weights_int8=weights_int8(list(halves.values())),
            tools=tool_versions(),
            captioner=self.entry.path.name,
            route=ROUTES[recipe.format],
            warnings=_warnings(recipe),
            saturation=self._saturation(recipe, halves),
            coverage={
                name: dataclasses.asdict(found)
                for name, found in coverage_of({name: folder / file for name, file in graphs.items()}).items()
            },
        )

    def _saturation(self, recipe: Recipe, halves: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
        """By graph: how far INT8 sums would overflow on x86 without VNNI, on a few training images."""
        risks = {}
        for name, scheme in zip(halves, (recipe.encoder, recipe.decoder), strict=True):
            if recipe.format is Format.ONNX and scheme.precision in INTEGER and name in self.observed.by_graph:
                feeds = itertools.islice(self.observed.feeds(name), SATURATION_FEEDS)
                risks[name] = dataclasses.asdict(overflow_risk(saturation_of(halves[name], feeds)))
        return risks

    def _export_halves(self, recipe: Recipe) -> dict[str, Path]:
        """The encoder and the decoder by name; what is fused is made of a step."""
        decoder = Graph.STEP if recipe.graph is Graph.FUSED else recipe.graph
        schemes = {ENCODER: recipe.encoder, str(decoder): recipe.decoder}
        return {
            graph.name: self._export_graph(recipe.format, graph, schemes[graph.name]) for graph in self._graphs(decoder)
        }

    def _fuse(self, recipe: Recipe, halves: Mapping[str, Path], folder: Path) -> str:
        """Write the one graph of a fused artifact; returns the name of what it wrote."""
        if recipe.format is Format.SAVED_MODEL:
            return EXPORTERS[recipe.format](fused_graph(self.captioner), recipe.decoder, Calibration(), folder)
        captioner = self.captioner
        loop = GreedyLoop(captioner.max_length, captioner.config.units, len(captioner.vocabulary.words))
        encoder, step = halves[ENCODER], halves[Graph.STEP]
        name = f"{Graph.FUSED}{step.suffix}"
        write_bytes_atomic(folder / name, fuse(recipe.format, encoder, step, loop))
        return name

    @functools.cache  # noqa: B019 - lives as long as its builder
    def _graphs(self, graph: Graph) -> list[GraphFunction]:
        return deployable_graphs(self.captioner, graph)

    def _export_graph(self, format_: Format, graph: GraphFunction, scheme: Scheme) -> Path:
        """One graph's file or folder; recipes that share it share the conversion."""
        key = (format_, graph.name, scheme)
        if key not in self._exported:
            check_layers(graph.model, scheme.float_layers)
            keep = self._keep_encoder if graph.name == ENCODER else self._convert
            self._exported[key] = keep(format_, graph, scheme)
        return self._exported[key]

    def _convert(self, format_: Format, graph: GraphFunction, scheme: Scheme, folder: Path | None = None) -> Path:
        """The file or folder that a converter makes of a graph; in a folder of this builder's unless one is given."""
        folder = folder or Path(self._scratch.name) / f"{format_}-{content_key(str(scheme))}"
        folder.mkdir(exist_ok=True)
        calibration = self.calibration if scheme.precision in STATIC else Calibration()
        return folder / EXPORTERS[format_](graph, scheme, calibration, folder)

    def _keep_encoder(self, format_: Format, graph: GraphFunction, scheme: Scheme) -> Path:
        """An encoder's file from the store: captioners that differ in their decoders alone ship the same bytes."""
        inputs = [format_, dataclasses.asdict(scheme), graph_fingerprint(graph.model), tool_versions()]
        if scheme.precision in STATIC:
            inputs += [dataclasses.asdict(self.plan), self.dataset.fingerprint, self.captioner.preprocessing.to_json()]
        key = content_key(EXPORT_VERSION, HALF_VERSION, *inputs)

        def make(folder: Path) -> Mapping[str, Any]:
            return {"file": self._convert(format_, graph, scheme, folder).name}

        entry = self.store.build("encoders", key, f"encoder, {format_} {scheme}", make)
        return entry.path / str(entry.facts["file"])


def _copy_into(folder: Path, exported: Path) -> str:
    """Copy a graph's file or folder; returns its name."""
    copy = shutil.copytree if exported.is_dir() else shutil.copy
    copy(exported, folder / exported.name)
    return exported.name
