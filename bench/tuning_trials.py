"""A trial of `captionbench tune`: one recipe built, captioned and judged against fp32 of the same captioner."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.statistics import FloatArray
from bench.tuning_gate import Gate, Verdict
from bench.tuning_images import Examination, paired_ci95
from convert.artifact import Artifact, load_artifact
from convert.build import ArtifactBuilder
from convert.recipe import Recipe
from models.errors import ConversionError
from models.progress import say

KEEPING = (Verdict.PASSES, Verdict.TOO_LARGE)  # its captions are good enough


@dataclass(frozen=True)
class Trial:
    """What a recipe came to. `difference` and `ci95` are CIDEr minus the reference's, over the same images."""

    recipe: Recipe
    what: str  # what was tried, for a reader
    size_bytes: int
    cider: float
    difference: float
    ci95: tuple[float, float]
    captions_identical: float  # share, with the reference
    verdict: Verdict

    @property
    def precision(self) -> str:
        """As a suite writes it."""
        return precision_text(self.recipe)


@dataclass(frozen=True)
class _Examined:
    captions: Mapping[str, str]
    scores: FloatArray


@dataclass
class Trials:
    """Runs trials and remembers them; none is run twice."""

    builder: ArtifactBuilder
    examination: Examination
    gate: Gate
    reference_recipe: Recipe
    done: dict[Recipe, Trial] = field(default_factory=dict)
    failures: dict[Recipe, str] = field(default_factory=dict)  # what a converter could not make
    _reference: _Examined | None = None

    @property
    def reference(self) -> Trial:
        """The trial of fp32."""
        trial = self.run(self.reference_recipe, "fp32, the reference")
        assert trial is not None
        return trial

    def run(self, recipe: Recipe, what: str) -> Trial | None:
        """The trial of a recipe; None when no converter can make it. The reference's own error is raised."""
        if recipe not in self.done and recipe not in self.failures:
            try:
                self.done[recipe] = self._judge(recipe, what)
            except ConversionError as error:
                if recipe == self.reference_recipe:
                    raise
                self._remember_failure(recipe, error)
        return self.done.get(recipe)

    def size_bytes(self, recipe: Recipe) -> float:
        """The size of a recipe's artifact without captioning; infinite when no converter can make it."""
        try:
            return float(self.artifact(recipe).size_bytes["total"])
        except ConversionError as error:
            self._remember_failure(recipe, error)
            return math.inf

    def artifact(self, recipe: Recipe) -> Artifact:
        """The built artifact. Raises ConversionError."""
        return load_artifact(self.builder.build(recipe).path)

    def having(self, *verdicts: Verdict) -> list[Trial]:
        """Trials with one of these verdicts, the smallest first, then the best."""
        found = [trial for trial in self.done.values() if trial.verdict in verdicts]
        return sorted(found, key=lambda trial: (trial.size_bytes, -trial.cider))

    @property
    def winner(self) -> Trial | None:
        """The smallest that passes; fp32 itself counts."""
        return next(iter(self.having(Verdict.PASSES)), None)

    @property
    def nearest_miss(self) -> Trial:
        """What came closest where nothing passes: the best of those that fit, or else the smallest."""
        fitting = self.having(Verdict.LOSES_QUALITY)
        if fitting:
            return max(fitting, key=lambda trial: trial.ci95[0])
        return min(self.done.values(), key=lambda trial: (trial.size_bytes, -trial.ci95[0]))

    def _remember_failure(self, recipe: Recipe, error: ConversionError) -> None:
        say(f"{recipe.name}: {error}")
        self.failures[recipe] = str(error)

    def _judge(self, recipe: Recipe, what: str) -> Trial:
        artifact = self.artifact(recipe)
        mine = self._examine(artifact)
        if self._reference is None:
            self._reference = mine if recipe == self.reference_recipe else self._examine_reference()
        full = self._reference
        difference = float((mine.scores - full.scores).mean())
        ci95 = paired_ci95(mine.scores, full.scores)
        equal = sum(full.captions[image] == said for image, said in mine.captions.items())
        size = artifact.size_bytes["total"]
        verdict = self.gate.judge(size, ci95[0], float(full.scores.mean()))
        cider = float(mine.scores.mean())
        say(
            f"{what}: {precision_text(recipe)}: {size:,} bytes, CIDEr {cider:.3f}, {difference:+.3f} "
            f"[{ci95[0]:+.3f}, {ci95[1]:+.3f}] over {len(mine.captions)} images: {verdict}"
        )
        return Trial(recipe, what, size, cider, difference, ci95, equal / len(mine.captions), verdict)

    def _examine(self, artifact: Artifact) -> _Examined:
        captions = self.examination.captions(artifact)
        return _Examined(captions, self.examination.scores(captions))

    def _examine_reference(self) -> _Examined:
        return self._examine(self.artifact(self.reference_recipe))


def precision_text(recipe: Recipe) -> str:
    """The precisions of a recipe as a suite writes them."""
    same = recipe.encoder == recipe.decoder
    return str(recipe.encoder) if same else f"{recipe.encoder}+{recipe.decoder}"


def pareto_set(trials: Mapping[Recipe, Trial]) -> list[Trial]:
    """Those that no other beats in both size and CIDEr, by size."""
    kept: list[Trial] = []
    for trial in sorted(trials.values(), key=lambda trial: (trial.size_bytes, -trial.cider)):
        if not kept or trial.cider > kept[-1].cider:
            kept.append(trial)
    return kept
