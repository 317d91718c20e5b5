"""A walker and a hopper whose masses, inertias, frictions and joint damping are the hidden task."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import AbstractVar
from jaxtyping import Array, Bool, Float, Int, Key

from fledge.core.errors import ConfigError
from fledge.core.spaces import Box
from fledge.envs.mujoco import MujocoEnv, Noise, cost, finite
from fledge.envs.mujoco_body import SPREAD, Body, Factor, Variation
from fledge.envs.mujoco_engine import View
from fledge.envs.splits import known_split

N_TEST = 100
"""Bodies kept for `test`, the first ones of the table."""


class RandomBody(MujocoEnv):
    """Run forward on a body that differs from task to task: v_x + 1 − 1e-3‖a‖².

    Masses, inertias and frictions are multiplied by 1.5 ** U(−3, 3) each, joint damping by 1.3 ** U(−3, 3), and MuJoCo
    derives again what follows from them. A task is a body's number in a table of `n_bodies` + 100 drawn from `seed`:
    the first 100 are `test` (and `ood`), the others `train`, so no body is in both. An oracle is told the exponents
    divided by 3. The observation is qpos without x, and qvel clipped to ±10.
    """

    n_bodies: AbstractVar[int]
    seed: AbstractVar[int]
    xml: ClassVar[str]
    sizes: ClassVar[tuple[int, int, int]]
    """Numbers of bodies, geometries and degrees of freedom."""

    def __check_init__(self) -> None:
        if self.n_bodies < 1:
            raise ConfigError(f"n_bodies is the number of bodies to train on, at least 1, not {self.n_bodies}.")

    @property
    def body(self) -> Body:
        n_bodies, n_geometries, n_joints = self.sizes
        factors = (
            Factor("body_mass", n_bodies, 1.5),
            Factor("body_inertia", 3 * n_bodies, 1.5),
            Factor("geom_friction", 3 * n_geometries, 1.5),
            Factor("dof_damping", n_joints, 1.3),
        )
        return Body(self.xml, 4, variation=Variation(factors, N_TEST + self.n_bodies, self.seed))

    @property
    def noise(self) -> Noise:
        return Noise(qpos=0.005, qvel=0.005, normal=False)

    @property
    def splits_disjoint(self) -> bool:
        return True

    @property
    def fixed_length(self) -> bool:
        return False

    def sample(self, key: Key[Array, ""], split: str = "train") -> Int[Array, ""]:
        low, high = self._span(split)
        return jax.random.randint(key, (), low, high)

    def enumerate(self, split: str = "test") -> Int[Array, " task"]:
        return jnp.arange(*self._span(split), dtype=jnp.int32)

    def _span(self, split: str) -> tuple[int, int]:
        return (N_TEST, N_TEST + self.n_bodies) if known_split(split) == "train" else (0, N_TEST)

    def variant(self, task: Int[Array, ""]) -> Int[Array, ""]:
        return task

    def describe(self, task: Int[Array, ""]) -> str:
        return f"body {int(task)} of seed {self.seed}"

    def task_vector(self, task: Int[Array, ""]) -> Float[Array, " factor"]:
        variation = self.body.variation
        assert variation is not None
        return jnp.asarray(variation.exponents() / SPREAD, jnp.float32)[task]

    def observe(self, view: View) -> Float[Array, " obs"]:
        return jnp.concatenate([view.qpos[1:], jnp.clip(view.qvel, -10.0, 10.0)])

    def forward(self, velocity: Float[Array, "2"], action: Float[Array, " act"]) -> Float[Array, ""]:
        """The reward of both bodies."""
        return velocity[0] + 1.0 - cost(action, 1e-3)


class WalkerRand(RandomBody):
    """The two-legged walker with 65 hidden multipliers, ended by a height outside 0.8 … 2 m or a pitch of ±1 radian.

    The body is Gymnasium's first walker (`walker2d.xml`; unequal feet); the published one is older still.

    Reference: Rothfuss et al. 2019 (ProMP); Beck et al. 2023 (Recurrent hypernetworks); 200 steps.
    """

    xml = "walker2d.xml"
    sizes = (8, 8, 9)

    horizon: int = eqx.field(static=True, default=200)
    n_bodies: int = eqx.field(static=True, default=1000)
    seed: int = eqx.field(static=True, default=0)
    clip_actions: bool = eqx.field(static=True, default=False)

    @property
    def observation_space(self) -> Box:
        return Box(17)

    @property
    def action_space(self) -> Box:
        return Box(6, -1.0, 1.0)

    def judge(
        self, view: View, velocity: Float[Array, "2"], action: Float[Array, "6"], task: Int[Array, ""]
    ) -> tuple[Float[Array, ""], Bool[Array, ""]]:
        height, pitch = view.qpos[1], view.qpos[2]
        upright = finite(view) & (height > 0.8) & (height < 2.0) & (jnp.abs(pitch) < 1.0)
        return self.forward(velocity, action), ~upright


class HopperRand(RandomBody):
    """The one-legged hopper with 41 hidden multipliers.

    Ended by a height of at most 0.7 m, a pitch of ±0.2 radians, or any other coordinate or speed beyond ±100.

    Reference: Rothfuss et al. 2019 (ProMP); Rakelly et al. 2019 (PEARL); 200 steps.
    """

    xml = "hopper.xml"
    sizes = (5, 5, 6)

    horizon: int = eqx.field(static=True, default=200)
    n_bodies: int = eqx.field(static=True, default=1000)
    seed: int = eqx.field(static=True, default=0)
    clip_actions: bool = eqx.field(static=True, default=False)

    @property
    def observation_space(self) -> Box:
        return Box(11)

    @property
    def action_space(self) -> Box:
        return Box(3, -1.0, 1.0)

    def judge(
        self, view: View, velocity: Float[Array, "2"], action: Float[Array, "3"], task: Int[Array, ""]
    ) -> tuple[Float[Array, ""], Bool[Array, ""]]:
        height, pitch = view.qpos[1], view.qpos[2]
        calm = jnp.all(jnp.abs(view.qpos[2:]) < 100) & jnp.all(jnp.abs(view.qvel) < 100)
        upright = finite(view) & calm & (height > 0.7) & (jnp.abs(pitch) < 0.2)
        return self.forward(velocity, action), ~upright
