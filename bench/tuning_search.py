"""The search of `captionbench tune`: what costs no bytes first, then smaller halves, then single layers in float.

Captions are expensive and layers many, so the order of layers comes from noise (`bench.tuning_layers`), and captions
decide only how many of them are needed: doubling, then halving the gap, then taking back what was not needed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.runtimes import Runtime
from bench.tuning_gate import Verdict
from bench.tuning_layers import PROBE_IMAGES, Half, LayerOrder, Probe, Revert, scheme_of, with_scheme
from bench.tuning_trials import KEEPING, Trial, Trials
from convert.graphs import deployable_graphs
from convert.recipe import Graph, Recipe, parse_precisions
from convert.scheme import Calibrator, Precision, Scheme
from convert.variants import Variants
from models.progress import say

# Trials spent on taking layers back, the costliest first.
TAKE_BACK_TRIALS = 12
# What a decoder may be instead of INT8_STATIC; both are smaller or more exact, and need no ranges.
OTHER_DECODERS = (Precision.INT8_DYNAMIC, Precision.INT4_WEIGHTS)


@dataclass
class Search:
    """One search over the recipes of one captioner on one runtime; `work` is a scratch folder."""

    trials: Trials
    runtime: Runtime
    int8: Recipe  # static INT8 with this machine's defaults
    work: Path
    reverts: list[Revert] = field(default_factory=list)  # of the layers that were considered
    _variants: Mapping[Half, Variants] | None = None
    _probe: Probe | None = None

    def run(self) -> Trial | None:
        """The smallest that passes the gate; None when nothing does."""
        self._try_without_layers()
        if not self.trials.having(Verdict.PASSES) or self._only_reference_passes():
            self._try_layers()
        return self.trials.winner

    def _only_reference_passes(self) -> bool:
        return {trial.recipe for trial in self.trials.having(Verdict.PASSES)} == {self.trials.reference_recipe}

    def _try_without_layers(self) -> None:
        """Ranges by other calibrators if the plain ones lose quality, then other decoders."""
        first = self.trials.run(self.int8, "static INT8")
        if first is None or first.verdict not in KEEPING:
            for recipe, what in self._calibrated():
                self.trials.run(recipe, what)
        best = self._best_static()
        for precision in OTHER_DECODERS:
            _, decoder = parse_precisions(precision, best.format)
            self.trials.run(with_scheme(best, Half.DECODER, decoder), f"decoder as {precision}")

    def _calibrated(self) -> Iterator[tuple[Recipe, str]]:
        for calibrator in (Calibrator.ENTROPY, Calibrator.PERCENTILE):
            yield self._with_calibrators(calibrator, calibrator), f"ranges by {calibrator}"
        encoder, decoder = (self._best_calibrator(half) for half in Half)
        yield self._with_calibrators(encoder, decoder), f"ranges by {encoder} and {decoder}, the least noise"

    def _with_calibrators(self, encoder: Calibrator, decoder: Calibrator) -> Recipe:
        return replace(
            self.int8,
            encoder=replace(self.int8.encoder, calibrator=encoder),
            decoder=replace(self.int8.decoder, calibrator=decoder),
        )

    def _best_calibrator(self, half: Half) -> Calibrator:
        def noise(calibrator: Calibrator) -> float:
            scheme = replace(scheme_of(self.int8, half), calibrator=calibrator)
            return self.probe.noise({half: self.variants[half].quantize(scheme)})

        return min(Calibrator, key=noise)

    def _best_static(self) -> Recipe:
        """The static recipe with the best bound so far."""
        static = [trial for trial in self.trials.done.values() if _is_static(trial.recipe)]
        return max(static, key=lambda trial: trial.ci95[0]).recipe if static else self.int8

    def _try_layers(self) -> None:
        """From each base that fits, the most promising first, until one of them leads through the gate."""
        bases = sorted(self.trials.having(Verdict.LOSES_QUALITY), key=lambda trial: -trial.ci95[0])
        by_decoder = {base.recipe.decoder.precision: base for base in reversed(bases)}
        for base in sorted(by_decoder.values(), key=lambda trial: -trial.ci95[0]):
            order = LayerOrder(self.probe, self.variants, base.recipe, self.trials.artifact(base.recipe))
            count = self._shortest(order)
            self.reverts += order.first(count)
            passed = self.trials.run(order.recipe(order.first(count)), "")
            if passed is not None and passed.verdict is Verdict.PASSES:
                self._take_back(order, order.first(count))
                self._try_fp16_halves(base.recipe)
                return

    def _shortest(self, order: LayerOrder) -> int:
        """How many layers, in this order, are the first not to lose quality while they fit."""

        def loses(count: int) -> bool:
            last = order.first(count)[-1]
            what = f"{count} in float, last {last.layer or 'the whole'} of the {last.half}"
            trial = self.trials.run(order.recipe(order.first(count)), what)
            return trial is None or trial.verdict is Verdict.LOSES_QUALITY

        low, high = 0, 1
        while high < len(order) and loses(high):
            low, high = high, min(2 * high, len(order))
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if loses(middle) else (low, middle)
        loses(high)
        return high

    def _take_back(self, order: LayerOrder, kept: list[Revert]) -> None:
        """Try without each layer, the costliest first; what passes without it stays without it."""
        for revert in sorted(kept, key=lambda revert: -revert.added_bytes)[:TAKE_BACK_TRIALS]:
            fewer = [other for other in kept if other is not revert]
            if not fewer:
                return
            trial = self.trials.run(order.recipe(fewer), f"{revert.layer} of the {revert.half} back in integers")
            if trial is not None and trial.verdict is Verdict.PASSES:
                kept = fewer

    def _try_fp16_halves(self, base: Recipe) -> None:
        """A half in FP16 takes two bytes a weight: less than INT8 with a third of its weights in float."""
        for half in Half:
            recipe = with_scheme(base, half, Scheme(Precision.FP16))
            winner = self.trials.winner
            if winner is not None and self.trials.size_bytes(recipe) < winner.size_bytes:
                self.trials.run(recipe, f"{half} as fp16")

    @property
    def variants(self) -> Mapping[Half, Variants]:
        """Cheap forms of both graphs."""
        if self._variants is None:
            builder = self.trials.builder
            say("recording what calibration images make of every tensor")
            self._variants = {
                Half(graph.name): Variants(self.int8.format, graph, builder.calibration, self.work)
                for graph in deployable_graphs(builder.captioner, Graph.STEP)
            }
        return self._variants

    @property
    def probe(self) -> Probe:
        """Words of the reference on validation images."""
        if self._probe is None:
            examination = self.trials.examination
            images = [(image.id, examination.dataset.read(image.id)) for image in examination.images[:PROBE_IMAGES]]
            self._probe = Probe(self.trials.artifact(self.trials.reference_recipe), self.runtime, images)
        return self._probe


def _is_static(recipe: Recipe) -> bool:
    return recipe.encoder.precision is recipe.decoder.precision is Precision.INT8_STATIC
