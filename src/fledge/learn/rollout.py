"""The single rollout: the only place where agents and environments meet."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree

from fledge.core.contracts import Agent
from fledge.core.types import Decision, Task, TimeStep, Token, Trajectory
from fledge.envs.trial import Trial


class RolloutState(eqx.Module):
    """Where N agents and environments stand. Every leaf has the leading axis `batch`."""

    memory: PyTree[Array]
    env: PyTree[Array]
    token: Token
    task: Task


def begin(agent: Agent, trial: Trial, key: Key[Array, ""], tasks: Task) -> RolloutState:
    """Every environment at the start of a trial on its own task (leading axis `batch`)."""
    n = jax.tree.leaves(tasks)[0].shape[0]

    def one(key: Key[Array, ""], task: Task) -> tuple[PyTree, Token]:
        state, observation = trial.reset(key, task)
        told = trial.task_vector(task) if agent.told else None
        return state, Token.first(observation, trial.action_space, told)

    states, tokens = jax.vmap(one)(jax.random.split(key, n), tasks)
    memory = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (n, *leaf.shape)), agent.begin())
    return RolloutState(memory, states, tokens, tasks)


def sample_tasks(trial: Trial, key: Key[Array, ""], split: str, n: int) -> Task:
    """`n` tasks drawn from a split."""
    return jax.vmap(lambda k: trial.sample(k, split))(jax.random.split(key, n))


def step(
    agent: Agent,
    trial: Trial,
    state: RolloutState,
    keys: Key[Array, " batch"],
    noise: PyTree[Array] | None,
) -> tuple[RolloutState, Decision, TimeStep]:
    """One decision and one environment step everywhere. A trial that ends is *not* restarted here."""

    def one(
        key: Key[Array, ""], state: RolloutState, noise: PyTree[Array] | None
    ) -> tuple[RolloutState, Decision, TimeStep]:
        decision, memory = agent.act(state.memory, state.token, noise)
        env, timestep = trial.step(key, state.env, decision.action, state.task)
        token = state.token.next(decision.action, timestep)
        return RolloutState(memory, env, token, state.task), decision, timestep

    return jax.vmap(one)(keys, state, noise)


def rollout(
    agent: Agent,
    trial: Trial,
    state: RolloutState,
    key: Key[Array, ""],
    *,
    n_steps: int,
    split: str = "train",
    greedy: bool = False,
) -> tuple[RolloutState, Trajectory]:
    """`n_steps` steps everywhere; trials that end are followed by trials on new tasks.

    The trajectory's leaves have axes (time, batch). Randomness is drawn in bulk before the loop: on a CPU, drawing it
    step by step costs more than the network.

    A trial's end writes nothing of the old task into the next one: memory is `begin()` again and the token is a first
    token (G2 of the published code: the old task's last transition is pushed into the new memory).
    """
    n_envs = state.token.start.shape[0]
    key_step, key_noise, key_task, key_reset, key_adapt = jax.random.split(key, 5)
    keys = jax.random.split(key_step, (n_steps, n_envs))
    noise = None
    if not greedy:
        noise = jax.vmap(jax.vmap(agent.sample_noise))(jax.random.split(key_noise, (n_steps, n_envs)))

    def advance(
        carry: tuple[RolloutState, PyTree], x: tuple[Any, ...]
    ) -> tuple[tuple[RolloutState, PyTree], Trajectory]:
        state, episodes = carry
        t, keys, noise = x
        token = state.token
        state, decision, timestep = step(agent, trial, state, keys, noise)
        happened = Trajectory(token, decision, timestep)
        if agent.adapts:
            state, episodes = _adapt(agent, trial, state, episodes, happened, jax.random.fold_in(key_adapt, t))
        if not synchronous:
            state = _restart(agent, trial, state, timestep.trial_end, jax.random.fold_in(key_task, t), split)
        return (state, episodes), happened

    synchronous = is_synchronous(trial, n_steps)
    if not synchronous:
        episodes = _empty_episodes(agent, trial, state, n_envs)
        (state, _), trajectory = jax.lax.scan(advance, (state, episodes), (jnp.arange(n_steps), keys, noise))
        return state, trajectory

    def whole_trials(state: RolloutState, x: tuple[Any, ...]) -> tuple[RolloutState, Trajectory]:
        key_task, key_reset, *xs = x
        episodes = _empty_episodes(agent, trial, state, n_envs)
        (state, _), trajectory = jax.lax.scan(advance, (state, episodes), tuple(xs))
        tasks = sample_tasks(trial, key_task, split, n_envs)
        return begin(agent, trial, key_reset, tasks), trajectory

    n_trials = n_steps // trial.horizon

    def cut(leaf: Array) -> Array:
        return leaf.reshape(n_trials, trial.horizon, *leaf.shape[1:])

    starts = (jax.random.split(key_task, n_trials), jax.random.split(key_reset, n_trials))
    xs = jax.tree.map(cut, (jnp.arange(n_steps), keys, noise))
    if n_trials == 1:
        return whole_trials(state, jax.tree.map(lambda leaf: leaf[0], (*starts, *xs)))
    state, trajectory = jax.lax.scan(whole_trials, state, (*starts, *xs))
    return state, jax.tree.map(lambda leaf: leaf.reshape(n_steps, *leaf.shape[2:]), trajectory)


def is_synchronous(trial: Trial, n_steps: int) -> bool:
    """Whether all environments start and end their trials together, at the borders of the rollout.

    Then resets and new tasks need no place in the inner loop. It holds if every trial takes exactly `horizon` steps
    and the rollout is made of whole trials.
    """
    return trial.fixed_length and n_steps % trial.horizon == 0


def _restart(
    agent: Agent, trial: Trial, state: RolloutState, ended: Bool[Array, " batch"], key: Key[Array, ""], split: str
) -> RolloutState:
    def fresh(state: RolloutState) -> RolloutState:
        key_task, key_reset = jax.random.split(key)
        tasks = sample_tasks(trial, key_task, split, ended.shape[0])
        return select(ended, begin(agent, trial, key_reset, tasks), state)

    return jax.lax.cond(jnp.any(ended), fresh, lambda state: state, state)


def select(where: Bool[Array, " batch"], new: PyTree[Array], old: PyTree[Array]) -> PyTree[Array]:
    """`new` in the rows where `where` holds, `old` elsewhere (leaves with a leading batch axis)."""

    def pick(a: Array, b: Array) -> Array:
        return jnp.where(where.reshape(where.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(pick, new, old)


class Episodes(eqx.Module):
    """The running episode of each environment, for agents that adapt when it ends."""

    steps: Trajectory
    length: Int[Array, " batch"]


def _empty_episodes(agent: Agent, trial: Trial, state: RolloutState, n_envs: int) -> Episodes | None:
    if not agent.adapts:
        return None
    key = jax.random.key(0)
    noise = jax.eval_shape(jax.vmap(agent.sample_noise), jax.random.split(key, n_envs))
    shapes = jax.eval_shape(lambda s, k, e: step(agent, trial, s, k, e), state, jax.random.split(key, n_envs), noise)
    happened = Trajectory(state.token, shapes[1], shapes[2])
    steps = jax.tree.map(lambda leaf: jnp.zeros((trial.env.horizon, *leaf.shape), leaf.dtype), happened)
    return Episodes(steps, jnp.zeros(n_envs, jnp.int32))


def _adapt(
    agent: Agent, trial: Trial, state: RolloutState, episodes: Episodes, happened: Trajectory, key: Key[Array, ""]
) -> tuple[RolloutState, Episodes]:
    """Write the step down; where an episode ended inside its trial, hand it to `agent.adapt`."""
    horizon, n_envs = trial.env.horizon, episodes.length.shape[0]
    rows = jnp.arange(n_envs)
    steps = jax.tree.map(
        lambda buffer, new: buffer.at[episodes.length, rows].set(new, mode="drop"), episodes.steps, happened
    )
    length = episodes.length + 1
    done = happened.timestep.done

    def adapted(memory: PyTree[Array]) -> PyTree[Array]:
        mask = jnp.arange(horizon)[:, None] < length
        keys = jax.random.split(key, n_envs)
        new = jax.vmap(agent.adapt, in_axes=(0, 0, 1, 1))(keys, memory, steps, mask)
        return select(done & ~happened.timestep.trial_end, new, memory)

    memory = jax.lax.cond(jnp.any(done), adapted, lambda memory: memory, state.memory)
    state = RolloutState(memory, state.env, state.token, state.task)
    return state, Episodes(steps, jnp.where(done, 0, length))
