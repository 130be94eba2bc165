"""How far the times of a run can be trusted: its noise, its machine, and what measuring itself cost. Pure."""

from collections.abc import Iterable, Iterator

from bench.measurement import Disturbance
from bench.result import Results
from reports.report import Report
from reports.speed import MEASURED
from reports.text import (
    DASH,
    escape,
    gigabytes,
    microseconds,
    milliseconds,
    name_text,
    percent,
    signed_percent,
    spread,
)

SHOWN_HASH = 12  # hexadecimal digits; results.json has them all


def noise_text(results: Results) -> str:
    """The noise floor, how it was found, and what follows from it."""
    if results.noise_floor is None:
        return "Noise floor unknown; “≈” marks overlapping intervals."
    if results.noise is None:
        return (
            f"Noise floor: identical artifacts differed by {percent(results.noise_floor)}; “≈” marks what is not above "
            "it or has overlapping intervals."
        )
    low, high = map(signed_percent, results.noise.ci99)
    return (
        f"Noise floor {percent(results.noise_floor)}: one artifact measured as two differed from itself by "
        f"{signed_percent(results.noise.relative)} (99 %: {low} to {high}, the far end is the floor); "
        "“≈” marks a difference that is not above "
        "the floor or whose interval holds zero."
    )


def trust_section(report: Report) -> str:
    """What measuring cost and what else the machine did, a line each; empty where nothing is known."""
    lines = (_harness(report), _left_out(report), _machine(report))
    return "\n".join(f"- {line}" for line in lines if line)


def _harness(report: Report) -> str:
    timed = [(item.caption.median, item.name) for item in report.rows if item.caption and item.row.status in MEASURED]
    seconds = report.results.harness_seconds
    if seconds is None or not timed or min(timed)[0] <= 0:
        return ""
    fastest, name = min(timed)
    return (
        f"Timing itself adds {microseconds(seconds)} to a caption: {percent(seconds / fastest)} of the fastest, "
        f"{milliseconds(fastest)} ms of {name_text(name)}. It is in all the times and not taken off."
    )


def _disturbances(report: Report) -> list[Disturbance]:
    return [item.row.disturbance for item in report.rows if item.row.disturbance]


def _left_out(report: Report) -> str:
    slowed = [found.slowed for found in _disturbances(report)]
    if not slowed:
        return ""
    return (
        f"{spread(slowed, percent)} of a row's samples were left out, because a small known loop beside them ran "
        "slower than at the machine's best: something else had its cores or caches then."
    )


def _machine(report: Report) -> str:
    found = _disturbances(report)
    if not found:
        return ""
    parts = [
        f"other processes kept {_cores(each.other_cores for each in found)} of {report.results.environment.cores} "
        "cores busy"
    ]
    if any(each.stolen_cores for each in found):
        parts.append(f"the hypervisor gave {_cores(each.stolen_cores for each in found)} cores to others")
    if any(each.throttled for each in found):
        held = spread((each.throttled for each in found), percent)
        parts.append(f"the container's quota held processes back for {held} of the time")
    return f"While a row was timed, {' and '.join(parts)}."


def _cores(values: Iterable[float]) -> str:
    return spread(values, "{:.2f}".format)


def knows_rounds(results: Results) -> bool:
    """Whether the run says which round each sample is of: older ones timed all rounds of a runtime in one process."""
    return any(latency.rounds for row in results.rows for latency in row.latency_seconds.values())


def environment_rows(results: Results) -> Iterator[tuple[str, str]]:
    """(what, value) of the machine, the software and the plan; what is not known is left out."""
    environment, plan = results.environment, results.run_plan
    packages = [name_text(f"{name} {version}") for name, version in sorted(environment.packages.items())]
    yield "CPU", escape(environment.cpu)
    yield "instruction sets", ", ".join(map(name_text, environment.isa)) or DASH
    yield "cores", str(environment.cores)
    yield "threads used", str(plan.threads)
    yield "memory", gigabytes(environment.memory_bytes)
    yield from _limits(results)
    yield "system", escape(environment.system)
    yield "Python", name_text(environment.python)
    yield "packages", ", ".join(packages) or DASH
    yield (
        "run plan",
        (
            f"{plan.rounds} interleaved rounds, {plan.warmup} warm-up captions, at least "
            f"{plan.minimum_samples} samples and {plan.minimum_seconds:g} s, seed {plan.seed}"
        ),
    )
    yield from _process_rows(results)
    yield "commit", name_text(results.commit) or DASH
    yield from _hashes(results)
    yield "created", name_text(results.created)


def _limits(results: Results) -> Iterator[tuple[str, str]]:
    environment = results.environment
    if environment.governor:
        yield "clock governor", name_text(environment.governor)
    if environment.hypervisor:
        yield "virtual machine", "yes: other guests may slow it"
    cpus = f"{environment.cpu_limit:g} cores" if environment.cpu_limit is not None else ""
    memory = gigabytes(environment.memory_limit_bytes) if environment.memory_limit_bytes is not None else ""
    if cpus or memory:
        yield "container limits", ", ".join(filter(None, (cpus, memory)))
    loads = (("before", environment.load_before), ("after", environment.load_after))
    known = [f"{when} {' '.join(f'{load:.2f}' for load in values)}" for when, values in loads if values]
    if known:
        yield "load (1, 5, 15 minutes)", f"{', '.join(known)} (with the run's own work)"


def _process_rows(results: Results) -> Iterator[tuple[str, str]]:
    if not knows_rounds(results):
        return
    cpus = results.run_plan.cpus
    yield "processes", "a new one for each row and round; each operator on all threads, one operator after the other"
    yield "pinned to CPUs", ", ".join(map(str, cpus)) if cpus else "no"
    yield "garbage collection", "Python's collector runs once before timing and stays on, as in use"


def _hashes(results: Results) -> Iterator[tuple[str, str]]:
    if results.hashes:
        shown = [f"{escape(name)} {name_text(value[:SHOWN_HASH])}" for name, value in sorted(results.hashes.items())]
        yield "hashes", f"{', '.join(shown)} (whole in `results.json`)"
