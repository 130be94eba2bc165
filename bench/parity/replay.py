"""Replays captions on one row's graphs and compares each tensor with the reference's trace, an image at a time.

Up to the step at which two captions part, both said the same words; so given those words (teacher forcing) a replay
shows the tensors that led there. The step is then taken again with the reference's own tensors put in place of the
row's: its pixels, its features, its features and state. What brings the reference's word back is the cause.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.captioning import FusedCaptioner, LoadedCaptioner
from bench.parity.beam import find_parting, observe_beam
from bench.parity.differences import DifferenceMeter, relative_error
from bench.parity.evidence import Evidence, Examined
from bench.parity.job import ParityJob
from bench.parity.reordering import find_moved
from bench.parity.state import is_state_lost
from bench.parity.trace import TensorTrace, Trace, TraceWriter
from models.contract_check import explain_tensor
from models.decoding import Caption, Search, Tensors, log_softmax
from models.preprocessing import Preprocessing, decode_image, fit_image, scale_pixels
from models.vocabulary import START

Array = NDArray[Any]
# What the prefix graph carries on is the words said, not a state that could be compared.
_BOOKKEEPING = ("prefix", "position")
# Images whose preparation is explained; a contract is the same for all.
EXPLAINED_IMAGES = 4
# The words that are likeliest at a step, of each side.
CHOICES = 2


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
            if name not in _BOOKKEEPING:
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


def examine(loaded: LoadedCaptioner, trace: Trace, job: ParityJob, images: Iterable[tuple[str, bytes]]) -> Examined:
    """Compare a row with the reference's trace on the job's images and probes. Keeps no tensor of a past image.

    `images` yields the encoded files of all of them; those that the trace lacks are left out.
    """
    findings = _Findings()
    for image, encoded in images:
        if image in trace.head.images:
            _Comparison(loaded, trace, job, image, encoded).add_to(findings)
    return findings.examined()


@dataclass
class _Findings:
    """What adds up over the images."""

    meter: DifferenceMeter = field(default_factory=DifferenceMeter)
    squared_margins: float = 0.0
    margins: int = 0
    evidence: dict[Search, list[Evidence]] = field(default_factory=dict)
    graph_captions: dict[Search, dict[str, tuple[int, ...]]] = field(default_factory=dict)
    contracts: dict[str, str] = field(default_factory=dict)
    said: dict[Search, dict[str, Caption]] = field(default_factory=dict)
    unequal: list[str] = field(default_factory=list)

    def add_margins(self, errors: Array) -> None:
        self.squared_margins += float((errors**2).sum())
        self.margins += errors.size

    def examined(self) -> Examined:
        return Examined(
            margin_rms=float(np.sqrt(self.squared_margins / self.margins)) if self.margins else None,
            tensors=self.meter.results(),
            evidence={search: tuple(found) for search, found in self.evidence.items()},
            graph_captions=self.graph_captions,
            contracts=self.contracts,
            captions=self.said,
            pixels_differ=tuple(self.unequal),
        )


class _Comparison:
    """One image: the reference's trace, and this row's own tensors."""

    def __init__(self, loaded: LoadedCaptioner, trace: Trace, job: ParityJob, image: str, encoded: bytes) -> None:
        self.loaded, self.job, self.image, self.encoded = loaded, job, image, encoded
        self.reference = trace.read(image)
        self.theirs = trace.head.images[image].captions
        self.preprocessing = trace.head.preprocessing
        self.pixels = loaded.preprocess(encoded, image)
        self.pixels_equal = np.array_equal(self.pixels[0], self.reference.pixels)
        self.inputs = dict(loaded.encode(self.pixels))
        self.given = self.inputs if self.pixels_equal else self._encode_reference_pixels()

    def _encode_reference_pixels(self) -> Tensors | None:
        """None where the graph takes no pixels of that size."""
        if self.reference.pixels.shape != self.pixels.shape[1:]:
            return None
        return dict(self.loaded.encode(self.reference.pixels[None]))

    @property
    def fused(self) -> bool:
        return isinstance(self.loaded, FusedCaptioner)

    def add_to(self, findings: _Findings) -> None:
        ours = captions_of(self.loaded, self.job, self.image, self.inputs)
        if not self.job.captions:
            for search, caption in ours.items():
                findings.said.setdefault(search, {})[self.image] = caption
        if not self.pixels_equal:
            self._add_preparation(findings)
        if self.image in self.job.probes:
            self._probe(findings, ours)
        for search in ours:
            if search in self.theirs and ours[search].ids != self.theirs[search].ids:
                found = self._greedy(ours[search]) if search is Search.GREEDY else self._beam(ours[search])
                findings.evidence.setdefault(search, []).append(found)

    def _add_preparation(self, findings: _Findings) -> None:
        """What was prepared differently, and what the graphs say when they are given the reference's pixels."""
        findings.unequal.append(self.image)
        if len(findings.contracts) < EXPLAINED_IMAGES:
            contract = Preprocessing.from_json(self.preprocessing)
            findings.contracts[self.image] = explain_tensor(self.encoded, self.pixels[0], contract)
        else:
            findings.contracts[self.image] = next(iter(findings.contracts.values()))
        if self.given is not None:
            for search in self.loaded.searches:
                ids = self.loaded.decode(self.given, search)[0].ids
                findings.graph_captions.setdefault(search, {})[self.image] = ids

    def _probe(self, findings: _Findings, ours: Mapping[Search, Caption]) -> None:
        """Noise, on the same pixels and the same words."""
        theirs = self.theirs[Search.GREEDY]
        if self.fused:
            # A fused graph tells one number a caption: the sum of its steps' errors.
            own = ours[Search.GREEDY]
            if own.ids == theirs.ids and len(own.ids):
                error = (own.log_probability - theirs.log_probability) / np.sqrt(len(own.ids))
                findings.add_margins(np.array([error]))
            return
        if self.given is None or not self.reference.logits.size:
            return
        forced = force(self.loaded, self.given, theirs.ids)
        for name, value in self._comparable_inputs(self.given):
            findings.meter.add(name, self.reference.inputs[name], value)
        for name, value in forced.states.items():
            if name in self.reference.states and self.reference.states[name].shape == value.shape:
                findings.meter.add(name, self.reference.states[name], value)
        if forced.logits.shape == self.reference.logits.shape:
            findings.meter.add("logits", self.reference.logits, forced.logits)
            findings.add_margins(_margin_errors(self.reference.logits, forced.logits))

    def _comparable_inputs(self, inputs: Tensors) -> Iterator[tuple[str, Array]]:
        """The encoder's outputs that the reference has too; a state of zeros that it starts from tells nothing."""
        for name, value in inputs.items():
            theirs = self.reference.inputs.get(name)
            if name not in _BOOKKEEPING and theirs is not None and theirs.shape == value.shape and theirs.any():
                yield name, value

    def _greedy(self, ours: Caption) -> Evidence:
        theirs = self.theirs[Search.GREEDY].ids
        step = next((i for i, (x, y) in enumerate(zip(theirs, ours.ids, strict=False)) if x != y), None)
        step = min(len(theirs), len(ours.ids)) if step is None else step
        token, expected = _at(ours.ids, step), _at(theirs, step)
        found = Evidence(self.image, Search.GREEDY, step, expected, token, self.pixels_equal)
        if expected is None or token is None or step >= len(self.reference.logits):
            return found
        scores = _scores(self.reference.logits[step])
        known = {"margin": float(scores[expected] - scores[token]), "reference_choices": _best(scores)}
        return _with(found, **known) if self.fused else _with(found, **known, **self._replay(step, expected))

    def _replay(self, step: int, expected: int) -> dict[str, Any]:
        """What the row's own graphs show at the step, and what they say with the reference's tensors put in."""
        theirs = self.theirs[Search.GREEDY].ids
        own = force(self.loaded, self.inputs, theirs)
        if own.logits.shape != self.reference.logits.shape:
            return {}
        states = {name: rows for name, rows in self.reference.states.items() if name in own.states}
        scores = _scores(own.logits[step])
        return {
            "choices": _best(scores),
            "replayed_token": int(scores.argmax()),
            "token_from_pixels": None if self.pixels_equal else self._token(self.given, theirs, step),
            "token_from_features": self._token(self._with_features(), theirs, step),
            "token_from_state": self._token_from_state(theirs, step, states),
            "errors": self._errors(own, step),
            "growth": tuple(map(relative_error, _centred(self.reference.logits), _centred(own.logits))),
            "moved": find_moved(self.reference.logits, own.logits),
            "state_lost": is_state_lost(states, own.states),
        }

    def _with_features(self) -> Tensors:
        """This row's inputs, the reference's in place of all that it has too."""
        theirs = self.reference.inputs
        return {
            name: theirs[name] if name in theirs and theirs[name].shape == value.shape else value
            for name, value in self.inputs.items()
        }

    def _token(self, inputs: Tensors | None, words: Sequence[int], step: int) -> int | None:
        """The word said after `step` given words."""
        if inputs is None:
            return None
        return int(_scores(force(self.loaded, inputs, words[: step + 1]).logits[step]).argmax())

    def _token_from_state(self, words: Sequence[int], step: int, states: Mapping[str, Array]) -> int | None:
        """The word said from the reference's features and state; None where the graph has no such state."""
        if not states or step == 0:
            return self._token(self._with_features(), words, step) if states else None
        entering = {name: rows[step - 1 : step] for name, rows in states.items()}
        inputs = {**self._with_features(), **entering}
        logits, _ = self.loaded.step(np.array([words[step - 1]], np.int32), inputs)
        return int(_scores(logits[0]).argmax())

    def _feature_errors(self) -> dict[str, float]:
        comparable = self._comparable_inputs(self.inputs)
        return {name: relative_error(self.reference.inputs[name], value) for name, value in comparable}

    def _errors(self, own: Forced, step: int) -> dict[str, float]:
        """By tensor, at the step: features, the state that enters it, logits."""
        errors = {
            name: relative_error(self.reference.inputs[name], v) for name, v in self._comparable_inputs(self.inputs)
        }
        if step:
            entering = {name: (self.reference.states.get(name), rows) for name, rows in own.states.items()}
            errors |= {
                name: relative_error(theirs[step - 1], rows[step - 1])
                for name, (theirs, rows) in entering.items()
                if theirs is not None and theirs.shape == rows.shape
            }
        centred = _centred(self.reference.logits[step : step + 1]), _centred(own.logits[step : step + 1])
        return errors | {"logits": relative_error(*centred)}

    def _beam(self, ours: Caption) -> Evidence:
        """Where the two searches part; with the reference's features, or pixels, the whole search is done again."""
        theirs = self.theirs[Search.BEAM3]
        said, steps = observe_beam(self.loaded, self.inputs)
        parting = find_parting(self.reference.beam, steps)
        if parting is None:
            return Evidence(self.image, Search.BEAM3, 0, None, None, self.pixels_equal)
        expected, token = _at(parting.theirs.ids, -1), _at(parting.ours.ids, -1)
        if token == expected:  # the same word after other ones
            expected, token = _first_unequal(parting.theirs.ids, parting.ours.ids)
        return Evidence(
            self.image,
            Search.BEAM3,
            parting.step,
            expected,
            token,
            self.pixels_equal,
            margin=parting.margin if np.isfinite(parting.margin) else None,
            replayed_token=token if said.ids == ours.ids else None,
            token_from_pixels=None if self.pixels_equal else self._beam_token(self.given, theirs, expected, token),
            token_from_features=self._beam_token(self._with_features(), theirs, expected, token),
            errors=self._feature_errors(),
        )

    def _beam_token(
        self, inputs: Tensors | None, theirs: Caption, expected: int | None, token: int | None
    ) -> int | None:
        if inputs is None:
            return None
        return expected if observe_beam(self.loaded, inputs)[0].ids == theirs.ids else token


def _with(found: Evidence, **known: Any) -> Evidence:
    return replace(found, **known)


def _at(ids: Sequence[int], index: int) -> int | None:
    return ids[index] if ids and index < len(ids) else None


def _first_unequal(a: Sequence[int], b: Sequence[int]) -> tuple[int | None, int | None]:
    return next(((x, y) for x, y in zip(a, b, strict=False) if x != y), (None, None))


def _scores(logits: Array) -> Array:
    scores: Array = log_softmax(logits[None])[0]
    return scores


def _best(scores: Array) -> tuple[tuple[int, float], ...]:
    order = np.argsort(-scores, kind="stable")[:CHOICES]
    return tuple((int(index), float(scores[index])) for index in order)


def _centred(logits: Array) -> Array:
    """Without their mean over words, which no softmax sees."""
    wide = logits.astype(np.float64)
    centred: Array = wide - wide.mean(axis=1, keepdims=True)
    return centred


def _margin_errors(reference: Array, own: Array) -> Array:
    """By how much the margin between the reference's two best words is off, at each step."""
    best = np.argsort(-np.stack([_scores(row) for row in reference]), axis=1, kind="stable")[:, :2]
    rows = np.arange(len(reference))
    theirs, ours = (
        values[rows, best[:, 0]].astype(np.float64) - values[rows, best[:, 1]] for values in (reference, own)
    )
    errors: Array = ours - theirs
    return errors
