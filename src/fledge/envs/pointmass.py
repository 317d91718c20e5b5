"""A ball on a table that is pushed around: a second control domain with pictures."""

# No `from __future__ import annotations`: Equinox has to see the declaration of fields as objects.

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from fledge.core.contracts import Env
from fledge.core.spaces import Box
from fledge.core.types import Task, TimeStep

GOAL = (0.5, 0.5)
"""Centre of the target."""
PUSH, DRAG, DT = 1.0, 0.4, 0.05
"""Largest push along each axis, friction per second, seconds of a step."""


class BallState(eqx.Module):
    """Position and speed on the table [−1, 1]², and steps so far."""

    position: Float[Array, "2"]
    speed: Float[Array, "2"]
    time: Int[Array, ""]


def roll(position: Any, speed: Any, push: Any, xp: Any = jnp) -> tuple[Any, Any]:
    """Next position and speed; the table's edge stops the ball. Arrays (…, 2) of NumPy or JAX (`xp`)."""
    speed = speed + (xp.clip(push, -PUSH, PUSH) - DRAG * speed) * DT
    wanted = position + speed * DT
    position = xp.clip(wanted, -1.0, 1.0)
    return position, xp.where(wanted == position, speed, 0.0)


class PointMass(Env):
    """A ball with inertia that is to reach a square and stay in it; there is one task.

    The reward is minus the distance to the square's centre. `info["on_target"]` holds within `within` of it.
    """

    horizon: int = eqx.field(static=True, default=400)
    within: float = eqx.field(static=True, default=0.2)

    @property
    def splits_disjoint(self) -> bool:
        return False

    @property
    def observation_space(self) -> Box:
        return Box(4, -10.0, 10.0)

    @property
    def action_space(self) -> Box:
        return Box(2, -PUSH, PUSH)

    @property
    def fixed_length(self) -> bool:
        return True

    def sample(self, key: Key[Array, ""], split: str = "train") -> Task:
        return jnp.zeros(1)

    def enumerate(self, split: str = "test") -> Task:
        return jnp.zeros((1, 1))

    def describe(self, task: Task) -> str:
        return "into the square, and stay"

    def task_vector(self, task: Task) -> Float[Array, " task"]:
        return task

    def reset(self, key: Key[Array, ""], task: Task) -> tuple[BallState, Float[Array, "4"]]:
        position = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
        state = BallState(position, jnp.zeros(2), jnp.asarray(0, jnp.int32))
        return state, jnp.concatenate([position, state.speed])

    def step(
        self, key: Key[Array, ""], state: BallState, action: Float[Array, "2"], task: Task
    ) -> tuple[BallState, TimeStep]:
        position, speed = roll(state.position, state.speed, action)
        distance = jnp.linalg.norm(position - jnp.asarray(GOAL))
        state = BallState(position, speed, state.time + 1)
        info = {"on_target": distance <= self.within}
        seen = jnp.concatenate([position, speed])
        return state, TimeStep.of(seen, -distance, truncated=state.time >= self.horizon, info=info)
