"""Dark Room: a grid whose goal cannot be seen, the usual test of in-context RL (Laskin et al. 2022, AD)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from fledge.core.contracts import Env
from fledge.core.spaces import Box, Discrete
from fledge.core.types import TimeStep
from fledge.envs import cells as grid
from fledge.envs.splits import draw_row, split_rows


class DarkRoomState(eqx.Module):
    """Position and step of the running episode."""

    position: Int[Array, "2"]
    time: Int[Array, ""]


class DarkRoom(Env):
    """A width×height grid with one goal cell; a task is the goal's (x, y), or what the five actions mean (`permuted`).

    The reward is read off *after* the move: 1 on every step that ends on the goal, 0 elsewhere. Moves are clipped at
    the borders. All published versions differ only in these settings:

    Args:
        width, height: cells.
        horizon: steps per episode.
        start: `centre`, `corner` (0, 0), or `random` in each episode.
        ends_at_goal: the episode ends when the goal is reached (so the goal pays once).
        goal_at_start: whether the start cell may be the goal (as in AD-eps; such a task is trivial).
        held_out: fraction of tasks kept out of `train` and returned as `test` (`ood` is the same as `test`).
        moves: what actions 0 … 4 do: `ad-eps` stay, x−1, y+1, x+1, y−1 (x counts rows); `dpt` x+1, x−1, y+1, y−1,
            stay; `compass` stay, y+1, x+1, y−1, x−1.
        observation: `xy`, two floats; or `cell`, the integer x·height + y.
        permuted: the goal stays in the far corner and the task is one of the 120 meanings of the five actions.
        macro: atomic moves per action; an action is a number in base 5, its first move the first digit. The goal pays
            if any of the moves ends on it.
        actions: the macro actions that are available, by number (for example 50 of the 125 to train with, the other
            75 to test with); None for all.

    Reference: Laskin et al., Algorithm Distillation, 2022 (9×9 and Hard); Lee et al., DPT, 2023 (10×10, permuted);
    Zisman et al., AD-eps, 2024; Sinii et al., Headless-AD, 2024 (macro actions).
    """

    width: int = eqx.field(static=True, default=9)
    height: int = eqx.field(static=True, default=9)
    horizon: int = eqx.field(static=True, default=20)
    start: grid.Start = eqx.field(static=True, default="centre")
    ends_at_goal: bool = eqx.field(static=True, default=False)
    goal_at_start: bool = eqx.field(static=True, default=True)
    held_out: float = eqx.field(static=True, default=0.2)
    moves: grid.MoveOrder = eqx.field(static=True, default="ad-eps")
    observation: Literal["xy", "cell"] = eqx.field(static=True, default="xy")
    permuted: bool = eqx.field(static=True, default=False)
    macro: int = eqx.field(static=True, default=1)
    actions: tuple[int, ...] | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        problems = grid.choice_problems(
            start=(self.start, grid.STARTS),
            moves=(self.moves, tuple(grid.MOVES)),
            observation=(self.observation, ("xy", "cell")),
        )
        problems += grid.positive_problems(
            width=self.width, height=self.height, horizon=self.horizon, macro=self.macro
        ) + grid.held_out_problems(self.held_out)
        if self.width * self.height < 2:
            problems.append(f"A room needs two cells or more, not {self.width}×{self.height}.")
        n_all = 5 ** max(self.macro, 1)
        wrong = [a for a in self.actions or () if not 0 <= a < n_all]
        if self.actions is not None and (wrong or not self.actions):
            problems.append(f"actions are one or more numbers from 0 to {n_all - 1}, not {wrong or self.actions}.")
        grid.refuse(problems)

    @property
    def splits_disjoint(self) -> bool:
        return self.held_out > 0

    @property
    def observation_space(self) -> Box | Discrete:
        if self.observation == "cell":
            return Discrete(self.width * self.height)
        return Box(2, 0.0, float(max(self.width, self.height) - 1))

    @property
    def action_space(self) -> Discrete:
        return Discrete(len(self._codes))

    @property
    def fixed_length(self) -> bool:
        return not self.ends_at_goal

    @property
    def start_cell(self) -> tuple[int, int]:
        """Where episodes start, unless the start is random."""
        return grid.start_cell(self.start, self.width, self.height)

    @property
    def _codes(self) -> Int[np.ndarray, "act move"]:
        """The atomic moves (by number) of each action."""
        codes = np.array(list(itertools.product(range(5), repeat=self.macro)), np.int32)
        return codes if self.actions is None else codes[list(self.actions)]

    def _tasks(self, split: str) -> Int[np.ndarray, "task entry"]:
        if self.permuted:
            rows = np.array(list(itertools.permutations(range(5))), np.int32)
        else:
            rows = grid.cells(self.width, self.height)
            if not self.goal_at_start and self.start != "random":
                rows = rows[(rows != self.start_cell).any(-1)]
        return split_rows(rows, split, self.held_out)

    def goal(self, task: Int[Array, " entry"]) -> Int[Array, "2"]:
        """The goal cell of a task."""
        return jnp.array([self.width - 1, self.height - 1], jnp.int32) if self.permuted else task

    def _meaning(self, task: Int[Array, " entry"]) -> Int[Array, "5 2"]:
        moves = jnp.asarray(grid.MOVES[self.moves])
        return moves[task] if self.permuted else moves

    def sample(self, key: Key[Array, ""], split: str = "train") -> Int[Array, " entry"]:
        return draw_row(key, self._tasks(split))

    def enumerate(self, split: str = "test") -> Int[Array, "task entry"]:
        return jnp.asarray(self._tasks(split))

    def describe(self, task: Int[Array, " entry"]) -> str:
        if self.permuted:
            return f"actions mean {', '.join(str(int(a)) for a in task)}"
        return f"goal at ({int(task[0])}, {int(task[1])})"

    def task_vector(self, task: Int[Array, " entry"]) -> Float[Array, " task"]:
        """The goal; or the permutation matrix of the actions, flat (25)."""
        if self.permuted:
            return (task[:, None] == jnp.arange(5)).astype(jnp.float32).reshape(-1)
        return task.astype(jnp.float32)

    def _observe(self, position: Int[Array, "2"]) -> Float[Array, "2"] | Int[Array, ""]:
        if self.observation == "cell":
            return position[0] * self.height + position[1]
        return position.astype(jnp.float32)

    def reset(
        self, key: Key[Array, ""], task: Int[Array, " entry"]
    ) -> tuple[DarkRoomState, Float[Array, "2"] | Int[Array, ""]]:
        if self.start == "random":
            avoid = None if self.goal_at_start else self.goal(task)
            position = grid.random_cell(key, self.width, self.height, avoid)
        else:
            position = jnp.asarray(self.start_cell, jnp.int32)
        return DarkRoomState(position, jnp.asarray(0, jnp.int32)), self._observe(position)

    def step(
        self, key: Key[Array, ""], state: DarkRoomState, action: Int[Array, ""], task: Int[Array, " entry"]
    ) -> tuple[DarkRoomState, TimeStep]:
        walk = self._meaning(task)[jnp.asarray(self._codes)[action]]
        last = jnp.array([self.width - 1, self.height - 1], jnp.int32)
        position, goal = state.position, self.goal(task)
        on_goal: Bool[Array, ""] = jnp.asarray(False)
        for i in range(self.macro):
            position = jnp.clip(position + walk[i], 0, last)
            on_goal = on_goal | jnp.all(position == goal)
        time = state.time + 1
        terminated = on_goal & self.ends_at_goal
        timestep = TimeStep.of(
            self._observe(position),
            on_goal,
            terminated=terminated,
            truncated=(time >= self.horizon) & ~terminated,
            info={"success": on_goal},
        )
        return DarkRoomState(position, time), timestep

    def optimal_action(self, state: DarkRoomState, task: Int[Array, " entry"]) -> Int[Array, ""]:
        """The action of a demonstrator that is told the task: straight to the goal, along x first, then stay there.

        With a restricted set of macro actions, the one whose last cell is nearest to the goal (the first of them).
        """
        if self.actions is None:
            position, goal, code = state.position, self.goal(task), jnp.asarray(0, jnp.int32)
            meaning = self._meaning(task)
            for _ in range(self.macro):
                move = grid.toward(position, goal, meaning)
                position, code = position + meaning[move], 5 * code + move
            return code
        walks = self._meaning(task)[jnp.asarray(self._codes)]
        last = jnp.array([self.width - 1, self.height - 1], jnp.int32)
        ends = jnp.broadcast_to(state.position, (len(self._codes), 2))
        for i in range(self.macro):
            ends = jnp.clip(ends + walks[:, i], 0, last)
        return jnp.argmin(grid.manhattan(ends, self.goal(task))).astype(jnp.int32)

    def optimal_return(self, task: Int[Array, " entry"], n_episodes: int = 1) -> Float[Array, " episode"] | None:
        """Straight to the goal and stay: horizon − n + 1, where n ≥ 1 steps reach it; at most 1 if that ends it.

        The mean over starts where they are random; None with a restricted set of macro actions.
        """
        if self.actions is not None:
            return None
        starts = grid.cells(self.width, self.height) if self.start == "random" else np.array([self.start_cell])
        distance = grid.manhattan(jnp.asarray(starts), self.goal(task))
        n_steps = jnp.maximum(1, (distance + self.macro - 1) // self.macro)
        paid = jnp.clip(self.horizon - n_steps + 1, 0, 1 if self.ends_at_goal else self.horizon)
        counts = jnp.ones(len(starts), bool)
        if self.start == "random" and not self.goal_at_start:
            counts = distance > 0
        return jnp.full(n_episodes, jnp.mean(paid, where=counts), jnp.float32)

    def position(self, state: DarkRoomState) -> Float[Array, "2"]:
        return state.position.astype(jnp.float32)

    def scene(self, task: Int[Array, " entry"]) -> Mapping[str, Any]:
        x, y = (int(c) for c in self.goal(task))
        return {
            "kind": "grid",
            "width": self.width,
            "height": self.height,
            "start": list(self.start_cell),
            "goals": [{"x": x, "y": y, "label": "goal"}],
        }
