"""The preprocessing contract: every kind of image people have, and the numbers it must become."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from models.errors import ArtifactError, ConfigError, ImageError
from models.preprocessing import (
    Fit,
    Preprocessing,
    Resample,
    Scaling,
    decode_image,
    preprocess,
    read_image_file,
    tensor_hash,
)

UNIT = Preprocessing(8, 8, Resample.BILINEAR, Fit.SQUASH, Scaling.UNIT)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def gradient(width: int = 16, height: int = 12) -> Image.Image:
    """Red grows to the right, green downwards, blue is constant."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    channels = [x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), np.full_like(x, 60)]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


# First digits of the hashes of the tensors of `gradient()`. Pillow resizes in integers, so they are the same on every
# machine; one that changes is a change of what every encoder sees.
GOLDEN = {
    (Resample.BILINEAR, Scaling.UNIT): "d47155bb8b0bbf7d",
    (Resample.BICUBIC, Scaling.UNIT): "df4508eb3710b1d0",
    (Resample.BILINEAR, Scaling.TF): "39c16827be40069b",
    (Resample.BICUBIC, Scaling.TF): "c6c82e95295b0431",
    (Resample.BILINEAR, Scaling.CAFFE): "389383ffb3c88c1d",
    (Resample.BICUBIC, Scaling.CAFFE): "a9b1fdd8cee63b47",
}


@pytest.mark.parametrize(("resample", "scaling"), GOLDEN)
def test_tensor_is_the_golden_one(resample: Resample, scaling: Scaling) -> None:
    pixels = preprocess(encode(gradient()), Preprocessing(8, 8, resample, Fit.SQUASH, scaling))
    assert tensor_hash(pixels).startswith(GOLDEN[resample, scaling])


def test_contracts_give_different_tensors() -> None:
    encoded = encode(gradient())
    hashes = {
        tensor_hash(preprocess(encoded, Preprocessing(8, 8, resample, fit, scaling)))
        for resample in Resample
        for fit in Fit
        for scaling in Scaling
    }
    assert len(hashes) == len(Resample) * len(Fit) * len(Scaling)


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        (Scaling.UNIT, [200 / 255, 100 / 255, 50 / 255]),
        (Scaling.TF, [200 / 127.5 - 1, 100 / 127.5 - 1, 50 / 127.5 - 1]),
        (Scaling.CAFFE, [50 - 103.939, 100 - 116.779, 200 - 123.68]),
    ],
)
def test_scaling_is_what_the_encoder_was_trained_on(scaling: Scaling, expected: list[float]) -> None:
    pixels = preprocess(encode(Image.new("RGB", (5, 5), (200, 100, 50))), Preprocessing(4, 4, *UNIT_REST, scaling))
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[2, 2], expected, atol=1e-4)  # float32


UNIT_REST = (Resample.BILINEAR, Fit.SQUASH)


def test_scaling_agrees_with_keras_applications() -> None:
    from models.keras import keras

    pixels = np.asarray(gradient(6, 6), np.float32)
    encoded = encode(gradient(6, 6))
    for scaling, module in ((Scaling.TF, "mobilenet_v2"), (Scaling.CAFFE, "vgg16"), (Scaling.CAFFE, "resnet50")):
        theirs = getattr(keras().applications, module).preprocess_input(pixels.copy())
        np.testing.assert_allclose(
            preprocess(encoded, Preprocessing(6, 6, *UNIT_REST, scaling)), theirs, atol=1e-5, err_msg=module
        )


def test_unresized_image_keeps_its_pixels() -> None:
    pixels = preprocess(encode(gradient(8, 8)), UNIT)
    assert np.array_equal(np.round(pixels * 255).astype(np.uint8), np.asarray(gradient(8, 8)))


def test_squash_keeps_the_borders_and_crop_does_not() -> None:
    wide = Image.new("RGB", (40, 10), "white")
    wide.paste("red", (0, 0, 10, 10))
    squashed = preprocess(encode(wide), UNIT)
    cropped = preprocess(encode(wide), Preprocessing(8, 8, Resample.BILINEAR, Fit.CENTER_CROP, Scaling.UNIT))
    assert squashed[4, 0, 1] < 0.1
    assert cropped[..., 1].min() > 0.9


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_every_mode_becomes_rgb(mode: str, kind: str) -> None:
    image = (
        gradient().convert("L").convert("I").convert(mode) if mode in ("I;16", "I", "F") else gradient().convert(mode)
    )
    try:
        encoded = encode(image, kind)
    except (OSError, KeyError):
        pytest.skip(f"{kind} holds no {mode}")
    decoded = decode_image(encoded)
    assert decoded.mode == "RGB"
    assert decoded.size == (16, 12)
    assert preprocess(encoded, UNIT).shape == (8, 8, 3)


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    deep = Image.fromarray(np.array([[0, 16384, 32768, 65535]], np.uint16))
    grey = np.asarray(decode_image(encode(deep)))[0, :, 0]
    assert np.allclose(grey, [0, 64, 128, 255], atol=1)  # half a level of rounding


def test_transparency_is_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert np.asarray(decode_image(encode(clear))).min() == 255


def test_animation_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    encoded = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.asarray(decode_image(encoded))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int) -> None:
    """A picture stored turned with its EXIF tag looks as the upright one."""
    upright = gradient(16, 12)
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = upright if undo is None else upright.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(np.asarray(decode_image(encode(stored, exif=exif))), np.asarray(upright))


def test_single_pixel_fills_the_tensor() -> None:
    pixels = preprocess(encode(Image.new("RGB", (1, 1), (0, 255, 0))), UNIT)
    assert (pixels == [0, 1, 0]).all()


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of a few bytes whose header promises 3.6 gigapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("encoded", "told"),
    [
        (b"", "is empty"),
        (b"this is no picture at all", "is not an image"),
        (encode(gradient())[:-40], "is corrupt or truncated"),
        (encode(gradient(), "JPEG")[:200], "is"),
        (bomb(), "too large|the limit is 64 megapixels"),
        (bomb(9000, 9000), "the limit is 64 megapixels"),
    ],
    ids=["empty", "text", "truncated png", "truncated jpeg", "bomb", "small bomb"],
)
def test_unreadable_image_is_named_with_the_reason(encoded: bytes, told: str) -> None:
    with pytest.raises(ImageError, match=told) as caught:
        preprocess(encoded, UNIT, name="holiday.jpg")
    assert "holiday.jpg" in str(caught.value)


@given(st.binary(max_size=300))
@settings(max_examples=60)
def test_arbitrary_bytes_are_refused_politely(content: bytes) -> None:
    with pytest.raises(ImageError):
        preprocess(content, UNIT)


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["RGB", "RGBA", "L", "P", "1"]),
    st.sampled_from(Fit),
    st.sampled_from(Resample),
)
@settings(max_examples=60)
def test_any_size_and_mode_gives_the_contract(width: int, height: int, mode: str, fit: Fit, resample: Resample) -> None:
    encoded = encode(gradient(width, height).convert(mode))
    pixels = preprocess(encoded, Preprocessing(7, 9, resample, fit, Scaling.UNIT))
    assert pixels.shape == (7, 9, 3)
    assert pixels.dtype == np.float32
    assert 0 <= pixels.min() <= pixels.max() <= 1


def test_missing_file_and_directory_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no image at"):
        read_image_file(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="is a directory"):
        read_image_file(tmp_path)


@pytest.mark.parametrize("scaling", Scaling)
def test_contract_survives_json(scaling: Scaling) -> None:
    contract = Preprocessing(224, 160, Resample.BICUBIC, Fit.CENTER_CROP, scaling)
    assert Preprocessing.from_json(contract.to_json()) == contract


@pytest.mark.parametrize(
    "change", [{"height": "8"}, {"height": 0}, {"scaling": "bgr"}, {"colour": "rgb"}, {"fit": None}, {"width": True}]
)
def test_contract_of_another_kind_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="Build the artifact again"):
        Preprocessing.from_json(UNIT.to_json() | change)


def test_contract_without_pixels_is_refused() -> None:
    with pytest.raises(ConfigError, match="received 0 x 8"):
        Preprocessing(0, 8, Resample.BILINEAR, Fit.SQUASH, Scaling.UNIT)


def as_tensor(values: list[float]) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def test_tensor_hash_sees_values_shape_and_type() -> None:
    base = as_tensor([1, 2, 3, 4])
    hashes = {tensor_hash(a) for a in (base, base[::-1], base.reshape(2, 2), base.astype(np.float64))}
    assert len(hashes) == 4
    assert tensor_hash(base) == tensor_hash(base.copy())
