"""Minecraft-like mazes in small pictures: a signal, then rooms that ask for a short memory, then a turn."""

from __future__ import annotations

from itertools import product

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
from fledge.envs.textures import END_IMAGE, HIDDEN_IMAGE, SIGNAL_IMAGE, images

LEFT, FORWARD, RIGHT = range(3)
RED, GREEN = range(2)
HIT, MISS, MOVE = 4.0, -3.0, 0.1

ENTRY, FORK, WEST_1, EAST_1, WEST_2, EAST_2, WEST_3, EAST_3, EXIT = range(9)
"""Cells of a room: (0,0), (0,1), (∓1,1), (∓1,2), (∓1,3), (0,3). The platform's cells follow them, then the end."""
PLATFORM = 9
WAYS = (
    (ENTRY, FORWARD, FORK),
    (FORK, LEFT, WEST_1),
    (FORK, RIGHT, EAST_1),
    (WEST_1, FORWARD, WEST_2),
    (EAST_1, FORWARD, EAST_2),
    (WEST_2, FORWARD, WEST_3),
    (EAST_2, FORWARD, EAST_3),
    (WEST_3, RIGHT, EXIT),
    (EAST_3, LEFT, EXIT),
    (EXIT, FORWARD, ENTRY),
)
"""(cell, action, next cell). Every other action in a room leaves the agent where it is."""
ROOM_STEPS = 6


class MineMazeState(eqx.Module):
    """The cell (of the room, the platform or the end), which room, that room's right side, and the step."""

    cell: Int[Array, ""]
    room: Int[Array, ""]
    right_side: Bool[Array, ""]
    """Type of the room: the right-hand side is the right one."""
    time: Int[Array, ""]


class MineMaze(Env):
    """A platform that shows a colour, `rooms` rooms, and a dark end where left or right ends the episode.

    Actions: 0 left, 1 forward, 2 right. On the platform only right moves. In a room: forward; then left or right, where
    a mark shows which side pays; twice forward; inward; forward into the next room. Other actions do nothing. A move
    pays 0.1 (the choice of a side only if it is the right one). At the end green means right and red means left: +4, or
    −3. The right sides of the rooms are drawn afresh in each episode; the colour is the task.

    The observation is a picture of 10×10×3 numbers in [−1, 1], flattened. The pictures are made, not rendered: see
    `fledge.envs.textures`.

    | name   | settings |
    |--------|---|
    | MC-LS  | the defaults |
    | MC-LSN | rooms 10, noise 0.05 |
    | MC-LSO | rooms 10, order: two colours are shown; only green then red means right |
    | MC-LSH | hidden: the platform is black, so the first episode's end has to tell |

    Args:
        rooms: how many.
        order: two colours in turn, all four pairs as likely, instead of one.
        hidden: show no colour.
        noise: standard deviation of normal noise on every number of a picture, clipped to [−1, 1].
        horizon: steps after which the episode is cut. The last of them finds that the time is over: it does and pays
            nothing.

    The colour is in the first observation of an episode. Our tokens carry it; an agent that memorises transitions only,
    as in the released code, never sees it in the first episode.

    MC-LS pays 13.7 at best, in 98 steps; with a guess at the end, 10.2 on average.

    Reference: Beck et al., AMRL, ICLR 2020; two episodes to a trial as in Beck et al., Recurrent Hypernetworks,
    NeurIPS 2023.
    """

    rooms: int = eqx.field(static=True, default=16)
    order: bool = eqx.field(static=True, default=False)
    hidden: bool = eqx.field(static=True, default=False)
    noise: float = eqx.field(static=True, default=0.0)
    horizon: int = eqx.field(static=True, default=200)

    def __check_init__(self) -> None:
        problems = grid.positive_problems(rooms=self.rooms)
        if self.noise < 0:
            problems.append(f"noise is a standard deviation, 0 or more, not {self.noise}.")
        if not problems and self.horizon <= self.shortest:
            problems.append(
                f"horizon is more than the shortest way of {self.shortest} steps, not {self.horizon}: "
                "the last step of an episode finds that the time is over."
            )
        grid.refuse(problems)

    @property
    def n_signals(self) -> int:
        """Colours shown, one on each cell of the platform."""
        return 2 if self.order else 1

    @property
    def shortest(self) -> int:
        """Steps of the shortest way."""
        return self.n_signals + ROOM_STEPS * self.rooms + 1

    @property
    def splits_disjoint(self) -> bool:
        return False

    @property
    def observation_space(self) -> Box:
        return Box(images().shape[1], -1.0, 1.0)

    @property
    def action_space(self) -> Discrete:
        return Discrete(3)

    @property
    def fixed_length(self) -> bool:
        return False

    def _tasks(self, split: str) -> Int[np.ndarray, "task signal"]:
        return split_rows(np.array(list(product((GREEN, RED), repeat=self.n_signals)), np.int32), split, 0.0)

    def sample(self, key: Key[Array, ""], split: str = "train") -> Int[Array, " signal"]:
        return draw_row(key, self._tasks(split))

    def enumerate(self, split: str = "test") -> Int[Array, "task signal"]:
        return jnp.asarray(self._tasks(split))

    def describe(self, task: Int[Array, " signal"]) -> str:
        shown = ", ".join("green" if int(colour) == GREEN else "red" for colour in task)
        return f"{shown}: go {'right' if int(self.right_end(task)) == RIGHT else 'left'}"

    def task_vector(self, task: Int[Array, " signal"]) -> Float[Array, " signal"]:
        return task.astype(jnp.float32)

    def right_end(self, task: Int[Array, " signal"]) -> Int[Array, ""]:
        """The action that pays at the end."""
        means_right = task[0] == GREEN
        if self.order:
            means_right = means_right & (task[1] == RED)
        return jnp.where(means_right, RIGHT, LEFT)

    def reset(self, key: Key[Array, ""], task: Int[Array, " signal"]) -> tuple[MineMazeState, Float[Array, " obs"]]:
        key_side, key_noise = jax.random.split(key)
        zero = jnp.asarray(0, jnp.int32)
        state = MineMazeState(jnp.asarray(PLATFORM, jnp.int32), zero, _coin(key_side), zero)
        return state, self._observe(key_noise, state, task)

    def step(
        self, key: Key[Array, ""], state: MineMazeState, action: Int[Array, ""], task: Int[Array, " signal"]
    ) -> tuple[MineMazeState, TimeStep]:
        key_side, key_noise = jax.random.split(key)
        late = state.time >= self.horizon - 1
        end = PLATFORM + self.n_signals
        following = jnp.asarray(self._ways())[state.cell, action]
        leaves = (state.cell == EXIT) & (following != EXIT) & ~late
        following = jnp.where(leaves & (state.room == self.rooms - 1), end, following)
        cell = jnp.where(late, state.cell, following)
        moved = cell != state.cell
        wrong_side = (state.cell == FORK) & ((action == RIGHT) != state.right_side)
        decided = (state.cell == end) & (action != FORWARD) & ~late
        success = decided & (action == self.right_end(task))
        reward = jnp.where(moved & ~wrong_side, MOVE, 0.0) + jnp.where(decided, jnp.where(success, HIT, MISS), 0.0)
        right_side = jnp.where(leaves, _coin(key_side), state.right_side)
        state = MineMazeState(cell, state.room + leaves, right_side, state.time + 1)
        timestep = TimeStep.of(
            self._observe(key_noise, state, task),
            reward,
            terminated=decided,
            truncated=late,
            info={"success": success},
        )
        return state, timestep

    def _ways(self) -> Int[np.ndarray, "cell action"]:
        """The next cell from each cell under each action; leaving a room leads to the entry of the next."""
        end = PLATFORM + self.n_signals
        ways = np.repeat(np.arange(end + 1, dtype=np.int32)[:, None], 3, axis=1)
        for cell, action, following in WAYS:
            ways[cell, action] = following
        ways[PLATFORM:end, RIGHT] = [*range(PLATFORM + 1, end), ENTRY]
        return ways

    def _observe(self, key: Key[Array, ""], state: MineMazeState, task: Int[Array, " signal"]) -> Float[Array, " obs"]:
        end = PLATFORM + self.n_signals
        colour = task[jnp.clip(state.cell - PLATFORM, 0, self.n_signals - 1)]
        signal = HIDDEN_IMAGE if self.hidden else SIGNAL_IMAGE + colour
        outside = jnp.where(state.cell == end, END_IMAGE, signal)
        index = jnp.where(state.cell < PLATFORM, 2 * state.cell + state.right_side, outside)
        seen = jnp.asarray(images())[index]
        if self.noise:
            seen = jnp.clip(seen + self.noise * jax.random.normal(key, seen.shape), -1.0, 1.0)
        return seen

    def optimal_return(self, task: Int[Array, " signal"], n_episodes: int = 1) -> Float[Array, " episode"]:
        """The shortest way with every right side: 4 + 0.1·(signals + 6·rooms)."""
        return jnp.full(n_episodes, HIT + MOVE * (self.shortest - 1))


def _coin(key: Key[Array, ""]) -> Bool[Array, ""]:
    return jax.random.bits(key, (), jnp.uint32) >= jnp.uint32(2**31)
