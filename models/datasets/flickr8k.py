"""Flickr8k (Hodosh, Young and Hockenmaier 2013): 8,091 photographs, five captions each, official splits.

The pictures belong to their photographers and may be used for research only, so reports never show them.
"""

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from models.datasets.base import CaptionedImage, Split
from models.datasets.download import Download, fetch, unpack
from models.datasets.stored import StoredDataset
from models.errors import DataError
from models.files import content_key, sha256_of

IMAGES = "Flicker8k_Dataset"  # the official release spells it so
TEXT = "Flickr8k_text"
CAPTIONS = "Flickr8k.token.txt"
SPLIT_FILES = {
    Split.TRAIN: "Flickr_8k.trainImages.txt",
    Split.VALIDATION: "Flickr_8k.devImages.txt",
    Split.TEST: "Flickr_8k.testImages.txt",
}

# Public copies of the official archives; their MD5 sums as published in torchvision for R
# (github.com/mlverse/torchvision, R/dataset-flickr.R). Flickr8k_text.zip has no folder of its own.
_RELEASE = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
TEXT_ARCHIVE = Download(f"{_RELEASE}/Flickr8k_text.zip", "bf6c1abcb8e4a833b7f922104de18627")
IMAGES_ARCHIVE = Download(f"{_RELEASE}/Flickr8k_Dataset.zip", "f18a1e2920de5bd84dae7cf08ec78978")

_CAPTION_LINE = re.compile(r"(?P<image>[^\t]+)#\d+\t\s*(?P<caption>\S.*)")


def open_flickr8k(data: Path | None) -> StoredDataset:
    """The official release at `data`, else FLICKR8K_HOME, else downloaded.

    Raises DataError for a missing or malformed file (naming it and the line) and where there is no network.
    """
    root = find_flickr8k(data)
    captions = read_captions(root / TEXT / CAPTIONS)
    sizes = _image_sizes(root / IMAGES)
    splits = {
        split: _captioned(root / TEXT / name, captions, sizes, root / IMAGES) for split, name in SPLIT_FILES.items()
    }
    return StoredDataset("flickr8k", _fingerprint(root / TEXT, sizes), False, root / IMAGES, splits)


def find_flickr8k(data: Path | None) -> Path:
    """The directory that holds IMAGES and TEXT. Raises DataError when a given one does not."""
    home = os.environ.get("FLICKR8K_HOME")
    if data is None and not home:
        return _download_flickr8k()
    root = data if data is not None else Path(home or "")
    missing = [name for name in (IMAGES, TEXT) if not (root / name).is_dir()]
    if missing:
        raise DataError(
            f"{root} has no directory {' and no '.join(missing)}. "
            f"Pass the directory that holds {IMAGES} and {TEXT} as --data or FLICKR8K_HOME."
        )
    return root


def _download_flickr8k() -> Path:
    """The copy under $CAPTIONBENCH_HOME (default ~/.cache/captionbench), downloaded now unless it is there."""
    home = Path(os.environ.get("CAPTIONBENCH_HOME", Path.home() / ".cache" / "captionbench"))
    root = home / "flickr8k"
    try:
        if not (root / TEXT).is_dir():
            unpack(fetch(TEXT_ARCHIVE, root), root / TEXT)
        if not (root / IMAGES).is_dir():
            archive = fetch(IMAGES_ARCHIVE, root)
            unpack(archive, root / "unpacked")
            (root / "unpacked" / IMAGES).rename(root / IMAGES)
            archive.unlink()  # 1 GB that is not needed again
    except DataError as error:
        raise DataError(
            f"no Flickr8k here: neither --data nor FLICKR8K_HOME is given, and {error} Without a network, get "
            f"{TEXT_ARCHIVE.name} and {IMAGES_ARCHIVE.name}, unpack them into one directory as {TEXT}/ and {IMAGES}/, "
            "and pass it as --data DIR."
        ) from error
    return root


def read_captions(path: Path) -> dict[str, tuple[str, ...]]:
    """Captions by image name, from lines 'NAME#NUMBER<tab>CAPTION'. Raises DataError naming the line.

    The official file captions '2258277193_586949ec62.jpg.1', which is no image and in no split; such
    names are kept as they are, since only the split files say which images there are.
    """
    captions: defaultdict[str, list[str]] = defaultdict(list)
    for number, line in _numbered_lines(path):
        match = _CAPTION_LINE.fullmatch(line)
        if match is None:
            raise DataError(
                f"{path}, line {number}: expected 'NAME.jpg#NUMBER<tab>CAPTION', received {line[:80]!r}. "
                "Unpack the official file again."
            )
        captions[match["image"]].append(match["caption"])
    return {image: tuple(sentences) for image, sentences in captions.items()}


def _captioned(
    path: Path, captions: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int], directory: Path
) -> tuple[CaptionedImage, ...]:
    images = []
    for number, name in _numbered_lines(path):
        if name not in captions:
            raise DataError(
                f"{path}, line {number}: image {name} has no caption in {CAPTIONS}. Add captions or remove the line."
            )
        if name not in sizes:
            raise DataError(f"{path}, line {number}: image {name} is not in {directory}. Unpack the images again.")
        images.append(CaptionedImage(name, captions[name]))
    return tuple(images)


def _numbered_lines(path: Path) -> list[tuple[int, str]]:
    """Lines that are not blank, numbered from 1. Raises DataError when the file can't be read."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}. Unpack the official file again.") from error
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror}. Unpack Flickr8k_text.zip there.") from error
    return [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]


def _image_sizes(directory: Path) -> dict[str, int]:
    with os.scandir(directory) as entries:
        return {entry.name: entry.stat().st_size for entry in entries if entry.name.endswith(".jpg")}


def _fingerprint(text: Path, sizes: Mapping[str, int]) -> str:
    """Hash of the text files and of the names and sizes of the images: reading 1 GB of them takes too long."""
    names = (CAPTIONS, *SPLIT_FILES.values())
    return content_key("flickr8k", [sha256_of(text / name) for name in names], sorted(sizes.items()))
