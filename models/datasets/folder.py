"""The user's own images: a directory with pictures and a captions file, CSV or JSON.

CSV has the columns `image` and `caption` (one row a caption) and may have `split`. JSON is either
{"name.jpg": ["caption", ...]} or a list of {"image": ..., "captions": [...], "split": ...}.
"""

import csv
import io
import json
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.datasets.base import CaptionedImage, Split
from models.datasets.stored import StoredDataset
from models.errors import ConfigError, DataError, unknown_name
from models.files import content_key, sha256_of
from models.preprocessing import SUFFIXES

# (image, caption, split or "") of one caption.
Entry = tuple[str, str, str]
DEFAULT_CAPTIONS = ("captions.csv", "captions.json")


@dataclass(frozen=True)
class FolderDataset(StoredDataset):
    """`ignored` counts the pictures of the directory that have no caption."""

    ignored: int = 0


def open_folder(
    data: Path | None, *, captions: str = "", validation: float = 0.1, test: float = 0.1, seed: int = 2012
) -> FolderDataset:
    """The images of `data` that its captions file (default captions.csv or captions.json) names.

    Images without a split get one by a hash of their names. Raises DataError for anything that is not as described,
    and ConfigError for impossible shares.
    """
    if data is None or not data.is_dir():
        raise DataError(f"data set 'folder' needs --data DIR, a directory of images; received {data}.")
    if min(validation, test) <= 0 or validation + test >= 1:
        raise ConfigError(
            f"validation and test are shares above 0 that leave some images to train on; received {validation}, {test}."
        )
    path = _captions_file(data, captions)
    entries = list(_read_entries(path))
    if not entries:
        raise DataError(f"{path} holds no captions. Give one row or entry for each caption.")
    named = {image for image, _, _ in entries}
    _refuse_missing(data, path, named)
    splits = _split(entries, path, validation, test, seed)
    empty = [split.value for split in Split if not splits[split]]
    if empty:
        raise DataError(
            f"{path}: no image is left for {', '.join(empty)}. Give at least three images, or a `split` "
            "(train, validation, test) for each."
        )
    pictures = {p.name for p in data.iterdir() if p.suffix.lower() in SUFFIXES}
    content = sorted((name, sha256_of(data / name)) for name in named)
    fingerprint = content_key("folder", sha256_of(path), content, validation, test, seed)
    return FolderDataset("folder", fingerprint, True, data, splits, len(pictures - named))


def _captions_file(data: Path, captions: str) -> Path:
    names = (captions,) if captions else DEFAULT_CAPTIONS
    for name in names:
        if (data / name).is_file():
            return data / name
    raise DataError(f"{data} has no {' or '.join(names)}. Put the captions there, or name the file as `captions`.")


def _read_entries(path: Path) -> Iterator[Entry]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}. Save it as UTF-8.") from error
    if not text.strip():
        raise DataError(f"{path} is empty. Give one row or entry for each caption.")
    entries = _read_json(path, text) if path.suffix.lower() == ".json" else _read_csv(path, text)
    for image, caption, split in entries:
        if not caption.strip():
            raise DataError(f"{path}: image {image} has an empty caption. Write one or remove it.")
        yield image, caption.strip(), split.strip()


def _read_csv(path: Path, text: str) -> Iterator[Entry]:
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    columns = rows.fieldnames or []
    missing = [name for name in ("image", "caption") if name not in columns]
    if missing:
        raise DataError(
            f"{path} has no column {' and no '.join(missing)}; received the columns {', '.join(columns)}. "
            "The first line names them: image,caption."
        )
    try:
        for row in rows:
            if None in row or None in row.values():
                raise DataError(
                    f"{path}, line {rows.line_num}: expected {len(columns)} cells. Quote captions with commas."
                )
            yield row["image"], row["caption"], row.get("split") or ""
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: {error}. Close all quotes.") from error


def _read_json(path: Path, text: str) -> Iterator[Entry]:
    try:
        table = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: {error.msg}. Make it valid JSON.") from error
    except RecursionError as error:
        raise DataError(f"{path} is nested too deeply. Give an object of lists, or a list of objects.") from error
    if isinstance(table, dict):
        table = [{"image": image, "captions": captions} for image, captions in table.items()]
    if not isinstance(table, list):
        raise DataError(f"{path} must be an object or a list; received {type(table).__name__}.")
    for number, item in enumerate(table, start=1):
        yield from _json_entries(path, number, item)


def _json_entries(path: Path, number: int, item: Any) -> Iterator[Entry]:
    given = item.get("captions", item.get("caption")) if isinstance(item, dict) else None
    captions: list[Any] = given if isinstance(given, list) else [given]
    well_formed = captions and all(isinstance(text, str) for text in captions)
    if not well_formed or not isinstance(item.get("image"), str):
        raise DataError(
            f"{path}, entry {number}: expected an image and its list of captions; received {str(item)[:80]!r}."
        )
    for caption in captions:
        yield item["image"], caption, str(item.get("split", ""))


def _refuse_missing(data: Path, path: Path, images: set[str]) -> None:
    missing = sorted(name for name in images if Path(name).name != name or not (data / name).is_file())
    if missing:
        raise DataError(
            f"{path} captions {len(missing)} images that are not in {data}: {', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}. Add them or remove their captions."
        )


def _split(
    entries: list[Entry], path: Path, validation: float, test: float, seed: int
) -> dict[Split, tuple[CaptionedImage, ...]]:
    captions: dict[str, list[str]] = defaultdict(list)
    chosen: dict[str, str] = {}
    for image, caption, split in entries:
        captions[image].append(caption)
        if split and split not in set(Split):
            raise unknown_name(f"split of {image} in {path}", split, Split)
        if chosen.setdefault(image, split) != split:
            raise DataError(f"{path} puts image {image} into '{chosen[image]}' and '{split}'. Choose one split.")
    free = [image for image, split in chosen.items() if not split]
    chosen |= _ranked_splits(free, validation, test, seed)
    return {
        split: tuple(CaptionedImage(image, tuple(captions[image])) for image in captions if chosen[image] == split)
        for split in Split
    }


def _ranked_splits(images: list[str], validation: float, test: float, seed: int) -> dict[str, str]:
    """Splits by the rank of a hash of the name: the asked shares, and at least one image in each."""
    ranked = sorted(images, key=lambda image: (zlib.crc32(f"{seed} {image}".encode()), image))
    tests = max(round(test * len(ranked)), 1)
    validations = tests + max(round(validation * len(ranked)), 1)
    return {
        image: Split.TEST if rank < tests else Split.VALIDATION if rank < validations else Split.TRAIN
        for rank, image in enumerate(ranked)
    }
