"""Pictures of 10×10×3 for the Minecraft-like mazes, made from a fixed seed.

The published mazes show renderings of Minecraft, shrunk to 10×10. What an agent can learn from them is which of them
differ, and by how much; these pictures are made to differ by as much. Normalised to (pixel − 128)/128, the L2 distance
between the two types of a room is 4.6 at its entry, 6.1 at the fork, 2.6 on the side cells next to the fork, and 0
elsewhere; the mean colours of the green and the red signal and of the dark end are those of the published pictures.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float, Integer

SIZE = 10
MEAN_RGB = {"green": (67, 178, 98), "red": (110, 16, 6), "end": (17, 15, 25)}
TYPE_DISTANCE = {0: 4.6, 1: 6.1, 2: 2.6, 3: 2.6}
"""Cell of a room (see `fledge.envs.minemaze`) → L2 distance between the pictures of its two types."""

N_ROOM_CELLS = 9
SIGNAL_IMAGE = 2 * N_ROOM_CELLS
"""Red here, green next. Before them: picture 2·cell + type of each room cell."""
END_IMAGE = SIGNAL_IMAGE + 2
HIDDEN_IMAGE = END_IMAGE + 1
"""All black: −1 everywhere."""


@cache
def images() -> Float[np.ndarray, "image pixel"]:
    """Every picture, flattened (row, column, colour), in [−1, 1]. Every call gives the same array: it is read-only."""
    rng = np.random.default_rng(2020)
    rooms = [picture for cell in range(N_ROOM_CELLS) for picture in _room(rng, cell)]
    plain = [_plain(rng, MEAN_RGB[name]) for name in ("red", "green", "end")]
    all_of_them = np.stack([*rooms, *plain, np.full_like(rooms[0], -1.0)])
    flat = all_of_them.reshape(len(all_of_them), -1).astype(np.float32)
    flat.flags.writeable = False
    return flat


def _plain(rng: np.random.Generator, rgb: tuple[int, int, int]) -> Float[np.ndarray, "row column colour"]:
    """A rough wall whose mean colour is `rgb`."""
    grain = rng.uniform(-0.3, 0.3, (SIZE, SIZE, 1))
    pixels = np.array(rgb) * (1 + grain - grain.mean())
    return _normalise(pixels)


def _room(rng: np.random.Generator, cell: int) -> tuple[np.ndarray, np.ndarray]:
    """The view from a cell, for a room whose left (type 0) or right (type 1) side is the right one."""
    stone = rng.uniform(70, 110, 3)
    light = np.linspace(0.6, 1.2, SIZE)[:, None, None]
    view = _normalise(stone * light * rng.uniform(0.8, 1.2, (SIZE, SIZE, 1)))
    if cell not in TYPE_DISTANCE:
        return view, view
    marks = [np.zeros((SIZE, SIZE, 3)) for _ in range(2)]
    for kind, mark in enumerate(marks):
        columns: slice
        if (
            cell >= 2
        ):  # Seen from a side the mark is above the agent if it stands on the right side, else there is none.
            mark[0:2, 3:7] = float(kind == cell - 2)
        else:
            columns = slice(1, 4) if kind == 0 else slice(SIZE - 4, SIZE - 1)
            mark[2 : 4 + 2 * cell, columns] = 1.0
    scale = TYPE_DISTANCE[cell] / np.linalg.norm(marks[1] - marks[0])
    return view + scale * marks[0], view + scale * marks[1]


def _normalise(pixels: Float[np.ndarray, "row column colour"] | Integer[np.ndarray, "row column colour"]) -> np.ndarray:
    return (pixels - 128) / 128
