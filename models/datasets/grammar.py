"""The grammar of the drawn scenes: what is in a picture, and five true sentences about it.

Nothing is drawn here. A scene is chosen by a random generator and described in words; scenes.py
turns it into pixels.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import TypeVar

from models.datasets.base import Split

T = TypeVar("T")

# Raise it with any change below or in the drawing: it is part of the data set's fingerprint.
GRAMMAR_VERSION = 3

# RGB. Far from each other and from every background; green is left to the meadow.
COLOURS = {
    "red": (214, 30, 40),
    "orange": (255, 140, 0),
    "yellow": (255, 225, 30),
    "blue": (30, 70, 220),
    "purple": (140, 55, 180),
    "pink": (255, 130, 195),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
BACKGROUNDS = {
    "white": "on a white background",
    "gray": "on a gray background",
    "night": "in the night sky",
    "meadow": "in a green meadow",
    "table": "on a brown table",
    "checks": "on a checkered floor",
    "sky": "in a light blue sky",
}
# Of ten scenes two have a single object and two have three.
OBJECT_COUNTS = (1, 1, 2, 2, 2, 2, 2, 2, 3, 3)
CAPTIONS_PER_IMAGE = 5


class Size(StrEnum):
    """Size of an object; only the first two are put into words."""

    LARGE = "large"
    SMALL = "small"
    MEDIUM = "medium"


SYNONYMS = {Size.LARGE: "big", Size.SMALL: "little"}


class Layout(StrEnum):
    """Where the objects are. Objects are listed from left to right, or from top to bottom."""

    MIDDLE = "in the middle"
    TOP_LEFT = "in the top left corner"
    TOP_RIGHT = "in the top right corner"
    BOTTOM_LEFT = "in the bottom left corner"
    BOTTOM_RIGHT = "in the bottom right corner"
    SIDE_BY_SIDE = "to the left of"
    STACKED = "above"
    FALLING = "up and left of"
    RISING = "down and left of"
    ROW = "in a row"
    COLUMN = "in a column"


LAYOUTS = {
    1: (Layout.MIDDLE, Layout.TOP_LEFT, Layout.TOP_RIGHT, Layout.BOTTOM_LEFT, Layout.BOTTOM_RIGHT),
    2: (Layout.SIDE_BY_SIDE, Layout.STACKED, Layout.FALLING, Layout.RISING),
    3: (Layout.ROW, Layout.COLUMN),
}
# The same relation seen from the second object.
INVERSE = {
    Layout.SIDE_BY_SIDE: "to the right of",
    Layout.STACKED: "below",
    Layout.FALLING: "down and right of",
    Layout.RISING: "up and right of",
}

# {a}: "large red circle"; {A}: "big red circle"; {x}: "red circle". Most name the first object first,
# so that a captioner can settle on one order.
TEMPLATES = {
    1: (
        "a {a} {where} {ground}",
        "a {A} {where} {ground}",
        "there is a {a} {where}",
        "a single {x} {where} {ground}",
        "the picture shows a {a} {where}",
        "there is a {x} {where} {ground}",
    ),
    2: (
        "a {a} {where} a {b} {ground}",
        "a {a} {where} a {b}",
        "a {A} {where} a {B} {ground}",
        "a {x} {where} a {y} {ground}",
        "there is a {a} {where} a {b}",
        "a {b} {inverse} a {a}",
        "a {a} and a {b} {ground}",
    ),
    3: (
        "a {x} a {y} and a {z} {where}",
        "a {x} then a {y} and a {z} {ground}",
        "there is a {x} a {y} and a {z}",
        "three shapes {where} a {x} a {y} and a {z}",
        "a {x} a {y} and a {z} {ground}",
        "a {y} between a {x} and a {z}",
    ),
}


@dataclass(frozen=True, slots=True)
class Thing:
    """One object of a scene."""

    size: Size
    colour: str
    shape: str


@dataclass(frozen=True, slots=True)
class Scene:
    """What a picture shows; exact positions and shades are left to the drawing."""

    background: str
    layout: Layout
    things: tuple[Thing, ...]

    @property
    def split(self) -> Split:
        """The split that owns this scene: no other split ever shows it. Train has eight of ten."""
        bucket = zlib.crc32(repr(self).encode()) % 10
        return {8: Split.VALIDATION, 9: Split.TEST}.get(bucket, Split.TRAIN)


def pick(rng: Random, options: Sequence[T]) -> T:
    """One of `options`. Only random() is promised to stay the same across Python versions."""
    return options[int(rng.random() * len(options))]


def compose_scene(rng: Random, split: Split) -> Scene:
    """Scenes are drawn until one belongs to `split`."""
    while True:
        scene = _compose(rng)
        if scene.split is split and len({(t.colour, t.shape) for t in scene.things}) == len(scene.things):
            return scene


def write_references(rng: Random, scene: Scene) -> tuple[str, ...]:
    """Five different true sentences: 6 to 16 lower-case words without punctuation."""
    templates = list(TEMPLATES[len(scene.things)])
    while len(templates) > CAPTIONS_PER_IMAGE:
        templates.remove(pick(rng, templates))
    words = _words(scene)
    return tuple(template.format(**words).replace("a orange", "an orange") for template in templates)


def _compose(rng: Random) -> Scene:
    count = pick(rng, OBJECT_COUNTS)
    sizes = (Size.LARGE, Size.SMALL) if count < 3 else (Size.MEDIUM,)
    things = tuple(Thing(pick(rng, sizes), pick(rng, tuple(COLOURS)), pick(rng, SHAPES)) for _ in range(count))
    return Scene(pick(rng, tuple(BACKGROUNDS)), pick(rng, LAYOUTS[count]), things)


def _words(scene: Scene) -> dict[str, str]:
    words = {
        "ground": BACKGROUNDS[scene.background],
        "where": scene.layout.value,
        "inverse": INVERSE.get(scene.layout, ""),
    }
    for thing, full, casual, short in zip(scene.things, "abc", "ABC", "xyz", strict=False):
        words[short] = f"{thing.colour} {thing.shape}"
        words[full] = f"{thing.size} {words[short]}"
        words[casual] = f"{SYNONYMS.get(thing.size, thing.size)} {words[short]}"
    return words
