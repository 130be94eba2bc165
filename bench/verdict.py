"""What a timed row is worth: valid, quick or invalid, with the reason and what to do next."""

from dataclasses import dataclass

from bench.result import Status
from bench.setting import RunPlan

# Shares. A row whose medians moved more than this while it was timed measured the machine, and a
# repeated image that is faster than fresh ones by more than this was remembered, not computed.
MAXIMUM_DRIFT = 0.05
MAXIMUM_REPEAT_GAIN = 0.10
# Captions that are longer or shorter than fp32's by more take another time for that alone.
MAXIMUM_LENGTH_CHANGE = 0.10

# What a row needs to be valid, whatever a suite's plan says. Under 6 rounds a median has no 95 % interval.
MINIMUM_SAMPLES = 64
MINIMUM_SECONDS = 10.0
MINIMUM_ROUNDS = 6


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a row's timing."""

    samples: int  # of whole captions, taken at full speed
    seconds: float  # of timing in all
    rounds: int  # that have samples
    drift: float = 0.0  # share by which the medians of first and second halves differ
    differing: int = 0  # timed images whose caption is not the quality run's
    repeat_gain: float = 0.0  # share by which repeated images are faster than fresh ones
    length_change: float = 0.0  # share by which captions are longer than fp32's
    disturbed: str = ""  # what else the machine did


def judge(plan: RunPlan, evidence: Evidence) -> tuple[Status, str]:
    """The verdict on a row timed under `plan`, and why if it is not valid."""
    wrong = _wrong_outputs(evidence)
    if wrong:
        return Status.INVALID, wrong
    if plan.quick:
        return Status.QUICK, "measured with --quick: run again without it before deciding"
    if evidence.disturbed:
        return Status.INVALID, f"{evidence.disturbed} while it was timed: measure again when it is calm"
    few = _too_few(plan, evidence)
    if few:
        return Status.QUICK, few
    wrong = _wrong_times(evidence)
    return (Status.INVALID, wrong) if wrong else (Status.VALID, "")


def _wrong_outputs(evidence: Evidence) -> str:
    if evidence.differing:
        return (
            f"the timed captions of {evidence.differing} images differ from those of the quality run: "
            "look for what is random in the graph"
        )
    if evidence.repeat_gain > MAXIMUM_REPEAT_GAIN:
        return (
            f"a repeated image was {evidence.repeat_gain:.0%} faster than fresh ones: results are cached; turn the "
            "cache off"
        )
    return ""


def _too_few(plan: RunPlan, evidence: Evidence) -> str:
    # A plan may ask for more, never for less.
    samples, seconds = max(plan.minimum_samples, MINIMUM_SAMPLES), max(plan.minimum_seconds, MINIMUM_SECONDS)
    if evidence.samples >= samples and evidence.seconds >= seconds and evidence.rounds >= MINIMUM_ROUNDS:
        return ""
    return (
        f"{evidence.samples} samples in {evidence.seconds:.1f} s and {evidence.rounds} rounds, and {samples} in "
        f"{seconds:g} s and {MINIMUM_ROUNDS} are needed: raise the plan's minimum_seconds and rounds, or wait for a "
        "machine that runs at full speed for longer"
    )


def _wrong_times(evidence: Evidence) -> str:
    if abs(evidence.length_change) > MAXIMUM_LENGTH_CHANGE:
        word = "longer" if evidence.length_change > 0 else "shorter"
        return (
            f"captions are {abs(evidence.length_change):.0%} {word} than fp32's, which takes another time for that "
            "alone: compare at equal length"
        )
    if evidence.drift > MAXIMUM_DRIFT:
        return (
            f"medians of the first and second half differ by {evidence.drift:.1%}, more than {MAXIMUM_DRIFT:.0%}: "
            "measure again on an idle machine"
        )
    return ""
