"""Deterministic renderer of the captioned scenes of suite `mini-retrieval`.

Two coloured shapes in 48x48 RGB, one beside or above the other, and three different captions of
each image, none of which says everything. In `scene_captions` the two objects vary in colour,
shape and size; in `relation_captions` four images in a row have the same two objects in the four
arrangements, so that only where they are tells these images apart (in the spirit of Winoground,
arXiv:2204.03162). Pixels and captions are the same on every platform: integer arithmetic and
`RandomState.randint`, by the primitives of `scenes.py`. Lengths are in units of 1/16 pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from petlbench.mini import scenes
from petlbench.mini.scenes import Draws, Integers, Point

TASKS = ("scene_captions", "relation_captions")
SIZES: dict[str, int] = {"train": 400, "val": 100, "test": 300}  # images of each task, by split
CAPTIONS = 3  # of each image

MIDDLE = scenes.IMAGE * scenes.PIXEL // 2
EDGE = scenes.PIXEL // 2  # least distance of an object from the border and from the middle

COLOURS = {
    "red": (215, 45, 45),
    "green": (60, 185, 70),
    "blue": (60, 100, 235),
    "yellow": (230, 215, 60),
    "pink": (245, 150, 190),
    "purple": (165, 80, 220),
    "turquoise": (50, 205, 205),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring")
RADII = {"small": (84, 100), "large": (148, 168)}
RELATIONS = ("above", "below", "left", "right")  # of the second object is the first
OPPOSITE = {"above": "below", "below": "above", "left": "right", "right": "left"}

# How captions may put it.
WORDS = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "small": ("small", "tiny", "little"),
    "large": ("large", "big"),
    "above": ("above", "over"),
    "below": ("below", "under"),
    "left": ("left of", "on the left of"),
    "right": ("right of", "on the right of"),
}
PLACES = {
    "above": ("at the top", "in the upper half"),
    "below": ("at the bottom", "in the lower half"),
    "left": ("on the left", "in the left half"),
    "right": ("on the right", "in the right half"),
}


@dataclass(frozen=True)
class Thing:
    """What an object is, apart from where."""

    colour: str
    shape: str
    size: str


@dataclass(frozen=True)
class Scene:
    """`first` is `relation` (of) `second`."""

    first: Thing
    second: Thing
    relation: str


def scene(task: str, split: str, index: int) -> Scene:
    """What an image shows. Raises ValueError or IndexError for what does not exist."""
    return _draw(task, split, index)[0]


def captions(task: str, split: str, index: int) -> tuple[str, str, str]:
    """Three descriptions of an image that differ in words and in what they tell."""
    shown, draws = _draw(task, split, index)

    def say(word: str) -> str:
        ways = WORDS.get(word, (word,))
        return ways[draws.one(0, len(ways) - 1)]

    first, second, relation = shown.first, shown.second, shown.relation
    one, two = f"{first.colour} {say(first.shape)}", f"{second.colour} {say(second.shape)}"
    back = f"the {two} is {say(OPPOSITE[relation])} the {one}"
    if task == "scene_captions":
        return (
            f"a {say(first.size)} {one} {say(relation)} a {say(second.size)} {two}",
            back,
            f"the {first.colour} shape and a {say(second.size)} {say(second.shape)}, "
            f"which is {say(OPPOSITE[relation])} it",
        )
    places = PLACES[relation], PLACES[OPPOSITE[relation]]
    here, there = (ways[draws.one(0, len(ways) - 1)] for ways in places)
    return f"a {one} {say(relation)} a {two}", back, f"a {one} {here} and a {two} {there}"


def render(task: str, split: str, index: int) -> NDArray[np.uint8]:
    """Image (48, 48, 3) uint8."""
    shown, _ = _draw(task, split, index)
    draws = Draws(_seed(task, split, index) + 1)
    dark, light = scenes._background_colours(draws, 40)
    image = dark + (light - dark) * scenes._texture(draws)[:, :, None] // 256
    for thing, (centre, radius) in zip(
        (shown.first, shown.second), _places(draws, shown), strict=True
    ):
        cover = scenes._coverage(outline(thing.shape, centre, radius, draws.one(0, 359)))
        colour = np.array(COLOURS[thing.colour], dtype=np.int64) + draws.array(-20, 20, (3,))
        image = paint(image, cover, colour.clip(0, 255))
    return scenes._light_and_noise(draws, image)


def outline(shape: str, centre: Point, radius: int, angle: int) -> scenes.Bools:
    """Samples (192, 192) inside a shape that fits in a circle, turned by `angle` degrees."""

    def polygon(*corners: Point) -> scenes.Bools:
        return scenes._convex(scenes._turned(centre, list(corners), angle))

    long, short = radius * 15 // 16, radius * 5 // 16
    side = radius * 181 // 256  # half the side of the square in the circle
    if shape == "circle":
        return scenes._ellipse(centre, radius, radius, 0)
    if shape == "ring":
        hole = radius * 9 // 16
        return outline("circle", centre, radius, 0) & ~scenes._ellipse(centre, hole, hole, 0)
    if shape == "square":
        return polygon((side, side), (-side, side), (-side, -side), (side, -side))
    if shape == "triangle":
        half, base = radius * 222 // 256, -radius // 2
        return polygon((radius, 0), (base, half), (base, -half))
    if shape == "bar":
        return polygon((long, short), (-long, short), (-long, -short), (long, -short))
    if shape == "cross":
        return outline("bar", centre, radius, angle) | outline("bar", centre, radius, angle + 90)
    raise ValueError(f"unknown shape {shape!r}; known: {', '.join(SHAPES)}, bar")


def paint(image: Integers, cover: Integers, colour: Integers) -> Integers:
    """Colour (3,) over the image (48, 48, 3), as far as each pixel is covered, 0 to 16."""
    full = scenes.SAMPLES * scenes.SAMPLES
    weight = cover[:, :, None]
    painted: Integers = (image * (full - weight) + colour * weight + full // 2) // full
    return painted


def _draw(task: str, split: str, index: int) -> tuple[Scene, Draws]:
    """What is shown, and the numbers that are left for its captions."""
    draws = Draws(_seed(task, split, index))
    if task == "scene_captions":
        first, second = _things(draws)
        return Scene(first, second, RELATIONS[draws.one(0, 3)]), draws
    first, second = _things(Draws(_seed(task, split, index - index % 4) + 2))
    return Scene(first, second, RELATIONS[index % 4]), draws


def _things(draws: Draws) -> tuple[Thing, Thing]:
    """Two objects of different colours."""
    colours, sizes = list(COLOURS), list(RADII)
    first = draws.one(0, len(colours) - 1)
    second = (first + draws.one(1, len(colours) - 1)) % len(colours)

    def thing(colour: str) -> Thing:
        return Thing(colour, SHAPES[draws.one(0, len(SHAPES) - 1)], sizes[draws.one(0, 1)])

    return thing(colours[first]), thing(colours[second])


def _places(draws: Draws, shown: Scene) -> list[tuple[Point, int]]:
    """Centre and radius of both: in opposite halves, and farther apart that way than across."""
    first, second = (draws.one(*RADII[thing.size]) for thing in (shown.first, shown.second))
    low_first = shown.relation in ("above", "left")  # its coordinate is the smaller one
    low, high = (first, second) if low_first else (second, first)
    while True:
        near = draws.one(low + EDGE, MIDDLE - low - EDGE)
        far = draws.one(MIDDLE + high + EDGE, 2 * MIDDLE - high - EDGE)
        across = [draws.one(r + EDGE, 2 * MIDDLE - r - EDGE) for r in (low, high)]
        if abs(across[0] - across[1]) < far - near:
            break
    points = [(across[0], near), (across[1], far)]  # (x, y), one above the other
    if shown.relation in ("left", "right"):
        points = [(y, x) for x, y in points]
    placed = list(zip(points, (low, high), strict=True))
    return placed if low_first else placed[::-1]


def _seed(task: str, split: str, index: int) -> int:
    """Seed of an image, with two to spare behind it; no two images share any, nor `scenes.py`'s."""
    if task not in TASKS:
        raise ValueError(f"unknown captioned task {task!r}; known: {', '.join(TASKS)}")
    if split not in SIZES:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SIZES)}")
    if not 0 <= index < SIZES[split]:
        raise IndexError(f"{task} {split} has images 0 to {SIZES[split] - 1}, not {index}")
    return 1_000_000 + 100_000 * TASKS.index(task) + 10_000 * list(SIZES).index(split) + 3 * index
