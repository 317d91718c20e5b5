"""The half-cheetah: run to a side, run at a speed, stand tall, or one of them."""

from abc import abstractmethod
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import AbstractVar
from jaxtyping import Array, Bool, Float, Key

from fledge.core.spaces import Box
from fledge.core.types import Task
from fledge.envs.mujoco import MujocoEnv, Noise, cost, uniform
from fledge.envs.mujoco_body import Body
from fledge.envs.mujoco_engine import View
from fledge.envs.splits import known_split

TORSO = 0.7
"""Height of the torso (m) where its vertical joint stands at 0."""
SIDES = (-1.0, 1.0)
CONTROL = 0.05


class Cheetah(MujocoEnv):
    """The half-cheetah as meta-RL uses it; episodes always take `horizon` steps of 0.05 s.

    The observation is qpos without x (8), qvel (9) and the torso's position (3): 20 numbers. The torso's position is
    that of the state observed; the released code's lags one physics step (0.01 s) behind.

    Every task is a vector: a family's `meaning` says of what.
    """

    horizon: AbstractVar[int]
    clip_actions: AbstractVar[bool]

    @property
    def body(self) -> Body:
        return Body("half_cheetah.xml", 5)

    @property
    def noise(self) -> Noise:
        return Noise(qpos=0.1, qvel=0.1, normal=True)

    @property
    def observation_space(self) -> Box:
        return Box(20)

    @property
    def action_space(self) -> Box:
        return Box(6, -1.0, 1.0)

    @property
    def fixed_length(self) -> bool:
        return True

    @property
    def splits_disjoint(self) -> bool:
        return False

    def observe(self, view: View) -> Float[Array, " obs"]:
        return jnp.concatenate([view.qpos[1:], view.qvel, torso(view)])

    def task_vector(self, task: Float[Array, " task"]) -> Float[Array, " task"]:
        return task

    def judge(
        self, view: View, velocity: Float[Array, "2"], action: Float[Array, " act"], task: Task
    ) -> tuple[Float[Array, ""], Bool[Array, ""]]:
        return self.earned(view, velocity[0], task, cost(action, CONTROL)), jnp.asarray(False)

    @abstractmethod
    def earned(self, view: View, speed: Float[Array, ""], task: Task, effort: Float[Array, ""]) -> Float[Array, ""]:
        """The reward of a step; `speed` in m/s along x, `effort` is the control cost."""


class CheetahDir(Cheetah):
    """Run left or right: d·v_x − 0.05‖a‖², d = ±1. Both tasks are in every split.

    With `paid_beyond` > 0 the run is paid only where |x| is at least that (m): the sparse version, which uses 10 and
    400 steps.

    Reference: Finn et al. 2017 (MAML); Zintgraf et al. 2020 (VariBAD); 200 steps.
    """

    horizon: int = eqx.field(static=True, default=200)
    paid_beyond: float = eqx.field(static=True, default=0.0)
    clip_actions: bool = eqx.field(static=True, default=False)

    def sample(self, key: Key[Array, ""], split: str = "train") -> Float[Array, "1"]:
        known_split(split)
        return jnp.where(jax.random.bernoulli(key), jnp.ones(1), -jnp.ones(1))

    def enumerate(self, split: str = "test") -> Float[Array, "task 1"]:
        known_split(split)
        return jnp.asarray(SIDES)[:, None]

    def describe(self, task: Float[Array, "1"]) -> str:
        return f"run {'right' if float(task[0]) > 0 else 'left'}"

    def earned(
        self, view: View, speed: Float[Array, ""], task: Float[Array, "1"], effort: Float[Array, ""]
    ) -> Float[Array, ""]:
        return jnp.where(jnp.abs(view.qpos[0]) >= self.paid_beyond, task[0] * speed, 0.0) - effort


class CheetahVel(Cheetah):
    """Run at a speed v* ~ U(0, 3) m/s: −|v_x − v*| − 0.05‖a‖². In `ood` v* ~ U(3, 4).

    Reference: Finn et al. 2017 (MAML); Zintgraf et al. 2020 (VariBAD); 200 steps.
    """

    horizon: int = eqx.field(static=True, default=200)
    clip_actions: bool = eqx.field(static=True, default=False)

    def sample(self, key: Key[Array, ""], split: str = "train") -> Float[Array, "1"]:
        return uniform(key, split, (0.0, 3.0), (3.0, 4.0))[None]

    def describe(self, task: Float[Array, "1"]) -> str:
        return f"run at {float(task[0]):.2f} m/s"

    def earned(
        self, view: View, speed: Float[Array, ""], task: Float[Array, "1"], effort: Float[Array, ""]
    ) -> Float[Array, ""]:
        return -jnp.abs(speed - task[0]) - effort


class Hop(Cheetah):
    """Hold the torso at a height z* ~ U(0.3, 2) m: 10 (−|z − z*| − 0.05‖a‖²).

    Reference: Beck et al. 2023 (Recurrent hypernetworks), public code; 200 steps.
    """

    horizon: int = eqx.field(static=True, default=200)
    clip_actions: bool = eqx.field(static=True, default=False)

    def sample(self, key: Key[Array, ""], split: str = "train") -> Float[Array, "1"]:
        return uniform(key, split, HEIGHTS, HEIGHTS)[None]

    def describe(self, task: Float[Array, "1"]) -> str:
        return f"torso at {float(task[0]):.2f} m"

    def earned(
        self, view: View, speed: Float[Array, ""], task: Float[Array, "1"], effort: Float[Array, ""]
    ) -> Float[Array, ""]:
        return tall(view, task[0], effort)


class HopWalk(Cheetah):
    """By a fair coin either Cheetah-Dir (mode 0) or Hop (mode 1); the task is (mode, side or height).

    `parameters` "drawn" draws the inner task too; "fixed" leaves two tasks: run right, and z* = 2.

    Reference: Beck et al. 2023 (Recurrent hypernetworks), public code; 200 steps.
    """

    horizon: int = eqx.field(static=True, default=200)
    parameters: Literal["drawn", "fixed"] = eqx.field(static=True, default="drawn")
    clip_actions: bool = eqx.field(static=True, default=False)

    def sample(self, key: Key[Array, ""], split: str = "train") -> Float[Array, "2"]:
        known_split(split)
        key_mode, key_side, key_height = jax.random.split(key, 3)
        hop = jax.random.bernoulli(key_mode)
        if self.parameters == "fixed":
            walk_or_hop = jnp.asarray(WALK_OR_HOP)
            return jnp.where(hop, walk_or_hop[1], walk_or_hop[0])
        side = jnp.where(jax.random.bernoulli(key_side), 1.0, -1.0)
        height = uniform(key_height, split, HEIGHTS, HEIGHTS)
        return jnp.stack([hop.astype(jnp.float32), jnp.where(hop, height, side)])

    def enumerate(self, split: str = "test") -> Float[Array, "task 2"] | None:
        known_split(split)
        return jnp.asarray(WALK_OR_HOP) if self.parameters == "fixed" else None

    def describe(self, task: Float[Array, "2"]) -> str:
        if float(task[0]) > 0.5:
            return f"torso at {float(task[1]):.2f} m"
        return f"run {'right' if float(task[1]) > 0 else 'left'}"

    def earned(
        self, view: View, speed: Float[Array, ""], task: Float[Array, "2"], effort: Float[Array, ""]
    ) -> Float[Array, ""]:
        return jnp.where(task[0] > 0.5, tall(view, task[1], effort), task[1] * speed - effort)


HEIGHTS = (0.3, 2.0)
WALK_OR_HOP = ((0.0, 1.0), (1.0, 2.0))
"""The two tasks of HopWalk with fixed parameters."""


def torso(view: View) -> Float[Array, "3"]:
    """Where the torso is (m): its joints slide along x and z before they turn."""
    return jnp.stack([view.qpos[0], jnp.zeros(()), view.qpos[1] + TORSO])


def tall(view: View, height: Float[Array, ""], effort: Float[Array, ""]) -> Float[Array, ""]:
    """Hop's reward."""
    return 10.0 * (-jnp.abs(view.qpos[1] + TORSO - height) - effort)
