"""Bodies that are free in space: the ant (run along a heading, go to a place) and the humanoid."""

from collections.abc import Mapping
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from fledge.core.errors import unknown
from fledge.core.spaces import Box
from fledge.envs.mujoco import MujocoEnv, Noise, cost, finite, uniform
from fledge.envs.mujoco_body import Body
from fledge.envs.mujoco_engine import View
from fledge.envs.splits import known_split

ANT = Body("ant.xml", 5, extras=("cfrc_ext",))
ANT_NOISE = Noise(qpos=0.1, qvel=0.1, normal=True)
CONTACT = 5e-4

HEADINGS = {
    "axis": ((1.0, 0.0), (-1.0, 0.0)),
    "radian": ((np.cos(1.0), np.sin(1.0)), (np.cos(1.0), -np.sin(1.0))),
    "any": None,
}
"""Unit vectors to run along. Name → the two tasks, or None for all directions of the plane."""


class AntDir(MujocoEnv):
    """Run along a heading: v·h − 0.5‖a‖² − 5e-4 Σ clip(f, ±1)² + 1, ended by a torso outside 0.2 … 1 m.

    A task is the heading h as a unit vector: `axis` forward or backward along x (what the papers say), `radian` at +1
    or −1 *radian* (57 degrees, what the released code runs, since it takes ±1 for an angle), `any` all of the plane.
    The observation is qpos without x and y, and qvel: 27 numbers; f are the contact forces on all bodies.

    Reference: Finn et al. 2017 (MAML); Rothfuss et al. 2019 (ProMP); Zintgraf et al. 2020 (VariBAD); 200 steps.
    """

    horizon: int = eqx.field(static=True, default=200)
    headings: Literal["axis", "radian", "any"] = eqx.field(static=True, default="axis")
    clip_actions: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        if self.headings not in HEADINGS:
            raise unknown("set of headings", self.headings, HEADINGS)

    @property
    def body(self) -> Body:
        return ANT

    @property
    def noise(self) -> Noise:
        return ANT_NOISE

    @property
    def splits_disjoint(self) -> bool:
        return False

    @property
    def observation_space(self) -> Box:
        return Box(27)

    @property
    def action_space(self) -> Box:
        return Box(8, -1.0, 1.0)

    @property
    def fixed_length(self) -> bool:
        return False

    def sample(self, key: Key[Array, ""], split: str = "train") -> Float[Array, "2"]:
        known_split(split)
        if (two := self.enumerate(split)) is None:
            return direction(jax.random.uniform(key, (), maxval=2 * np.pi))
        return two[jax.random.randint(key, (), 0, 2)]

    def enumerate(self, split: str = "test") -> Float[Array, "task 2"] | None:
        known_split(split)
        two = HEADINGS[self.headings]
        return None if two is None else jnp.asarray(two, jnp.float32)

    def describe(self, task: Float[Array, "2"]) -> str:
        return f"run at {degrees(task):.0f} degrees"

    def task_vector(self, task: Float[Array, "2"]) -> Float[Array, "2"]:
        return task

    def observe(self, view: View) -> Float[Array, "27"]:
        return jnp.concatenate([view.qpos[2:], view.qvel])

    def judge(
        self, view: View, velocity: Float[Array, "2"], action: Float[Array, "8"], task: Float[Array, "2"]
    ) -> tuple[Float[Array, ""], Bool[Array, ""]]:
        upright = finite(view) & (view.qpos[2] >= 0.2) & (view.qpos[2] <= 1.0)
        return velocity @ task - cost(action, 0.5) - cost(forces(view), CONTACT) + 1.0, ~upright


RADII = (3.0, 2.0, 1.5, 1.0, 0.75, 0.5, 0.3)
"""Within what distance (m) the sparse Ant-Goal pays, by level."""


class AntGoal(MujocoEnv):
    """Go to a hidden place, uniform in a disc of radius 3 m (in `ood` on the ring from 3 to 4 m); never ended early.

    Dense: −‖p − g‖₁ − 0.1‖a‖² − contacts. Sparse: −‖p − g‖₂ within the radius of the `level` and −radius outside,
    − 0.01‖a‖² − contacts; level 4 is the published one. The observation is qpos, qvel and the contact forces clipped
    to ±1 (113 numbers; no contacts at an episode's start), the sparse one ends with the torso's position (116).

    Reference: Rothfuss et al. 2019 (ProMP); Rakelly et al. 2019 (PEARL); Beck et al. 2023, public code; 200 steps.
    """

    horizon: int = eqx.field(static=True, default=200)
    reward: Literal["dense", "sparse"] = eqx.field(static=True, default="dense")
    level: int = eqx.field(static=True, default=4)
    clip_actions: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        if self.reward not in ("dense", "sparse"):
            raise unknown("reward", self.reward, ("dense", "sparse"))
        if not 0 <= self.level < len(RADII):
            raise unknown("level", str(self.level), map(str, range(len(RADII))))

    @property
    def body(self) -> Body:
        return ANT

    @property
    def noise(self) -> Noise:
        return ANT_NOISE

    @property
    def splits_disjoint(self) -> bool:
        return False

    @property
    def observation_space(self) -> Box:
        return Box(113 if self.reward == "dense" else 116)

    @property
    def action_space(self) -> Box:
        return Box(8, -1.0, 1.0)

    @property
    def fixed_length(self) -> bool:
        return True

    def sample(self, key: Key[Array, ""], split: str = "train") -> Float[Array, "2"]:
        key_angle, key_area = jax.random.split(key)
        area = uniform(key_area, split, (0.0, 9.0), (9.0, 16.0))
        return jnp.sqrt(area) * direction(jax.random.uniform(key_angle, (), maxval=2 * np.pi))

    def describe(self, task: Float[Array, "2"]) -> str:
        return f"go to ({float(task[0]):.2f}, {float(task[1]):.2f})"

    def task_vector(self, task: Float[Array, "2"]) -> Float[Array, "2"]:
        return task

    def observe(self, view: View) -> Float[Array, " obs"]:
        place = [view.qpos[:3]] if self.reward == "sparse" else []
        return jnp.concatenate([view.qpos, view.qvel, forces(view), *place])

    def judge(
        self, view: View, velocity: Float[Array, "2"], action: Float[Array, "8"], task: Float[Array, "2"]
    ) -> tuple[Float[Array, ""], Bool[Array, ""]]:
        gap = view.qpos[:2] - task
        if self.reward == "dense":
            reward = -jnp.sum(jnp.abs(gap)) - cost(action, 0.1)
        else:
            reward = -jnp.minimum(jnp.linalg.norm(gap), RADII[self.level]) - cost(action, 0.01)
        return reward - cost(forces(view), CONTACT), jnp.asarray(False)

    def scene(self, task: Float[Array, "2"]) -> Mapping[str, Any]:
        radius = RADII[self.level] if self.reward == "sparse" else 0.3
        goal = {"x": float(task[0]), "y": float(task[1]), "radius": radius, "label": "goal"}
        return {"kind": "plane", "x_range": [-4.5, 4.5], "y_range": [-4.5, 4.5], "start": [0.0, 0.0], "goals": [goal]}


class HumanoidDir(MujocoEnv):
    """Run along any heading: 1.25 h·v − 0.1‖a‖² − contacts + 5, ended by a torso outside 1 … 2 m.

    v is the velocity of the centre of mass over the control step; contacts cost min(5e-7 Σ f², 10). (The code divides
    its way by the physics step, 0.003 s, with a weight of 0.25; over the control step of 0.015 s that is 1.25.) The
    observation has 376 numbers: qpos without x and y, qvel, inertias and velocities of the bodies, motor forces,
    contact forces. Motors take ±0.4.

    Reference: Zintgraf et al. 2020 (VariBAD); Brockman et al. 2016 (Gym); 200 steps.
    """

    horizon: int = eqx.field(static=True, default=200)
    clip_actions: bool = eqx.field(static=True, default=False)

    @property
    def body(self) -> Body:
        return Body("humanoid.xml", 5, extras=("cinert", "cvel", "qfrc_actuator", "cfrc_ext"), place="mass")

    @property
    def noise(self) -> Noise:
        return Noise(qpos=0.01, qvel=0.01, normal=False)

    @property
    def splits_disjoint(self) -> bool:
        return False

    @property
    def observation_space(self) -> Box:
        return Box(376)

    @property
    def action_space(self) -> Box:
        return Box(17, -0.4, 0.4)

    @property
    def fixed_length(self) -> bool:
        return False

    def sample(self, key: Key[Array, ""], split: str = "train") -> Float[Array, "2"]:
        known_split(split)
        return direction(jax.random.uniform(key, (), maxval=2 * np.pi))

    def describe(self, task: Float[Array, "2"]) -> str:
        return f"run at {degrees(task):.0f} degrees"

    def task_vector(self, task: Float[Array, "2"]) -> Float[Array, "2"]:
        return task

    def observe(self, view: View) -> Float[Array, "376"]:
        return jnp.concatenate([view.qpos[2:], view.qvel, *view.extras.values()])

    def judge(
        self, view: View, velocity: Float[Array, "2"], action: Float[Array, "17"], task: Float[Array, "2"]
    ) -> tuple[Float[Array, ""], Bool[Array, ""]]:
        contacts = jnp.minimum(cost(view.extras["cfrc_ext"], 5e-7), 10.0)
        upright = finite(view) & (view.qpos[2] >= 1.0) & (view.qpos[2] <= 2.0)
        return 1.25 * velocity @ task - cost(action, 0.1) - contacts + 5.0, ~upright


def direction(angle: Float[Array, ""]) -> Float[Array, "2"]:
    """The unit vector of an angle."""
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def degrees(heading: Float[Array, "2"]) -> float:
    """The angle of a heading."""
    return float(jnp.degrees(jnp.arctan2(heading[1], heading[0])))


def forces(view: View) -> Float[Array, " entry"]:
    """Contact forces and torques on each body (the world's included), clipped to ±1."""
    return jnp.clip(view.extras["cfrc_ext"], -1.0, 1.0)
