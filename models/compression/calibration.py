"""Training images as an encoder sees them, for techniques that measure activations."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.captioner import Captioner
from models.compression.base import Context
from models.datasets.base import CaptionedImage
from models.features import cached_features
from models.files import content_key


def image_pixels(captioner: Captioner, context: Context, images: Sequence[CaptionedImage]) -> NDArray[np.float16]:
    """Float16 (images, height, width, 3), prepared as the captioner's contract says; read once, then cached."""
    names, contract = [image.id for image in images], captioner.preprocessing
    key = content_key("pixels", context.dataset.fingerprint, names, contract.to_json())
    return cached_features(context.cache / f"{key}.npy", context.dataset, names, contract, lambda pixels: pixels)
