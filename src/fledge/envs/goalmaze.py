"""Two goals, one good and one bad: which is which is the task (the mazes of the meta-gradient studies)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from fledge.core.contracts import Env
from fledge.core.errors import ConfigError
from fledge.core.spaces import Box, Discrete
from fledge.core.types import TimeStep
from fledge.envs.splits import known_split

MOVES = ((-1, 0), (0, -1), (0, 1), (1, 0))
"""What left, down, up and right add to (x, y)."""


class GoalMazeState(eqx.Module):
    """Player and both goals as cells (x + side · y), and the step of the running episode."""

    player: Int[Array, ""]
    goals: Int[Array, "2"]
    time: Int[Array, ""]


class GoalMaze(Env):
    """A square room with two goals. Reaching one pays +1, the other −1, and it appears elsewhere; any other step −0.04.

    The task is +1 or −1: the reward of the first goal (the second pays the opposite). Episodes have a fixed length.
    Observations are one-hot: x and y of the player and of both goals, and the step of the episode. Player and goals
    start on three different random cells; a goal that was reached moves to a random cell that is free.

    Every split is the same two tasks.

    Args:
        side: cells along a side; 3 and 5 are published.
        horizon: steps per episode; 8 and 16.
        step_reward: of every step that reaches no goal.

    Reference: Vuorio et al. 2022 (the bias-variance study of meta-gradients), tabular mazes, public code.
    """

    side: int = eqx.field(static=True, default=3)
    horizon: int = eqx.field(static=True, default=8)
    step_reward: float = eqx.field(static=True, default=-0.04)

    def __check_init__(self) -> None:
        if self.side < 2:
            raise ConfigError(f"side is 2 or more, not {self.side}.")
        if self.horizon < 1:
            raise ConfigError(f"horizon is 1 or more, not {self.horizon}.")

    @property
    def splits_disjoint(self) -> bool:
        return False

    @property
    def observation_space(self) -> Box:
        return Box(6 * self.side + self.horizon, 0.0, 1.0)

    @property
    def action_space(self) -> Discrete:
        return Discrete(len(MOVES))

    @property
    def fixed_length(self) -> bool:
        return True

    def sample(self, key: Key[Array, ""], split: str = "train") -> Float[Array, ""]:
        known_split(split)
        return jax.random.rademacher(key, (), jnp.float32)

    def enumerate(self, split: str = "test") -> Float[Array, " task"]:
        known_split(split)
        return jnp.array([1.0, -1.0])

    def describe(self, task: Float[Array, ""]) -> str:
        return f"the {'first' if float(task) > 0 else 'second'} goal is the good one"

    def task_vector(self, task: Float[Array, ""]) -> Float[Array, " task"]:
        return jnp.reshape(task, (1,))

    def reset(self, key: Key[Array, ""], task: Float[Array, ""]) -> tuple[GoalMazeState, Float[Array, " obs"]]:
        cells = jnp.argsort(jax.random.uniform(key, (self.side**2,)))[:3].astype(jnp.int32)
        state = GoalMazeState(cells[0], cells[1:], jnp.asarray(0, jnp.int32))
        return state, self._observe(state)

    def _observe(self, state: GoalMazeState) -> Float[Array, " obs"]:
        cells = jnp.concatenate([state.player[None], state.goals])
        places = jnp.stack([cells % self.side, cells // self.side], axis=1)
        time = jax.nn.one_hot(state.time, self.horizon)
        return jnp.concatenate([jax.nn.one_hot(places, self.side).ravel(), time])

    def step(
        self, key: Key[Array, ""], state: GoalMazeState, action: Int[Array, ""], task: Float[Array, ""]
    ) -> tuple[GoalMazeState, TimeStep]:
        move = jax.nn.one_hot(action, len(MOVES), dtype=jnp.int32) @ jnp.asarray(MOVES, jnp.int32)
        place = jnp.clip(jnp.stack([state.player % self.side, state.player // self.side]) + move, 0, self.side - 1)
        player = (place[0] + self.side * place[1]).astype(jnp.int32)
        reached: Bool[Array, "2"] = state.goals == player
        reward = jnp.where(jnp.any(reached), jnp.sum(reached * jnp.stack([task, -task])), self.step_reward)
        # A random free cell: the player stands on the goal that was reached, so two cells are taken.
        cells = jnp.arange(self.side**2)
        free = (cells != player) & jnp.all(cells[:, None] != state.goals, axis=1)
        chosen = jnp.argmax(jnp.where(free, jax.random.uniform(key, cells.shape), -1.0)).astype(jnp.int32)
        time = state.time + 1
        after = GoalMazeState(player, jnp.where(reached, chosen, state.goals), time)
        return after, TimeStep.of(self._observe(after), reward, truncated=time >= self.horizon)

    def position(self, state: GoalMazeState) -> Float[Array, "2"]:
        return jnp.stack([state.player % self.side, state.player // self.side]).astype(jnp.float32)

    def scene(self, task: Float[Array, ""]) -> Mapping[str, Any]:
        start = [self.side // 2, self.side // 2]
        return {"kind": "grid", "width": self.side, "height": self.side, "start": start, "goals": []}
