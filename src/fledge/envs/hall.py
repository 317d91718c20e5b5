"""Hall: a corridor with a door above every cell, one of which hides the goal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from fledge.core.contracts import Env
from fledge.core.spaces import Box, Discrete
from fledge.core.types import TimeStep
from fledge.envs import cells as grid
from fledge.envs.splits import draw_row, split_rows


class HallState(eqx.Module):
    """Position and step of the running episode, and the doors entered in this trial (door above x is entry x)."""

    position: Int[Array, "2"]
    time: Int[Array, ""]
    checked: Bool[Array, " cell"]


class Hall(Env):
    """A corridor of `size` cells; behind the door above one cell x ≥ 1 is the goal. A task is that x.

    Positions are (x, y) with y = 1 behind a door; start (0, 0). Actions 0 stay, 1 up (only below a door), 2 right,
    3 down, 4 left; behind a door only down (and staying) does anything. Reward `success_reward` on every step that ends
    on the goal, else −0.1; no early end.

    Args:
        size: cells of the corridor; size − 1 doors.
        horizon: steps per episode (80, or 200); at least `size`, so that the last door can be reached.
        success_reward: 1, or 5.
        visit_bonus: what a step earns, instead of −0.1, that enters a wrong door for the first time in a trial (0.1 in
            the shaped variants, 0 for none).
        observe_checked: append 1 to the observation when the door directly above is still unchecked in this trial.
        held_out: fraction of doors kept out of `train` and returned as `test`; then the last tenth of the corridor is
            `ood`. 0 is the published protocol: every split is all doors.

    Reference: the hall environments of the recurrent-hypernetworks code base (Beck et al. 2023).
    """

    size: int = eqx.field(static=True, default=60)
    horizon: int = eqx.field(static=True, default=80)
    success_reward: float = eqx.field(static=True, default=1.0)
    visit_bonus: float = eqx.field(static=True, default=0.0)
    observe_checked: bool = eqx.field(static=True, default=False)
    held_out: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        problems = grid.held_out_problems(self.held_out)
        if self.size < 2:
            problems.append(f"size is 2 or more, not {self.size}.")
        if self.horizon < self.size:
            problems.append(f"horizon is size ({self.size}) or more, not {self.horizon}: else some doors are too far.")
        if self.success_reward <= self.visit_bonus:
            problems.append(
                f"success_reward ({self.success_reward}) is more than visit_bonus ({self.visit_bonus}): else the goal "
                "is not worth finding."
            )
        grid.refuse(problems)

    @property
    def splits_disjoint(self) -> bool:
        return self.held_out > 0

    @property
    def observation_space(self) -> Box:
        return Box(3 if self.observe_checked else 2, 0.0, float(self.size - 1))

    @property
    def action_space(self) -> Discrete:
        return Discrete(5)

    @property
    def fixed_length(self) -> bool:
        return True

    def _doors(self, split: str) -> Int[np.ndarray, " door"]:
        doors = np.arange(1, self.size, dtype=np.int32)
        return split_rows(doors, split, self.held_out, n_ood=len(doors) // 10)

    def sample(self, key: Key[Array, ""], split: str = "train") -> Int[Array, ""]:
        return draw_row(key, self._doors(split))

    def enumerate(self, split: str = "test") -> Int[Array, " task"]:
        return jnp.asarray(self._doors(split))

    def describe(self, task: Int[Array, ""]) -> str:
        return f"goal behind door {int(task)}"

    def task_vector(self, task: Int[Array, ""]) -> Float[Array, "1"]:
        return task.astype(jnp.float32)[None]

    def _observe(self, position: Int[Array, "2"], checked: Bool[Array, " cell"]) -> Float[Array, " obs"]:
        seen = position.astype(jnp.float32)
        if not self.observe_checked:
            return seen
        here = jnp.arange(self.size) == position[0]
        unchecked = jnp.any(here & ~checked) & (position[0] >= 1) & (position[1] == 0)
        return jnp.append(seen, unchecked.astype(jnp.float32))

    def reset(self, key: Key[Array, ""], task: Int[Array, ""]) -> tuple[HallState, Float[Array, " obs"]]:
        return self._begin(jnp.zeros(self.size, bool))

    def restart(
        self, key: Key[Array, ""], state: HallState, task: Int[Array, ""]
    ) -> tuple[HallState, Float[Array, " obs"]]:
        return self._begin(state.checked)

    def _begin(self, checked: Bool[Array, " cell"]) -> tuple[HallState, Float[Array, " obs"]]:
        position = jnp.zeros(2, jnp.int32)
        return HallState(position, jnp.asarray(0, jnp.int32), checked), self._observe(position, checked)

    def step(
        self, key: Key[Array, ""], state: HallState, action: Int[Array, ""], task: Int[Array, ""]
    ) -> tuple[HallState, TimeStep]:
        x, y = state.position
        move = jax.nn.one_hot(action, 5, dtype=jnp.int32) @ jnp.asarray(grid.MOVES["compass"])
        walks, inside = jnp.clip(x + move[0], 0, self.size - 1), y == 1
        climbs = jnp.where(x >= 1, jnp.clip(y + move[1], 0, 1), 0)
        position = jnp.stack([jnp.where(inside, x, walks), climbs])
        entered = (jnp.arange(self.size) == x) & ~inside & (climbs == 1)
        on_goal = (climbs == 1) & (position[0] == task)
        first_time = jnp.any(entered & ~state.checked)
        elsewhere = jnp.where(first_time, self.visit_bonus, -0.1) if self.visit_bonus else -0.1
        time, checked = state.time + 1, state.checked | entered
        timestep = TimeStep.of(
            self._observe(position, checked),
            jnp.where(on_goal, self.success_reward, elsewhere),
            truncated=time >= self.horizon,
            info={"success": on_goal},
        )
        return HallState(position, time, checked), timestep

    def optimal_return(self, task: Int[Array, ""], n_episodes: int = 1) -> Float[Array, " episode"]:
        """Along the corridor and up: door x is entered by step x + 1, and every step from then on is paid.

        No wrong door is worth its two steps: each costs two payments at the goal (see the checks on `visit_bonus`).
        """
        return jnp.full(n_episodes, (self.horizon - task) * self.success_reward - 0.1 * task)

    def position(self, state: HallState) -> Float[Array, "2"]:
        return state.position.astype(jnp.float32)

    def scene(self, task: Int[Array, ""]) -> Mapping[str, Any]:
        return {
            "kind": "grid",
            "width": self.size,
            "height": 2,
            "start": [0, 0],
            "goals": [{"x": int(task), "y": 1, "label": "goal"}],
        }
