"""Points on a plane that look for a hidden goal: 2D navigation, the sparse point robot, the semicircle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from fledge.core.contracts import Env
from fledge.core.errors import ConfigError, unknown
from fledge.core.spaces import Box
from fledge.core.types import TimeStep
from fledge.envs.splits import known_split

QUARTER = np.pi / 4
ARCS = {
    "circle": (-np.pi, np.pi),
    "upper": (0.0, np.pi),
    "right": (-QUARTER, QUARTER),
    "up": (QUARTER, 3 * QUARTER),
    "left": (3 * QUARTER, 5 * QUARTER),
    "bottom": (-3 * QUARTER, -QUARTER),
}
"""Arcs of goals, as angles in radians from the x-axis."""


class PointState(eqx.Module):
    """Position and step of the running episode."""

    position: Float[Array, "2"]
    time: Int[Array, ""]


class PointNav(Env):
    """A point that starts in the origin and moves by `step_size` · action; a task is the goal's (x, y).

    Actions are clipped to ±`action_limit` on each axis, so the environment and the learner agree on what was done. The
    reward is that of the position moved *to*.

    Args:
        goals: an arc of the unit circle (`circle`, `upper`, `right`, `up`, `left`, `bottom`), or `square` for
            U(−½, ½)².
        ood_goals: the goals of the `ood` split; None for the same as in training. `test` is drawn like `train`.
        reward: `dense` pays −distance; `sparse` pays 1 − distance within `goal_radius` and 0 outside.
        horizon: steps per episode.
        action_limit: the box of the actions.
        step_size: how far an action of 1 moves.
        goal_radius: what counts as being there (for `sparse`, and for `info["success"]`).
        stop_within: an episode ends once both coordinates are this close to the goal; 0 never ends early.

    `info["dense_reward"]` is −distance whatever `reward` is: PEARL trains its actor and critics on it (and its encoder
    on the sparse reward) where rewards are sparse.

    Reference: Finn et al., MAML, 2017, §5.3 (square, actions of ±0.1, ends within 0.01); Xiong et al., On the Practical
    Consistency of Meta-RL Algorithms, 2021 (public code: the four arcs). The sparse point robot is that of Rakelly et
    al., PEARL, 2019: in VariBAD's code actions of ±1 move by a tenth, in that of Beck et al., Recurrent Hypernetworks,
    2023, actions of ±0.05 are added as they are.
    """

    goals: str = eqx.field(static=True, default="circle")
    ood_goals: str | None = eqx.field(static=True, default=None)
    reward: Literal["dense", "sparse"] = eqx.field(static=True, default="dense")
    horizon: int = eqx.field(static=True, default=100)
    action_limit: float = eqx.field(static=True, default=1.0)
    step_size: float = eqx.field(static=True, default=0.1)
    goal_radius: float = eqx.field(static=True, default=0.2)
    stop_within: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        for goals in (self.goals, self.ood_goals):
            if goals is not None and goals not in (*ARCS, "square"):
                raise unknown("set of goals", goals, (*ARCS, "square"))
        if self.reward not in ("dense", "sparse"):
            raise ConfigError(f"reward is 'dense' or 'sparse', not '{self.reward}'.")
        if self.stop_within > 0 and self.reward == "sparse":
            raise ConfigError("A sparse reward keeps paying on the goal, so set stop_within to 0 with it.")

    @property
    def splits_disjoint(self) -> bool:
        return False

    @property
    def observation_space(self) -> Box:
        return Box(2)

    @property
    def action_space(self) -> Box:
        return Box(2, -self.action_limit, self.action_limit)

    @property
    def fixed_length(self) -> bool:
        return self.stop_within == 0

    def sample(self, key: Key[Array, ""], split: str = "train") -> Float[Array, "2"]:
        goals = (self.ood_goals or self.goals) if known_split(split) == "ood" else self.goals
        if goals == "square":
            return jax.random.uniform(key, (2,), minval=-0.5, maxval=0.5)
        return on_arc(key, goals)

    def describe(self, task: Float[Array, "2"]) -> str:
        return f"goal at ({float(task[0]):.2f}, {float(task[1]):.2f})"

    def task_vector(self, task: Float[Array, "2"]) -> Float[Array, "2"]:
        return task

    def reset(self, key: Key[Array, ""], task: Float[Array, "2"]) -> tuple[PointState, Float[Array, "2"]]:
        return PointState(jnp.zeros(2), jnp.asarray(0, jnp.int32)), jnp.zeros(2)

    def step(
        self, key: Key[Array, ""], state: PointState, action: Float[Array, "2"], task: Float[Array, "2"]
    ) -> tuple[PointState, TimeStep]:
        position = state.position + self.step_size * jnp.clip(action, -self.action_limit, self.action_limit)
        distance = jnp.linalg.norm(position - task)
        time = state.time + 1
        timestep = TimeStep.of(
            position,
            self._reward(distance),
            terminated=jnp.all(jnp.abs(position - task) < self.stop_within),
            truncated=time >= self.horizon,
            info={"success": distance <= self.goal_radius, "dense_reward": -distance},
        )
        return PointState(position, time), timestep

    def _reward(self, distance: Float[Array, "*step"]) -> Float[Array, "*step"]:
        if self.reward == "dense":
            return -distance
        return jnp.where(distance <= self.goal_radius, 1.0 - distance, 0.0)

    def optimal_return(self, task: Float[Array, "2"], n_episodes: int = 1) -> Float[Array, " episode"]:
        """Go as fast as the box of actions allows on each axis, and stop there. Exact.

        Each axis moves on its own, so after t steps its gap can be max(|g| − t·step, 0) and no less. Walking so makes
        the distance the smallest possible at *every* step, and the reward never rises with it.
        """
        steps = jnp.arange(1, self.horizon + 1)
        gaps = jnp.maximum(jnp.abs(task) - self.step_size * self.action_limit * steps[:, None], 0.0)
        rewards = self._reward(jnp.linalg.norm(gaps, axis=1))
        arrived = jnp.cumsum(jnp.all(gaps < self.stop_within, axis=1))
        return jnp.full(n_episodes, jnp.sum(jnp.where(arrived <= 1, rewards, 0.0)))

    def position(self, state: PointState) -> Float[Array, "2"]:
        return state.position

    def scene(self, task: Float[Array, "2"]) -> Mapping[str, Any]:
        return plane(task, extent=1.3, radius=self.goal_radius)


class SemicircleState(eqx.Module):
    """(x, y, heading in radians), and the step of the running episode."""

    pose: Float[Array, "3"]
    time: Int[Array, ""]


class Semicircle(Env):
    """A cart that drives and steers inside a disc; a task is the goal's (x, y) on the upper half of the disc's rim.

    It starts in the centre with a random heading. An action (speed, turn) in ±1 is clipped, scaled to ±0.01 and
    ±2π/100, and applied ten times: turn, then drive. Within 0.04 of the goal it earns 1 and is put back in the centre
    with a new heading; the rest of the ten is lost. Positions are clipped to the disc of radius 0.2. The observation is
    (x, y, heading), the heading in [−π, π).

    The episode counts its own `horizon` of steps (the released code's counter never moves).

    Reference: Beck et al., Recurrent Hypernetworks, 2023 (public code), after Humplik et al., 2019.
    """

    horizon: int = eqx.field(static=True, default=10)
    radius: float = eqx.field(static=True, default=0.2)
    goal_radius: float = eqx.field(static=True, default=0.04)
    speed: float = eqx.field(static=True, default=0.01)
    turn: float = eqx.field(static=True, default=2 * np.pi / 100)
    n_repeats: int = eqx.field(static=True, default=10)

    @property
    def splits_disjoint(self) -> bool:
        return False

    @property
    def observation_space(self) -> Box:
        return Box(3, -np.pi, np.pi)

    @property
    def action_space(self) -> Box:
        return Box(2, -1.0, 1.0)

    @property
    def fixed_length(self) -> bool:
        return True

    def sample(self, key: Key[Array, ""], split: str = "train") -> Float[Array, "2"]:
        known_split(split)
        return self.radius * on_arc(key, "upper")

    def describe(self, task: Float[Array, "2"]) -> str:
        return f"goal at {float(jnp.degrees(jnp.arctan2(task[1], task[0]))):.0f} degrees"

    def task_vector(self, task: Float[Array, "2"]) -> Float[Array, "2"]:
        return task

    def reset(self, key: Key[Array, ""], task: Float[Array, "2"]) -> tuple[SemicircleState, Float[Array, "3"]]:
        pose = self._centre(key)
        return SemicircleState(pose, jnp.asarray(0, jnp.int32)), pose

    def step(
        self, key: Key[Array, ""], state: SemicircleState, action: Float[Array, "2"], task: Float[Array, "2"]
    ) -> tuple[SemicircleState, TimeStep]:
        speed, turn = jnp.clip(action, -1.0, 1.0) * jnp.array([self.speed, self.turn])

        def drive(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
            pose, found = carry
            heading = jnp.mod(pose[2] + turn + np.pi, 2 * np.pi) - np.pi
            x = jnp.clip(pose[0] + speed * jnp.cos(heading), -self.radius, self.radius)
            rim = jnp.sqrt(self.radius**2 - jnp.minimum(x**2, self.radius**2))
            y = jnp.clip(pose[1] + speed * jnp.sin(heading), -rim, rim)
            moved = jnp.where(found, pose, jnp.stack([x, y, heading]))
            return (moved, found | (jnp.linalg.norm(moved[:2] - task) <= self.goal_radius)), None

        (pose, found), _ = jax.lax.scan(drive, (state.pose, jnp.asarray(False)), None, length=self.n_repeats)
        pose = jnp.where(found, self._centre(key), pose)
        time = state.time + 1
        timestep = TimeStep.of(pose, found.astype(jnp.float32), truncated=time >= self.horizon, info={"success": found})
        return SemicircleState(pose, time), timestep

    def _centre(self, key: Key[Array, ""]) -> Float[Array, "3"]:
        return jnp.zeros(3).at[2].set(jax.random.uniform(key, minval=-np.pi, maxval=np.pi))

    def position(self, state: SemicircleState) -> Float[Array, "2"]:
        return state.pose[:2]

    def scene(self, task: Float[Array, "2"]) -> Mapping[str, Any]:
        return plane(task, extent=1.3 * self.radius, radius=self.goal_radius)


def on_arc(key: Key[Array, ""], arc: str) -> Float[Array, "2"]:
    """A point of the unit circle, uniformly on one of `ARCS`."""
    low, high = ARCS[arc]
    angle = jax.random.uniform(key, minval=low, maxval=high)
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def plane(goal: Float[Array, "2"], *, extent: float, radius: float) -> Mapping[str, Any]:
    """The picture under a path on the plane: a square window around the origin, and the goal."""
    return {
        "kind": "plane",
        "x_range": [-extent, extent],
        "y_range": [-extent, extent],
        "start": [0.0, 0.0],
        "goals": [{"x": float(goal[0]), "y": float(goal[1]), "radius": radius, "label": "goal"}],
    }
