"""GridNavi: find an unknown goal cell, then return to it in every later episode (Zintgraf et al. 2020, VariBAD)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from fledge.core.contracts import Env
from fledge.core.errors import unknown
from fledge.core.spaces import Box, Discrete
from fledge.core.types import SPLITS, TimeStep
from fledge.envs import cells as grid
from fledge.envs.splits import draw_row, split_rows

MOVES = grid.MOVES["compass"]
QUADRANTS = {"upper-right": (1, 1), "upper-left": (-1, 1), "lower-left": (-1, -1), "lower-right": (1, -1)}
"""Side of the middle column and of the middle row."""
GOALS = ("outside", "ring", *QUADRANTS)


class GridNavState(eqx.Module):
    """Position and step of the running episode, and the cells entered in this trial (empty without a visit bonus)."""

    position: Int[Array, "2"]
    time: Int[Array, ""]
    visited: Bool[Array, " cell"]


class GridNav(Env):
    """An n×n grid whose goal is hidden; a task is the goal's (x, y).

    Start (0, 0); actions 0 stay, 1 up, 2 right, 3 down, 4 left, clipped at the borders; reward 1 on every step that
    ends on the goal (staying keeps paying), else −0.1; no early end. Goals are uniform over the cells outside the block
    of start-adjacent cells (`start_block` = 2 gives the published 21 goals of the 5×5 grid).

    Args:
        size: cells per side.
        horizon: steps per episode.
        reward: `sparse`; or `dense`, where a step off the goal earns −(|dx|+|dy|)/n.
        show: whenever a *step* ends on the start cell the observation is the goal's coordinates (not at the reset).
        start_block: cells nearer to the start than this on both axes are no goals.
        held_out: fraction of goals kept out of `train` and returned as `test`; 0 is the published protocol, where
            training and test goals are the same.
        start: `corner`; `centre`; or `random`, a fresh cell each episode (then every cell may be the goal).
        goals: `outside` the block around the start, on the border `ring` only, or in one quadrant (`upper-right`,
            `upper-left`, `lower-left`, `lower-right`): the cells strictly on that side of the middle row and column.
        ood_goals: the goals of the `ood` split (as `goals`); None for what the paragraph on splits says.
        visit_bonus: what a step earns, instead of −0.1, that enters a possible goal cell for the first time in a trial.

    Splits: `ood` holds the cells that are never goals in training (the block around the start, or the inside of the
    ring) without the start cell itself; where there are none, it is the same as `test`.

    Reference: Zintgraf et al., VariBAD, ICLR 2020, §5.1; public code `GridNavi-v2`.
    """

    size: int = eqx.field(static=True, default=5)
    horizon: int = eqx.field(static=True, default=15)
    reward: Literal["sparse", "dense"] = eqx.field(static=True, default="sparse")
    show: bool = eqx.field(static=True, default=False)
    start_block: int = eqx.field(static=True, default=2)
    held_out: float = eqx.field(static=True, default=0.0)
    start: grid.Start = eqx.field(static=True, default="corner")
    goals: str = eqx.field(static=True, default="outside")
    visit_bonus: float = eqx.field(static=True, default=0.0)
    ood_goals: str | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        problems = grid.choice_problems(
            reward=(self.reward, ("sparse", "dense")),
            start=(self.start, grid.STARTS),
            goals=(self.goals, GOALS),
            ood_goals=(self.ood_goals, (None, *GOALS)),
        )
        problems += grid.positive_problems(horizon=self.horizon, start_block=self.start_block)
        problems += grid.held_out_problems(self.held_out)
        if self.size < 2:
            problems.append(f"size is 2 or more, not {self.size}.")
        if self.show and self.start == "random":
            problems.append("show needs a start that stays in place: choose 'corner' or 'centre'.")
        if not problems and not self._is_goal().any():
            problems.append(f"start_block {self.start_block} leaves no goal on a {self.size}×{self.size} grid.")
        grid.refuse(problems)

    @property
    def splits_disjoint(self) -> bool:
        return self.held_out > 0

    @property
    def observation_space(self) -> Box:
        return Box(2, 0.0, float(self.size - 1))

    @property
    def action_space(self) -> Discrete:
        return Discrete(5)

    @property
    def fixed_length(self) -> bool:
        return True

    @property
    def start_cell(self) -> tuple[int, int]:
        """Where episodes start, unless the start is random."""
        return grid.start_cell(self.start, self.size, self.size)

    def _is_goal(self, goals: str | None = None) -> Bool[np.ndarray, " cell"]:
        cells, goals = grid.cells(self.size, self.size), goals or self.goals
        if goals == "ring":
            return ((cells == 0) | (cells == self.size - 1)).any(-1)
        if goals in QUADRANTS:
            return (np.sign(2 * cells - (self.size - 1)) == QUADRANTS[goals]).all(-1)
        if self.start == "random":
            return np.ones(len(cells), bool)
        return np.any(np.abs(cells - self.start_cell) >= self.start_block, axis=-1)

    def _tasks(self, split: str) -> Int[np.ndarray, "goal 2"]:
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        cells, is_goal = grid.cells(self.size, self.size), self._is_goal()
        if split == "ood" and self.ood_goals is not None:
            return cells[self._is_goal(self.ood_goals)]
        never = ~is_goal & (cells != self.start_cell).any(-1)
        if split == "ood" and never.any():
            return cells[never]
        return split_rows(cells[is_goal], split, self.held_out)

    def sample(self, key: Key[Array, ""], split: str = "train") -> Int[Array, "2"]:
        return draw_row(key, self._tasks(split))

    def enumerate(self, split: str = "test") -> Int[Array, "task 2"]:
        return jnp.asarray(self._tasks(split))

    def describe(self, task: Int[Array, "2"]) -> str:
        return f"goal at ({int(task[0])}, {int(task[1])})"

    def task_vector(self, task: Int[Array, "2"]) -> Float[Array, "2"]:
        return task.astype(jnp.float32)

    def reset(self, key: Key[Array, ""], task: Int[Array, "2"]) -> tuple[GridNavState, Float[Array, "2"]]:
        if self.start == "random":
            position = grid.random_cell(key, self.size, self.size)
        else:
            position = jnp.asarray(self.start_cell, jnp.int32)
        visited = jnp.zeros(self.size**2 if self.visit_bonus else 0, bool)
        return GridNavState(position, jnp.asarray(0, jnp.int32), visited), position.astype(jnp.float32)

    def restart(
        self, key: Key[Array, ""], state: GridNavState, task: Int[Array, "2"]
    ) -> tuple[GridNavState, Float[Array, "2"]]:
        fresh, observation = self.reset(key, task)
        return GridNavState(fresh.position, fresh.time, state.visited), observation

    def step(
        self, key: Key[Array, ""], state: GridNavState, action: Int[Array, ""], task: Int[Array, "2"]
    ) -> tuple[GridNavState, TimeStep]:
        move = jax.nn.one_hot(action, len(MOVES), dtype=jnp.int32) @ jnp.asarray(MOVES)
        position = jnp.clip(state.position + move, 0, self.size - 1)
        on_goal: Bool[Array, ""] = jnp.all(position == task)
        off_goal = -0.1 if self.reward == "sparse" else -grid.manhattan(position, task) / self.size
        visited = state.visited
        if self.visit_bonus:
            entered = jnp.all(jnp.asarray(grid.cells(self.size, self.size)) == position, axis=-1)
            off_goal = jnp.where(jnp.any(entered & ~visited & self._is_goal()), self.visit_bonus, off_goal)
            visited = visited | entered
        time = state.time + 1
        observation = position.astype(jnp.float32)
        if self.show:
            at_start = jnp.all(position == jnp.asarray(self.start_cell))
            observation = jnp.where(at_start, task.astype(jnp.float32), observation)
        timestep = TimeStep.of(
            observation,
            jnp.where(on_goal, 1.0, off_goal),
            truncated=time >= self.horizon,
            info={"success": on_goal},
        )
        return GridNavState(position, time, visited), timestep

    def optimal_return(self, task: Int[Array, "2"], n_episodes: int = 1) -> Float[Array, " episode"] | None:
        """Walk straight to the goal and stay: horizon − d + 1 steps pay 1, the d − 1 before them cost what they cost.

        None with a visit bonus, where the best of all shortest ways depends on the cells already seen.
        """
        if self.visit_bonus:
            return None
        all_starts = grid.cells(self.size, self.size) if self.start == "random" else np.array([self.start_cell])
        to_go = jnp.maximum(grid.manhattan(jnp.asarray(all_starts), task), 1) - 1
        walked = jnp.minimum(to_go, self.horizon)
        cost = 0.1 * walked if self.reward == "sparse" else walked * (2 * to_go - walked + 1) / (2 * self.size)
        return jnp.full(n_episodes, jnp.mean(self.horizon - walked - cost))

    def position(self, state: GridNavState) -> Float[Array, "2"]:
        return state.position.astype(jnp.float32)

    def scene(self, task: Int[Array, "2"]) -> Mapping[str, Any]:
        return {
            "kind": "grid",
            "width": self.size,
            "height": self.size,
            "start": list(self.start_cell),
            "goals": [{"x": int(task[0]), "y": int(task[1]), "label": "goal"}],
        }
