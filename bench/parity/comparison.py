"""One image: what a row makes of it beside the reference's trace, and what it says with the reference's tensors put in.

The step at which two captions part is taken again with the reference's own tensors in place of the row's: its pixels,
its features, its features and state. What brings the reference's word back is the cause.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.captioning import FusedCaptioner, LoadedCaptioner
from bench.parity.beam import find_parting, observe_beam
from bench.parity.differences import relative_error
from bench.parity.evidence import Evidence
from bench.parity.logits import best_of, centred, scores_of
from bench.parity.reordering import find_moved
from bench.parity.replay import BOOKKEEPING, Forced, force
from bench.parity.state import is_state_lost
from bench.parity.trace import Trace
from models.decoding import Caption, Search, Tensors

Array = NDArray[Any]


class Comparison:
    """The reference's trace of an image, and a row's own tensors."""

    def __init__(self, loaded: LoadedCaptioner, trace: Trace, image: str, encoded: bytes) -> None:
        self.loaded, self.image, self.encoded = loaded, image, encoded
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
        """Whether the row shows neither features nor state."""
        return isinstance(self.loaded, FusedCaptioner)

    def comparable_inputs(self, inputs: Tensors) -> Iterator[tuple[str, Array]]:
        """The encoder's outputs that the reference has too; a state of zeros that it starts from tells nothing."""
        for name, value in inputs.items():
            theirs = self.reference.inputs.get(name)
            if name not in BOOKKEEPING and theirs is not None and theirs.shape == value.shape and theirs.any():
                yield name, value

    def evidence(self, search: Search, ours: Caption) -> Evidence:
        """What a replay shows where this caption leaves the reference's."""
        return self._greedy(ours) if search is Search.GREEDY else self._beam(ours)

    def _greedy(self, ours: Caption) -> Evidence:
        theirs = self.theirs[Search.GREEDY].ids
        step = next((i for i, (x, y) in enumerate(zip(theirs, ours.ids, strict=False)) if x != y), None)
        step = min(len(theirs), len(ours.ids)) if step is None else step
        token, expected = _at(ours.ids, step), _at(theirs, step)
        found = Evidence(self.image, Search.GREEDY, step, expected, token, self.pixels_equal)
        if expected is None or token is None or step >= len(self.reference.logits):
            return found
        scores = scores_of(self.reference.logits[step])
        margin = float(scores[expected] - scores[token])
        found = replace(found, margin=margin, reference_choices=best_of(scores))
        return found if self.fused else replace(found, **self._replay(step))

    def _replay(self, step: int) -> dict[str, Any]:
        """What the row's own graphs show at the step, and what they say with the reference's tensors put in."""
        theirs = self.theirs[Search.GREEDY].ids
        own = force(self.loaded, self.inputs, theirs)
        if own.logits.shape != self.reference.logits.shape:
            return {}
        states = {name: rows for name, rows in self.reference.states.items() if name in own.states}
        scores = scores_of(own.logits[step])
        return {
            "choices": best_of(scores),
            "replayed_token": int(scores.argmax()),
            "token_from_pixels": None if self.pixels_equal else self._token(self.given, theirs, step),
            "token_from_features": self._token(self._with_features(), theirs, step),
            "token_from_state": self._token_from_state(theirs, step, states),
            "errors": self._errors(own, step),
            "growth": tuple(map(relative_error, centred(self.reference.logits), centred(own.logits))),
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
        return int(scores_of(force(self.loaded, inputs, words[: step + 1]).logits[step]).argmax())

    def _token_from_state(self, words: Sequence[int], step: int, states: Mapping[str, Array]) -> int | None:
        """The word said from the reference's features and state; None where the graph has no such state."""
        if not states or step == 0:
            return self._token(self._with_features(), words, step) if states else None
        entering = {name: rows[step - 1 : step] for name, rows in states.items()}
        inputs = {**self._with_features(), **entering}
        logits, _ = self.loaded.step(np.array([words[step - 1]], np.int32), inputs)
        return int(scores_of(logits[0]).argmax())

    def _feature_errors(self) -> dict[str, float]:
        comparable = self.comparable_inputs(self.inputs)
        return {name: relative_error(self.reference.inputs[name], value) for name, value in comparable}

    def _errors(self, own: Forced, step: int) -> dict[str, float]:
        """By tensor, at the step: features, the state that enters it, logits."""
        errors = {
            name: relative_error(self.reference.inputs[name], v) for name, v in self.comparable_inputs(self.inputs)
        }
        if step:
            entering = {name: (self.reference.states.get(name), rows) for name, rows in own.states.items()}
            errors |= {
                name: relative_error(theirs[step - 1], rows[step - 1])
                for name, (theirs, rows) in entering.items()
                if theirs is not None and theirs.shape == rows.shape
            }
        rows = slice(step, step + 1)
        return errors | {"logits": relative_error(centred(self.reference.logits[rows]), centred(own.logits[rows]))}

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


def _at(ids: Sequence[int], index: int) -> int | None:
    return ids[index] if ids and index < len(ids) else None


def _first_unequal(a: Sequence[int], b: Sequence[int]) -> tuple[int | None, int | None]:
    return next(((x, y) for x, y in zip(a, b, strict=False) if x != y), (None, None))
