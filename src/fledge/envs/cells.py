"""Cells of a rectangular grid, and ways to walk on them: what the grid families share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from fledge.core.errors import ConfigError

Start = Literal["corner", "centre", "random"]
STARTS = ("corner", "centre", "random")

MoveOrder = Literal["compass", "ad-eps", "dpt"]
MOVES: dict[str, np.ndarray] = {
    "compass": np.array([[0, 0], [0, 1], [1, 0], [0, -1], [-1, 0]], np.int32),  # stay, y+1, x+1, y−1, x−1 (VariBAD)
    "ad-eps": np.array([[0, 0], [-1, 0], [0, 1], [1, 0], [0, -1]], np.int32),  # stay, up, right, down, left; x is a row
    "dpt": np.array([[1, 0], [-1, 0], [0, 1], [0, -1], [0, 0]], np.int32),  # x+1, x−1, y+1, y−1, stay
}
"""What the actions 0 … 4 add to (x, y), in the orders of the published code bases."""


def refuse(problems: Sequence[str]) -> None:
    """Raise one error for all wrong settings together; nothing if there are none."""
    if problems:
        raise ConfigError(" ".join(problems))


def held_out_problems(held_out: float) -> list[str]:
    """What is wrong with a held-out fraction."""
    return [] if 0 <= held_out < 1 else [f"held_out is a fraction in [0, 1), not {held_out}."]


def choice_problems(**choices: tuple[object, Sequence[object]]) -> list[str]:
    """What is wrong with settings that are one of a few words: `name=(value, allowed)`."""
    return [
        f"{name} is one of {', '.join(repr(a) for a in allowed)}, not {value!r}."
        for name, (value, allowed) in choices.items()
        if value not in allowed
    ]


def positive_problems(**numbers: int) -> list[str]:
    """What is wrong with settings that count something."""
    return [f"{name} is 1 or more, not {value}." for name, value in numbers.items() if value < 1]


def cells(width: int, height: int) -> Int[np.ndarray, "cell 2"]:
    """Every (x, y); cell (x, y) is row x·height + y."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height), indexing="ij"), -1).reshape(-1, 2).astype(np.int32)


def start_cell(start: Start, width: int, height: int) -> tuple[int, int]:
    """The start cell: (0, 0), or the middle (the upper middle where sides are even). A random start has no such cell:
    (0, 0) stands in for it."""
    return (width // 2, height // 2) if start == "centre" else (0, 0)


def random_cell(key: Key[Array, ""], width: int, height: int, avoid: Int[Array, "2"] | None = None) -> Int[Array, "2"]:
    """A cell, uniformly; never `avoid`."""
    n = width * height
    if avoid is None:
        index = jax.random.randint(key, (), 0, n)
    else:
        index = jax.random.randint(key, (), 0, n - 1)
        index = index + (index >= avoid[0] * height + avoid[1])
    return jnp.stack([index // height, index % height])


def manhattan(a: Int[Array, "*#n 2"], b: Int[Array, "*#n 2"]) -> Int[Array, "..."]:
    """|dx| + |dy|: the fewest moves between two cells."""
    return jnp.sum(jnp.abs(a - b), axis=-1)


def toward(position: Int[Array, "2"], goal: Int[Array, "2"], moves: Int[Array, "5 2"]) -> Int[Array, ""]:
    """The action that walks to the goal, along x first (DPT's demonstrator); on the goal the one that stays."""
    sign = jnp.sign(goal - position)
    wanted = jnp.where(sign[0] != 0, sign * jnp.array([1, 0]), sign)
    return jnp.argmax(jnp.all(moves == wanted, axis=-1)).astype(jnp.int32)
