"""The part of the exam that walks: a few trials under random actions, in one compiled function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PyTree, Shaped

from fledge.core.contracts import Env
from fledge.core.spaces import Space
from fledge.core.types import Task, TimeStep
from fledge.envs.findings import Failure, Finding, attempt, head, host, quick_jit, value_change
from fledge.envs.trial import Trial

N_WALKS = 16
N_EPISODES = 3
N_ACTIONS = 64
"""Actions drawn per walk, used over and over."""
N_PLAIN = 2
"""Steps that are also taken without compiling."""


class Walk(eqx.Module):
    """What happened. Time is the first axis (after the batch); flags about the unwrapped step are called `plain_`."""

    start: Shaped[Array, "..."]
    start_inside: Bool[Array, "*batch"]
    timestep: TimeStep
    inside: Bool[Array, "*batch_and_time"]
    """Both observations lie in their space."""
    plain_end: Bool[Array, "*batch_and_time"]
    """The environment itself raised `trial_end`."""
    plain_reset: Bool[Array, "*batch_and_time"]
    """The environment's own step gave two different observations."""
    task_vector: PyTree
    optimum: PyTree


def _trial(env: Env) -> Trial:
    return Trial(env=env, n_episodes=N_EPISODES)


def _done(walks: Walk) -> Bool[np.ndarray, "batch time"]:
    return np.asarray(walks.timestep.terminated) | np.asarray(walks.timestep.truncated)


def _differ(timestep: TimeStep) -> Bool[Array, ""]:
    return ~jnp.array_equal(timestep.observation, timestep.final_observation, equal_nan=True)


def _walk(env: Env, key: Key[Array, ""], task: Task, actions: Shaped[Array, "time *act"]) -> Walk:
    trial, contains = _trial(env), env.observation_space.contains
    key_reset, key_steps = jax.random.split(key)

    def one(state: Any, x: tuple[Array, Array]) -> tuple[PyTree, Any]:
        t, action = x
        key = jax.random.fold_in(key_steps, t)
        # The same key as inside Trial, so that the compiler finds one step here, not two.
        _, plain = env.step(jax.random.split(key)[0], state.inner, action, task)
        state, timestep = trial.step(key, state, action, task)
        inside = contains(timestep.observation) & contains(timestep.final_observation)
        return state, (timestep, inside, plain.trial_end, _differ(plain))

    state, start = trial.reset(key_reset, task)
    _, (timestep, inside, end, reset) = jax.lax.scan(one, state, (jnp.arange(len(actions)), actions))
    vector, optimum = env.task_vector(task), env.optimal_return(task, N_EPISODES)
    return Walk(start, contains(start), timestep, inside, end, reset, vector, optimum)


def _plain_walk(env: Env, key: Key[Array, ""], task: Task, actions: Shaped[Array, "time *act"]) -> tuple[Any, Any]:
    """The start observation and the first time steps of `_walk`, in plain Python."""
    trial = _trial(env)
    key_reset, key_steps = jax.random.split(key)
    state, start = trial.reset(key_reset, task)
    timesteps = []
    for t in range(min(N_PLAIN, len(actions))):
        state, timestep = trial.step(jax.random.fold_in(key_steps, t), state, actions[t], task)
        timesteps.append(timestep)
    return start, jax.tree.map(lambda *leaves: jnp.stack(leaves), *timesteps)


@jax.jit
def _draw_actions(space: Space, keys: Key[Array, " n"]) -> tuple[Shaped[Array, "n *act"], Bool[Array, " n"]]:
    actions = jax.vmap(space.sample)(keys)
    return actions, jax.vmap(space.contains)(actions)


def check_walks(env: Env, key: Key[Array, ""], drawn: dict[str, Task], n_steps: int | None = None) -> Iterator[Finding]:
    """Everything that has to be seen in motion. `n_steps` cuts the walks short; by default they are whole trials."""
    length = min(env.horizon * N_EPISODES, n_steps or env.horizon * N_EPISODES)
    key_walk, key_act = jax.random.split(key)
    keys = jax.random.split(key_walk, N_WALKS)
    pool, good = _draw_actions(env.action_space, jax.random.split(key_act, N_WALKS * N_ACTIONS))
    if not np.all(good):
        yield Finding("action", "action_space.sample drew outside action_space", "inside", "Mend the space.")
    pool = np.asarray(pool).reshape(N_WALKS, N_ACTIONS, *pool.shape[1:])
    actions = pool[:, np.arange(length) % N_ACTIONS]
    tasks, others = (head(drawn[split], N_WALKS) for split in ("train", "test"))
    n_traces = [0]

    def walk(key: Key[Array, ""], task: Task, actions: Shaped[Array, "time *act"]) -> Walk:
        n_traces[0] += 1
        return _walk(env, key, task, actions)

    batch = quick_jit(jax.vmap(walk))
    walks = attempt("a batch of episodes", lambda: host(batch(keys, tasks, actions)))
    if isinstance(walks, Failure):
        yield walks.finding
        return
    batch(keys, others, actions)
    if n_traces[0] > 1:
        yield Finding(
            "compiles once", "tasks of 'test' compiled a second time", "once", "Keep dtypes equal over splits."
        )
    first = (keys[0], head(tasks), jnp.asarray(actions[0]))
    yield from _check_ways(env, walk, jax.tree.map(lambda leaf: leaf[0], walks), first)
    yield from _check_values(env, walks)
    yield from _check_episodes(env, walks, whole=length == env.horizon * N_EPISODES)
    yield from _check_optimum(walks)


def _check_ways(env: Env, walk: Callable[..., Walk], batched: Walk, first: tuple[Any, Any, Any]) -> Iterator[Finding]:
    """Plain, compiled and batched runs of one walk agree (compiled alone only where there is something to explain)."""
    runs = attempt("reset and step without jit", lambda: [_plain_walk(env, *first) for _ in range(2)])
    if isinstance(runs, Failure):
        yield runs.finding
        return
    if where := value_change(runs[0], runs[1]):
        yield Finding(
            "pure", f"one key gave two results: {where}", "one", "Draw from the key; keep no state elsewhere."
        )
        return
    if not (where := value_change(runs[0], _beginning(batched))):
        return
    if inside := value_change(runs[0], _beginning(quick_jit(walk)(*first))):
        cure = "Let the result depend on the arguments alone, not on Python state or the clock."
        yield Finding("jit", f"plain and compiled gave {inside}", "the same", cure)
    else:
        cure = "Work on one environment: name no batch axis, and reduce over the axes of one example."
        yield Finding("vmap", f"one by one and in a batch gave {where}", "the same", cure)


def _beginning(walk: Walk) -> tuple[Any, Any]:
    return walk.start, jax.tree.map(lambda leaf: leaf[:N_PLAIN], walk.timestep)


def _running(walks: Walk) -> Bool[np.ndarray, "batch time"]:
    """Steps up to and including the one that ends the trial."""
    end = np.asarray(walks.timestep.trial_end)
    return np.cumsum(end, axis=1) - end == 0


def _where(broken: Bool[np.ndarray, "batch time"]) -> str:
    row, step = np.argwhere(broken)[0]
    return f"first at step {step + 1} of walk {row + 1}"


def _check_values(env: Env, walks: Walk) -> Iterator[Finding]:
    """Observations inside, rewards finite, no resets of the environment's own."""
    running, timestep = _running(walks), walks.timestep
    cure = "Widen the space, or clip what is observed."
    if not np.all(walks.start_inside):
        yield Finding("inside", "a start observation lies outside observation_space", f"{env.observation_space}", cure)
    if (outside := ~np.asarray(walks.inside) & running).any():
        value = np.asarray(timestep.final_observation)[tuple(np.argwhere(outside)[0])]
        came = f"{outside.sum()} observations lie outside observation_space, {_where(outside)}: {value}"
        yield Finding("inside", came, f"{env.observation_space}", cure)
    if (bad := ~np.isfinite(timestep.reward) & running).any():
        value = np.asarray(timestep.reward)[tuple(np.argwhere(bad)[0])]
        cure = "Guard divisions, roots and logarithms with jnp.where on their argument."
        yield Finding("reward", f"{bad.sum()} rewards are not finite, {_where(bad)}: {value}", "finite numbers", cure)
    if (np.asarray(walks.plain_end) & running).any():
        yield Finding("no reset", "step raised trial_end", "False", "Leave trials to fledge.envs.trial.Trial.")
    if (reset := np.asarray(walks.plain_reset) & running).any():
        came = f"observation and final_observation of step differ, {_where(reset)}"
        yield Finding("no reset", came, "one observation", "Do not reset in step: Trial does, at an episode's end.")


def _check_episodes(env: Env, walks: Walk, *, whole: bool) -> Iterator[Finding]:
    """Lengths of episodes, and the trial around them."""
    done, end, running = _done(walks), np.asarray(walks.timestep.trial_end), _running(walks)
    marks = [np.concatenate([[-1], np.flatnonzero(row & run)]) for row, run in zip(done, running, strict=True)]
    lengths = np.concatenate([np.diff(row) for row in marks])
    open_steps = [run.sum() - 1 - row[-1] for row, run in zip(marks, running, strict=True)]
    longest = max([*lengths, *open_steps])
    if longest > env.horizon or (whole and not end.any(1).all()):
        came = f"an episode had not ended after {max(longest, env.horizon)} steps"
        cure = "Raise truncated when the step count reaches horizon."
        yield Finding("horizon", came, f"an end by step {env.horizon} (`horizon`)", cure)
    elif env.fixed_length and (lengths < env.horizon).any():
        came = f"an episode ended after {lengths.min()} of {env.horizon} steps"
        yield Finding("fixed length", came, "all of them, since fixed_length is True", "Return False, or do not end.")
    elif whole and not all(len(row) == N_EPISODES + 1 for row in marks):
        came = f"trials of {N_EPISODES} episodes ended after {sorted({len(row) - 1 for row in marks})}"
        yield Finding("trial", came, f"{N_EPISODES} each", "Let every episode end again after restart.")
    two = np.asarray(walks.timestep.observation != walks.timestep.final_observation).reshape(*done.shape, -1).any(-1)
    inner_end = done & ~end
    if (wrong := two & running & ~inner_end & walks.inside & ~np.asarray(walks.plain_reset)).any():
        came = f"the two observations differ though no inner episode ended, {_where(wrong)}"
        yield Finding("trial", came, "two observations at inner ends only", "Do not reset in step.")


def _check_optimum(walks: Walk) -> Iterator[Finding]:
    """Random play in the first episode does not beat the told optimum."""
    if not np.isfinite(walks.task_vector).all():
        yield Finding("task vector", "task_vector has entries that are not finite", "finite numbers", "Rescale it.")
    done = _done(walks)
    if walks.optimum is None or not done.any(1).all():
        return
    first_episode = np.cumsum(done, axis=1) - done == 0
    earned = np.where(first_episode, np.asarray(walks.timestep.reward), 0.0).sum(1)
    best: Float[np.ndarray, " batch"] = np.asarray(walks.optimum)[:, 0]
    excess = earned - best
    noise = 3 * excess.std() / np.sqrt(len(excess)) + 1e-3 * (1 + np.abs(best).mean())
    if not np.isfinite(best).all() or excess.mean() > noise:
        came = f"random play earned {earned.mean():.4g} an episode on average, optimal_return says {best.mean():.4g}"
        yield Finding("optimum", came, "random play at or below the optimum", "Work the optimum out again.")
