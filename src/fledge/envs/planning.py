"""The Memory & Planning Game: learn a map of symbols by walking, then plan on it (Ritter et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from fledge.core.contracts import Env
from fledge.core.spaces import Box, Discrete
from fledge.core.types import TimeStep
from fledge.envs import cells as grid
from fledge.envs.splits import known_split

MOVES = np.array([[0, 1], [0, -1], [-1, 0], [1, 0], [0, 0]], np.int32)
"""What the actions add to (x, y): y+1, y−1, x−1, x+1, collect."""
COLLECT = 4


class PlanningState(eqx.Module):
    """Where the agent is, where the goal is, and the step of the running episode."""

    position: Int[Array, "2"]
    goal: Int[Array, "2"]
    time: Int[Array, ""]


class Planning(Env):
    """A torus of `size`×`size` cells, each with a symbol of its own; a task is which symbol stands where.

    Actions 0 y+1, 1 y−1, 2 x−1, 3 x+1 (all four wrap around), 4 collect: on the goal it pays 1 and a new goal appears
    in another cell (the agent stays where it is), elsewhere nothing. Start and goals are drawn afresh in each episode.

    `task[x·size + y]` is the symbol of cell (x, y). Published runs draw a new map for every episode, one episode to a
    trial. Here the map is the task, so that trials of several episodes keep their map (in the released code a second
    episode would begin on another map).

    Args:
        size: cells per side (3 in the published runs).
        horizon: steps per episode.
        observation: `symbols`, the agent's symbol and the goal's, one-hot; or `just-goal`, one number that says whether
            the agent stands on the goal: where it is must be worked out from its own actions.
        coordinates: append the agent's (x, y) and the goal's, divided by size − 1.

    Reference: Ritter et al., Rapid Task-Solving in Novel Environments, ICLR 2021; the 3×3 game and its `just-goal`
    variant: Beck et al., SplAgger, RLC 2024. Train it without an entropy bonus (the authors call this very important).
    """

    size: int = eqx.field(static=True, default=3)
    horizon: int = eqx.field(static=True, default=100)
    observation: Literal["symbols", "just-goal"] = eqx.field(static=True, default="symbols")
    coordinates: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        problems = grid.choice_problems(observation=(self.observation, ("symbols", "just-goal")))
        problems += grid.positive_problems(horizon=self.horizon)
        if self.size < 2:
            problems.append(f"size is 2 or more, not {self.size}.")
        grid.refuse(problems)

    @property
    def splits_disjoint(self) -> bool:
        return False

    @property
    def observation_space(self) -> Box:
        seen = 2 * self.size**2 if self.observation == "symbols" else 1
        return Box(seen + 4 * self.coordinates, 0.0, 1.0)

    @property
    def action_space(self) -> Discrete:
        return Discrete(5)

    @property
    def fixed_length(self) -> bool:
        return True

    def sample(self, key: Key[Array, ""], split: str = "train") -> Int[Array, " cell"]:
        known_split(split)
        return jax.random.permutation(key, self.size**2).astype(jnp.int32)

    def describe(self, task: Int[Array, " cell"]) -> str:
        rows = np.asarray(task).reshape(self.size, self.size).T[::-1]
        return "symbols " + " / ".join(" ".join(str(int(symbol)) for symbol in row) for row in rows)

    def task_vector(self, task: Int[Array, " cell"]) -> Float[Array, " cell"]:
        return task.astype(jnp.float32)

    def reset(self, key: Key[Array, ""], task: Int[Array, " cell"]) -> tuple[PlanningState, Float[Array, " obs"]]:
        key_position, key_goal = jax.random.split(key)
        position = grid.random_cell(key_position, self.size, self.size)
        goal = grid.random_cell(key_goal, self.size, self.size, avoid=position)
        state = PlanningState(position, goal, jnp.asarray(0, jnp.int32))
        return state, self._observe(state, task)

    def step(
        self, key: Key[Array, ""], state: PlanningState, action: Int[Array, ""], task: Int[Array, " cell"]
    ) -> tuple[PlanningState, TimeStep]:
        move = jax.nn.one_hot(action, len(MOVES), dtype=jnp.int32) @ jnp.asarray(MOVES)
        position = (state.position + move) % self.size
        collected = (action == COLLECT) & jnp.all(position == state.goal)
        new_goal = grid.random_cell(key, self.size, self.size, avoid=position)
        time = state.time + 1
        state = PlanningState(position, jnp.where(collected, new_goal, state.goal), time)
        timestep = TimeStep.of(self._observe(state, task), collected, truncated=time >= self.horizon)
        return state, timestep

    def _observe(self, state: PlanningState, task: Int[Array, " cell"]) -> Float[Array, " obs"]:
        if self.observation == "just-goal":
            parts = [jnp.all(state.position == state.goal).astype(jnp.float32)[None]]
        else:
            parts = [self._symbol(state.position, task), self._symbol(state.goal, task)]
        if self.coordinates:
            parts += [place / (self.size - 1) for place in (state.position, state.goal)]
        return jnp.concatenate(parts)

    def _symbol(self, place: Int[Array, "2"], task: Int[Array, " cell"]) -> Float[Array, " cell"]:
        return jax.nn.one_hot(task[place[0] * self.size + place[1]], self.size**2)

    def optimal_return(self, task: Int[Array, " cell"], n_episodes: int = 1) -> Float[Array, " episode"]:
        """The expected number of goals in an episode, exact (3×3, 100 steps: 39.72; just-goal: 17.86).

        Each goal is uniform over the other cells whatever was done before, so nothing beats reaching it as fast as can
        be. Where it is seen that takes its distance on the torus. In the just-goal game the map is no help: it takes a
        search, and none finds it sooner than a walk that enters a new cell with every step, 1 … n − 1 steps, all as
        likely. Each goal then costs one more step to collect.
        """
        return jnp.full(n_episodes, self._expected_goals())

    def _expected_goals(self) -> float:
        if self.observation == "just-goal" and not self.coordinates:
            steps = np.arange(1, self.size**2) + 1
        else:
            away = np.minimum(np.arange(self.size), self.size - np.arange(self.size))
            steps = np.add.outer(away, away).ravel()[1:] + 1
        goals = np.zeros(self.horizon + 1)
        for left in range(1, self.horizon + 1):
            in_time = steps[steps <= left]
            goals[left] = np.sum(1 + goals[left - in_time]) / len(steps)
        return float(goals[-1])

    def position(self, state: PlanningState) -> Float[Array, "2"]:
        return state.position.astype(jnp.float32)

    def scene(self, task: Int[Array, " cell"]) -> Mapping[str, Any]:
        """The torus. Start and goals change within the task: none is drawn, and (0, 0) stands in for the start."""
        return {"kind": "grid", "width": self.size, "height": self.size, "start": [0, 0], "goals": []}
