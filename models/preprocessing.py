"""The preprocessing contract: an encoded image file -> the float32 tensor an encoder was trained on.

Pillow and NumPy only, so that every runtime feeds its graph the same numbers. The steps, in order:

1. the header is read and images over PIXEL_LIMIT are refused before any pixel is decoded;
2. the first frame is decoded (animations: the others are ignored) and turned as its EXIF says;
3. it becomes 8-bit RGB: transparency is composited on white, 16-bit grey is scaled (never clipped),
   CMYK and palettes are converted; colour profiles are ignored, as Keras ignores them;
4. it is squashed, or cropped at the centre, to height x width;
5. its values are scaled as the encoder expects.
"""

import hashlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from models.errors import ArtifactError, ConfigError, ImageError

# 64 megapixels: more than any phone or camera in common use; 192 MB as RGB.
PIXEL_LIMIT = 64_000_000
# What people caption. Others are refused: Pillow would, for one, hand EPS to Ghostscript.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})
# Mean of the ImageNet training set in B, G, R order, as in keras.applications.imagenet_utils ("caffe").
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)

_EXIF_ORIENTATION = 0x0112  # tag 274, EXIF 2.32, section 4.6.4
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Resample(StrEnum):
    """The resizing filter; Pillow antialiases all but NEAREST when it shrinks."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


class Fit(StrEnum):
    """What happens to the aspect ratio: SQUASH changes it, CENTER_CROP cuts the longer side."""

    SQUASH = "squash"
    CENTER_CROP = "center_crop"


class Scaling(StrEnum):
    """Range of the values: UNIT [0, 1]; TF [-1, 1] (MobileNetV2); CAFFE BGR - mean (VGG16, ResNet50)."""

    UNIT = "unit"
    TF = "tf"
    CAFFE = "caffe"


@dataclass(frozen=True)
class Preprocessing:
    """The contract an encoder was trained with, stored beside it. Raises ConfigError for sizes below 1."""

    height: int
    width: int
    resample: Resample
    fit: Fit
    scaling: Scaling

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ConfigError(f"images are prepared at 1 x 1 pixels or more; received {self.height} x {self.width}.")

    def to_json(self) -> dict[str, int | str]:
        """A plain dict that `from_json` takes back."""
        return {
            "height": self.height,
            "width": self.width,
            "resample": self.resample.value,
            "fit": self.fit.value,
            "scaling": self.scaling.value,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote. Raises ArtifactError for keys or values that are not its own."""
        expected = set(cls.__dataclass_fields__)
        if not isinstance(values, Mapping) or set(values) != expected:
            raise ArtifactError(
                f"a preprocessing contract has exactly the keys {sorted(expected)}; "
                f"received {values!r}. Build the artifact again."
            )
        try:
            return cls(
                _whole_number(values["height"]),
                _whole_number(values["width"]),
                Resample(values["resample"]),
                Fit(values["fit"]),
                Scaling(values["scaling"]),
            )
        except (ValueError, ConfigError) as error:
            raise ArtifactError(
                f"the preprocessing contract {dict(values)} is invalid: {error} Build the artifact again."
            ) from error


def preprocess(encoded: bytes, contract: Preprocessing, *, name: str = "image") -> NDArray[np.float32]:
    """The tensor of one encoded image: float32 (height, width, 3). Raises ImageError, which says `name`."""
    return scale_pixels(fit_image(decode_image(encoded, name), contract), contract.scaling)


def read_image_file(path: Path) -> bytes:
    """The bytes of an image file. Raises ImageError when it is missing, a directory or unreadable."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"no image at {path}. Check the path.") from error
    except IsADirectoryError as error:
        raise ImageError(f"{path} is a directory; pass one image file.") from error
    except OSError as error:
        raise ImageError(f"can't read the image {path}: {error}. Check its permissions.") from error


def decode_image(encoded: bytes, name: str = "image") -> Image.Image:
    """The first frame as upright 8-bit RGB. Raises ImageError for anything that is not a whole image."""
    if not encoded:
        raise ImageError(f"{name} is empty (0 bytes). Copy or download it again.")
    with warnings.catch_warnings():
        # Pillow warns of odd metadata and of big images: the first changes no pixel, the second is an error here.
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
                _refuse_bomb(image, name)
                return _turn_upright(_to_rgb(image), image)
        except ImageError:
            raise
        except Image.DecompressionBombError as error:
            raise ImageError(f"{name} is too large: {error} Shrink it first.") from error
        except Exception as error:  # corrupt bytes surface as any type from Pillow's parsers
            raise ImageError(_describe_failure(encoded, name, error)) from error


def fit_image(image: Image.Image, contract: Preprocessing) -> Image.Image:
    """The image resized to height x width of the contract, cropped at the centre first if it says so."""
    box = (0.0, 0.0, float(image.width), float(image.height))
    if contract.fit is Fit.CENTER_CROP:
        scale = min(image.width / contract.width, image.height / contract.height)
        # Rounding may put the side that is kept whole a hair outside the image.
        left = max((image.width - contract.width * scale) / 2, 0.0)
        top = max((image.height - contract.height * scale) / 2, 0.0)
        box = (left, top, image.width - left, image.height - top)
    method = Image.Resampling[contract.resample.name]
    return image.resize((contract.width, contract.height), method, box=box)


def scale_pixels(image: Image.Image, scaling: Scaling) -> NDArray[np.float32]:
    """float32 (height, width, 3) of an RGB image, in the range and channel order of `scaling`."""
    pixels = np.asarray(image, np.float32)
    if scaling is Scaling.UNIT:
        return pixels / np.float32(255)
    if scaling is Scaling.TF:
        return pixels / np.float32(127.5) - np.float32(1)
    return np.ascontiguousarray(pixels[..., ::-1]) - np.array(IMAGENET_MEAN_BGR, np.float32)


def tensor_hash(array: NDArray[Any]) -> str:
    """Hex SHA-256 of dtype, shape and little-endian values: equal only for bit-equal tensors."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    header = f"{little.dtype.name} {little.shape} ".encode()
    return hashlib.sha256(header + little.tobytes()).hexdigest()


def _refuse_bomb(image: Image.Image, name: str) -> None:
    if image.width * image.height > PIXEL_LIMIT:
        raise ImageError(
            f"{name} is {image.width} x {image.height} pixels; "
            f"the limit is {PIXEL_LIMIT // 1_000_000} megapixels. Shrink it first."
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode.startswith("I") or image.mode == "F":
        return _scale_deep_grey(image).convert("RGB")
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    return image.convert("RGB")


def _scale_deep_grey(image: Image.Image) -> Image.Image:
    """8-bit grey of deeper grey, which Pillow's own conversion would clip at 255."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    low, high = 0.0, 65535.0  # the white of 16 bits, also where Pillow holds them in 32
    if image.mode == "F" or values.min() < low or values.max() > high:
        low, high = float(values.min()), float(values.max())  # no agreed white: stretch
    grey = (values - low) / max(high - low, 1e-30) * 255  # never by zero: one value everywhere is black
    return Image.fromarray(np.round(grey).astype(np.uint8))


def _turn_upright(rgb: Image.Image, source: Image.Image) -> Image.Image:
    turn = _TURNS.get(source.getexif().get(_EXIF_ORIENTATION, 1))
    return rgb if turn is None else rgb.transpose(turn)


def _describe_failure(encoded: bytes, name: str, error: Exception) -> str:
    start = encoded[:8].hex(" ")
    reason = (
        "is not an image that can be read"
        if isinstance(error, UnidentifiedImageError)
        else (f"is corrupt or truncated ({error})")
    )
    return (
        f"{name} {reason}; received {len(encoded)} bytes starting {start}. "
        f"Pass a whole file in one of {', '.join(FORMATS)}."
    )


def _whole_number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"expected a whole number of pixels, received {value!r}.")
    return value
