"""The torque-limited pendulum that is to be swung up and held, without a time limit of 200 steps."""

# No `from __future__ import annotations`: Equinox has to see the declaration of fields as objects.

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from fledge.core.contracts import Env
from fledge.core.spaces import Box
from fledge.core.types import Task, TimeStep

TORQUE, SPEED, DT = 2.0, 8.0, 0.05
"""Largest torque (N m) and speed (rad/s), and the seconds of a step."""


class PendulumState(eqx.Module):
    """Angle from upright (rad), speed (rad/s), steps so far."""

    angle: Float[Array, ""]
    speed: Float[Array, ""]
    time: Int[Array, ""]


def wrap(angle: Any, xp: Any = jnp) -> Any:
    """The angle in [−π, π)."""
    return (angle + xp.pi) % (2 * xp.pi) - xp.pi


def swing(angle: Any, speed: Any, torque: Any, xp: Any = jnp) -> tuple[Any, Any, Any]:
    """Next angle, next speed and reward; g = 10, m = 1, l = 1. Arrays of NumPy or JAX (`xp`).

    The reward is that of the state before the step; the angle moves with the new speed.
    """
    torque = xp.clip(torque, -TORQUE, TORQUE)
    reward = -(wrap(angle, xp) ** 2 + 0.1 * speed**2 + 0.001 * torque**2)
    speed = xp.clip(speed + (15.0 * xp.sin(angle) + 3.0 * torque) * DT, -SPEED, SPEED)
    return angle + speed * DT, speed, reward


class Pendulum(Env):
    """Pendulum-v1 of Gymnasium: dynamics, reward and starts; there is one task.

    `info["on_target"]` holds while the angle is within `within` of upright.

    Args:
        horizon: steps after which an episode is truncated (the data of Beck 2025 has 600, its evaluation 1000).
        within: what counts as upright, in radians.
    """

    horizon: int = eqx.field(static=True, default=1000)
    within: float = eqx.field(static=True, default=0.5)

    @property
    def splits_disjoint(self) -> bool:
        return False

    @property
    def observation_space(self) -> Box:
        return Box(3, -SPEED, SPEED)

    @property
    def action_space(self) -> Box:
        return Box(1, -TORQUE, TORQUE)

    @property
    def fixed_length(self) -> bool:
        return True

    def sample(self, key: Key[Array, ""], split: str = "train") -> Task:
        return jnp.zeros(1)

    def enumerate(self, split: str = "test") -> Task:
        return jnp.zeros((1, 1))

    def describe(self, task: Task) -> str:
        return "swing up and stay"

    def task_vector(self, task: Task) -> Float[Array, " task"]:
        return task

    def reset(self, key: Key[Array, ""], task: Task) -> tuple[PendulumState, Float[Array, "3"]]:
        key_angle, key_speed = jax.random.split(key)
        angle = jax.random.uniform(key_angle, (), minval=-jnp.pi, maxval=jnp.pi)
        speed = jax.random.uniform(key_speed, (), minval=-1.0, maxval=1.0)
        state = PendulumState(angle, speed, jnp.asarray(0, jnp.int32))
        return state, self.observe(state)

    def observe(self, state: PendulumState) -> Float[Array, "3"]:
        """Cosine and sine of the angle, and the speed."""
        return jnp.stack([jnp.cos(state.angle), jnp.sin(state.angle), state.speed])

    def step(
        self, key: Key[Array, ""], state: PendulumState, action: Float[Array, "1"], task: Task
    ) -> tuple[PendulumState, TimeStep]:
        on_target = jnp.abs(wrap(state.angle)) <= self.within
        angle, speed, reward = swing(state.angle, state.speed, action[0])
        state = PendulumState(wrap(angle), speed, state.time + 1)
        info = {"on_target": on_target}
        return state, TimeStep.of(self.observe(state), reward, truncated=state.time >= self.horizon, info=info)
