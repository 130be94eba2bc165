"""Images -> captions on the sessions of one artifact; the same code for every runtime."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar, NoReturn

import numpy as np
from numpy.typing import NDArray

from bench.runtimes.base import Runtime, Session
from convert.artifact import ENCODER, Artifact
from convert.fused import IDS, IMAGE, LOG_PROBABILITY
from convert.recipe import Graph
from models.decoders import STATES
from models.decoding import Caption, Search, Step, Tensors, decode
from models.errors import ConfigError
from models.preprocessing import preprocess
from models.vocabulary import END, Vocabulary


@dataclass(frozen=True)
class LoadedCaptioner:
    """An artifact in memory, ready to caption."""

    searches: ClassVar[tuple[Search, ...]] = tuple(Search)
    artifact: Artifact
    vocabulary: Vocabulary
    encoder: Session
    step: Step

    def preprocess(self, encoded: bytes, name: str = "image") -> NDArray[np.float32]:
        """An encoded file -> float32 (1, height, width, 3)."""
        return preprocess(encoded, self.artifact.contract.preprocessing, name=name)[None]

    def encode(self, pixels: NDArray[np.float32]) -> Tensors:
        """Pixels (batch, height, width, 3) -> what the first step takes besides the token."""
        return self.start(self.features(pixels))

    def features(self, pixels: NDArray[np.float32]) -> Tensors:
        """Pixels (batch, height, width, 3) -> the encoder's outputs."""
        return self.encoder.run({"image": pixels})

    def start(self, features: Tensors) -> Tensors:
        """The encoder's outputs -> what the first step takes besides the token."""
        rows = len(next(iter(features.values())))
        return _initial_state(self.artifact, rows) | dict(features)

    def decode(self, inputs: Tensors, search: Search) -> list[Caption]:
        """Captions of encoded images."""
        return decode(self.step, inputs, search=search, max_length=self.artifact.contract.max_length)

    def sentence(self, caption: Caption) -> str:
        """The words of a caption."""
        return self.vocabulary.decode(caption.ids)

    def caption(self, encoded: bytes, search: Search = Search.GREEDY, name: str = "image") -> Caption:
        """One encoded file -> its caption."""
        return self.decode(self.encode(self.preprocess(encoded, name)), search)[0]


class FusedCaptioner(LoadedCaptioner):
    """An artifact of one graph, from pixels to words: it stands in the encoder's place, and there is no step."""

    searches = (Search.GREEDY,)

    def encode(self, pixels: NDArray[np.float32]) -> Tensors:
        """The pixels: what `decode` takes."""
        return {IMAGE: pixels}

    def decode(self, inputs: Tensors, search: Search) -> list[Caption]:
        """Captions of pixels, one image at a time. Raises ConfigError for a search that the graph doesn't do."""
        if search not in self.searches:
            raise ConfigError(
                f"a fused graph holds one search, greedy; received '{search}'. "
                "Ask for greedy, or use an artifact of the step graph."
            )
        return [_fused_caption(self.encoder.run({IMAGE: image[None]})) for image in inputs[IMAGE]]


@contextmanager
def load_sessions(artifact: Artifact, runtime: Runtime, *, threads: int) -> Iterator[LoadedCaptioner]:
    """Load an artifact's graphs on a runtime. Raises ConfigError when the runtime does not read its format."""
    if artifact.recipe.format not in runtime.formats:
        raise ConfigError(
            f"runtime '{runtime.name}' reads {', '.join(runtime.formats)}; "
            f"received an artifact of format '{artifact.recipe.format}'."
        )
    with ExitStack() as stack:
        if artifact.recipe.graph is Graph.FUSED:
            session = stack.enter_context(runtime.load(artifact.decoder_graph, threads=threads))
            yield FusedCaptioner(artifact, artifact.vocabulary(), session, _no_step)
            return
        encoder = stack.enter_context(runtime.load(artifact.graphs[ENCODER], threads=threads))
        decoder = stack.enter_context(runtime.load(artifact.decoder_graph, threads=threads))
        step = _prefix_step(decoder) if artifact.recipe.graph is Graph.PREFIX else _session_step(decoder)
        yield LoadedCaptioner(artifact, artifact.vocabulary(), encoder, step)


def caption_all(
    loaded: LoadedCaptioner, images: Iterable[tuple[str, bytes]], searches: Iterable[Search]
) -> Iterator[tuple[str, dict[Search, Caption]]]:
    """(image id, caption by search), one image at a time as a device would."""
    searches = tuple(searches)
    for name, encoded in images:
        inputs = loaded.encode(loaded.preprocess(encoded, name))
        yield name, {search: loaded.decode(inputs, search)[0] for search in searches}


def _initial_state(artifact: Artifact, rows: int) -> dict[str, NDArray[np.generic]]:
    """What a decoder starts from where the encoder does not say."""
    contract = artifact.contract
    if artifact.recipe.graph is Graph.PREFIX:
        prefix = np.zeros((rows, contract.max_length), np.int32)
        return {"prefix": prefix, "position": np.zeros(rows, np.int32)}
    return {name: np.zeros((rows, contract.units), np.float32) for name in STATES}


def _fused_caption(outputs: Tensors) -> Caption:
    """The ids of a row up to END, which is part of them when the caption ended by itself."""
    ids = [int(index) for index in outputs[IDS][0]]
    spoken = ids[: ids.index(END) + 1] if END in ids else ids
    return Caption(tuple(spoken), float(outputs[LOG_PROBABILITY][0]))


def _no_step(token: NDArray[np.int32], inputs: Tensors) -> NoReturn:
    raise ConfigError("a fused graph has no step of its own; use an artifact of the step graph.")


def _session_step(session: Session) -> Step:
    def step(token: NDArray[np.int32], inputs: Tensors) -> tuple[NDArray[np.float32], Tensors]:
        outputs = dict(session.run({"token": token, **inputs}))
        return outputs.pop("logits"), outputs  # type: ignore[return-value]

    return step


def _prefix_step(session: Session) -> Step:
    """The study's loop as a step: write the token into the padded prefix and run all of it."""

    def step(token: NDArray[np.int32], inputs: Tensors) -> tuple[NDArray[np.float32], Tensors]:
        prefix, position = inputs["prefix"].copy(), inputs["position"]
        prefix[np.arange(len(token)), position] = token
        outputs = session.run({"features": inputs["features"], "prefix": prefix, "position": position})
        return outputs["logits"], {"prefix": prefix, "position": position + 1}  # type: ignore[return-value]

    return step
