"""Drawing a scene with Pillow: which pixels a description of grammar.py becomes."""

import math
from collections.abc import Callable
from random import Random

from PIL import Image, ImageDraw

from models.datasets.grammar import COLOURS, Layout, Scene, Size

Point = tuple[float, float]
Colour = tuple[int, int, int]

# Halves of an object's extent, as fractions of the picture's side.
RADII = {Size.LARGE: 0.17, Size.MEDIUM: 0.12, Size.SMALL: 0.095}
# Centres of the objects and how far each may stray, as fractions of the side. With the radii above
# objects neither touch each other nor the border, and "left of" is never also "above".
CENTRES: dict[Layout, tuple[Point, ...]] = {
    Layout.MIDDLE: ((0.5, 0.5),),
    Layout.TOP_LEFT: ((0.25, 0.25),),
    Layout.TOP_RIGHT: ((0.75, 0.25),),
    Layout.BOTTOM_LEFT: ((0.25, 0.75),),
    Layout.BOTTOM_RIGHT: ((0.75, 0.75),),
    Layout.SIDE_BY_SIDE: ((0.26, 0.5), (0.74, 0.5)),
    Layout.STACKED: ((0.5, 0.26), (0.5, 0.74)),
    Layout.FALLING: ((0.26, 0.26), (0.74, 0.74)),
    Layout.RISING: ((0.26, 0.74), (0.74, 0.26)),
    Layout.ROW: ((0.18, 0.5), (0.5, 0.5), (0.82, 0.5)),
    Layout.COLUMN: ((0.5, 0.18), (0.5, 0.5), (0.5, 0.82)),
}
STRAY = 0.04
ROW_STRAY = 0.02

WHITE, GRAY, NIGHT = (248, 248, 248), (150, 150, 150), (14, 16, 40)
HAZE, GRASS, STARLIGHT = (205, 232, 250), (40, 105, 50), (225, 225, 240)
WOOD, SKY = (96, 62, 40), (135, 200, 245)
_PLAIN = {"white": WHITE, "gray": GRAY, "night": NIGHT, "meadow": HAZE, "table": WOOD, "checks": WHITE, "sky": SKY}
CHECKS = 8  # squares of the floor along a side
SPECKS = 12  # single pixels of starlight in the night sky
SHADE = 10  # each colour channel strays by up to this much


def draw_scene(rng: Random, scene: Scene, size: int) -> Image.Image:
    """RGB, size x size pixels; `rng` moves and shades the objects a little."""
    image = _draw_background(rng, scene.background, size)
    canvas = ImageDraw.Draw(image)
    stray = ROW_STRAY if scene.layout in (Layout.ROW, Layout.COLUMN) else STRAY
    for thing, (x, y) in zip(scene.things, CENTRES[scene.layout], strict=True):
        centre = ((x + _jitter(rng, stray)) * size, (y + _jitter(rng, stray)) * size)
        _DRAWERS[thing.shape](canvas, centre, RADII[thing.size] * size, _shade(rng, COLOURS[thing.colour]))
    return image


def _draw_background(rng: Random, background: str, size: int) -> Image.Image:
    image = Image.new("RGB", (size, size), _shade(rng, _PLAIN[background]))
    if background == "meadow":
        horizon = round((0.45 + _jitter(rng, 0.1)) * size)
        image.paste(_shade(rng, GRASS), (0, horizon, size, size))
    if background == "checks":
        side = size / CHECKS
        for row in range(CHECKS):
            for column in range(row % 2, CHECKS, 2):
                corner = (round(column * side), round(row * side))
                image.paste(GRAY, (*corner, round((column + 1) * side), round((row + 1) * side)))
    if background == "night":
        for _ in range(SPECKS):
            image.putpixel((int(rng.random() * size), int(rng.random() * size)), STARLIGHT)
    return image


def _draw_circle(canvas: ImageDraw.ImageDraw, centre: Point, radius: float, colour: Colour) -> None:
    x, y = centre
    canvas.ellipse(_rounded((x - radius, y - radius), (x + radius, y + radius)), fill=colour)


def _draw_square(canvas: ImageDraw.ImageDraw, centre: Point, radius: float, colour: Colour) -> None:
    x, y = centre
    half = radius * 0.9  # as wide as the circle to the eye
    canvas.rectangle(_rounded((x - half, y - half), (x + half, y + half)), fill=colour)


def _draw_triangle(canvas: ImageDraw.ImageDraw, centre: Point, radius: float, colour: Colour) -> None:
    x, y = centre
    corners = ((x, y - radius), (x + radius, y + radius * 0.8), (x - radius, y + radius * 0.8))
    canvas.polygon(_rounded(*corners), fill=colour)


def _draw_star(canvas: ImageDraw.ImageDraw, centre: Point, radius: float, colour: Colour) -> None:
    x, y = centre
    reaches = (radius, radius * 0.42) * 5
    turns = (index * math.pi / 5 for index in range(10))
    points = ((x + r * math.sin(t), y - r * math.cos(t)) for r, t in zip(reaches, turns, strict=True))
    canvas.polygon(_rounded(*points), fill=colour)


def _draw_cross(canvas: ImageDraw.ImageDraw, centre: Point, radius: float, colour: Colour) -> None:
    x, y = centre
    arm = radius * 0.32
    canvas.rectangle(_rounded((x - radius, y - arm), (x + radius, y + arm)), fill=colour)
    canvas.rectangle(_rounded((x - arm, y - radius), (x + arm, y + radius)), fill=colour)


_DRAWERS: dict[str, Callable[[ImageDraw.ImageDraw, Point, float, Colour], None]] = {
    "circle": _draw_circle,
    "square": _draw_square,
    "triangle": _draw_triangle,
    "star": _draw_star,
    "cross": _draw_cross,
}


def _rounded(*points: Point) -> list[tuple[int, int]]:
    # Whole pixels: how Pillow rounds fractions has changed between versions.
    return [(round(x), round(y)) for x, y in points]


def _jitter(rng: Random, reach: float) -> float:
    return (rng.random() * 2 - 1) * reach


def _shade(rng: Random, colour: Colour) -> Colour:
    red, green, blue = (min(255, max(0, round(value + _jitter(rng, SHADE)))) for value in colour)
    return red, green, blue
