"""What all MuJoCo environments share: state, reset noise, one control step, the time limit."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import AbstractVar
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from fledge.core.contracts import Env
from fledge.core.errors import ConfigError
from fledge.core.spaces import Box
from fledge.core.types import Task, TimeStep
from fledge.envs.mujoco_body import Body, library
from fledge.envs.mujoco_engine import Engine, View, engine_of
from fledge.envs.splits import known_split


class MujocoState(eqx.Module):
    """The physics in double precision (see `fledge.envs.mujoco_engine`), what is seen of it, and the step count."""

    words: UInt32[Array, " word"]
    qpos: Float[Array, " nq"]
    qvel: Float[Array, " nv"]
    time: Int[Array, ""]


class Noise(eqx.Module):
    """How far a start is from the body's resting pose: positions uniform, velocities uniform or normal."""

    qpos: float = eqx.field(static=True)
    qvel: float = eqx.field(static=True)
    normal: bool = eqx.field(static=True)


class MujocoEnv(Env):
    """A body with a task. A family says what is observed, what is paid and what ends an episode.

    Actions go to the motors as they are (MuJoCo clamps them to ±1 there), and a control cost is paid for what was
    *asked*, not for what the motor did: so in the published runs, where a fresh policy with a standard deviation of 1
    pays large costs. `clip_actions` clips them first, for both.
    """

    clip_actions: AbstractVar[bool]

    @property
    @abstractmethod
    def body(self) -> Body:
        """The body that is moved."""

    @property
    @abstractmethod
    def noise(self) -> Noise:
        """The spread of start states."""

    @abstractmethod
    def observe(self, view: View) -> Float[Array, " obs"]:
        """What the agent sees of the physics."""

    @abstractmethod
    def judge(
        self, view: View, velocity: Float[Array, "2"], action: Float[Array, " act"], task: Task
    ) -> tuple[Float[Array, ""], Bool[Array, ""]]:
        """Reward and end of one step; `velocity` (m/s) is that of the body's place over the whole control step."""

    def variant(self, task: Task) -> Int[Array, ""]:
        """Which of the body's variants the task is about."""
        return jnp.asarray(0, jnp.int32)

    def __check_init__(self) -> None:
        if self.horizon < 1:
            raise ConfigError(f"horizon is a number of steps, at least 1, not {self.horizon}.")
        library()

    @property
    def engine(self) -> Engine:
        """The physics of this body."""
        return engine_of(self.body)

    def reset(self, key: Key[Array, ""], task: Task) -> tuple[MujocoState, Float[Array, " obs"]]:
        engine, noise = self.engine, self.noise
        key_qpos, key_qvel = jax.random.split(key)
        spread = jax.random.normal if noise.normal else _either_way
        qpos = jnp.asarray(engine.qpos0) + noise.qpos * _either_way(key_qpos, (engine.nq,))
        qvel = noise.qvel * spread(key_qvel, (engine.nv,))
        words, view = engine.start(qpos, qvel, self.variant(task))
        return MujocoState(words, qpos, qvel, jnp.asarray(0, jnp.int32)), self.observe(view)

    def step(
        self, key: Key[Array, ""], state: MujocoState, action: Float[Array, " act"], task: Task
    ) -> tuple[MujocoState, TimeStep]:
        space, time = self.action_space, state.time + 1
        assert isinstance(space, Box)
        if self.clip_actions:
            action = jnp.clip(action, space.low, space.high)
        words, view = self.engine.step(state.words, action)
        velocity = view.moved / self.engine.dt
        reward, terminated = self.judge(view, velocity, action, task)
        timestep = TimeStep.of(
            self.observe(view),
            reward,
            terminated=terminated,
            truncated=time >= self.horizon,
        )
        return MujocoState(words, view.qpos, view.qvel, time), timestep

    def position(self, state: MujocoState) -> Float[Array, "2"] | None:
        """(x, y) of a body with a free root; (x, height) of a planar one."""
        return state.qpos[:2]


def _either_way(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
    return jax.random.uniform(key, shape, minval=-1.0)


def uniform(key: Key[Array, ""], split: str, usual: tuple[float, float], ood: tuple[float, float]) -> Float[Array, ""]:
    """One number between the two of `usual`, or in the split `ood` between those of `ood`."""
    low, high = ood if known_split(split) == "ood" else usual
    return jax.random.uniform(key, (), minval=low, maxval=high)


def cost(x: Float[Array, " n"], weight: float) -> Float[Array, ""]:
    """`weight` times the sum of squares."""
    return weight * jnp.sum(x**2)


def finite(view: View) -> Bool[Array, ""]:
    """Whether positions and velocities are finite numbers."""
    return jnp.all(jnp.isfinite(view.qpos)) & jnp.all(jnp.isfinite(view.qvel))
