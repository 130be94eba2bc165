"""Downloads with a checksum, a progress bar and resume; archives unpacked whole or not at all."""

import hashlib
import shutil
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from models.errors import DataError
from models.progress import track_bytes

TIMEOUT_SECONDS = 30.0
BLOCK = 1 << 18


@dataclass(frozen=True)
class Download:
    """A file on the web; `md5` (hex) is what its publisher's users agree on."""

    address: str
    md5: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.address.rsplit("/", 1)[-1]


def fetch(download: Download, folder: Path) -> Path:
    """The file in `folder`, downloaded now unless it is there; a cut download goes on where it stopped.

    Raises DataError where there is no network and when the checksum is wrong (the file is removed then).
    """
    path, partial = folder / download.name, folder / f"{download.name}.part"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _append(download, partial)
    except (urllib.error.URLError, OSError, HTTPException) as error:
        raise DataError(f"can't download {download.address}: {error}. Run again to go on where it stopped.") from error
    with partial.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != download.md5:
        partial.unlink()
        raise DataError(
            f"{download.address} has MD5 {found}, expected {download.md5}; it was removed. "
            "Run again, or get it elsewhere."
        )
    partial.replace(path)
    return path


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip into `folder`, which appears when it is complete. Raises DataError for a bad or unsafe archive."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as packed:
            for name in packed.namelist():
                if Path(name).is_absolute() or ".." in Path(name).parts:
                    raise DataError(f"{archive} holds the unsafe path '{name}'. Get the archive elsewhere.")
            packed.extractall(partial)  # checks the CRC of every member
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise DataError(f"{archive} is not a whole zip archive: {error}. Remove it and run again.") from error
    shutil.rmtree(folder, ignore_errors=True)  # of an unpacking that was cut
    partial.rename(folder)


def _append(download: Download, partial: Path) -> None:
    start = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(download.address, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send: the part is whole
            return
        raise
    with answer:
        resumed = answer.status == 206  # a server may ignore the range and send everything
        total = int(answer.headers.get("Content-Length") or 0)
        with partial.open("ab" if resumed else "wb") as file:
            for block in track_bytes(_blocks(answer), total, download.name):
                file.write(block)
        if total and partial.stat().st_size < total + (start if resumed else 0):
            raise OSError("the connection was closed early")


def _blocks(answer: BinaryIO) -> Iterator[bytes]:
    while block := answer.read(BLOCK):
        yield block
