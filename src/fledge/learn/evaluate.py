"""Evaluation: the adaptation curve of any agent on any split."""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from fledge.core.contracts import Agent
from fledge.core.types import Task, Trajectory
from fledge.envs.trial import Trial
from fledge.learn.rollout import begin, rollout

ANY = ("success",)
"""Extras that hold for an episode if they hold at one of its steps; all others are summed over the episode."""


class Evaluation(eqx.Module):
    """What each episode of each task brought; averaged over the repeats of a task."""

    returns: Float[Array, "task episode"]
    """Raw, undiscounted return of the episode."""
    lengths: Float[Array, "task episode"]
    """Steps that the episode took."""
    extras: dict[str, Float[Array, "task episode"]]
    """The environment's named extras, by episode (`success`: reached at some step; `regret`: summed)."""


@partial(jax.jit, static_argnames=("greedy", "n_repeats"))
def evaluate(
    agent: Agent, trial: Trial, tasks: Task, key: Key[Array, ""], *, greedy: bool = False, n_repeats: int = 1
) -> Evaluation:
    """Walk one whole trial on each task, `n_repeats` times, and take the mean over the repeats.

    Args:
        agent: any agent; its parameters stay as they are (it adapts through its memory, or by its own `adapt`).
        trial: K episodes of an environment; K need not be the K of training.
        tasks: stacked along a leading axis (`core.contracts.task_batch` lists or draws them).
        key: randomness.
        greedy: take the most likely action instead of a sampled one. Curves record which.
        n_repeats: trials per task.
    """
    n_tasks = jax.tree.leaves(tasks)[0].shape[0]
    key_begin, key_rollout = jax.random.split(key)
    many = jax.tree.map(lambda leaf: jnp.tile(leaf, (n_repeats,) + (1,) * (leaf.ndim - 1)), tasks)
    state = begin(agent, trial, key_begin, many)
    _, trajectory = rollout(agent, trial, state, key_rollout, n_steps=trial.horizon, greedy=greedy)
    per_episode = by_episode(trajectory, trial.n_episodes)

    def mean(x: Float[Array, "all episode"]) -> Float[Array, "task episode"]:
        return jnp.mean(x.reshape(n_repeats, n_tasks, -1), axis=0)

    return jax.tree.map(mean, per_episode)


def by_episode(trajectory: Trajectory, n_episodes: int) -> Evaluation:
    """Sums over the episodes of each environment's *first* trial; what comes after its end is another task's."""
    timestep = trajectory.timestep
    episode, first_trial = episode_index(trajectory)
    weights = jax.nn.one_hot(jnp.where(first_trial, episode, n_episodes), n_episodes)

    def total(x: Array) -> Float[Array, "batch episode"]:
        return jnp.einsum("tb,tbk->bk", x.astype(jnp.float32), weights)

    def some(x: Array) -> Float[Array, "batch episode"]:
        return jnp.max(x.astype(jnp.float32)[..., None] * weights, axis=0)

    extras = {name: (some if name in ANY else total)(x) for name, x in timestep.info.items() if x.ndim == 2}
    return Evaluation(total(timestep.reward), total(jnp.ones_like(timestep.reward)), extras)


def episode_index(trajectory: Trajectory) -> tuple[Int[Array, "time batch"], Array]:
    """The number of the episode that each step belongs to, and whether it is still in the first trial."""
    done, ends = trajectory.timestep.done, trajectory.timestep.trial_end

    def before(x: Array) -> Array:
        # A loop, because where ends are known beforehand the compiler would work out a cumsum by itself, slowly.
        count = jnp.zeros(x.shape[1:], jnp.int32)
        return jax.lax.scan(lambda count, end: (count + end, count), count, x)[1]

    return before(done), before(ends) == 0
