"""Students: smaller networks trained anew, with or without a teacher. The number is the width kept, in per cent.

- `student50` learns from the references alone: the control.
- `distill_words50` also from the teacher's softened words (Hinton et al. 2015, arXiv 1503.02531).
- `distill_captions50` from the captions of the teacher's beam (Kim and Rush 2016, arXiv 1606.07947, section 3.2).
- `distill_features50` has a smaller encoder that learns the teacher's features (Romero et al. 2015, arXiv 1412.6550);
  the decoder stays the teacher's. `encoder=NAME` takes another architecture and a projection to those features.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.captioner import Captioner, initial_inputs, keras_step
from models.compression.base import Ask, Context, Outcome, Scope
from models.compression.change import Change, Norms
from models.compression.finetuning import FineTuning
from models.compression.reproduction import reproduce_features
from models.decoders import build_decoder, decoder_entry
from models.decoding import Search, decode
from models.encoders import build_encoder, encoder_entry
from models.errors import ConfigError
from models.files import write_text_atomic
from models.fitting import Teacher, fit
from models.keras import keras
from models.progress import track
from models.spec import EncoderTraining
from models.training_data import TrainingData, training_data
from models.vocabulary import START

OPTIONS = ("epochs", "rate", "seed")
WORD_OPTIONS = (*OPTIONS, "temperature", "share")
FEATURE_OPTIONS = ("epochs", "rate", "images", "encoder", "weights")
_BEAM_BATCH = 100


def check_student(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> None:
    """Raises ConfigError when hardly a unit would be left."""
    units = captioner.config.units
    if units * (ask.amount or 100) / 100 < 8:
        raise ConfigError(f"'{ask}' would leave fewer than 8 of {units} units; keep more of the width.")


def train_student(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> Outcome:
    """A narrower captioner trained from noise on the references."""
    return _train(captioner, ask, context, teacher=None, recaption=None)


def distill_words(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> Outcome:
    """A narrower captioner trained on references and on the teacher's soft words."""
    teacher = Teacher(
        captioner, ask.number("temperature", Teacher.temperature), min(ask.number("share", Teacher.share), 1.0)
    )
    return _train(captioner, ask, context, teacher=teacher, recaption=None)


def distill_captions(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> Outcome:
    """A narrower captioner trained on the teacher's beam captions, and as many references."""
    return _train(captioner, ask, context, teacher=None, recaption=_beam_captions)


def check_distill_features(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> None:
    """Raises ConfigError for an encoder that does not exist or whose grid is another."""
    encoder_entry(ask.option("encoder", captioner.card["encoder"]))


def distill_features(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> Outcome:
    """A smaller encoder that gives the teacher's features; no caption is needed."""
    student = replace(captioner, **_student_encoder(captioner, ask))
    if student.encoder.output_shape[1:] != captioner.encoder.output_shape[1:]:
        raise ConfigError(
            f"'{ask}': the student gives features {student.encoder.output_shape[1:]}, the teacher "
            f"{captioner.encoder.output_shape[1:]}; choose an encoder with as many cells."
        )
    tuning = FineTuning.of(ask, share=1.0, at_least=2, rate=5.0)
    tuning = replace(tuning, epochs=tuning.epochs or context.spec.epochs)
    norms = Norms.KEEP if _is_pretrained(ask) else Norms.LEARN
    return reproduce_features(student, ask, context, tuning, Change(dense=captioner, norms=norms))


def _is_pretrained(ask: Ask) -> bool:
    """Whether the student starts from weights that were trained elsewhere."""
    return bool(ask.option("encoder", "")) and ask.option("weights", "imagenet") != "random" and ask.amount == 100


def _student_encoder(captioner: Captioner, ask: Ask) -> dict[str, Any]:
    """The fields of the captioner that change: its encoder, and the contract of another architecture."""
    from models.compression.slimming import narrow_encoder

    share = ((ask.amount or 100) / 100) ** 2
    name = ask.option("encoder", "")
    if not name:
        return {"encoder": narrow_encoder(captioner.encoder, share=share)}
    kind = decoder_entry(captioner.config.kind).feature_kind
    base = build_encoder(name, kind, weights=ask.option("weights", "imagenet"))
    if share < 1:
        base = narrow_encoder(base, share=share)
    channels = captioner.config.raw_shape[-1]
    projected = keras().layers.Dense(channels, activation="relu", name="teacher_projection")(base.output)
    encoder = keras().Model(base.input, projected, name=f"{base.name}_projected")
    card = {**captioner.card, "encoder": name}
    return {"encoder": encoder, "preprocessing": encoder_entry(name).preprocessing, "card": card}


def _train(
    captioner: Captioner,
    ask: Ask,
    context: Context,
    *,
    teacher: Teacher | None,
    recaption: Callable[[Captioner, TrainingData, bool, Path], TrainingData] | None,
) -> Outcome:
    spec = replace(
        context.spec,
        name=str(ask),
        seed=int(ask.number("seed", context.spec.seed)),
        epochs=int(ask.number("epochs", context.spec.epochs)),
        learning_rate=context.spec.learning_rate * ask.number("rate", 1.0),
    )
    keras().utils.set_random_seed(spec.seed)
    student = _narrow(captioner, ask, context)
    data = training_data(spec, student, context.dataset, context.cache)
    if recaption is not None:
        has_pixels = spec.encoder_training is EncoderTraining.TRAINED
        data = recaption(captioner, data, has_pixels, context.work)
    fitted = fit(student, data, spec, work=context.work, score=context.score, teacher=teacher)
    return Outcome(student, (), fitted.checkpoint.epoch, fitted.steps, fitted.seconds, None, {"seed": spec.seed})


def _narrow(captioner: Captioner, ask: Ask, context: Context) -> Captioner:
    """A captioner of the student's sizes with fresh weights; an encoder that was never trained here stays."""
    config = replace(
        captioner.config,
        units=_width(captioner.config.units, ask),
        embedding=_width(captioner.config.embedding, ask),
        attention=_width(captioner.config.attention, ask),
    )
    encoder = captioner.encoder
    if context.spec.encoder_training is EncoderTraining.TRAINED:
        encoder = _student_encoder(captioner, ask)["encoder"]
    return replace(captioner, encoder=encoder, decoder=build_decoder(config), config=config)


def _width(size: int, ask: Ask) -> int:
    """A width of the student: a multiple of 8, because kernels work in blocks."""
    return max(1, round(size * (ask.amount or 100) / 100 / 8)) * 8


def _beam_captions(teacher: Captioner, data: TrainingData, has_pixels: bool, work: Path) -> TrainingData:
    """The training data with the teacher's caption beside the references of each image; kept in `work`."""
    path = work / "beam_captions.json"
    if not path.is_file():
        starts = range(0, len(data.train_inputs), _BEAM_BATCH)
        found: list[list[int]] = []
        for start in track(starts, "the teacher's captions"):
            found += _caption_batch(teacher, data.train_inputs[start : start + _BEAM_BATCH], has_pixels)
        write_text_atomic(path, json.dumps(found))
    captions = [[START, *ids] for ids in json.loads(path.read_text(encoding="utf-8"))]
    # As many as there are references: one of two captions that a batch draws is the teacher's, on average.
    mixed = [[ids] * len(others) + others for ids, others in zip(captions, data.train_captions, strict=True)]
    return replace(data, train_captions=mixed)


def _caption_batch(teacher: Captioner, inputs: Any, has_pixels: bool) -> list[list[int]]:
    raw = inputs.astype("float32")
    if has_pixels:
        raw = teacher.encoder(raw, training=False)
    prepared = {name: value.numpy() for name, value in teacher.decoder.prepare(raw, training=False).items()}
    start = initial_inputs(prepared, teacher.config.units)
    found = decode(keras_step(teacher.decoder), start, search=Search.BEAM3, max_length=teacher.max_length)
    return [list(map(int, caption.ids)) for caption in found]
