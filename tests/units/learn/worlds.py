"""Little environments whose values are known, for the learner's tests."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from fledge.core.contracts import Env
from fledge.core.spaces import Box, Discrete
from fledge.core.types import TimeStep


class Probe(Env):
    """One episode of `horizon` steps; what is rewarded depends on `kind`. A task is a sign, −1 or +1.

    constant: reward 1 in the last step. sign: the reward is the sign that the observation shows. action: reward is
    task × (+1 for action 1, −1 for action 0), the task shown. hidden: the same, but the task is not shown.
    early: like constant, but action 1 ends the episode at once. clock: observation is the step number.
    """

    kind: str = eqx.field(static=True, default="constant")
    horizon: int = eqx.field(static=True, default=1)
    terminates: bool = eqx.field(static=True, default=True)

    @property
    def splits_disjoint(self) -> bool:
        return False

    @property
    def observation_space(self) -> Box:
        return Box(2)

    @property
    def action_space(self) -> Discrete:
        return Discrete(2)

    @property
    def fixed_length(self) -> bool:
        return self.kind != "early"

    def sample(self, key: Key[Array, ""], split: str = "train") -> Float[Array, ""]:
        return jnp.where(jax.random.bernoulli(key), 1.0, -1.0)

    def describe(self, task: Float[Array, ""]) -> str:
        return f"sign {float(task):+.0f}"

    def task_vector(self, task: Float[Array, ""]) -> Float[Array, "1"]:
        return task[None]

    def _observe(self, time: Int[Array, ""], task: Float[Array, ""]) -> Float[Array, "2"]:
        shown = 0.0 if self.kind == "hidden" else task
        return jnp.stack([jnp.asarray(shown, jnp.float32), time.astype(jnp.float32)])

    def reset(self, key: Key[Array, ""], task: Float[Array, ""]) -> tuple[Int[Array, ""], Float[Array, "2"]]:
        time = jnp.asarray(0, jnp.int32)
        return time, self._observe(time, task)

    def step(
        self, key: Key[Array, ""], state: Int[Array, ""], action: Int[Array, ""], task: Float[Array, ""]
    ) -> tuple[Int[Array, ""], TimeStep]:
        time = state + 1
        last = time >= self.horizon
        reward = {
            "constant": last * 1.0,
            "early": last * 1.0,
            "clock": last * 1.0,
            "sign": task,
            "action": task * (2.0 * action - 1),
            "hidden": task * (2.0 * action - 1),
        }[self.kind]
        over = (action == 1) if self.kind == "early" else jnp.asarray(False)
        return time, TimeStep.of(
            self._observe(time, task),
            reward,
            terminated=over | (last & self.terminates),
            truncated=last & ~over & (not self.terminates),
        )
