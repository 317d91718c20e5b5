"""gymnax environments (from 1.0 on) as an `Env`: pure JAX, with the parameters that vary as the task."""

# No `from __future__ import annotations`: Equinox has to see the declaration of fields as objects.

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree, Shaped

from fledge.core.contracts import Env
from fledge.core.errors import ConfigError, need
from fledge.core.spaces import Discrete, Space
from fledge.core.types import Task, TimeStep
from fledge.envs.adapt import draw_task, flat_box, flat_task, listed_tasks
from fledge.envs.splits import known_split


class InnerState(eqx.Module):
    """What the wrapped environment carries, and the step of the running episode."""

    inner: PyTree
    time: Int[Array, ""]


class GymnaxEnv(Env):
    """A gymnax environment whose parameters vary from task to task.

    A task is a dictionary with the parameters that vary; all others keep the values of `params`:

        GymnaxEnv("CartPole-v1", {"train": {"length": lengths}, "test": {"length": others}})

    gymnax ends an episode by itself at `max_steps_in_episode`, which counts as truncation here, as does `horizon`.
    Its automatic reset is not used.

    Args:
        env: an environment object of gymnax, or the name of one.
        tasks: split → stacked tasks; or `(key, split) -> task`, a pure function.
        params: the parameters that do not vary; by default gymnax's own.
        horizon: most steps of an episode; by default `params.max_steps_in_episode`.
        info: names of numbers in gymnax's `info` that go into `TimeStep.info`.
        splits_disjoint: whether no task of `test` or `ood` is in `train`.

    Raises:
        ConfigError: a task varies something that is no parameter; or a space is neither a box nor whole numbers.
        MissingExtra: `env` is a name and gymnax is not installed.
    """

    horizon: int = eqx.field(static=True)
    params: PyTree
    listed: dict[str, PyTree[Array]]
    draw: Callable[[Any, str], Task] | None = eqx.field(static=True)
    env: Any = eqx.field(static=True)
    spaces: tuple[Space, Space]
    info: tuple[str, ...] = eqx.field(static=True)
    splits_differ: bool = eqx.field(static=True)

    def __init__(
        self,
        env: Any,
        tasks: Mapping[str, Any] | Callable[[Any, str], Task],
        *,
        params: Any = None,
        horizon: int | None = None,
        info: tuple[str, ...] = (),
        splits_disjoint: bool = False,
    ) -> None:
        if isinstance(env, str):
            env, _ = need("gymnax", "gymnax").make(env)
        params = env.default_params if params is None else params
        self.env, self.info, self.splits_differ = env, tuple(info), splits_disjoint
        self.horizon = int(params.max_steps_in_episode if horizon is None else horizon)
        self.spaces = (_space(env.observation_space(params)), _space(env.action_space(params)))
        self.params = jax.tree.map(_strong, params)
        self.listed, self.draw = (listed_tasks(tasks), None) if isinstance(tasks, Mapping) else ({}, tasks)
        varied = jax.eval_shape(self.sample, jax.random.key(0))
        if not isinstance(varied, dict) or (strange := [name for name in varied if not hasattr(params, name)]):
            came = f"varies {', '.join(strange)}" if isinstance(varied, dict) else f"is a {type(varied).__name__}"
            raise ConfigError(
                f"A task {came}; wanted a dictionary of parameters of {type(params).__qualname__}: "
                f"{', '.join(vars(params))}."
            )

    @property
    def observation_space(self) -> Space:
        return self.spaces[0]

    @property
    def action_space(self) -> Space:
        return self.spaces[1]

    @property
    def fixed_length(self) -> bool:
        return False

    @property
    def splits_disjoint(self) -> bool:
        return self.splits_differ

    def sample(self, key: Key[Array, ""], split: str = "train") -> Task:
        known_split(split)
        return draw_task(key, self.listed[split]) if self.draw is None else self.draw(key, split)

    def enumerate(self, split: str = "test") -> Task | None:
        return self.listed.get(known_split(split))

    def describe(self, task: Task) -> str:
        return ", ".join(f"{name} {np.array2string(np.asarray(x), precision=3)}" for name, x in task.items())

    def task_vector(self, task: Task) -> Float[Array, " task"]:
        return flat_task(task)

    def _params(self, task: Task) -> PyTree:
        typed = {name: jnp.asarray(x, jnp.result_type(getattr(self.params, name))) for name, x in task.items()}
        return self.params.replace(**typed)

    def reset(self, key: Key[Array, ""], task: Task) -> tuple[InnerState, Shaped[Array, "*obs"]]:
        observation, inner = self.env.reset_env(key, self._params(task))
        return InnerState(jax.tree.map(_strong, inner), jnp.asarray(0, jnp.int32)), self._observe(observation)

    def step(
        self, key: Key[Array, ""], state: InnerState, action: Shaped[Array, "*act"], task: Task
    ) -> tuple[InnerState, TimeStep]:
        params = self._params(task)
        shaped = action.reshape(self.env.action_space(self.params).shape)
        observation, inner, reward, done, info = self.env.step_env(key, state.inner, shaped, params)
        time = state.time + 1
        late = (time >= self.horizon) | self.env.is_truncated(inner, params)
        timestep = TimeStep.of(
            self._observe(observation),
            reward,
            terminated=done,
            truncated=late & ~done,
            info={name: jnp.asarray(info[name], jnp.float32) for name in self.info},
        )
        return InnerState(_like(inner, state.inner), time), timestep

    def _observe(self, observation: Any) -> Shaped[Array, "*obs"]:
        space = self.observation_space
        return jnp.asarray(observation, space.dtype).reshape(space.shape)


def _space(space: Any) -> Space:
    """Ours for one of gymnax, known by its fields."""
    if hasattr(space, "n"):
        return Discrete(int(space.n))
    if not hasattr(space, "low"):
        raise ConfigError(f"A space of {type(space).__name__} has no flat form here; wanted a Box or a Discrete space.")
    return flat_box(space)


def _strong(leaf: Any) -> Array:
    """The leaf as an array whose dtype is its own (gymnax writes `time=0`, which would compile twice)."""
    return jnp.asarray(leaf, jnp.result_type(leaf))


def _like(new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf, was: jnp.asarray(leaf, was.dtype), new, old)
