"""Compresses trained captioners through the store: each technique of a chain is an entry, shared by all chains.

Halves that are compressed apart are joined without training, so that a grid of encoders and decoders costs their sum.
"""

import dataclasses
import importlib.metadata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from convert.store import Entry, Store
from models.captioner import Captioner, load_captioner, save_captioner
from models.compression.base import Context, Stage
from models.compression.chain import APART, ScopedAsk, apart_halves, parse_technique, planned
from models.compression.compress import apply_technique, join_halves, spec_of, spec_of_card
from models.compression.registry import TECHNIQUES
from models.datasets.base import Dataset
from models.errors import ConfigError
from models.files import content_key
from models.fitting import Score
from models.progress import say
from models.spec import EncoderTraining

# Raised when a change in `models.compression` makes the same inputs give another captioner.
COMPRESSION_VERSION = 1
TOOLS = ("tf_keras", "tensorflow-model-optimization")


def check_techniques(store: Store, captioner: Entry, techniques: Iterable[str], dataset: Dataset, score: Score) -> None:
    """Raises ConfigError for the first chain that does not fit the captioner, before any is begun."""
    chains = [chain for technique in techniques if (chain := parse_technique(technique, TECHNIQUES))]
    if not chains:
        return
    loaded = load_captioner(captioner.path)
    spec = spec_of(loaded)
    context = Context(dataset, store.root, store.root / "features", score, spec)
    for chain in chains:
        _check(loaded, planned(chain, spec, TECHNIQUES), context)


def compress(store: Store, captioner: Entry, technique: str, dataset: Dataset, score: Score) -> Entry:
    """The captioner after every technique of a chain; what other chains began with is not done again.

    Raises ConfigError before anything is trained when the chain does not parse, can't work in that order, or does
    not fit the captioner; TrainingError and CompressionError when a technique did not work.
    """
    asks = parse_technique(technique, TECHNIQUES)
    if not asks:
        return captioner
    if halves := apart_halves(technique):
        _require_frozen(captioner, technique)
        encoder, decoder = (compress(store, captioner, half, dataset, score) for half in halves)
        return _join(store, encoder, decoder, dataset, score)
    check_techniques(store, captioner, [technique], dataset, score)
    for step in planned(asks, spec_of_card(captioner.facts["card"]), TECHNIQUES):
        captioner = _compress_once(store, captioner, step, dataset, score)
    return captioner


def _require_frozen(captioner: Entry, technique: str) -> None:
    """Raises ConfigError for a captioner whose halves learned together: they would not know each other any more."""
    if spec_of_card(captioner.facts["card"]).encoder_training is not EncoderTraining.FROZEN:
        raise ConfigError(
            f"'{technique}' compresses encoder and decoder apart, which needs a frozen encoder; this captioner's "
            f"learned with its decoder. Write '{technique.replace(APART, '/')}'."
        )


def _join(store: Store, encoder: Entry, decoder: Entry, dataset: Dataset, score: Score) -> Entry:
    """The captioner with the encoder of one and the decoder of another, of the same dense captioner."""
    key = content_key("joined", COMPRESSION_VERSION, encoder.path.name, decoder.path.name)
    name = decoder.facts["spec"]["name"]

    def make(folder: Path) -> Mapping[str, Any]:
        captioner = load_captioner(decoder.path)
        context = Context(dataset, folder, store.root / "features", score, spec_of(captioner))
        joined = join_halves(load_captioner(encoder.path), captioner, context)
        save_captioner(joined, folder)
        return {**decoder.facts, "parameters": joined.parameters, "card": dict(joined.card)}

    entry = store.build("captioners", key, f"{name}, halves compressed apart", make)
    say(f"captioner {name}, halves compressed apart: {'reused' if entry.reused else 'joined'} ({key})")
    return entry


def _check(captioner: Captioner, steps: tuple[ScopedAsk, ...], context: Context) -> None:
    """Raises ConfigError for layers, widths or schedules that a technique can't have, before hours are spent.

    Steps after one that makes another network are checked when their turn comes.
    """
    for step in steps:
        technique = TECHNIQUES[step.ask.technique]
        technique.check(captioner, step.ask, step.scope, context)
        if technique.stage is Stage.STUDENT:
            return


def _compress_once(store: Store, parent: Entry, step: ScopedAsk, dataset: Dataset, score: Score) -> Entry:
    versions = [importlib.metadata.version(name) for name in TOOLS]
    revision = TECHNIQUES[step.ask.technique].revision
    # Left out of a first revision's, so that captioners compressed before there were any are found.
    inputs = [parent.path.name, str(step), dataset.fingerprint, versions, *([revision] if revision > 1 else [])]
    key = content_key("compressed", COMPRESSION_VERSION, *inputs)
    name = parent.facts["spec"]["name"]

    def make(folder: Path) -> Mapping[str, Any]:
        say(f"compressing {name}: {step}")
        captioner = load_captioner(parent.path)
        work = store.work("captioners", key)
        work.mkdir(parents=True, exist_ok=True)
        context = Context(dataset, work, store.root / "features", score, spec_of(captioner))
        compressed = apply_technique(captioner, step, context)
        save_captioner(compressed, folder)
        spec = dataclasses.asdict(spec_of(captioner))
        return {"spec": spec, "parameters": compressed.parameters, "card": dict(compressed.card)}

    entry = store.build("captioners", key, f"{name} {step}", make)
    say(f"captioner {name} {step}: {'reused' if entry.reused else 'compressed'} ({key})")
    return entry
