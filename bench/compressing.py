"""`captionbench compress`: one chain on one captioner, into a folder, with what it reached as text."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.building import open_suite_dataset
from bench.quality import COLLAPSED_SHARE, cider_mean
from bench.suite import Suite, load_suite
from convert.build import adopt, train
from convert.compress import compress
from convert.store import Entry, Store
from models.compression.chain import canonical_technique
from models.datasets import Dataset
from models.errors import ConfigError, unknown_name


def compress_to_folder(
    store: Store, captioner: str, technique: str, out: Path, suite_name: str, data: Path | None
) -> Iterator[str]:
    """Compress and copy to `out`; yields lines for a reader. Raises ConfigError and what the techniques raise."""
    canonical = canonical_technique(technique)  # a typo is told before the data set is opened
    if out.exists():
        raise ConfigError(f"--out {out} exists already; name a new folder, or remove it.")
    suite = load_suite(suite_name)
    dataset = open_suite_dataset(suite, data)
    dense = find_captioner(store, captioner, suite, dataset)
    entry = compress(store, dense, canonical, dataset, cider_mean)
    _copy(entry.path, out)
    for record in entry.facts["card"].get("compressions", ()):
        yield from _lines(record)
    yield str(out)


def find_captioner(store: Store, captioner: str, suite: Suite, dataset: Dataset) -> Entry:
    """A captioner of the suite by name (trained now if need be), or one in a folder."""
    folder = Path(captioner)
    if folder.is_dir():
        return adopt(store, folder)
    specs = {spec.name: spec for spec in suite.table.captioners}
    if captioner not in specs:
        raise unknown_name(f"captioner of suite '{suite.name}'", captioner, specs)
    return train(store, specs[captioner], dataset, cider_mean)


def _copy(source: Path, out: Path) -> None:
    """All files or none."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    shutil.copytree(source, partial, dirs_exist_ok=True)
    partial.chmod(0o755)
    partial.rename(out)


def _lines(record: Mapping[str, Any]) -> Iterator[str]:
    middle = "" if record["cider_compressed"] is None else f", {record['cider_compressed']:.3f} before fine-tuning"
    yield (
        f"{record['technique']} on the {record['scope']}: validation CIDEr {record['cider_before']:.3f} -> "
        f"{record['cider']:.3f}{middle}; {record['epochs']} epochs in {record['seconds']:.0f} s; parameters "
        f"{record['parameters_before']:,} -> {record['parameters']:,}"
    )
    for reached in record["reached"]:
        yield (
            f"  {reached['layer']}/{reached['weight']}: {reached['zeros']:.1%} zeros, {reached['values']} values "
            f"in {reached['elements']:,}"
        )
    if record["distinct"] < COLLAPSED_SHARE * record["distinct_before"]:
        yield (
            f"  collapsed: only {record['distinct']} different captions are left of {record['distinct_before']}; "
            "prune less or fine-tune longer"
        )
