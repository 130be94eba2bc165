"""A tuning as a person reads it: the path, the best at each size, the winner and why, the check on test images."""

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench.tuning import Tuning
from bench.tuning_files import SUITE_FILE
from bench.tuning_gate import Gate, Verdict
from bench.tuning_trials import KEEPING, Trial, pareto_set
from reports.terminal import LOG_WIDTH
from reports.text import megabytes, megabytes_with_unit, percent, ratio, score

HEADERS = ("step", "precision", "MB", "smaller", "CIDEr", "difference [95 %]", "same", "gate")
_WORDS = (0, 1, 7)


def print_tuning(tuning: Tuning) -> None:
    """Print everything about a tuning."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)
    console.print(render_tuning(tuning))


def render_tuning(tuning: Tuning) -> RenderableType:
    """Path, best at each size, then sentences."""
    known = {trial.recipe: trial for trial in tuning.trials}
    return Group(
        Text(_title(tuning), style="bold"),
        _trial_table(tuning.trials, tuning.reference),
        Text(),
        Text("best CIDEr at each size", style="bold"),
        _trial_table(pareto_set(known), tuning.reference),
        Text(),
        *map(Text, _sentences(tuning)),
    )


def _title(tuning: Tuning) -> str:
    return f"{tuning.reference.recipe.name} on {tuning.runtime}: {gate_text(tuning.gate)}"


def gate_text(gate: Gate) -> str:
    """What a gate asks, in words."""
    size = "" if gate.max_size_bytes is None else f", and at most {megabytes_with_unit(gate.max_size_bytes)}"
    return f"the 95 % bound of CIDEr at most {gate.max_drop:.2%} below fp32{size}"


def _trial_table(trials: Iterable[Trial], reference: Trial) -> Table:
    table = Table(box=None)
    for place, header in enumerate(HEADERS):
        table.add_column(header, justify="left" if place in _WORDS else "right", overflow="fold")
    for trial in trials:
        table.add_row(*map(Text, _cells(trial, reference)))
    return table


def _cells(trial: Trial, reference: Trial) -> Sequence[str]:
    return (
        trial.what,
        trial.precision,
        megabytes(trial.size_bytes),
        ratio(reference.size_bytes / trial.size_bytes),
        score(trial.cider),
        f"{trial.difference:+.3f} [{trial.ci95[0]:+.3f}, {trial.ci95[1]:+.3f}]",
        percent(trial.captions_identical),
        str(trial.verdict),
    )


def _sentences(tuning: Tuning) -> Iterator[str]:
    yield _width_sentence(tuning)
    yield from (f"not built: {precision}: {reason}" for precision, reason in tuning.failures.items())
    if tuning.winner is None:
        yield from _miss(tuning)
        return
    yield _winner_sentence(tuning, tuning.winner)
    for reason in tuning.reasons:
        yield f"  {reason.layer or 'all layers'} of the {reason.half} in float: {reason.text}"
    yield from _test(tuning)


def _width_sentence(tuning: Tuning) -> str:
    widths = [(trial.ci95[1] - trial.ci95[0]) / 2 for trial in tuning.trials if trial.recipe != tuning.reference.recipe]
    allowed = -tuning.gate.lowest_bound(tuning.reference.cider)
    wide = f"half widths {min(widths):.3f} to {max(widths):.3f}" if widths else "nothing to compare"
    warning = "" if not widths or min(widths) < allowed else ": too few images for this gate, --images takes more"
    return (
        f"{tuning.images} validation images: {wide} of the 95 % intervals, where {allowed:.3f} may be lost{warning}. "
        f"Of {len(tuning.trials)} trials the choice is the smallest, so its own bound flatters it a little."
    )


def _winner_sentence(tuning: Tuning, winner: Trial) -> str:
    if winner.recipe == tuning.reference.recipe:
        return "Only fp32 itself passes: nothing smaller that was tried keeps this much CIDEr."
    return (
        f"Winner: {winner.recipe.name} @ {tuning.runtime}: {megabytes_with_unit(winner.size_bytes)}, "
        f"{tuning.reference.size_bytes / winner.size_bytes:.2f} times smaller than fp32, "
        f"CIDEr {winner.cider:.3f} against {tuning.reference.cider:.3f} ({_share(winner, tuning.reference)}). "
        f"Benchmark it with {SUITE_FILE}."
    )


def _share(trial: Trial, reference: Trial) -> str:
    """The difference and its bounds as shares of the reference's CIDEr."""
    if not reference.cider:
        return "no share: fp32 scores 0"
    low, middle, high = (value / reference.cider for value in (trial.ci95[0], trial.difference, trial.ci95[1]))
    return f"{middle:+.2%}, 95 % interval {low:+.2%} to {high:+.2%}"


def _miss(tuning: Tuning) -> Iterator[str]:
    miss = tuning.nearest_miss
    yield (
        f"Nothing passes. Nearest miss: {miss.recipe.name}: {megabytes_with_unit(miss.size_bytes)} ({miss.verdict}), "
        f"CIDEr {miss.cider:.3f} against {tuning.reference.cider:.3f} ({_share(miss, tuning.reference)})."
    )
    keeping = [trial for trial in tuning.trials if trial.verdict in KEEPING]
    if keeping:
        smallest = min(keeping, key=lambda trial: trial.size_bytes)
        yield (
            f"The smallest that keeps the captions: {smallest.recipe.name}, "
            f"{megabytes_with_unit(smallest.size_bytes)}. Allow that size, or a larger drop."
        )


def _test(tuning: Tuning) -> Iterator[str]:
    if tuning.test is None:
        yield "Not checked on test images: there are too few of them."
        return
    test = tuning.test
    holds = test.winner.verdict is Verdict.PASSES
    yield (
        f"Check on {test.images} test images, which the search never saw: CIDEr {test.winner.cider:.3f} against "
        f"{test.reference.cider:.3f} ({_share(test.winner, test.reference)}): "
        f"{'within the gate' if holds else f'not within the gate ({test.winner.verdict})'}."
    )
