"""A family of one task: what an agent is left alone with when it goes on learning on a task that it was handed."""

from __future__ import annotations

from jaxtyping import Array, Key

from fledge.core.contracts import Env
from fledge.core.types import Task
from fledge.envs.splits import known_split
from fledge.envs.wrapper import Wrapper


class OneTask(Wrapper):
    """`env` whose every task, in every split, is `task`. The task may be traced: `vmap` over tasks is one line."""

    env: Env
    task: Task

    def sample(self, key: Key[Array, ""], split: str = "train") -> Task:
        known_split(split)
        return self.task

    def enumerate(self, split: str = "test") -> None:
        """None: whoever wants the task has it."""
        known_split(split)
