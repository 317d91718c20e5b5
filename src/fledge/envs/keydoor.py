"""Dark Key-to-Door: find an unseen key, then an unseen door (Laskin et al. 2022, AD)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from fledge.core.contracts import Env
from fledge.core.spaces import Box, Discrete
from fledge.core.types import TimeStep
from fledge.envs import cells as grid
from fledge.envs.splits import draw_row, split_rows


class KeyToDoorState(eqx.Module):
    """Position and step of the running episode, and what has been done in it."""

    position: Int[Array, "2"]
    time: Int[Array, ""]
    has_key: Bool[Array, ""]
    opened: Bool[Array, ""]


class KeyToDoor(Env):
    """A grid with a hidden key and a hidden door; a task is [[key x, key y], [door x, door y]].

    1 for the first touch of the key and, from then on, 1 for the door (0 without the key). Both are read off after the
    move; key and door may share a cell, which then pays 2 in one step. Whether the key is held is not observed.

    Args:
        size: cells per side (size⁴ tasks).
        horizon: steps per episode.
        start: `random` in each episode, `corner` (0, 0) or `centre`.
        start_on_key: whether a random start may be the key's cell.
        door_repeats: the door pays on every step that ends on it (RA-DT), instead of once.
        terminate_on_door: the episode ends when the door is opened.
        held_out: fraction of tasks kept out of `train` and returned as `test` (`ood` is the same as `test`).
        moves: what actions 0 … 4 do, as in `DarkRoom`.
        observation: `xy`, two floats; or `cell`, the integer x·size + y.

    Reference: Laskin et al., Algorithm Distillation, 2022; Zisman et al., AD-eps, 2024; Grigsby et al., AMAGO, 2024.
    """

    size: int = eqx.field(static=True, default=9)
    horizon: int = eqx.field(static=True, default=50)
    start: grid.Start = eqx.field(static=True, default="random")
    start_on_key: bool = eqx.field(static=True, default=True)
    door_repeats: bool = eqx.field(static=True, default=False)
    terminate_on_door: bool = eqx.field(static=True, default=False)
    held_out: float = eqx.field(static=True, default=0.05)
    moves: grid.MoveOrder = eqx.field(static=True, default="ad-eps")
    observation: Literal["xy", "cell"] = eqx.field(static=True, default="xy")

    def __check_init__(self) -> None:
        problems = grid.choice_problems(
            start=(self.start, grid.STARTS),
            moves=(self.moves, tuple(grid.MOVES)),
            observation=(self.observation, ("xy", "cell")),
        )
        problems += grid.positive_problems(horizon=self.horizon) + grid.held_out_problems(self.held_out)
        if self.size < 2:
            problems.append(f"size is 2 or more, not {self.size}.")
        if self.door_repeats and self.terminate_on_door:
            problems.append("The door cannot both pay on every step and end the episode: choose one of the two.")
        grid.refuse(problems)

    @property
    def splits_disjoint(self) -> bool:
        return self.held_out > 0

    @property
    def observation_space(self) -> Box | Discrete:
        return Discrete(self.size**2) if self.observation == "cell" else Box(2, 0.0, float(self.size - 1))

    @property
    def action_space(self) -> Discrete:
        return Discrete(5)

    @property
    def fixed_length(self) -> bool:
        return not self.terminate_on_door

    @property
    def start_cell(self) -> tuple[int, int]:
        """Where episodes start, unless the start is random."""
        return grid.start_cell(self.start, self.size, self.size)

    def _tasks(self, split: str) -> Int[np.ndarray, " task"]:
        """Tasks by number: (key cell)·size² + door cell."""
        return split_rows(np.arange(self.size**4, dtype=np.int32), split, self.held_out)

    def _task(self, number: Int[Array, "*n"]) -> Int[Array, "*n 2 2"]:
        key_cell, door_cell = jnp.divmod(number, self.size**2)
        pair = jnp.stack([key_cell, door_cell], axis=-1)
        return jnp.stack([pair // self.size, pair % self.size], axis=-1)

    def sample(self, key: Key[Array, ""], split: str = "train") -> Int[Array, "2 2"]:
        return self._task(draw_row(key, self._tasks(split)))

    def enumerate(self, split: str = "test") -> Int[Array, "task 2 2"]:
        return self._task(jnp.asarray(self._tasks(split)))

    def describe(self, task: Int[Array, "2 2"]) -> str:
        key_x, key_y, door_x, door_y = (int(c) for c in task.reshape(-1))
        return f"key at ({key_x}, {key_y}), door at ({door_x}, {door_y})"

    def task_vector(self, task: Int[Array, "2 2"]) -> Float[Array, " task"]:
        return task.astype(jnp.float32).reshape(-1)

    def _observe(self, position: Int[Array, "2"]) -> Float[Array, "2"] | Int[Array, ""]:
        if self.observation == "cell":
            return position[0] * self.size + position[1]
        return position.astype(jnp.float32)

    def reset(
        self, key: Key[Array, ""], task: Int[Array, "2 2"]
    ) -> tuple[KeyToDoorState, Float[Array, "2"] | Int[Array, ""]]:
        if self.start == "random":
            position = grid.random_cell(key, self.size, self.size, None if self.start_on_key else task[0])
        else:
            position = jnp.asarray(self.start_cell, jnp.int32)
        no = jnp.asarray(False)
        return KeyToDoorState(position, jnp.asarray(0, jnp.int32), no, no), self._observe(position)

    def step(
        self, key: Key[Array, ""], state: KeyToDoorState, action: Int[Array, ""], task: Int[Array, "2 2"]
    ) -> tuple[KeyToDoorState, TimeStep]:
        move = jax.nn.one_hot(action, 5, dtype=jnp.int32) @ jnp.asarray(grid.MOVES[self.moves])
        position = jnp.clip(state.position + move, 0, self.size - 1)
        at_key, at_door = jnp.all(position == task, axis=-1)
        has_key = state.has_key | at_key
        at_door = at_door & has_key
        paid_door = at_door if self.door_repeats else at_door & ~state.opened
        opened = state.opened | at_door
        time = state.time + 1
        terminated = opened & self.terminate_on_door
        timestep = TimeStep.of(
            self._observe(position),
            (at_key & ~state.has_key).astype(jnp.float32) + paid_door,
            terminated=terminated,
            truncated=(time >= self.horizon) & ~terminated,
            info={"success": opened},
        )
        return KeyToDoorState(position, time, has_key, opened), timestep

    def optimal_action(self, state: KeyToDoorState, task: Int[Array, "2 2"]) -> Int[Array, ""]:
        """The action of a demonstrator that is told the task: straight to the key, then to the door, then stay."""
        target = jnp.where(state.has_key, task[1], task[0])
        return grid.toward(state.position, target, jnp.asarray(grid.MOVES[self.moves]))

    def optimal_return(self, task: Int[Array, "2 2"], n_episodes: int = 1) -> Float[Array, " episode"]:
        """Straight to the key (1 step or more), then on to the door; the mean over starts where they are random."""
        starts = grid.cells(self.size, self.size) if self.start == "random" else np.array([self.start_cell])
        distance = grid.manhattan(jnp.asarray(starts), task[0])
        to_key = jnp.maximum(1, distance)
        to_door = to_key + grid.manhattan(task[0], task[1])
        door = jnp.clip(self.horizon - to_door + 1, 0, self.horizon if self.door_repeats else 1)
        counts = jnp.ones(len(starts), bool)
        if self.start == "random" and not self.start_on_key:
            counts = distance > 0
        return jnp.full(n_episodes, jnp.mean((to_key <= self.horizon) + door, where=counts), jnp.float32)

    def position(self, state: KeyToDoorState) -> Float[Array, "2"]:
        return state.position.astype(jnp.float32)

    def scene(self, task: Int[Array, "2 2"]) -> Mapping[str, Any]:
        (key_x, key_y), (door_x, door_y) = ([int(c) for c in row] for row in task)
        return {
            "kind": "grid",
            "width": self.size,
            "height": self.size,
            "start": list(self.start_cell),
            "goals": [{"x": key_x, "y": key_y, "label": "key"}, {"x": door_x, "y": door_y, "label": "door"}],
        }
