"""Rows with one encoder share its outputs, and notice when they are not the same."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench import shared_encoder
from bench.captioning import LoadedCaptioner, load_sessions
from bench.runtimes.onnx_runtime import OnnxRuntime
from bench.shared_encoder import CHECKED_IMAGES, SharedEncoder, encoder_key
from convert.artifact import Artifact
from convert.recipe import Format, Graph, Recipe
from models.decoding import Tensors
from models.preprocessing import Preprocessing

IMAGES = CHECKED_IMAGES + 3


@pytest.fixture(scope="module")
def loaded(build: Callable[[Recipe], Artifact]) -> Iterator[LoadedCaptioner]:
    with load_sessions(build(Recipe("tiny-merge", Format.ONNX)), OnnxRuntime(), threads=1) as captioner:
        yield captioner


@pytest.fixture(scope="module")
def pixels(loaded: LoadedCaptioner) -> NDArray[np.float32]:
    contract = loaded.artifact.contract.preprocessing
    shape = (IMAGES, 1, contract.height, contract.width, 3)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def encode_all(shared: SharedEncoder, pixels: NDArray[np.float32]) -> list[Tensors]:
    found = [shared.encode(index, image) for index, image in enumerate(pixels)]
    shared.keep()
    return found


def change_kept(path: Path, image: int) -> None:
    with np.load(path) as file:
        kept = {name: file[name].copy() for name in file.files}
    kept["features"][image] += 1
    np.savez(path, **kept)


def equal(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_later_images_come_from_the_file_and_the_first_are_checked(
    loaded: LoadedCaptioner, pixels: NDArray[np.float32], tmp_path: Path
) -> None:
    path = tmp_path / "kept" / "features.npz"
    first = encode_all(SharedEncoder(loaded, path), pixels)
    assert all(equal(found, loaded.encode(image)) for found, image in zip(first, pixels, strict=True))
    assert all(map(equal, first, encode_all(SharedEncoder(loaded, path), pixels)))
    change_kept(path, IMAGES - 1)
    assert not equal(first[-1], encode_all(SharedEncoder(loaded, path), pixels)[-1])
    change_kept(path, 2)
    assert all(map(equal, first, encode_all(SharedEncoder(loaded, path), pixels)))


def test_a_broken_file_is_not_used(loaded: LoadedCaptioner, pixels: NDArray[np.float32], tmp_path: Path) -> None:
    path = tmp_path / "features.npz"
    path.write_bytes(b"")
    found = encode_all(SharedEncoder(loaded, path), pixels)
    assert equal(found[-1], loaded.encode(pixels[-1]))


def test_what_is_too_large_is_not_kept(
    loaded: LoadedCaptioner, pixels: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_encoder, "MAXIMUM_BYTES", 100)
    path = tmp_path / "features.npz"
    assert equal(encode_all(SharedEncoder(loaded, path), pixels)[-1], loaded.encode(pixels[-1]))
    assert not path.exists()


def test_key_is_of_the_encoder_alone(build: Callable[[Recipe], Artifact]) -> None:
    step, prefix = (build(Recipe("tiny-merge", Format.ONNX, graph=graph)) for graph in (Graph.STEP, Graph.PREFIX))
    other = build(Recipe("tiny-attention", Format.ONNX))
    assert encoder_key(step) == encoder_key(prefix) != encoder_key(other)
    contract = step.contract
    wider = Preprocessing.from_json(contract.preprocessing.to_json() | {"width": contract.preprocessing.width + 1})
    changed = dataclasses.replace(step, contract=dataclasses.replace(contract, preprocessing=wider))
    assert encoder_key(changed) != encoder_key(step)
