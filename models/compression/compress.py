"""Applies one technique to a captioner and records what it reached, what it cost, and what the captions lost."""

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from models.captioner import Captioner
from models.compression.base import Compression, Context, Outcome
from models.compression.chain import ScopedAsk
from models.compression.operations import multiply_adds
from models.compression.registry import TECHNIQUES
from models.datasets.base import Split
from models.errors import TrainingError
from models.fitting import validation_captions
from models.keras import keras
from models.progress import say
from models.spec import CaptionerSpec, EncoderTraining
from models.training_data import training_data


def spec_of(captioner: Captioner) -> CaptionerSpec:
    """How a captioner was trained, from its card."""
    return spec_of_card(captioner.card)


def spec_of_card(card: Mapping[str, Any]) -> CaptionerSpec:
    """How a captioner with this card was trained."""
    table = dict(card["spec"])
    return CaptionerSpec(**table | {"encoder_training": EncoderTraining(table["encoder_training"])})


def apply_technique(captioner: Captioner, scoped: ScopedAsk, context: Context) -> Captioner:
    """The compressed captioner; its card's `compressions` gains a Compression. May change `captioner` in place.

    Raises ConfigError before anything is trained, TrainingError when the loss is no number any more, and
    CompressionError when the technique did not reach what was asked.
    """
    technique = TECHNIQUES[scoped.ask.technique]
    technique.check(captioner, scoped.ask, scoped.scope, context)
    keras().utils.set_random_seed(context.spec.seed)
    before = _measure(captioner, context)
    outcome = technique.compress(captioner, scoped.ask, scoped.scope, context)
    record = _record(scoped, outcome, before, _measure(outcome.captioner, context))
    say(f"{scoped}: validation CIDEr {_story(record)}")
    return replace(outcome.captioner, card=_card(captioner, outcome.captioner, record))


def join_halves(encoder: Captioner, decoder: Captioner, context: Context) -> Captioner:
    """One captioner's encoder with the other's decoder; its card has the compressions of both, in that order.

    Nothing is trained. Its validation CIDEr is measured anew: what the halves lose does not have to add up.
    """
    joined = replace(decoder, encoder=encoder.encoder, preprocessing=encoder.preprocessing)
    measured = _measure(joined, context)
    say(f"halves joined: validation CIDEr {measured['cider']:.3f}")
    both = [*compressions(encoder.card), *compressions(decoder.card)]
    card = {**decoder.card, "encoder": encoder.card["encoder"], "compressions": both}
    return replace(joined, card=card | {"validation_cider": measured["cider"]})


def compressions(card: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The records in a captioner's card, in the order they were applied; the dense one has none."""
    return list(card.get("compressions", ()))


def _measure(captioner: Captioner, context: Context) -> dict[str, Any]:
    """Validation CIDEr and distinct captions, and sizes."""
    data = training_data(context.spec, captioner, context.dataset, context.cache, splits=(Split.VALIDATION,))
    captions, references = validation_captions(context.spec, captioner, data)
    cider = context.score(captions, references)
    if not np.isfinite(cider):
        raise TrainingError(f"the validation CIDEr is {cider}; the captioner's weights are no numbers any more.")
    return {
        "cider": cider,
        "distinct": len(set(captions.values())),
        "parameters": captioner.parameters,
        "multiply_adds": {
            "encoder": multiply_adds(captioner.encoder),
            "step": multiply_adds(captioner.decoder.step),
        },
    }


def _record(scoped: ScopedAsk, outcome: Outcome, before: dict[str, Any], after: dict[str, Any]) -> Compression:
    compressed = outcome.cider_compressed
    return Compression(
        technique=str(scoped.ask),
        scope=scoped.scope.value,
        reached=outcome.reached,
        epochs=outcome.epochs,
        steps=outcome.steps,
        seconds=round(outcome.seconds, 1),
        cider_before=before["cider"],
        cider_compressed=compressed,
        cider=after["cider"],
        distinct_before=before["distinct"],
        distinct=after["distinct"],
        parameters_before=before["parameters"],
        parameters=after["parameters"],
        multiply_adds_before=before["multiply_adds"],
        multiply_adds=after["multiply_adds"],
        notes=outcome.notes,
    )


def _story(record: Compression) -> str:
    middle = "" if record.cider_compressed is None else f" -> {record.cider_compressed:.3f} compressed"
    return f"{record.cider_before:.3f}{middle} -> {record.cider:.3f} after {record.epochs} epochs"


def _card(parent: Captioner, child: Captioner, record: Compression) -> dict[str, Any]:
    return {
        **parent.card,
        **child.card,
        "validation_cider": record.cider,
        "vocabulary_size": child.config.vocabulary_size,
        "compressions": [*compressions(parent.card), dataclasses.asdict(record)],
    }
