"""Quantization-aware training: `qat` fine-tunes with the rounding that the INT8 graph will do.

Encoders go through TF-MOT; the decoder through layers of our own, because TF-MOT has none for LSTM and embedding.
`qat(layers=dense)` rounds the decoder's dense layers only, as the 2020 study did. Zeros and shared values that earlier
techniques made are kept (TF-MOT calls these PQAT, CQAT and PCQAT), by constraints and not by its wrappers.
"""

from dataclasses import replace

import numpy as np

from models.captioner import Captioner
from models.compression.base import Ask, Context, Outcome, Scope
from models.compression.calibration import image_pixels
from models.compression.change import Change
from models.compression.encoder_qat import quantize_encoder, require_quantizable, settle_encoder_ranges
from models.compression.finetuning import FineTuning, fine_tune
from models.datasets.base import Split
from models.decoders import build_decoder
from models.errors import ConfigError
from models.features import BATCH
from models.layers import Arithmetic
from models.quantized_layers import copy_float_weights, settle_ranges
from models.vocabulary import pad_captions

LAYERS = {"all": Arithmetic.INT8, "dense": Arithmetic.INT8_DENSE}
# Training images that ranges are taken from, before and after training.
RANGE_IMAGES = 256


def check_qat(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> None:
    """Raises ConfigError for layers that can't be quantized, or are already."""
    layers = ask.option("layers", "all")
    if layers not in LAYERS:
        raise ConfigError(f"'{ask}': layers must be {' or '.join(LAYERS)}; received '{layers}'.")
    if scope is not Scope.DECODER:
        require_quantizable(captioner.encoder)


def train_quantized(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> Outcome:
    """Put rounding into the layers of a scope, learn their ranges, and fine-tune.

    The layers of `prepare` ship in the encoder's file, so they are rounded with the encoder.
    """
    quantized = quantized_layers_of(captioner, ask, scope)
    tuning = FineTuning.of(ask, share=0.25, at_least=3, rate=0.2)

    def settle() -> None:
        _settle(quantized, scope, context)

    outcome = fine_tune(quantized, ask, scope, context, tuning, Change(settle, dense=captioner))
    settle()
    return replace(outcome, notes={"arithmetic": LAYERS[ask.option("layers", "all")].value})


def quantized_layers_of(captioner: Captioner, ask: Ask, scope: Scope) -> Captioner:
    """The same weights in layers that round."""
    config = captioner.config
    if scope is not Scope.DECODER:
        captioner = replace(captioner, encoder=quantize_encoder(captioner.encoder))
        config = replace(config, prepare_arithmetic=Arithmetic.INT8.value)
    if scope is not Scope.ENCODER:
        config = replace(config, arithmetic=LAYERS[ask.option("layers", "all")].value)
    decoder = build_decoder(config)
    for layer in decoder.sequence.layers:
        if layer.weights:
            copy_float_weights(captioner.decoder.sequence.get_layer(layer.name), layer)
    return replace(captioner, decoder=decoder, config=config)


def _settle(captioner: Captioner, scope: Scope, context: Context) -> None:
    """Take all ranges anew from training images, the encoder's first: the decoder reads its features."""
    images = context.dataset.images(Split.TRAIN)[:RANGE_IMAGES]
    pixels = image_pixels(captioner, context, images)
    batches = [np.asarray(pixels[i : i + BATCH], np.float32) for i in range(0, len(pixels), BATCH)]
    if scope is not Scope.DECODER:
        settle_encoder_ranges(captioner.encoder, batches)
    ids = [captioner.vocabulary.encode(image.references[0])[:-1] for image in images]
    tokens = pad_captions(ids, min(max(map(len, ids)), captioner.max_length))
    settle_ranges(
        captioner.decoder.sequence,
        (
            [captioner.encoder(batch, training=False), tokens[i * BATCH : i * BATCH + len(batch)]]
            for i, batch in enumerate(batches)
        ),
    )
