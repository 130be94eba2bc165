"""A run's times in the JSON of pytest-benchmark, so that `pytest-benchmark compare FILE FILE` reads them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest_benchmark
from pytest_benchmark.stats import Stats

from bench.measurement import Latency, Phase
from bench.result import Result, Results, row_name
from bench.result_file import compact_json
from bench.setting import Environment
from models.files import write_text_atomic

BENCHMARKS_FILE = "benchmarks.json"


def write_benchmarks(results: Results, path: Path) -> None:
    """Write one benchmark for each row and phase that was timed, raw seconds included.

    The fields are those of pytest-benchmark's own files (`pytest_benchmark_generate_json` and `Metadata.as_dict`).
    A phase is a group, so that its rows stand in one table. A round there is a sample here: how many of them a
    process took is in `extra_info`, as is what the row is worth.
    """
    table = {
        "machine_info": _machine(results.environment),
        "commit_info": {
            "id": results.commit.removesuffix("-dirty"),
            "dirty": results.commit.endswith("-dirty"),
            "time": results.created,
            "project": "captionbench",
        },
        "benchmarks": list(_benchmarks(results)),
        "datetime": results.created,
        "version": pytest_benchmark.__version__,
    }
    write_text_atomic(path, compact_json(table))


def _machine(environment: Environment) -> dict[str, Any]:
    system, _, rest = environment.system.partition(" ")
    release, _, machine = rest.partition(" ")
    return {
        "system": system,
        "release": release,
        "machine": machine,
        "python_version": environment.python,
        "cpu": {"brand_raw": environment.cpu, "count": environment.cores, "flags": list(environment.isa)},
    }


def _benchmarks(results: Results) -> Iterator[dict[str, Any]]:
    for row in results.rows:
        for phase, latency in row.latency_seconds.items():
            yield {
                "group": phase.value,
                "name": f"{phase}[{row_name(row)}]",
                "fullname": f"{results.suite}::{phase}[{row_name(row)}]",
                "params": {"row": row_name(row)},
                "param": row_name(row),
                "extra_info": _extra(results, row, phase, latency),
                "options": {"disable_gc": False, "timer": "perf_counter", "warmup": results.run_plan.warmup > 0},
                "stats": _stats(latency),
            }


def _extra(results: Results, row: Result, phase: Phase, latency: Latency) -> dict[str, Any]:
    """What pytest-benchmark has no field for."""
    return {
        "status": row.status,
        "reason": row.reason,
        "runtime": f"{row.runtime} {row.runtime_version}".strip(),
        "sha256": row.sha256,
        "phase": phase,
        "threads": results.run_plan.threads,
        "samples_by_round": list(latency.rounds or (latency.n,)),
        "median_ci95": list(latency.ci95),
    }


def _stats(latency: Latency) -> dict[str, Any]:
    """The statistics that pytest-benchmark makes of the samples, of which the median is over all of them."""
    collected = Stats()  # type: ignore[no-untyped-call]
    for seconds in latency.samples:
        collected.update(seconds)  # type: ignore[no-untyped-call]
    return {**collected.as_dict(), "data": list(latency.samples), "iterations": 1}  # type: ignore[no-untyped-call]
