"""A data set whose images are files in one directory: what flickr8k.py and folder.py return."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from models.datasets.base import CaptionedImage, Split
from models.errors import DataError, ImageError
from models.preprocessing import read_image_file


@dataclass(frozen=True)
class StoredDataset:
    """Images of `directory` by file name. Raises DataError when an image is listed twice."""

    name: str
    fingerprint: str
    may_publish_images: bool
    directory: Path
    splits: Mapping[Split, tuple[CaptionedImage, ...]]

    def __post_init__(self) -> None:
        counts = Counter(image.id for images in self.splits.values() for image in images)
        repeated = [image_id for image_id, count in counts.items() if count > 1]
        if repeated:
            raise DataError(
                f"{len(repeated)} images of data set '{self.name}' are listed more than once, "
                f"first {repeated[0]}: a test image must not be trained on. List each in one split."
            )

    def images(self, split: Split) -> Sequence[CaptionedImage]:
        """The images of a split, in the order of the data set's own lists."""
        return self.splits.get(split, ())

    def read(self, image_id: str) -> bytes:
        """The encoded file. Raises ImageError for an unlisted id or an unreadable file."""
        if image_id not in self._ids:  # also keeps '../' out: only listed names are opened
            raise ImageError(f"data set '{self.name}' has no image '{image_id}'. images() lists its ids.")
        return read_image_file(self.directory / image_id)

    @cached_property
    def _ids(self) -> frozenset[str]:
        return frozenset(image.id for images in self.splits.values() for image in images)
