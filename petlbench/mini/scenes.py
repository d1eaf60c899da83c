"""Deterministic renderer of the structured tasks of the embedded suite.

Three questions about geometry, asked of 48x48 RGB scenes: how many objects there are
(`scene_count`), in which cell of a 4x4 grid the object lies (`scene_location`) and which way it
points (`scene_orientation`). Pixels are the same on every platform: all geometry and blending is
integer arithmetic, and every random number comes from `RandomState.randint`, a frozen stream.

Lengths are in units of 1/16 pixel unless a name says otherwise; x goes right and y goes down.
Angles are in whole degrees, counter-clockwise as seen, 0 pointing right.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from . import SIZES

__all__ = ["SIZES", "TASKS", "label", "object_mask", "render"]

TASKS: dict[str, int] = {"scene_count": 6, "scene_location": 16, "scene_orientation": 8}

IMAGE = 48  # pixels
PIXEL = 16  # units
SAMPLES = 4  # coverage samples along each side of a pixel
CELL = IMAGE * PIXEL // 4  # side of a cell of the location grid
CELL_MARGIN = PIXEL  # least distance of a centre from the border of its cell
GAP = 2 * PIXEL  # least distance between two counted objects, so that they never touch
SECTOR = 45  # degrees
SECTOR_REACH = 19  # farthest heading from the middle of its sector: 3.5 degrees from the border

# Smallest and largest object radius by count. Lone objects may be large and crowds are small, so
# that the painted area alone does not give the count away.
COUNT_RADII = ((64, 136), (60, 128), (56, 116), (52, 104), (48, 92), (48, 84))

# No entry lies near a rounding tie, so the last bit of a platform's cosine does not matter.
COSINE = tuple(round(1024 * math.cos(math.radians(degree))) for degree in range(360))

Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]
Point = tuple[int, int]

# Sample positions (192,): 2, 6, 10 and 14 units into each pixel.
GRID: Integers = np.arange(IMAGE * SAMPLES, dtype=np.int64) * 4 + 2
ROWS: Integers = GRID[:, None]
COLUMNS: Integers = GRID[None, :]
# Pixel indices (48, 1) and (1, 48).
PIXEL_ROWS: Integers = np.arange(IMAGE, dtype=np.int64)[:, None]
PIXEL_COLUMNS: Integers = np.arange(IMAGE, dtype=np.int64)[None, :]


class Draws:
    """The random numbers of one image."""

    def __init__(self, seed: int) -> None:
        self.stream = np.random.RandomState(seed)

    def array(self, low: int, high: int, shape: tuple[int, ...]) -> Integers:
        """Integers in [low, high], int64 on every platform (the default dtype is not)."""
        return self.stream.randint(low, high + 1, size=shape, dtype=np.int64)

    def one(self, low: int, high: int) -> int:
        """An integer in [low, high]."""
        return int(self.stream.randint(low, high + 1, dtype=np.int64))


def label(task: str, split: str, index: int) -> int:
    """Class of an image; classes take turns, so any leading part of a split is balanced."""
    _seed(task, split, index)
    return index % TASKS[task]


def render(task: str, split: str, index: int) -> NDArray[np.uint8]:
    """Image (48, 48, 3) uint8."""
    return _scene(task, split, index)[0]


def object_mask(task: str, split: str, index: int) -> Bools:
    """Pixels (48, 48) at least half covered by an object: the ground truth behind the label."""
    return _scene(task, split, index)[1]


def _seed(task: str, split: str, index: int) -> int:
    """Seed of an image: no two images of any tasks or splits share one."""
    if task not in TASKS:
        raise ValueError(f"unknown scene task {task!r}; known: {', '.join(TASKS)}")
    if split not in SIZES:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SIZES)}")
    if not 0 <= index < SIZES[split]:
        raise IndexError(f"{task} {split} has images 0 to {SIZES[split] - 1}, not {index}")
    return 100_000 * list(TASKS).index(task) + 10_000 * list(SIZES).index(split) + index


def _scene(task: str, split: str, index: int) -> tuple[NDArray[np.uint8], Bools]:
    draws = Draws(_seed(task, split, index))
    answer = label(task, split, index)
    if task == "scene_count":
        covers = _count_covers(draws, answer + 1)
    elif task == "scene_location":
        covers = [_location_cover(draws, answer)]
    else:
        covers = [_orientation_cover(draws, answer)]

    dark, light = _background_colours(draws, 40)
    texture = _texture(draws)
    image = dark + (light - dark) * texture[:, :, None] // 256
    mask = np.zeros((IMAGE, IMAGE), dtype=np.bool_)
    full = SAMPLES * SAMPLES
    for cover in covers:
        paint = _object_colour(draws, dark, light)
        weight = cover[:, :, None]
        image = (image * (full - weight) + paint * weight + full // 2) // full
        mask |= 2 * cover >= full
    return _light_and_noise(draws, image), mask


# --- what is in the scene -------------------------------------------------------------------


def _count_covers(draws: Draws, count: int) -> list[Integers]:
    smallest, largest = COUNT_RADII[count - 1]
    placed: list[tuple[int, int, int]] = []
    tries = 0
    while len(placed) < count:
        tries += 1
        if tries % 50 == 0:  # the objects so far may leave no room: begin again
            placed = []
        radius = draws.one(smallest, largest)
        x, y = _inside(draws, radius)
        if all((x - a) ** 2 + (y - b) ** 2 >= (radius + r + GAP) ** 2 for a, b, r in placed):
            placed.append((x, y, radius))
    return [_any_cover(draws, (x, y), radius) for x, y, radius in placed]


def _location_cover(draws: Draws, cell: int) -> Integers:
    """One object whose centre lies in cell `cell`, counted along rows from the top left."""
    radius = draws.one(64, 104)
    edge = radius + PIXEL // 2  # the whole object stays in the image
    centre = []
    for place in (cell % 4, cell // 4):
        low = max(place * CELL + CELL_MARGIN, edge)
        high = min((place + 1) * CELL - CELL_MARGIN, IMAGE * PIXEL - edge)
        centre.append(draws.one(low, high))
    return _any_cover(draws, (centre[0], centre[1]), radius)


def _orientation_cover(draws: Draws, sector: int) -> Integers:
    """A long isosceles triangle, whole or with a notch in its base, heading to its tip."""
    half_length = draws.one(120, 208)
    half_width = draws.one(half_length * 3 // 10, half_length // 2)
    centre = _inside(draws, 16 * 16)
    heading = (SECTOR * sector + draws.one(-SECTOR_REACH, SECTOR_REACH)) % 360
    notch = draws.one(0, 1) * draws.one(half_length // 4, half_length * 3 // 4)
    base = [(-half_length, half_width), (-half_length, -half_width)]
    inside = _convex(_turned(centre, [(half_length, 0), *base], heading))
    if notch:
        inside &= ~_convex(_turned(centre, [(notch - half_length, 0), *base], heading))
    return _coverage(inside)


def _any_cover(draws: Draws, centre: Point, radius: int) -> Integers:
    """A square, ellipse or triangle of any rotation that fits in a circle of this radius."""
    shape = draws.one(0, 2)
    angle = draws.one(0, 359)
    if shape == 0:
        return _coverage(_ellipse(centre, radius, radius * draws.one(9, 16) // 16, angle))
    sides = 3 + shape % 2
    corners = [_turned(centre, [(radius, 0)], angle + 360 * k // sides)[0] for k in range(sides)]
    return _coverage(_convex(corners))


def _inside(draws: Draws, radius: int) -> Point:
    """A centre at which an object of this radius stays in the image, half a pixel to spare."""
    edge = radius + PIXEL // 2
    return draws.one(edge, IMAGE * PIXEL - edge), draws.one(edge, IMAGE * PIXEL - edge)


# --- geometry -------------------------------------------------------------------------------


def _turned(centre: Point, points: list[Point], angle: int) -> list[Point]:
    """Points given along and across a heading, turned by `angle` and moved to the centre."""
    cos, sin = COSINE[angle % 360], COSINE[(angle - 90) % 360]
    return [
        (
            centre[0] + (along * cos - across * sin + 512) // 1024,
            centre[1] - (along * sin + across * cos + 512) // 1024,
        )
        for along, across in points
    ]


def _convex(corners: list[Point]) -> Bools:
    """Samples (192, 192) inside a convex polygon, its corners counter-clockwise as seen."""
    inside = np.ones((len(GRID), len(GRID)), dtype=np.bool_)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        inside &= (bx - ax) * (ROWS - ay) <= (by - ay) * (COLUMNS - ax)
    return inside


def _ellipse(centre: Point, along: int, across: int, angle: int) -> Bools:
    """Samples (192, 192) inside an ellipse with these half axes."""
    cos, sin = COSINE[angle % 360], COSINE[(angle - 90) % 360]
    x, y = COLUMNS - centre[0], centre[1] - ROWS
    u = (x * cos + y * sin) * across  # 1024 times too long, and far from overflow when squared
    v = (y * cos - x * sin) * along
    return u * u + v * v <= (1024 * along * across) ** 2


def _coverage(inside: Bools) -> Integers:
    """Covered samples (48, 48) of each pixel, 0 to 16, from samples (192, 192)."""
    counts = np.zeros((IMAGE, IMAGE), dtype=np.int64)
    for row in range(SAMPLES):
        for column in range(SAMPLES):
            counts += inside[row::SAMPLES, column::SAMPLES]
    return counts


# --- colour ---------------------------------------------------------------------------------


def _background_colours(draws: Draws, spread: int) -> tuple[Integers, Integers]:
    """Two dark, greyish colours (3,) at most `spread` apart in each channel."""
    first = draws.one(35, 95) + draws.array(-15, 15, (3,))
    return first, np.clip(first + draws.array(-spread, spread, (3,)), 10, 245)


def _object_colour(draws: Draws, dark: Integers, light: Integers) -> Integers:
    """A bright colour (3,) that stands out from both colours of the background."""
    while True:
        colour = draws.array(60, 255, (3,))
        if min((colour - other).sum() for other in (dark, light)) >= 250:
            return colour


def _texture(draws: Draws) -> Integers:
    """Mix (48, 48) of the two background colours, 0 to 255: soft clouds and slanted waves."""
    step = 6  # pixels between the lattice points of the clouds
    lattice = draws.array(0, 255, (IMAGE // step + 1, IMAGE // step + 1))
    cell, part = np.divmod(np.arange(IMAGE, dtype=np.int64), step)
    tall = lattice[cell] * (step - part)[:, None] + lattice[cell + 1] * part[:, None]
    clouds = (tall[:, cell] * (step - part) + tall[:, cell + 1] * part) // (step * step)

    angle, period = draws.one(0, 359), draws.one(5, 16)
    cos, sin = COSINE[angle], COSINE[(angle - 90) % 360]
    phase = (PIXEL_COLUMNS * cos + PIXEL_ROWS * sin) // 4 % (256 * period) // period
    waves: Integers = np.abs(phase - 128) * 255 // 128
    share = draws.one(0, 160)  # of the waves, out of 256
    mix: Integers = (clouds * (256 - share) + waves * share) // 256
    return mix


def _light_and_noise(draws: Draws, image: Integers) -> NDArray[np.uint8]:
    """The image (48, 48, 3) under slanting light, with noise in every channel."""
    across, down = draws.one(-35, 35), draws.one(-35, 35)
    middle = IMAGE // 2
    light = ((PIXEL_COLUMNS - middle) * across + (PIXEL_ROWS - middle) * down) // middle
    level = draws.one(6, 18)
    noise = draws.array(-level, level, (IMAGE, IMAGE, 3))
    seen: Integers = np.clip(image + light[:, :, None] + noise, 0, 255)
    return seen.astype(np.uint8)
