"""`adapt`: the decoder trains on, on the features that its encoder will give in INT8.

Post-training quantization leaves MobileNetV2's features 2 % of noise after `round` and 10 % before: no ranges, no
single layer in float mend that, but a decoder that has seen such features reads them as well as it read clean ones.
The encoder's weights stay, bit by bit. Compare a gain with `train_on`, which trains as long on clean features.
"""

from dataclasses import replace

import numpy as np

from models.captioner import Captioner
from models.compression.base import Ask, Context, Outcome, Scope
from models.compression.calibration import image_pixels
from models.compression.change import Change
from models.compression.constraints import kept_structure
from models.compression.encoder_qat import is_quantized
from models.compression.finetuning import FineTuning, fine_tune
from models.compression.int8_encoder import int8_encoder
from models.compression.weights import all_weights
from models.datasets.base import Split

# Training images that show which values tensors take: as many as converters calibrate with.
IMAGES = 64


def adapt(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> Outcome:
    """Fine-tune the decoder behind the rounded encoder; an encoder that was trained to round is one already."""
    seen = captioner if is_quantized(captioner.encoder) else _in_int8(captioner, context)
    structured = kept_structure([weight for weight in all_weights(captioner) if weight.half is Scope.DECODER])
    tuning = FineTuning.of(ask, share=0.5, at_least=3, rate=0.25, averaged=not structured)
    outcome = fine_tune(seen, ask, scope, context, tuning, Change())
    return replace(outcome, captioner=replace(outcome.captioner, encoder=captioner.encoder))


def _in_int8(captioner: Captioner, context: Context) -> Captioner:
    images = context.dataset.images(Split.TRAIN)[:IMAGES]
    pixels = np.asarray(image_pixels(captioner, context, images), np.float32)
    return replace(captioner, encoder=int8_encoder(captioner.encoder, pixels))
