"""What a tuning leaves behind: a suite that benchmarks the winner beside fp32, and everything as JSON."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from bench.tuning import Tuning
from bench.tuning_layers import Revert, snr_db
from bench.tuning_trials import Trial, pareto_set, precision_text
from convert.calibration import CalibrationPlan
from models.files import write_text_atomic

# 1: first.
FORMAT_VERSION = 1
SUITE_FILE, JSON_FILE = "tuned.toml", "tuning.json"


def write_tuning(tuning: Tuning, folder: Path) -> None:
    """Write JSON_FILE and, where something passed, SUITE_FILE."""
    write_text_atomic(folder / JSON_FILE, json.dumps(tuning_json(tuning), indent=1, ensure_ascii=False) + "\n")
    if tuning.winner:
        write_text_atomic(folder / SUITE_FILE, suite_text(tuning, tuning.winner))


def suite_text(tuning: Tuning, winner: Trial) -> str:
    """A suite (TOML) of two rows: fp32 and the winner, of the same captioner on the same runtime."""
    recipe, table = tuning.reference.recipe, tuning.suite.table
    precisions = list(dict.fromkeys([tuning.reference.precision, winner.precision]))
    build = {
        "captioner": recipe.captioner,
        "formats": [str(recipe.format)],
        "precisions": precisions,
        "runtimes": [tuning.runtime],
        "techniques": [recipe.technique],
    }
    head = {
        "title": f"{table.title}, tuned for {tuning.runtime}",
        "dataset": table.dataset,
        "baseline": f"{recipe.name} @ {tuning.runtime}",
    }
    parts = [
        f"# Found by `captionbench tune`: within {tuning.gate.max_drop:.2%} of CIDEr on {tuning.images} images.",
        *(f"# {reason.layer or 'all'} of the {reason.half} in float: {reason.text}" for reason in tuning.reasons),
        *_lines(head),
        *(["", "[dataset_options]", *_lines(table.dataset_options)] if table.dataset_options else ()),
        *_calibration(table.calibration),
        *("", "[[captioners]]", *_lines(tuning.captioner.facts["spec"])),
        *("", "[[builds]]", *_lines(build)),
    ]
    return "\n".join(parts) + "\n"


def _calibration(plan: CalibrationPlan) -> list[str]:
    return ["", "[calibration]", *_lines(dataclasses.asdict(plan))] if plan != CalibrationPlan() else []


def _lines(table: Any) -> list[str]:
    """`key = value` for strings, numbers and lists of them: JSON writes these as TOML does."""
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]


def tuning_json(tuning: Tuning) -> dict[str, Any]:
    """Everything, in CIDEr, bytes, decibels and shares 0..1."""
    recipe, test = tuning.reference.recipe, tuning.test
    return {
        "format_version": FORMAT_VERSION,
        "captioner": recipe.captioner,
        "technique": recipe.technique,
        "captioner_key": tuning.captioner.path.name,
        "dataset": tuning.suite.table.dataset,
        "runtime": tuning.runtime,
        "gate": dataclasses.asdict(tuning.gate),
        "validation_images": tuning.images,
        "reference": tuning.reference.precision,
        "trials": [_trial(trial) for trial in tuning.trials],
        "failures": tuning.failures,
        "layers": [_revert(revert) for revert in tuning.reverts],
        "pareto_set": [trial.precision for trial in pareto_set({t.recipe: t for t in tuning.trials})],
        "winner": tuning.winner.precision if tuning.winner else None,
        "nearest_miss": None if tuning.winner else tuning.nearest_miss.precision,
        "float_layers": [dataclasses.asdict(reason) for reason in tuning.reasons],
        "test": test and {"images": test.images, "fp32": _trial(test.reference), "winner": _trial(test.winner)},
    }


def _trial(trial: Trial) -> dict[str, Any]:
    table = dataclasses.asdict(trial)
    del table["recipe"]
    return {"precision": precision_text(trial.recipe), **table}


def _revert(revert: Revert) -> dict[str, Any]:
    levels = {"int8": revert.noise_int8, "float": revert.noise_float}
    # JSON has no infinity: no noise at all is null.
    decibels = {name: snr_db(noise) if noise > 0 else None for name, noise in levels.items()}
    return {"half": revert.half, "layer": revert.layer, "added_bytes": revert.added_bytes, "snr_db": decibels}
