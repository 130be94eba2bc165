"""Pictures to caption: files, folders and http(s) addresses, each with limits."""

import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from bench.captioning import load_sessions
from bench.runtimes import find_runtime, runtimes_for
from bench.runtimes.base import Runtime
from convert.artifact import Artifact, load_artifact
from convert.store import Store
from models.decoding import Search
from models.errors import ArtifactError, CaptionbenchError, ImageError, unknown_name
from models.preprocessing import SUFFIXES, read_image_file

# A photograph is rarely over 20 MB, and a server that sends nothing for 20 s will not; one that drips is
# given a minute in all.
MAXIMUM_BYTES = 20_000_000
TIMEOUT_SECONDS = 20.0
DEADLINE_SECONDS = 60.0


def caption_pictures(
    store: Store, artifact: str, pictures: Sequence[str], runtime: str, search: str, threads: int
) -> Iterator[tuple[str, str, str]]:
    """(name, caption, error) of each picture; one that can't be read has an error and no caption.

    Raises ArtifactError or ConfigError when nothing can be captioned at all.
    """
    loaded_artifact = find_artifact(store, artifact)
    if search and search not in set(Search):
        raise unknown_name("search", search, Search)
    with load_sessions(loaded_artifact, _runtime(loaded_artifact, runtime), threads=threads) as loaded:
        for name in _expand(pictures):
            try:
                said = loaded.sentence(
                    loaded.caption(read_picture(name), Search(search) if search else loaded.searches[-1], name)
                )
                yield name, said, ""
            except ImageError as error:
                yield name, "", str(error)


def find_artifact(store: Store, name_or_path: str) -> Artifact:
    """An artifact by its folder, or the newest in the store of a recipe's name. Raises ArtifactError."""
    path = Path(name_or_path)
    if path.is_dir():
        return load_artifact(path)
    folders = sorted((store.root / "artifacts").glob("[!.]*/"), key=lambda p: p.stat().st_mtime, reverse=True)
    built: dict[str, Path] = {}
    for folder in folders:
        try:
            name = load_artifact(folder).recipe.name
        except CaptionbenchError:
            continue  # a corrupt neighbour is no reason to refuse a whole one
        built.setdefault(name, folder)
    if name_or_path not in built:
        known = ", ".join(sorted(built)) or "none yet; run `captionbench build`"
        raise ArtifactError(
            f"no artifact '{name_or_path}': neither a folder nor a recipe that was built. Built: {known}."
        )
    return load_artifact(built[name_or_path])


def read_picture(name: str) -> bytes:
    """The encoded file behind a path or an http(s) address. Raises ImageError."""
    if name.startswith(("http://", "https://")):
        return _fetch(name)
    return read_image_file(Path(name))


def _fetch(address: str) -> bytes:
    request = urllib.request.Request(address, headers={"User-Agent": "captionbench"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            content = _read_within(answer, time.monotonic() + DEADLINE_SECONDS)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise ImageError(
            f"can't fetch {address}: {error}. Check the address, or save the picture and give its path."
        ) from error
    if len(content) > MAXIMUM_BYTES:
        raise ImageError(
            f"{address} is larger than {MAXIMUM_BYTES // 1_000_000} MB; save it smaller and give its path."
        )
    return content


def _read_within(answer: BinaryIO, deadline: float) -> bytes:
    """At most MAXIMUM_BYTES + 1 bytes. Raises TimeoutError past the deadline."""
    blocks, size = [], 0
    while size <= MAXIMUM_BYTES and (block := answer.read1(1 << 16)):  # type: ignore[attr-defined]
        if time.monotonic() > deadline:
            raise TimeoutError(f"not finished after {DEADLINE_SECONDS:.0f} s")
        blocks.append(block)
        size += len(block)
    return b"".join(blocks)


def _expand(pictures: Sequence[str]) -> Iterator[str]:
    """Folders become their images, by name."""
    for picture in pictures:
        path = Path(picture)
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
            yield from map(str, found)
        else:
            yield picture


def _runtime(artifact: Artifact, name: str) -> Runtime:
    return find_runtime(name or runtimes_for(artifact.recipe.format)[0])
