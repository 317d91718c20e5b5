"""Any Gymnasium environment with a task setter, as an `Env`."""

# No `from __future__ import annotations`: Equinox has to see the declaration of fields as objects.

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, Shaped, UInt32

from fledge.core.contracts import Env
from fledge.core.errors import ConfigError, need
from fledge.core.spaces import Discrete, Space
from fledge.core.types import Task, TimeStep
from fledge.envs.adapt import draw_task, flat_box, flat_task, listed_tasks
from fledge.envs.host_pool import HostPool, Result
from fledge.envs.splits import known_split


class HostState(eqx.Module):
    """Which pool, which of its runs, begun with which seed, how many steps into it, and whether it has ended."""

    birth: UInt32[Array, ""]
    seed: UInt32[Array, ""]
    run: Int[Array, ""]
    time: Int[Array, ""]
    ended: Bool[Array, ""]


class GymnasiumEnv(Env):
    """A Gymnasium environment on the host, stepped through `jax.pure_callback`: inside `jit`, `scan` and `vmap`.

    The physics stays in Python objects; what JAX carries is a handle: the number of an episode and the steps taken in
    it (`fledge.envs.host_pool.HostPool`). So this environment is pure only as far as seed, task and actions determine
    its episode. In another process (`fledge resume`) a state goes on at the start of an episode only, where all
    rollouts stand if `fixed_length` holds and a rollout is made of whole trials. Where the state is a few arrays, write
    an `Env` instead; it will also be far faster.

    Args:
        make: a function without arguments that returns a new environment. It is called three times for every one in a
            batch: fresh starts need environments of their own.
        sample_task: `(key, split) -> task`, a pure function; or a mapping from splits to stacked tasks, from which rows
            are drawn (a missing `ood` is `test`).
        set_task: `(env, task)`, called before each reset with the task as NumPy arrays. If it is left out, the method
            `set_task` of the (unwrapped) environment is used.
        horizon: most steps of an episode; by default what the environment was registered with.
        info: names of numbers in Gymnasium's `info` that go into `TimeStep.info` (0 where they are absent).
        fixed_length: whether every episode takes `horizon` steps.
        splits_disjoint: whether no task of `test` or `ood` is in `train`.
        describe_task: a line about a task; by default its numbers.
        task_vector_of: the task as a vector; by default all its numbers.
        n_kept: see `HostPool`.

    Actions of a box are clipped to it. Observations that are neither a box nor a whole number are flattened as
    `gymnasium.spaces.flatten` does it.

    Raises:
        ConfigError: the environment has no task setter, no horizon, or an action space that is neither a box nor whole
            numbers.
        MissingExtra: Gymnasium is not installed.
    """

    horizon: int = eqx.field(static=True)
    flags: tuple[bool, bool] = eqx.field(static=True)
    """`fixed_length` and `splits_disjoint`."""
    spaces: tuple[Space, Space]
    """Of observations, of actions."""
    listed: dict[str, PyTree[Array]]
    """Split → stacked tasks; empty where tasks are drawn by a function."""
    draw: Callable[[Any, str], Task] | None = eqx.field(static=True)
    info: tuple[str, ...] = eqx.field(static=True)
    describe_task: Callable[[Task], str] | None = eqx.field(static=True)
    task_vector_of: Callable[[Task], Array] | None = eqx.field(static=True)
    pool: HostPool = eqx.field(static=True)

    def __init__(
        self,
        make: Callable[[], Any],
        sample_task: Callable[[Any, str], Task] | Mapping[str, Any],
        set_task: Callable[[Any, Any], None] | None = None,
        *,
        horizon: int | None = None,
        info: tuple[str, ...] = (),
        fixed_length: bool = False,
        splits_disjoint: bool = False,
        describe_task: Callable[[Task], str] | None = None,
        task_vector_of: Callable[[Task], Array] | None = None,
        n_kept: int = 16_384,
    ) -> None:
        need("gymnasium", "gymnasium")
        first = make()
        setter = set_task or _own_setter(first)
        if horizon is None and getattr(first, "spec", None) is not None:
            horizon = first.spec.max_episode_steps
        if horizon is None:
            raise ConfigError(
                f"{_name(first)} has no time limit of its own. Say how long an episode may be: horizon=200."
            )
        self.horizon, self.flags = int(horizon), (fixed_length, splits_disjoint)
        self.spaces = (_observations(first.observation_space), _actions(first))
        self.info, self.describe_task, self.task_vector_of = tuple(info), describe_task, task_vector_of
        if isinstance(sample_task, Mapping):
            self.listed, self.draw = listed_tasks(sample_task), None
        else:
            self.listed, self.draw = {}, sample_task
        spare = [first]
        self.pool = HostPool(lambda: _Body(spare.pop() if spare else make(), setter, self.info), n_kept)

    @property
    def observation_space(self) -> Space:
        return self.spaces[0]

    @property
    def action_space(self) -> Space:
        return self.spaces[1]

    @property
    def fixed_length(self) -> bool:
        return self.flags[0]

    @property
    def splits_disjoint(self) -> bool:
        return self.flags[1]

    def sample(self, key: Key[Array, ""], split: str = "train") -> Task:
        known_split(split)
        return draw_task(key, self.listed[split]) if self.draw is None else self.draw(key, split)

    def enumerate(self, split: str = "test") -> Task | None:
        known_split(split)
        return self.listed.get(split)

    def describe(self, task: Task) -> str:
        if self.describe_task is not None:
            return self.describe_task(task)
        return "task " + np.array2string(np.asarray(self.task_vector(task)), precision=3, separator=", ")

    def task_vector(self, task: Task) -> Float[Array, " task"]:
        if self.task_vector_of is not None:
            return self.task_vector_of(task)
        return flat_task(task)

    def reset(self, key: Key[Array, ""], task: Task) -> tuple[HostState, Shaped[Array, "*obs"]]:
        shapes = (_scalar(jnp.uint32), _scalar(jnp.int32), self._observation_like())
        seed = _seed(key)
        birth, run, observation = _call(self._begin, shapes, seed, task)
        return HostState(birth, seed, run, jnp.asarray(0, jnp.int32), jnp.asarray(False)), observation

    def restart(self, key: Key[Array, ""], state: HostState, task: Task) -> tuple[HostState, Shaped[Array, "*obs"]]:
        """A fresh start after an episode that has ended; a state that goes on is handed back as it is.

        (A trial asks for a restart at every step and throws it away where the episode goes on: that must cost nothing.)
        """
        shapes = (_scalar(jnp.int32), self._observation_like())
        fresh = _seed(key)
        run, observation = _call(self._begin_again, shapes, fresh, task, state.birth, state.run, state.ended)
        seed = jnp.where(state.ended, fresh, state.seed)
        time = jnp.where(state.ended, 0, state.time).astype(jnp.int32)
        return HostState(state.birth, seed, run, time, jnp.zeros_like(state.ended)), observation

    def step(
        self, key: Key[Array, ""], state: HostState, action: Shaped[Array, "*act"], task: Task
    ) -> tuple[HostState, TimeStep]:
        shapes = (
            _scalar(jnp.uint32),
            _scalar(jnp.int32),
            self._observation_like(),
            _scalar(jnp.float32),
            _scalar(jnp.bool_),
            _scalar(jnp.bool_),
            jax.ShapeDtypeStruct((len(self.info),), jnp.float32),
        )
        answers = _call(self._advance, shapes, state, action, task)
        birth, run, observation, reward, terminated, truncated, extras = answers
        time = state.time + ~state.ended
        truncated = truncated | ((time >= self.horizon) & ~terminated)
        timestep = TimeStep.of(
            observation,
            reward,
            terminated=terminated,
            truncated=truncated,
            info={name: extras[i] for i, name in enumerate(self.info)},
        )
        return HostState(birth, state.seed, run, time, terminated | truncated), timestep

    def _observation_like(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.observation_space.shape, self.observation_space.dtype)

    def _begin(self, seed: np.ndarray, task: Any) -> tuple[np.ndarray, ...]:
        batch = seed.shape
        with self.pool as pool:
            pool.grow(seed.size)
            begun = [pool.begin(int(s), _row(task, batch, i)) for i, s in enumerate(seed.ravel())]
        birth = np.full(batch, pool.birth, np.uint32)
        return birth, _column([n for n, _ in begun], batch, np.int32), self._stack([r for _, r in begun], batch)

    def _begin_again(
        self, seed: np.ndarray, task: Any, birth: np.ndarray, run: np.ndarray, ended: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        batch, births, runs, ends = seed.shape, birth.ravel(), run.ravel(), ended.ravel()
        begun: list[tuple[int, Result]] = []
        with self.pool as pool:
            pool.grow(seed.size)
            for i, s in enumerate(seed.ravel()):
                if ends[i]:
                    begun.append(pool.begin(int(s), _row(task, batch, i)))
                else:
                    begun.append((int(runs[i]), pool.last(int(births[i]), int(runs[i]))))
        return _column([n for n, _ in begun], batch, np.int32), self._stack([r for _, r in begun], batch)

    def _advance(self, state: Any, action: np.ndarray, task: Any) -> tuple[np.ndarray, ...]:
        """One step each. An episode that has ended stays where it is and pays nothing."""
        batch = state.run.shape
        actions = action.reshape(state.run.size, *self.action_space.shape)
        went: list[tuple[int, Result]] = []
        with self.pool as pool:
            pool.grow(state.run.size)
            rows = zip(*(leaf.ravel().tolist() for leaf in jax.tree.leaves(state)), strict=True)
            for i, (birth, seed, number, clock, ended) in enumerate(rows):
                if ended:
                    went.append((number, pool.last(birth, number)._replace(reward=0.0)))
                    continue
                if clock == 0 and not pool.knows(birth, number):  # the start of an episode, of another process
                    birth, (number, _) = pool.birth, pool.begin(seed, _row(task, batch, i))
                went.append(pool.advance(birth, number, clock, np.asarray(actions[i])))
        results = [result for _, result in went]
        extras = np.array([r.extras for r in results], np.float32).reshape((*batch, len(self.info)))
        return (
            np.full(batch, pool.birth, np.uint32),
            _column([n for n, _ in went], batch, np.int32),
            self._stack(results, batch),
            _column([r.reward for r in results], batch, np.float32),
            _column([r.terminated for r in results], batch, np.bool_),
            _column([r.truncated for r in results], batch, np.bool_),
            extras,
        )

    def _stack(self, results: list[Result], batch: tuple[int, ...]) -> np.ndarray:
        space = self.observation_space
        rows = np.array([r.observation for r in results], space.dtype)
        return rows.reshape((*batch, *space.shape))


class _Body:
    """One Gymnasium environment, with flat observations and actions."""

    def __init__(self, env: Any, set_task: Callable[[Any, Any], None], info: tuple[str, ...]) -> None:
        self.env, self.set_task, self.info = env, set_task, info
        spaces = need("gymnasium.spaces", "gymnasium")
        self._flatten = spaces.flatten
        self._whole = {name: isinstance(getattr(env, name), spaces.Discrete) for name in _SPACES}

    def reset(self, seed: int, task: Any) -> Result:
        self.set_task(self.env, task)
        seen, info = self.env.reset(seed=seed)
        return Result(self._observation(seen), 0.0, False, False, self._extras(info))

    def step(self, action: np.ndarray) -> Result:
        space = self.env.action_space
        if self._whole["action_space"]:
            given: Any = int(action) + int(space.start)
        else:
            given = np.clip(action.reshape(space.shape), space.low, space.high).astype(space.dtype)
        seen, reward, terminated, truncated, info = self.env.step(given)
        return Result(self._observation(seen), float(reward), bool(terminated), bool(truncated), self._extras(info))

    def _observation(self, seen: Any) -> np.ndarray:
        space = self.env.observation_space
        if self._whole["observation_space"]:
            return np.asarray(int(seen) - int(space.start))
        return np.array(self._flatten(space, seen), np.float32)

    def _extras(self, info: Mapping[str, Any]) -> tuple[float, ...]:
        return tuple(float(info.get(name, 0.0)) for name in self.info)


_SPACES = ("observation_space", "action_space")


def _own_setter(env: Any) -> Callable[[Any, Any], None]:
    if not callable(getattr(env.unwrapped, "set_task", None)):
        raise ConfigError(
            f"{_name(env)} has no method set_task, so nothing in it can vary from trial to trial. "
            "Give GymnasiumEnv a function set_task(env, task) that changes it (called before each reset)."
        )
    return lambda env, task: env.unwrapped.set_task(task)


def _name(env: Any) -> str:
    return type(getattr(env, "unwrapped", env)).__name__


def _observations(space: Any) -> Space:
    spaces = need("gymnasium.spaces", "gymnasium")
    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n))
    flat = spaces.flatten_space(space)
    if not isinstance(flat, spaces.Box):
        raise ConfigError(f"Observations of {space} have no fixed size. Wrap the environment so that they have one.")
    return flat_box(flat)


def _actions(env: Any) -> Space:
    spaces = need("gymnasium.spaces", "gymnasium")
    space = env.action_space
    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n))
    if isinstance(space, spaces.Box):
        return flat_box(space)
    raise ConfigError(
        f"{_name(env)} acts by {space}; wanted a Box or a Discrete space. Wrap it (gymnasium.ActionWrapper) into one."
    )


def _seed(key: Key[Array, ""]) -> UInt32[Array, ""]:
    return jax.random.bits(key, (), jnp.uint32) >> 1


def _scalar(dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((), dtype)


def _call(function: Callable[..., Any], shapes: Any, *arguments: Any) -> Any:
    """One call of the host for the whole batch, with NumPy arrays."""

    def on_host(*arguments: Any) -> Any:
        return function(*jax.tree.map(np.asarray, arguments))

    return jax.pure_callback(on_host, shapes, *arguments, vmap_method="broadcast_all")


def _row(task: Any, batch: tuple[int, ...], i: int) -> Any:
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[len(batch) :])[i], task)


def _column(values: list[Any], batch: tuple[int, ...], dtype: Any) -> np.ndarray:
    return np.array(values, dtype).reshape(batch)
