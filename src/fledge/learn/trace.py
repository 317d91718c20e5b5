"""What an agent does, step by step, as plain numbers for pictures."""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Key, PyTree, Shaped

from fledge.core.contracts import Agent, Env
from fledge.core.errors import ContractError
from fledge.core.types import Task, TimeStep
from fledge.envs.trial import Trial
from fledge.envs.wrapper import Wrapper
from fledge.learn.evaluate import episode_index
from fledge.learn.rollout import begin, rollout


class Traced(Wrapper):
    """An environment whose time steps also carry where the agent was (`before`) and where it went (`after`)."""

    env: Env

    def step(
        self, key: Key[Array, ""], state: PyTree, action: Shaped[Array, "*act"], task: Task
    ) -> tuple[PyTree, TimeStep]:
        before = self._where(state)
        state, timestep = self.env.step(key, state, action, task)
        info = timestep.info | {"before": before, "after": self._where(state)}
        return state, eqx.tree_at(lambda t: t.info, timestep, info)

    def _where(self, state: PyTree) -> Float[Array, "2"]:
        position = self.env.position(state)
        if position is None:
            raise ContractError(
                f"{type(self.env).__name__} has no `position`, so its paths cannot be drawn. "
                "Give it `position(state)` and `scene(task)`."
            )
        return position


@partial(jax.jit, static_argnames="greedy")
def _walk(agent: Agent, trial: Trial, tasks: Task, key: Key[Array, ""], *, greedy: bool) -> Any:
    key_begin, key_rollout = jax.random.split(key)
    state = begin(agent, trial, key_begin, tasks)
    trajectory = rollout(agent, trial, state, key_rollout, n_steps=trial.horizon, greedy=greedy)[1]
    return trajectory.timestep, *episode_index(trajectory)


def walked_paths(
    agent: Agent, trial: Trial, tasks: Task, key: Key[Array, ""], *, greedy: bool = False
) -> list[dict[str, Any]]:
    """One record per task: its description, its scene, and the positions and rewards of each episode of a trial.

    Raises:
        ContractError: the environment has no `position` to draw.
    """
    traced = Trial(Traced(trial.env), trial.n_episodes)
    timestep, episode, first = jax.device_get(_walk(agent, traced, tasks, key, greedy=greedy))
    records = []
    for i in range(episode.shape[1]):
        task = jax.tree.map(lambda leaf: leaf[i], tasks)  # noqa: B023
        episodes = []
        for k in range(trial.n_episodes):
            here = np.flatnonzero((episode[:, i] == k) & first[:, i])
            positions = np.concatenate([timestep.info["before"][here[:1], i], timestep.info["after"][here, i]])
            rewards = timestep.reward[here, i]
            episodes.append(
                {
                    "positions": np.round(positions, 4).tolist(),
                    "rewards": [round(float(r), 4) for r in rewards],
                    "return": round(float(rewards.sum()), 4),
                }
            )
        records.append({"task": trial.describe(task), "scene": trial.scene(task), "episodes": episodes})
    return records
