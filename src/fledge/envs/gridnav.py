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
from fledge.core.errors import ConfigError
from fledge.core.spaces import Box, Discrete
from fledge.core.types import TimeStep
from fledge.envs.splits import draw_row, split_rows

# stay, y+1, x+1, y-1, x-1
MOVES = np.array([[0, 0], [0, 1], [1, 0], [0, -1], [-1, 0]], np.int32)


class GridNavState(eqx.Module):
    """Position and step of the running episode."""

    position: Int[Array, "2"]
    time: Int[Array, ""]


class GridNav(Env):
    """An n×n grid whose goal is hidden; a task is the goal's (x, y).

    Start (0, 0); actions 0 stay, 1 up, 2 right, 3 down, 4 left, clipped at the borders; reward 1 on every step that
    ends on the goal (staying keeps paying), else −0.1; no early end. Goals are uniform over the cells outside the block
    of start-adjacent cells (`start_block` cells wide on each axis: 2 gives the published 21 goals of the 5×5 grid).

    Args:
        size: cells per side.
        horizon: steps per episode.
        reward: `sparse`; or `dense`, where a step off the goal earns −(|dx|+|dy|)/n.
        show: whenever a *step* ends on the start cell the observation is the goal's coordinates (not at the reset).
        start_block: side of the goal-free block at the start.
        held_out: fraction of goals kept out of `train` and returned as `test`; 0 is the published protocol, where
            training and test goals are the same.

    Splits: `ood` holds the goals furthest from the start if `held_out` > 0 (trained without them), else all goals.

    Reference: Zintgraf et al., VariBAD, ICLR 2020, §5.1; public code `GridNavi-v2`.
    """

    size: int = eqx.field(static=True, default=5)
    horizon: int = eqx.field(static=True, default=15)
    reward: Literal["sparse", "dense"] = eqx.field(static=True, default="sparse")
    show: bool = eqx.field(static=True, default=False)
    start_block: int = eqx.field(static=True, default=2)
    held_out: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        if self.reward not in ("sparse", "dense"):
            raise ConfigError(f"reward is 'sparse' or 'dense', not '{self.reward}'.")
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"held_out is a fraction in [0, 1), not {self.held_out}.")

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

    def _goals(self, split: str) -> Int[np.ndarray, "goal 2"]:
        cells = [
            (x, y)
            for x in range(self.size)
            for y in range(self.size)
            if x >= self.start_block or y >= self.start_block
        ]
        far_last = sorted(cells, key=lambda cell: sum(cell))
        return split_rows(np.array(far_last, np.int32), split, self.held_out, n_ood=3)

    def sample(self, key: Key[Array, ""], split: str = "train") -> Int[Array, "2"]:
        return draw_row(key, self._goals(split))

    def enumerate(self, split: str = "test") -> Int[Array, "task 2"]:
        return jnp.asarray(self._goals(split))

    def describe(self, task: Int[Array, "2"]) -> str:
        return f"goal at ({int(task[0])}, {int(task[1])})"

    def task_vector(self, task: Int[Array, "2"]) -> Float[Array, "2"]:
        return task.astype(jnp.float32)

    def reset(self, key: Key[Array, ""], task: Int[Array, "2"]) -> tuple[GridNavState, Float[Array, "2"]]:
        return GridNavState(jnp.zeros(2, jnp.int32), jnp.asarray(0, jnp.int32)), jnp.zeros(2)

    def step(
        self, key: Key[Array, ""], state: GridNavState, action: Int[Array, ""], task: Int[Array, "2"]
    ) -> tuple[GridNavState, TimeStep]:
        move = jax.nn.one_hot(action, len(MOVES), dtype=jnp.int32) @ jnp.asarray(MOVES)
        position = jnp.clip(state.position + move, 0, self.size - 1)
        on_goal: Bool[Array, ""] = jnp.all(position == task)
        off_goal = -0.1 if self.reward == "sparse" else -jnp.sum(jnp.abs(position - task)) / self.size
        time = state.time + 1
        observation = position.astype(jnp.float32)
        if self.show:
            observation = jnp.where(jnp.all(position == 0), task.astype(jnp.float32), observation)
        timestep = TimeStep.of(
            observation,
            jnp.where(on_goal, 1.0, off_goal),
            truncated=time >= self.horizon,
            info={"success": on_goal},
        )
        return GridNavState(position, time), timestep

    def optimal_return(self, task: Int[Array, "2"], n_episodes: int = 1) -> Float[Array, " episode"]:
        """Walk straight to the goal and stay: horizon − d + 1 steps pay 1, the first d − 1 cost what they cost."""
        distance = jnp.sum(task)
        before = jnp.arange(self.size * 2)
        cost = jnp.full(before.shape, 0.1) if self.reward == "sparse" else (distance - 1 - before) / self.size
        paid = jnp.sum(jnp.where(before < distance - 1, cost, 0.0))
        return jnp.full(n_episodes, self.horizon - distance + 1 - paid)

    def position(self, state: GridNavState) -> Float[Array, "2"]:
        return state.position.astype(jnp.float32)

    def scene(self, task: Int[Array, "2"]) -> Mapping[str, Any]:
        return {
            "kind": "grid",
            "width": self.size,
            "height": self.size,
            "start": [0, 0],
            "goals": [{"x": int(task[0]), "y": int(task[1]), "label": "goal"}],
        }
