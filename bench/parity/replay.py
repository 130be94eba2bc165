"""Runs a row's graphs over given words, and writes the trace of a reference, an image at a time.

Up to the step at which two captions part, both said the same words; so given those words (teacher forcing) a replay
shows the tensors that led there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.captioning import FusedCaptioner, LoadedCaptioner
from bench.parity.beam import observe_beam
from bench.parity.job import ParityJob
from bench.parity.trace import TensorTrace, TraceWriter
from models.decoding import Caption, Search, Tensors
from models.preprocessing import decode_image, fit_image, scale_pixels
from models.vocabulary import START

Array = NDArray[Any]
# What the prefix graph carries on is the words said, not a state that could be compared.
BOOKKEEPING = ("prefix", "position")


@dataclass(frozen=True)
class Forced:
    """Logits (words said, vocabulary), and the states after each of them by name."""

    logits: Array
    states: Mapping[str, Array]


def force(loaded: LoadedCaptioner, inputs: Tensors, words: Sequence[int]) -> Forced:
    """Run the step over given words: row t is what it makes of the words before t."""
    current, logits = dict(inputs), []
    states: dict[str, list[Array]] = {}
    for word in (START, *words[:-1]):
        row, state = loaded.step(np.array([word], np.int32), current)
        current |= state
        logits.append(row[0].copy())
        for name, value in state.items():
            if name not in BOOKKEEPING:
                states.setdefault(name, []).append(value[0].copy())
    return Forced(np.stack(logits), {name: np.stack(rows) for name, rows in states.items()})


def trace_images(
    loaded: LoadedCaptioner, job: ParityJob, images: Iterable[tuple[str, bytes]], writer: TraceWriter
) -> None:
    """Write the trace of a reference's images, one at a time."""
    contract = loaded.artifact.contract.preprocessing
    for image, encoded in images:
        fitted = fit_image(decode_image(encoded, image), contract)
        pixels = scale_pixels(fitted, contract.scaling)
        inputs = dict(loaded.encode(pixels[None]))
        said = captions_of(loaded, job, image, inputs)
        trace = _tensor_trace(loaded, pixels, inputs, said)
        writer.add(image, fitted, trace, said, encoded if job.keep_files else b"")
    writer.finish()


def _tensor_trace(
    loaded: LoadedCaptioner, pixels: Array, inputs: Tensors, said: Mapping[Search, Caption]
) -> TensorTrace:
    if isinstance(loaded, FusedCaptioner):
        return TensorTrace(pixels, {}, np.zeros((0, 0), np.float32), {}, ())
    forced = force(loaded, inputs, said[Search.GREEDY].ids)
    return TensorTrace(pixels, inputs, forced.logits, forced.states, observe_beam(loaded, inputs)[1])


def captions_of(loaded: LoadedCaptioner, job: ParityJob, image: str, inputs: Tensors) -> dict[Search, Caption]:
    """What a row says of an image by each search that it offers: known from its job, or said now."""
    known = {search: found[image] for search, found in job.captions.items() if image in found}
    return known or {search: loaded.decode(inputs, search)[0] for search in loaded.searches}
