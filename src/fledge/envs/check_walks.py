"""The part of the exam that walks: a few random episodes and trials in three compiled functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PyTree, Shaped

from fledge.core.contracts import Env
from fledge.core.types import Task, TimeStep
from fledge.envs.findings import Failure, Finding, attempt, value_change
from fledge.envs.trial import Trial

N_WALKS = 16
N_EPISODES = 3
N_COMPARED = 8
"""Steps compared between ways of running: few, so that rounding has no time to grow where dynamics are chaotic."""
N_PLAIN = 2
"""Steps taken without compiling."""


class Walk(eqx.Module):
    """What happened under random actions. Time is the first axis (after the batch)."""

    start: Shaped[Array, "..."]
    start_inside: Bool[Array, "*batch"]
    timestep: TimeStep
    inside: Bool[Array, "*batch_and_time"]
    """Both observations lie in their space."""
    action_inside: Bool[Array, "*batch_and_time"]
    task_vector: PyTree
    optimum: PyTree


def _walk(env: Env, key: Key[Array, ""], task: Task, n_steps: int) -> Walk:
    key_reset, key_steps = jax.random.split(key)
    contains = env.observation_space.contains

    def one(state: PyTree, key: Key[Array, ""]) -> tuple[PyTree, Any]:
        key_act, key_step = jax.random.split(key)
        action = env.action_space.sample(key_act)
        state, timestep = env.step(key_step, state, action, task)
        inside = contains(timestep.observation) & contains(timestep.final_observation)
        return state, (timestep, inside, env.action_space.contains(action))

    state, start = env.reset(key_reset, task)
    _, (timestep, inside, action_inside) = jax.lax.scan(one, state, jax.random.split(key_steps, n_steps))
    vector, optimum = env.task_vector(task), env.optimal_return(task, N_EPISODES)
    return Walk(start, contains(start), timestep, inside, action_inside, vector, optimum)


def _plain_walk(env: Env, key: Key[Array, ""], task: Task, n_steps: int) -> tuple[Any, Any]:
    """The start observation and the time steps of `_walk`, in plain Python."""
    key_reset, key_steps = jax.random.split(key)
    state, start = env.reset(key_reset, task)
    timesteps = []
    for key_t in jax.random.split(key_steps, n_steps):
        key_act, key_step = jax.random.split(key_t)
        state, timestep = env.step(key_step, state, env.action_space.sample(key_act), task)
        timesteps.append(timestep)
    return start, jax.tree.map(lambda *leaves: jnp.stack(leaves), *timesteps)


def check_walks(env: Env, key: Key[Array, ""], n_steps: int | None = None) -> Iterator[Finding]:
    """Everything that has to be seen in motion. `n_steps` cuts the walks short (the horizon is then not checked)."""
    length = env.horizon if n_steps is None else min(n_steps, env.horizon)
    key_task, key_walk = jax.random.split(key)
    tasks = jax.jit(jax.vmap(lambda k: env.sample(k, "train")))(jax.random.split(key_task, N_WALKS))
    keys = jax.random.split(key_walk, N_WALKS)
    n_traces = [0]

    def walk(key: Key[Array, ""], task: Task) -> Walk:
        n_traces[0] += 1
        return _walk(env, key, task, length)

    many = attempt("a batch of episodes (vmap)", lambda: jax.jit(jax.vmap(walk))(keys, tasks))
    if isinstance(many, Failure):
        yield many.finding
        return
    yield from _check_ways(env, walk, n_traces, many, keys, tasks, length)
    yield from _check_episodes(env, many, tasks, whole=length == env.horizon)
    yield from _check_optimum(many, whole=length == env.horizon)
    if length == env.horizon:
        yield from _check_trials(env, keys, tasks)


def _check_ways(
    env: Env, walk: Callable[..., Walk], n_traces: list[int], many: Walk, keys: Array, tasks: Task, length: int
) -> Iterator[Finding]:
    """Plain, compiled and batched runs of the same keys agree."""
    first, second = (jax.tree.map(lambda leaf, i=i: leaf[i], tasks) for i in (0, 1))
    compiled = jax.jit(walk)
    n_traces[0] = 0
    one = compiled(keys[0], first)
    compiled(keys[1], second)
    if n_traces[0] > 1:
        yield Finding(
            "compiles once", f"an episode was compiled {n_traces[0]} times", "once", "Keep shapes and dtypes."
        )
    n = min(N_PLAIN, length)
    runs = attempt("reset and step without jit", lambda: [_plain_walk(env, keys[0], first, n) for _ in range(2)])
    if isinstance(runs, Failure):
        yield runs.finding
    elif where := value_change(runs[0], runs[1]):
        yield Finding(
            "pure", f"one key gave two results: {where}", "one", "Draw from the key; keep nothing outside it."
        )
    elif where := value_change(runs[0], (one.start, jax.tree.map(lambda leaf: leaf[:n], one.timestep))):
        cure = "Let the result depend on the arguments alone, not on Python state or the clock."
        yield Finding("jit", f"plain and compiled gave {where}", "the same", cure)
    n = min(N_COMPARED, length)
    batched = (many.start[0], jax.tree.map(lambda leaf: leaf[0, :n], many.timestep))
    if where := value_change((one.start, jax.tree.map(lambda leaf: leaf[:n], one.timestep)), batched):
        yield Finding(
            "vmap", f"one by one and in a batch gave {where}", "the same", "Avoid reductions without an axis."
        )


def _lived(done: Bool[np.ndarray, "batch time"]) -> Bool[np.ndarray, "batch time"]:
    """Steps up to and including the first end."""
    ended = np.cumsum(done, axis=1)
    return (ended == 0) | ((ended == 1) & done)


def _first(broken: Bool[np.ndarray, "batch time"]) -> str:
    row, step = np.argwhere(broken)[0]
    return f"first at step {step + 1} of walk {row + 1}"


def _check_episodes(env: Env, many: Walk, tasks: Task, *, whole: bool) -> Iterator[Finding]:
    done, timestep = np.asarray(many.timestep.done), many.timestep
    lived = _lived(done)
    low = "Widen the space, or clip what is observed."
    if not np.all(many.start_inside):
        yield Finding("inside", "a start observation lies outside observation_space", "inside", low)
    if (outside := ~np.asarray(many.inside) & lived).any():
        worst = np.asarray(timestep.final_observation)[tuple(np.argwhere(outside)[0])]
        came = f"{outside.sum()} observations lie outside observation_space, {_first(outside)}: {worst}"
        yield Finding("inside", came, f"inside {env.observation_space}", low)
    if not np.all(many.action_inside):
        yield Finding("action", "action_space.sample drew outside action_space", "inside", "Mend the space.")
    if (bad := ~np.isfinite(timestep.reward) & lived).any():
        value = np.asarray(timestep.reward)[tuple(np.argwhere(bad)[0])]
        cure = "Guard divisions, roots and logarithms with jnp.where on their argument."
        yield Finding("reward", f"{bad.sum()} rewards are not finite, {_first(bad)}: {value}", "finite numbers", cure)
    lengths = lived.sum(1)
    if whole and not done.any(1).all():
        came = f"{(~done.any(1)).sum()} of {len(done)} episodes had not ended after {env.horizon} steps"
        yield Finding("horizon", came, "an end by `horizon`", "Raise truncated when the step count reaches horizon.")
    elif env.fixed_length and (done.any(1) & (lengths < env.horizon)).any():
        came = f"an episode ended after {lengths.min()} of {env.horizon} steps"
        yield Finding("fixed length", came, "all of them, since fixed_length is True", "Return False, or do not end.")
    if (np.asarray(timestep.trial_end) & lived).any():
        yield Finding("no reset", "step raised trial_end", "False", "Leave trials to fledge.envs.trial.Trial.")
    same = np.asarray(timestep.observation == timestep.final_observation).reshape(*done.shape, -1).all(-1)
    if (~same & lived).any():
        came = f"observation and final_observation of step differ, {_first(~same & lived)}"
        yield Finding("no reset", came, "one observation", "Do not reset in step: Trial does, at an episode's end.")


def _check_optimum(many: Walk, *, whole: bool) -> Iterator[Finding]:
    if not np.isfinite(many.task_vector).all():
        yield Finding("task vector", "task_vector has entries that are not finite", "finite numbers", "Rescale it.")
    if many.optimum is None or not whole:
        return
    lived = _lived(np.asarray(many.timestep.done))
    earned = np.where(lived, np.asarray(many.timestep.reward), 0.0).sum(1)
    best: Float[np.ndarray, " batch"] = np.asarray(many.optimum)[:, 0]
    excess = earned - best
    noise = 3 * excess.std() / np.sqrt(len(excess)) + 1e-3 * (1 + np.abs(best).mean())
    if not np.isfinite(best).all() or excess.mean() > noise:
        came = f"random play earned {earned.mean():.4g} an episode on average, optimal_return says {best.mean():.4g}"
        yield Finding("optimum", came, "random play at or below the optimum", "Work the optimum out again.")


def _check_trials(env: Env, keys: Array, tasks: Task) -> Iterator[Finding]:
    """`N_EPISODES` episodes of the same task: one `trial_end`, and two observations at inner ends only."""
    trial = Trial(env, N_EPISODES)
    run = jax.jit(jax.vmap(lambda key, task: _walk(trial, key, task, trial.horizon)))
    walks = attempt(f"a trial of {N_EPISODES} episodes", lambda: run(keys, tasks))
    if isinstance(walks, Failure):
        yield walks.finding
        return
    done, end = np.asarray(walks.timestep.done), np.asarray(walks.timestep.trial_end)
    running = np.cumsum(end, axis=1) - end == 0
    n_episodes = (done & running).sum(1)
    if not end.any(1).all() or not (n_episodes == N_EPISODES).all():
        came = f"trials of {N_EPISODES} episodes took {sorted(set(n_episodes.tolist()))} episodes to end"
        yield Finding("trial", came, f"{N_EPISODES} each", "Let every episode end again after restart.")
    one = np.asarray(walks.timestep.observation == walks.timestep.final_observation).reshape(*done.shape, -1).all(-1)
    if (wrong := ~one & running & ~(done & ~end)).any():
        came = f"the two observations differ though no inner episode ended, {_first(wrong)}"
        yield Finding("trial", came, "two observations at inner ends only", "Do not reset in step.")
    if (outside := ~np.asarray(walks.inside) & running).any():
        came = f"an observation of a trial lies outside observation_space, {_first(outside)}"
        yield Finding("inside", came, "inside, after restart too", "Widen the space, or mend restart.")
