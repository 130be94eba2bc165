"""What a data set is: captioned images in official splits, read as encoded files.

Nothing here or in the data sets imports a framework, so that the TFLite and ONNX Runtime
environments can read test images without TensorFlow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Split(StrEnum):
    """The three parts of a data set; calibration uses TRAIN, never TEST."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """One image and the sentences people wrote about it (raw, as published)."""

    id: str
    references: tuple[str, ...]


class Dataset(Protocol):
    """Captioned images. `fingerprint` (sha256 hex) changes when any image or caption may have."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def may_publish_images(self) -> bool:
        """Whether a report may show the pictures (licence)."""
        ...

    def images(self, split: Split) -> Sequence[CaptionedImage]: ...

    def read(self, image_id: str) -> bytes:
        """The encoded file (JPEG, PNG, ...) of one image.

        Raises ImageError when it is missing or can't be read.
        """
        ...
