"""Every way of preparing a picture that ports are known for is called by its name, and noise is not."""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from bench.contract_command import check_tensor
from convert.artifact import Artifact
from convert.recipe import Format, Recipe
from convert.store import Store
from models.contract_check import explain_tensor
from models.errors import ConfigError
from models.preprocessing import Fit, Preprocessing, Resample, Scaling, preprocess

CONTRACT = Preprocessing(48, 48, Resample.BILINEAR, Fit.SQUASH, Scaling.TF)
Array = NDArray[np.float32]


def photograph(seed: int = 0, size: tuple[int, int] = (150, 110), *, exif: int = 1, kind: str = "PNG") -> bytes:
    """Smooth colours with fine grain, as photographs have: what filters treat differently."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = rng.integers(-30, 31, (size[1], size[0], 3))
    picture = Image.fromarray(np.clip(np.asarray(coarse, np.int16) + grain, 0, 255).astype(np.uint8))
    tags = Image.Exif()
    tags[0x0112] = exif
    file = BytesIO()
    picture.save(file, kind, exif=tags)
    return file.getvalue()


def prepared(**changes: object) -> Array:
    return preprocess(photograph(), replace(CONTRACT, **changes))  # type: ignore[arg-type]


def test_own_tensor_needs_no_words() -> None:
    assert explain_tensor(photograph(), prepared(), CONTRACT) == ""
    assert explain_tensor(photograph(), prepared()[None], CONTRACT) == ""


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        (prepared()[..., ::-1], "the channels are swapped (BGR for RGB)"),
        (prepared(resample=Resample.NEAREST), "resized with nearest instead of bilinear"),
        (prepared(resample=Resample.BICUBIC), "resized with bicubic instead of bilinear"),
        (prepared(fit=Fit.CENTER_CROP), "cropped at the centre instead of squashed"),
        (prepared(scaling=Scaling.UNIT), "values scaled to [0, 1] instead of [-1, 1]"),
        (prepared(scaling=Scaling.UNIT) * 255, "values left at 0 to 255 instead of [-1, 1]"),
        (prepared(scaling=Scaling.CAFFE), "BGR with the mean of ImageNet taken away instead of [-1, 1]"),
        (prepared().transpose(2, 0, 1), "channels come first (NCHW)"),
        (prepared(height=32), "its shape is 32 x 48 x 3 and not 48 x 48 x 3"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_deviation_is_named(tensor: Array, told: str) -> None:
    assert explain_tensor(photograph(), tensor, CONTRACT) == told


def test_two_deviations_are_named() -> None:
    told = explain_tensor(photograph(), prepared(scaling=Scaling.UNIT)[..., ::-1], CONTRACT)
    assert told == "the channels are swapped (BGR for RGB); values scaled to [0, 1] instead of [-1, 1]"
    told = explain_tensor(photograph(), prepared(resample=Resample.NEAREST, scaling=Scaling.UNIT), CONTRACT)
    assert told == "resized with nearest instead of bilinear; values scaled to [0, 1] instead of [-1, 1]"


def test_resizing_of_other_libraries_is_named() -> None:
    tensorflow = pytest.importorskip("tensorflow")
    pixels = np.asarray(Image.open(BytesIO(photograph())), np.float32)
    resized = tensorflow.image.resize(pixels, (48, 48), method="bilinear", antialias=False).numpy()
    told = explain_tensor(photograph(), resized / np.float32(127.5) - 1, CONTRACT)
    assert told == "resized with bilinear without antialiasing (as in TensorFlow and OpenCV) instead of bilinear"


def test_ignored_orientation_is_named() -> None:
    turned = photograph(exif=6)
    ignored = preprocess(photograph(), CONTRACT)  # the same pixels, without the tag
    assert explain_tensor(turned, ignored, CONTRACT) == "the EXIF orientation is ignored"


def test_rounding_is_told_from_another_way() -> None:
    rounded = prepared() + np.float32(0.4 / 127.5)
    assert "prepared alike, but rounded or decoded otherwise" in explain_tensor(photograph(), rounded, CONTRACT)


def test_noise_is_not_explained() -> None:
    noise = np.random.default_rng(1).uniform(-1, 1, (48, 48, 3)).astype(np.float32)
    assert explain_tensor(photograph(), noise, CONTRACT).startswith("not known; nearest is")


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 1000),
    resample=st.sampled_from(Resample),
    fit=st.sampled_from(Fit),
    scaling=st.sampled_from(Scaling),
    kind=st.sampled_from(["PNG", "JPEG"]),
)
def test_any_contract_is_told_from_the_one_asked(
    seed: int, resample: Resample, fit: Fit, scaling: Scaling, kind: str
) -> None:
    encoded = photograph(seed, kind=kind)
    other = replace(CONTRACT, resample=resample, fit=fit, scaling=scaling)
    told = explain_tensor(encoded, preprocess(encoded, other), CONTRACT)
    assert (f"resized with {resample}" in told) == (resample is not CONTRACT.resample)
    assert ("cropped" in told) == (fit is not CONTRACT.fit)
    assert ("instead of [-1, 1]" in told) == (scaling is not CONTRACT.scaling)
    assert "not known" not in told


def test_command_tells_what_a_program_does_otherwise(
    build: Callable[[Recipe], Artifact], store: Store, tmp_path: Path
) -> None:
    artifact = build(Recipe("tiny-merge", Format.ONNX))
    picture, tensor = tmp_path / "photo.png", tmp_path / "tensor.npy"
    picture.write_bytes(photograph())
    own = preprocess(photograph(), artifact.contract.preprocessing)
    np.save(tensor, own)
    assert check_tensor(store, str(artifact.path), picture, tensor) == ""
    np.save(tensor, own[..., ::-1])
    assert check_tensor(store, str(artifact.path), picture, tensor) == "the channels are swapped (BGR for RGB)"


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "no tensor at"), (b"text", "is not a .npy file of numbers"), (np.array(["a"]), "not one array of numbers")],
)
def test_command_refuses_what_is_no_tensor(
    build: Callable[[Recipe], Artifact], store: Store, tmp_path: Path, content: object, told: str
) -> None:
    path = tmp_path / "tensor.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=told):
        check_tensor(store, str(build(Recipe("tiny-merge", Format.ONNX)).path), tmp_path / "no.png", path)
