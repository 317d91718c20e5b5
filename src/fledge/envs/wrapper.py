"""An environment around another one."""

from collections.abc import Mapping
from typing import Any

from equinox import AbstractVar
from jaxtyping import Array, Float, Key, PyTree, Shaped

from fledge.core.contracts import Env
from fledge.core.spaces import Space
from fledge.core.types import Task, TimeStep


class Wrapper(Env):
    """Hands everything on to `env`; a wrapper says only what it does otherwise."""

    env: AbstractVar[Env]

    @property
    def horizon(self) -> int:
        return self.env.horizon

    @property
    def splits_disjoint(self) -> bool:
        return self.env.splits_disjoint

    @property
    def observation_space(self) -> Space:
        return self.env.observation_space

    @property
    def action_space(self) -> Space:
        return self.env.action_space

    @property
    def fixed_length(self) -> bool:
        return self.env.fixed_length

    def sample(self, key: Key[Array, ""], split: str = "train") -> Task:
        return self.env.sample(key, split)

    def enumerate(self, split: str = "test") -> Task | None:
        return self.env.enumerate(split)

    def describe(self, task: Task) -> str:
        return self.env.describe(task)

    def task_vector(self, task: Task) -> Float[Array, " task"]:
        return self.env.task_vector(task)

    def optimal_return(self, task: Task, n_episodes: int = 1) -> Float[Array, " episode"] | None:
        return self.env.optimal_return(task, n_episodes)

    def position(self, state: PyTree) -> Float[Array, "2"] | None:
        return self.env.position(state)

    def scene(self, task: Task) -> Mapping[str, Any] | None:
        return self.env.scene(task)

    def reset(self, key: Key[Array, ""], task: Task) -> tuple[PyTree, Shaped[Array, "*obs"]]:
        return self.env.reset(key, task)

    def restart(self, key: Key[Array, ""], state: PyTree, task: Task) -> tuple[PyTree, Shaped[Array, "*obs"]]:
        return self.env.restart(key, state, task)

    def step(
        self, key: Key[Array, ""], state: PyTree, action: Shaped[Array, "*act"], task: Task
    ) -> tuple[PyTree, TimeStep]:
        return self.env.step(key, state, action, task)
