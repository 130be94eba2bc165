"""Data sets: what all of the registry must hold, and what each tells about malformed files."""

import csv
import hashlib
import http.server
import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.datasets import DATASETS, Dataset, Split, open_dataset
from models.datasets.download import Download, fetch, unpack
from models.datasets.flickr8k import IMAGES, SPLIT_FILES, TEXT, open_flickr8k, read_captions
from models.datasets.folder import open_folder
from models.datasets.grammar import CAPTIONS_PER_IMAGE, compose_scene
from models.datasets.scenes import open_scenes
from models.errors import ConfigError, DataError, ImageError
from models.preprocessing import decode_image
from models.tokens import tokenize

ROOT = Path(__file__).parent.parent
NAMES = [f"photo{index}.png" for index in range(30)]


@pytest.fixture(scope="session")
def png() -> bytes:
    scenes = open_scenes(None, train=1, validation=1, test=1)
    return scenes.read(scenes.images(Split.TRAIN)[0].id)


@pytest.fixture
def folder(tmp_path: Path, png: bytes) -> Path:
    directory = tmp_path / "pictures"
    directory.mkdir()
    for name in NAMES:
        (directory / name).write_bytes(png)
    rows = [f'{name},"a dog, number {number}"' for name in NAMES for number in range(2)]
    (directory / "captions.csv").write_text("\n".join(["image,caption", *rows]))
    return directory


@pytest.fixture
def flickr8k(tmp_path: Path, png: bytes) -> Path:
    """A release in small: real layout and quirks, our own pictures and sentences."""
    root = tmp_path / "flickr8k"
    (root / IMAGES).mkdir(parents=True)
    (root / TEXT).mkdir()
    names = [f"{index}_abc.jpg" for index in range(9)]
    for name in names:
        (root / IMAGES / name).write_bytes(png)
    lines = [f"{name}#{number}\tA dog runs , number {number} ." for name in names for number in range(5)]
    lines.append("2258277193_586949ec62.jpg.1#0\tA caption of no image .")
    (root / TEXT / "Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    for split, start in zip(Split, (0, 5, 7), strict=True):
        chosen = names[start : {0: 5, 5: 7, 7: 9}[start]]
        (root / TEXT / SPLIT_FILES[split]).write_text("\n".join(chosen) + "\n")
    return root


@pytest.fixture
def opened(folder: Path, flickr8k: Path) -> Callable[[str], Dataset]:
    places: dict[str, tuple[Path | None, dict[str, Any]]] = {
        "scenes": (None, {"train": 20, "validation": 5, "test": 5}),
        "flickr8k": (flickr8k, {}),
        "folder": (folder, {}),
    }
    return lambda name: open_dataset(name, *places[name])


@pytest.mark.parametrize("name", DATASETS)
def test_splits_hold_different_images_with_captions(opened: Callable[[str], Dataset], name: str) -> None:
    dataset = opened(name)
    ids = [image.id for split in Split for image in dataset.images(split)]
    assert len(set(ids)) == len(ids)
    assert all(dataset.images(split) for split in Split)
    assert all(image.references and all(image.references) for split in Split for image in dataset.images(split))


@pytest.mark.parametrize("name", DATASETS)
def test_images_decode_and_unknown_ones_are_refused(opened: Callable[[str], Dataset], name: str) -> None:
    dataset = opened(name)
    assert decode_image(dataset.read(dataset.images(Split.TEST)[0].id)).mode == "RGB"
    for absent in ("absent.png", "../captions.csv", "test-99999.png", ""):
        with pytest.raises(ImageError):
            dataset.read(absent)


@pytest.mark.parametrize("name", DATASETS)
def test_opening_twice_gives_the_same(opened: Callable[[str], Dataset], name: str) -> None:
    one, two = opened(name), opened(name)
    assert one.name == two.name == name
    assert one.fingerprint == two.fingerprint
    assert all(list(one.images(split)) == list(two.images(split)) for split in Split)


def test_unknown_data_set_and_option_are_told() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'scenes'"):
        open_dataset("scene", None, {})
    with pytest.raises(ConfigError, match="seeds"):
        open_dataset("scenes", None, {"seeds": 3})


def test_scenes_are_the_same_in_every_process() -> None:
    code = (
        "import hashlib; from models.datasets import Split, open_dataset\n"
        "d = open_dataset('scenes', None, {'train': 5, 'validation': 5, 'test': 5})\n"
        "all = b''.join(d.read(i.id) + repr(i).encode() for s in Split for i in d.images(s))\n"
        "print(hashlib.sha256(all).hexdigest())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_scenes_change_with_the_seed_and_not_with_their_number() -> None:
    few, many = open_scenes(None, train=3), open_scenes(None, train=6)
    other = open_scenes(None, train=3, seed=1)
    assert list(few.images(Split.TRAIN)) == list(many.images(Split.TRAIN))[:3]
    assert few.images(Split.TRAIN) != other.images(Split.TRAIN)
    assert len({few.fingerprint, many.fingerprint, other.fingerprint}) == 3


def test_scenes_have_five_different_true_looking_sentences() -> None:
    dataset = open_scenes(None, train=200, validation=20, test=20)
    words = set()
    for image in dataset.images(Split.TRAIN):
        assert len(set(image.references)) == CAPTIONS_PER_IMAGE == 5
        for sentence in image.references:
            assert 4 <= len(tokenize(sentence)) <= 18
            words |= set(tokenize(sentence))
    assert 30 <= len(words) <= 80


def test_scene_belongs_to_one_split_only() -> None:
    scenes = {
        split: {repr(compose_scene(Random(f"{split} {index}"), split)) for index in range(300)} for split in Split
    }
    assert not scenes[Split.TRAIN] & scenes[Split.TEST]
    assert not scenes[Split.TRAIN] & scenes[Split.VALIDATION]


def test_scenes_take_no_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Leave it out"):
        open_scenes(tmp_path)


def test_flickr8k_reads_the_official_layout(flickr8k: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLICKR8K_HOME", str(flickr8k))
    dataset = open_flickr8k(None)
    assert [len(dataset.images(split)) for split in Split] == [5, 2, 2]
    assert dataset.images(Split.TEST)[0].references[1] == "A dog runs , number 1 ."
    assert not dataset.may_publish_images


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda root: (root / TEXT / SPLIT_FILES[Split.TEST]).unlink(), "testImages"),
        (lambda root: (root / IMAGES / "0_abc.jpg").unlink(), "line 1: image 0_abc.jpg is not in"),
        (lambda root: append(root / TEXT / "Flickr8k.token.txt", "no tab here"), "line 47: expected"),
        (lambda root: append(root / TEXT / SPLIT_FILES[Split.TEST], "x.jpg"), "line 3: image x.jpg has no caption"),
        (lambda root: append(root / TEXT / SPLIT_FILES[Split.TEST], "0_abc.jpg"), "listed more than once"),
        (lambda root: (root / TEXT / "Flickr8k.token.txt").write_bytes(b"\xff\xfe"), "is not UTF-8"),
        (lambda root: (root / TEXT).rename(root / "text"), "no directory Flickr8k_text"),
    ],
)
def test_flickr8k_that_is_damaged_is_told_where(flickr8k: Path, break_it: Callable[[Path], object], told: str) -> None:
    break_it(flickr8k)
    with pytest.raises(DataError, match=told):
        open_flickr8k(flickr8k)


def append(path: Path, line: str) -> None:
    path.write_text(path.read_text() + line + "\n")


@given(st.lists(st.tuples(st.sampled_from(["a.jpg", "b.jpg"]), st.text("abc ,.#", min_size=1)), max_size=20))
@settings(max_examples=40)
def test_flickr8k_captions_come_back_whole(
    tmp_path_factory: pytest.TempPathFactory, captions: list[tuple[str, str]]
) -> None:
    captions = [(image, text.strip()) for image, text in captions if text.strip()]
    path = tmp_path_factory.mktemp("text") / "token.txt"
    path.write_text("".join(f"{image}#{n % 5}\t{text}\n" for n, (image, text) in enumerate(captions)))
    expected: dict[str, tuple[str, ...]] = {}
    for image, text in captions:
        expected[image] = (*expected.get(image, ()), text)
    assert read_captions(path) == expected


def test_folder_reads_csv_and_both_kinds_of_json_alike(folder: Path) -> None:
    from_csv = open_folder(folder)
    with (folder / "captions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    by_image = {name: [row["caption"] for row in rows if row["image"] == name] for name in NAMES}
    (folder / "captions.csv").unlink()
    for table in (by_image, [{"image": name, "captions": texts} for name, texts in by_image.items()]):
        (folder / "captions.json").write_text(json.dumps(table))
        dataset = open_folder(folder)
        assert [dataset.images(split) for split in Split] == [from_csv.images(split) for split in Split]
    assert sum(len(from_csv.images(split)) for split in Split) == len(NAMES)


def test_folder_keeps_given_splits_and_counts_pictures_without_captions(folder: Path, png: bytes) -> None:
    (folder / "extra.png").write_bytes(png)
    rows = [f"{name},a dog,{split}" for name, split in zip(NAMES, ["train"] * 28 + ["validation", "test"], strict=True)]
    (folder / "captions.csv").write_text("\n".join(["image,caption,split", *rows]))
    dataset = open_folder(folder)
    assert [image.id for image in dataset.images(Split.TEST)] == [NAMES[-1]]
    assert dataset.ignored == 1


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("captions.csv", "", "is empty"),
        ("captions.csv", "image,caption\n", "holds no captions"),
        ("captions.csv", "file,text\na,b\n", "no column image and no caption; received the columns file, text"),
        ("captions.csv", "image,caption\nphoto0.png\n", "line 2: expected 2 cells"),
        ("captions.csv", "image,caption\nphoto0.png,a,b\n", "line 2: expected 2 cells"),
        ("captions.csv", 'image,caption\nphoto0.png,"a dog\n', "Close all quotes"),
        ("captions.csv", "image,caption\nphoto0.png, \n", "photo0.png has an empty caption"),
        ("captions.csv", "image,caption\nx.png,a\ny.png,b\n", "captions 2 images that are not in .*: x.png, y.png"),
        ("captions.csv", "image,caption\n../photo0.png,a\n", "captions 1 images that are not in"),
        ("captions.csv", "image,caption,split\nphoto0.png,a,tset\n", "Did you mean 'test'"),
        ("captions.csv", "image,caption,split\nphoto0.png,a,test\nphoto0.png,b,train\n", "Choose one split"),
        ("captions.csv", "image,caption\nphoto0.png,a\n", "no image is left for"),
        ("captions.json", "[" * 100_000, "nested too deeply"),
        ("captions.json", '{"photo0.png": [\n"a"', "line 2"),
        ("captions.json", "3", "must be an object or a list; received int"),
        ("captions.json", '[{"picture": "photo0.png"}]', "entry 1: expected an image"),
        ("captions.json", '{"photo0.png": []}', "entry 1: expected an image"),
    ],
)
def test_folder_with_bad_captions_is_told_what_is_wrong(folder: Path, name: str, content: str, told: str) -> None:
    (folder / "captions.csv").unlink()
    (folder / name).write_text(content)
    with pytest.raises((DataError, ConfigError), match=told):
        open_folder(folder)


@pytest.mark.parametrize("images", [3, 4, 10, 20])
def test_folder_fills_every_split_from_three_images_on(folder: Path, images: int) -> None:
    rows = [f"{name},a dog" for name in NAMES[:images]]
    (folder / "captions.csv").write_text("\n".join(["image,caption", *rows]))
    dataset = open_folder(folder)
    counts = [len(dataset.images(split)) for split in Split]
    assert sum(counts) == images
    assert counts[1] == counts[2] == max(round(images / 10), 1)


@pytest.mark.parametrize("shares", [(2.0, 0.1), (-1.0, 0.1), (0.0, 0.1), (0.5, 0.5)])
def test_folder_refuses_impossible_shares(folder: Path, shares: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="received"):
        open_folder(folder, validation=shares[0], test=shares[1])


def test_folder_fingerprint_sees_an_edit_of_equal_size(folder: Path) -> None:
    before = open_folder(folder).fingerprint
    content = bytearray((folder / NAMES[0]).read_bytes())
    content[-1] ^= 1
    (folder / NAMES[0]).write_bytes(content)
    assert open_folder(folder).fingerprint != before


def test_folder_without_captions_or_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no captions\.csv or captions\.json"):
        open_folder(tmp_path)
    with pytest.raises(DataError, match="received None"):
        open_folder(None)


class RangeHandler(http.server.BaseHTTPRequestHandler):
    """Serves one file with ranges; the first answer is cut in the middle when asked to."""

    content = b""
    cut = False
    ranges: list[str | None] = []  # noqa: RUF012

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        type(self).ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        body = self.content[start:]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if type(self).cut:
            type(self).cut = False
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    RangeHandler.content, RangeHandler.cut, RangeHandler.ranges = bytes(range(256)) * 4000, False, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), RangeHandler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}/file.bin"
        running.shutdown()
        thread.join()


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def test_download_is_checked_and_kept(server: str, tmp_path: Path) -> None:
    download = Download(server, md5(RangeHandler.content))
    for _ in range(2):
        assert fetch(download, tmp_path).read_bytes() == RangeHandler.content
    assert RangeHandler.ranges == [None]


def test_cut_download_goes_on_where_it_stopped(server: str, tmp_path: Path) -> None:
    RangeHandler.cut = True
    download = Download(server, md5(RangeHandler.content))
    with pytest.raises(DataError, match="Run again"):
        fetch(download, tmp_path)
    assert fetch(download, tmp_path).read_bytes() == RangeHandler.content
    assert RangeHandler.ranges == [None, f"bytes={len(RangeHandler.content) // 2}-"]


def test_wrong_checksum_is_refused_and_nothing_is_kept(server: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected 0{32}; it was removed"):
        fetch(Download(server, "0" * 32), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_flickr8k_without_data_or_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = Download("http://127.0.0.1:9/Flickr8k_text.zip", "0" * 32)
    monkeypatch.setattr("models.datasets.flickr8k.TEXT_ARCHIVE", nowhere)
    with pytest.raises(DataError, match=r"Without a network, get .* and pass it as --data DIR"):
        open_flickr8k(None)


def test_archive_is_unpacked_whole_or_not_at_all(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("one.txt", "1")
    unpack(archive, tmp_path / "good")
    assert (tmp_path / "good" / "one.txt").read_text() == "1"
    archive.write_bytes(archive.read_bytes()[:-10])
    with pytest.raises(DataError, match="not a whole zip"):
        unpack(archive, tmp_path / "bad")
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("../escape.txt", "1")
    with pytest.raises(DataError, match="unsafe path"):
        unpack(archive, tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
