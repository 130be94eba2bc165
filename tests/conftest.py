"""One tiny captioner, trained once a session by the real trainer, and its artifacts, built by the real converters."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from bench.quality import cider_mean
from convert.artifact import Artifact, load_artifact
from convert.build import ArtifactBuilder, train
from convert.compress import compress
from convert.recipe import Recipe
from convert.store import Entry, Store
from models.captioner import Captioner, load_captioner
from models.datasets import Dataset, open_dataset
from models.keras import tensorflow
from models.spec import CaptionerSpec, EncoderTraining

# A busy machine is slow, which no test here is about.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

TINY_SCENES = {"train": 48, "validation": 8, "test": 8}


@pytest.fixture(autouse=True, scope="session")
def two_threads() -> None:
    """TensorFlow takes thread counts only before its first operation, and the runtimes' tests ask for two."""
    tensorflow().config.threading.set_intra_op_parallelism_threads(2)


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing of the machine's own leaks into a test: neither its data and weights nor its store."""
    for name in ("FLICKR8K_HOME", "KERAS_HOME", "CAPTIONBENCH_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CAPTIONBENCH_STORE", str(tmp_path_factory.getbasetemp() / "store"))
    monkeypatch.setenv("CAPTIONBENCH_HOME", str(tmp_path_factory.getbasetemp() / "home"))


def tiny_spec(decoder: str) -> CaptionerSpec:
    """A captioner that trains in seconds; it says little, but with real weights."""
    return CaptionerSpec(
        name=f"tiny-{decoder}",
        encoder="tiny",
        decoder=decoder,
        weights="random",
        encoder_training=EncoderTraining.TRAINED,
        embedding=16,
        units=32,
        attention=16,
        dropout=0.1,
        minimum_count=1,
        max_length=12,
        epochs=2,
        batch=16,
        learning_rate=3e-3,
        captions_per_epoch=2,
    )


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """A handful of drawn scenes."""
    return open_dataset("scenes", None, TINY_SCENES)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store that all tests of a session share."""
    return Store(tmp_path_factory.getbasetemp() / "store")


@pytest.fixture(scope="session")
def trained(store: Store, dataset: Dataset) -> Callable[[str], Entry]:
    """The trained tiny captioner of a decoder, by its name."""
    return lambda decoder: train(store, tiny_spec(decoder), dataset, cider_mean)


@pytest.fixture(scope="session")
def captioner(trained: Callable[[str], Entry]) -> Callable[[str], Captioner]:
    """The tiny captioner of a decoder, in Keras."""
    return lambda decoder: load_captioner(trained(decoder).path)


@pytest.fixture(scope="session")
def compressed(store: Store, dataset: Dataset, trained: Callable[[str], Entry]) -> Callable[[str, str], Entry]:
    """The tiny captioner of a decoder after a chain of techniques; chains share what they have in common."""
    return lambda chain, decoder: compress(store, trained(decoder), chain, dataset, cider_mean)


@pytest.fixture(scope="session")
def build(store: Store, dataset: Dataset, trained: Callable[[str], Entry]) -> Iterator[Callable[[Recipe], Artifact]]:
    """The artifact of a recipe whose captioner is `tiny-attention` or `tiny-merge`."""
    builders: dict[str, ArtifactBuilder] = {}
    open_builders = contextlib.ExitStack()

    def build(recipe: Recipe) -> Artifact:
        decoder = recipe.captioner.removeprefix("tiny-")
        if decoder not in builders:
            builders[decoder] = open_builders.enter_context(ArtifactBuilder(store, trained(decoder), dataset))
        return load_artifact(builders[decoder].build(recipe).path)

    with open_builders:
        yield build


@pytest.fixture
def image(dataset: Dataset, tmp_path: Path) -> Path:
    """One drawn scene as a file."""
    from models.datasets import Split

    path = tmp_path / "scene.png"
    path.write_bytes(dataset.read(dataset.images(Split.TEST)[0].id))
    return path
