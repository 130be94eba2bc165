"""Examines a row's images one after the other against a trace, and adds up what they show."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.captioning import LoadedCaptioner
from bench.parity.comparison import Comparison
from bench.parity.differences import DifferenceMeter
from bench.parity.evidence import Evidence, Examined
from bench.parity.job import ParityJob
from bench.parity.logits import margin_errors
from bench.parity.replay import captions_of, force
from bench.parity.trace import Trace
from models.contract_check import explain_tensor
from models.decoding import Caption, Search
from models.preprocessing import Preprocessing

Array = NDArray[Any]
# Images whose preparation is explained; a contract is the same for all.
EXPLAINED_IMAGES = 4


def examine(loaded: LoadedCaptioner, trace: Trace, job: ParityJob, images: Iterable[tuple[str, bytes]]) -> Examined:
    """Compare a row with the reference's trace on the job's images and probes. Keeps no tensor of a past image.

    `images` yields the encoded files of all of them; those that the trace lacks are left out.
    """
    findings = _Findings(job)
    for image, encoded in images:
        if image in trace.head.images:
            findings.add(Comparison(loaded, trace, image, encoded))
    return findings.examined()


@dataclass
class _Findings:
    """What adds up over the images."""

    job: ParityJob
    meter: DifferenceMeter = field(default_factory=DifferenceMeter)
    squared_margins: float = 0.0
    margins: int = 0
    evidence: dict[Search, list[Evidence]] = field(default_factory=dict)
    graph_captions: dict[Search, dict[str, tuple[int, ...]]] = field(default_factory=dict)
    contracts: dict[str, str] = field(default_factory=dict)
    said: dict[Search, dict[str, Caption]] = field(default_factory=dict)

    def add(self, one: Comparison) -> None:
        """Count one image."""
        ours = captions_of(one.loaded, self.job, one.image, one.inputs)
        if not self.job.captions:
            for search, caption in ours.items():
                self.said.setdefault(search, {})[one.image] = caption
        if not one.pixels_equal:
            self._add_preparation(one)
        if one.image in self.job.probes:
            self._add_noise(one, ours)
        for search, caption in ours.items():
            if search in one.theirs and caption.ids != one.theirs[search].ids:
                self.evidence.setdefault(search, []).append(one.evidence(search, caption))

    def examined(self) -> Examined:
        """All of it."""
        return Examined(
            margin_rms=float(np.sqrt(self.squared_margins / self.margins)) if self.margins else None,
            tensors=self.meter.results(),
            evidence={search: tuple(found) for search, found in self.evidence.items()},
            graph_captions=self.graph_captions,
            contracts=self.contracts,
            captions=self.said,
            pixels_differ=tuple(self.contracts),
        )

    def _add_preparation(self, one: Comparison) -> None:
        """What was prepared differently, and what the graphs say when they are given the reference's pixels."""
        if len(self.contracts) < EXPLAINED_IMAGES:
            contract = Preprocessing.from_json(one.preprocessing)
            self.contracts[one.image] = explain_tensor(one.encoded, one.pixels[0], contract)
        else:
            self.contracts[one.image] = next(iter(self.contracts.values()))
        if one.given is not None:
            for search in one.loaded.searches:
                ids = one.loaded.decode(one.given, search)[0].ids
                self.graph_captions.setdefault(search, {})[one.image] = ids

    def _add_noise(self, one: Comparison, ours: Mapping[Search, Caption]) -> None:
        """On the same pixels and the same words."""
        if one.fused:
            self._add_fused_noise(ours[Search.GREEDY], one.theirs[Search.GREEDY])
        elif one.given is not None and one.reference.logits.size:
            self._add_tensors(one)

    def _add_fused_noise(self, ours: Caption, theirs: Caption) -> None:
        """A fused graph tells one number a caption: the sum of its steps' errors."""
        if ours.ids == theirs.ids and ours.ids:
            error = (ours.log_probability - theirs.log_probability) / np.sqrt(len(ours.ids))
            self._add_margins(np.array([error]))

    def _add_tensors(self, one: Comparison) -> None:
        assert one.given is not None
        reference = one.reference
        forced = force(one.loaded, one.given, one.theirs[Search.GREEDY].ids)
        for name, value in one.comparable_inputs(one.given):
            self.meter.add(name, reference.inputs[name], value)
        for name, value in forced.states.items():
            if name in reference.states and reference.states[name].shape == value.shape:
                self.meter.add(name, reference.states[name], value)
        if forced.logits.shape == reference.logits.shape:
            self.meter.add("logits", reference.logits, forced.logits)
            self._add_margins(margin_errors(reference.logits, forced.logits))

    def _add_margins(self, errors: Array) -> None:
        self.squared_margins += float((errors**2).sum())
        self.margins += errors.size
