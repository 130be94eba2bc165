"""Which preparation made this tensor? Names what was done otherwise than a preprocessing contract says.

Most captions that differ between a program's port and its original differ because images are prepared otherwise
(https://github.com/onnx/tensorflow-onnx/issues/1428, https://github.com/mlcommons/inference/pull/273). The picture is
prepared again in every way that ports are known to do it; the nearest way with the fewest deviations is told.
"""

import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.preprocessing import FORMATS, Fit, Preprocessing, Resample, Scaling, decode_image, fit_image, scale_pixels

Array = NDArray[Any]

# A preparation in 8 bits is right to one of 255 steps: resizing rounds differently in each library.
STEP = 1 / 255
# A port's own resizing in floating point, and JPEG decoders of other builds, differ on average by less than this share
# of the values' range; another filter or order of channels differs by more.
NEAR = 1.5 * STEP
# Of the mean difference that the contract itself leaves: a deviation must explain the most of it.
EXPLAINS = 0.5
# torchvision's normalisation: mean and standard deviation of ImageNet in R, G, B order, of values in [0, 1].
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_RANGES = {Scaling.UNIT: "[0, 1]", Scaling.TF: "[-1, 1]", Scaling.CAFFE: "BGR minus the mean of ImageNet"}


class Order(StrEnum):
    """The order of a picture's channels before scaling."""

    RGB = "rgb"
    BGR = "bgr"


@dataclass(frozen=True)
class Preparation:
    """One way to prepare a picture. `resize`: a filter of Pillow, or bilinear without antialiasing."""

    upright: bool
    fit: str
    resize: str
    order: Order
    scaling: str

    def deviations(self, contract: Preprocessing) -> tuple[str, ...]:
        """What is done otherwise than in the contract, in words."""
        told = (
            "" if self.upright else "the EXIF orientation is ignored",
            "" if self.fit == contract.fit else _FITS[self.fit],
            ""
            if self.resize == contract.resample
            else f"resized with {_RESIZES[self.resize]} instead of {contract.resample}",
            "" if self.order is Order.RGB else "the channels are swapped (BGR for RGB)",
            ""
            if self.scaling == contract.scaling
            else f"{_SCALINGS[self.scaling]} instead of {_RANGES[contract.scaling]}",
        )
        return tuple(text for text in told if text)


_FITS = {
    Fit.SQUASH: "squashed instead of cropped at the centre",
    Fit.CENTER_CROP: "cropped at the centre instead of squashed",
    "letterbox": "padded to keep its shape (letterbox)",
}
_PLAIN = "bilinear_plain"
_RESIZES = {str(r): str(r) for r in Resample} | {_PLAIN: "bilinear without antialiasing (as in TensorFlow and OpenCV)"}
_SCALINGS = {
    Scaling.UNIT: "values scaled to [0, 1]",
    Scaling.TF: "values scaled to [-1, 1]",
    Scaling.CAFFE: "BGR with the mean of ImageNet taken away",
    "bytes": "values left at 0 to 255",
    "torch": "values normalised by ImageNet's mean and deviation (as in torchvision)",
    "mean_rgb": "RGB with the mean of ImageNet taken away",
}


@dataclass(frozen=True)
class Finding:
    """What comes nearest: deviations in words (none: the contract), and the mean difference that is left, 0..1."""

    deviations: tuple[str, ...]
    left: float

    @property
    def known(self) -> bool:
        """Whether it explains the tensor."""
        return self.left <= NEAR


def explain_tensor(encoded: bytes, tensor: Array, contract: Preprocessing) -> str:
    """What was done otherwise than `contract` says to make `tensor` of this file, "" when it is bit for bit the same.

    `tensor`: float (height, width, 3) or with a batch of one. Raises ImageError for a file that can't be read.
    """
    values = np.asarray(tensor, np.float32)
    values = values[0] if values.ndim == 4 and len(values) == 1 else values
    expected = (contract.height, contract.width, 3)
    if values.shape == (3, *expected[:2]) and values.shape != expected:
        rest = explain_tensor(encoded, values.transpose(1, 2, 0), contract)
        return "; ".join(part for part in ("channels come first (NCHW)", rest) if part)
    if values.shape != expected:
        return f"its shape is {' x '.join(map(str, values.shape))} and not {' x '.join(map(str, expected))}"
    own = scale_pixels(fit_image(decode_image(encoded), contract), contract.scaling)
    if np.array_equal(values, own):
        return ""
    found = find_preparation(encoded, values, contract)
    if found.known and found.deviations:
        return "; ".join(found.deviations)
    if found.known:
        worst = float(np.abs(values - own).max()) / _span(contract.scaling)
        return f"prepared alike, but rounded or decoded otherwise: values differ by at most {worst * 255:.1f} of 255"
    return f"not known; nearest is: {'; '.join(found.deviations) or 'the contract'}, {found.left:.0%} of the range away"


def find_preparation(encoded: bytes, values: Array, contract: Preprocessing) -> Finding:
    """The nearest preparation of (height, width, 3) values; the contract itself unless another explains the most."""
    findings = [
        Finding(way.deviations(contract), float(np.abs(_normal(values, way) - pixels).mean()))
        for way, pixels in _preparations(encoded, contract)
    ]
    nearest = min(found.left for found in findings)
    # Of those about as near as the nearest, the one that assumes least.
    good = [found for found in findings if found.left <= max(nearest / EXPLAINS, STEP / 8)]
    return min(good, key=lambda found: (len(found.deviations), found.left))


def _preparations(encoded: bytes, contract: Preprocessing) -> Iterator[tuple[Preparation, Array]]:
    """Every way, with its picture: RGB, 0 to 1. Pictures are made once for all scalings."""
    upright = decode_image(encoded)
    turned = _without_exif(encoded)
    pictures = [(True, upright)] + (
        [(False, turned)] if turned.size != upright.size or _differ(turned, upright) else []
    )
    for (is_upright, picture), fit in itertools.product(pictures, _FITS):
        for resize in _RESIZES:
            pixels = _resized(picture, fit, resize, contract)
            for order, scaling in itertools.product(Order, _SCALINGS):
                yield Preparation(is_upright, fit, resize, order, scaling), pixels


def _normal(values: Array, way: Preparation) -> Array:
    """The picture, RGB and 0 to 1, that a tensor of this scaling and order stands for."""
    if way.scaling == Scaling.TF:
        values = (values + 1) / 2
    elif way.scaling == "bytes":
        values = values / 255
    elif way.scaling == "torch":
        values = values * np.array(IMAGENET_STD, np.float32) + np.array(IMAGENET_MEAN, np.float32)
    elif way.scaling == Scaling.CAFFE:
        values = ((values + _mean_bgr()) / 255)[..., ::-1]
    elif way.scaling == "mean_rgb":
        values = (values + _mean_bgr()[::-1]) / 255
    return values[..., ::-1] if way.order is Order.BGR else values


def _mean_bgr() -> Array:
    from models.preprocessing import IMAGENET_MEAN_BGR

    return np.array(IMAGENET_MEAN_BGR, np.float32)


def _span(scaling: Scaling) -> float:
    return {Scaling.UNIT: 1.0, Scaling.TF: 2.0, Scaling.CAFFE: 255.0}[scaling]


def _resized(picture: Image.Image, fit: str, resize: str, contract: Preprocessing) -> Array:
    """float32 (height, width, 3), RGB, 0 to 1."""
    if fit == "letterbox":
        picture, fit = _letterboxed(picture, contract), Fit.SQUASH
    if resize == _PLAIN:
        if fit == Fit.CENTER_CROP:
            picture = _cropped(picture, contract)
        return _bilinear(np.asarray(picture, np.float32) / 255, contract.height, contract.width)
    asked = replace(contract, fit=Fit(fit), resample=Resample(resize))
    return np.asarray(fit_image(picture, asked), np.float32) / 255


def _cropped(picture: Image.Image, contract: Preprocessing) -> Image.Image:
    scale = min(picture.width / contract.width, picture.height / contract.height)
    width, height = round(contract.width * scale), round(contract.height * scale)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def _letterboxed(picture: Image.Image, contract: Preprocessing) -> Image.Image:
    """Black bars, so that the whole picture keeps its shape."""
    scale = max(picture.width / contract.width, picture.height / contract.height)
    width, height = round(contract.width * scale), round(contract.height * scale)
    boxed = Image.new("RGB", (max(width, 1), max(height, 1)))
    boxed.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2))
    return boxed


def _bilinear(pixels: Array, height: int, width: int) -> Array:
    """Between the four nearest pixels, at half-pixel centres: no antialiasing when it shrinks."""
    rows, columns = _between(pixels.shape[0], height), _between(pixels.shape[1], width)
    (top, bottom, y), (left, right, x) = rows, columns
    y, x = y[:, None, None], x[None, :, None]
    upper = pixels[top][:, left] * (1 - x) + pixels[top][:, right] * x
    lower = pixels[bottom][:, left] * (1 - x) + pixels[bottom][:, right] * x
    blended: Array = upper * (1 - y) + lower * y
    return blended


def _between(size: int, target: int) -> tuple[Array, Array, Array]:
    """(index before, index after, share of the latter) of each target place."""
    place = np.clip((np.arange(target) + 0.5) * size / target - 0.5, 0, size - 1)
    before = np.floor(place).astype(np.intp)
    return before, np.minimum(before + 1, size - 1), (place - before).astype(np.float32)


def _without_exif(encoded: bytes) -> Image.Image:
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as picture:
        return picture.convert("RGB")


def _differ(a: Image.Image, b: Image.Image) -> bool:
    return not np.array_equal(np.asarray(a), np.asarray(b))
