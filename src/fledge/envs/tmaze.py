"""T-mazes: a long corridor whose last step asks for what was shown at its beginning."""

from __future__ import annotations

from itertools import product
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key
from scipy.stats import binom

from fledge.core.contracts import Env
from fledge.core.errors import ConfigError
from fledge.core.spaces import Box, Discrete
from fledge.core.types import TimeStep
from fledge.envs.splits import draw_row, split_rows

LEFT, RIGHT, UP, DOWN = range(4)
HIT, MISS, MATCH = 4.0, -3.0, 0.1
COINS_LATENT = (0.7, 0.5)
"""P(coin = +1) where the latent is UP, and where it is DOWN."""


class TMazeState(eqx.Module):
    """Cell of the corridor, step of the running episode, and the coin (±1) that is shown now."""

    position: Int[Array, ""]
    time: Int[Array, ""]
    coin: Float[Array, ""]


class TMaze(Env):
    """A corridor of `length` cells; in the last one, up or down ends the episode with +4 (right) or −3 (wrong).

    A task is the direction (2 up, 3 down) of each cue. Actions: 0 left, 1 right, 2 up, 3 down. The observation is
    [in the first cell, cue, in the last cell] with the cue +1 (up), −1 (down) or 0 (none here); then, if there are
    coins, the coin ±1; then the position code. Coins are drawn afresh at every step.

    | name    | settings |
    |---------|---|
    | T-L     | cues (0,), coins none |
    | T-LN    | cues (0,) |
    | T-LN-P1 | cues (1,) |
    | T-Agree | cues (1, 50), rule agree |
    | T-Latent| cues (), coins latent: nothing is shown, the task is the coin's bias |
    | T-LS-P1 | cues (1,), matching |
    | T-LO    | cues (0, 98), rule up-then-down |
    | T-LSO   | cues (0, 2), rule up-then-down, matching |

    Args:
        length: cells of the corridor.
        cues: the cells that show a cue.
        rule: which end is right. `cue`: the first cue's; `agree`: DOWN where the two cues agree, UP where they differ
            (what the released code does, whatever its comment says); `up-then-down`: UP for that pattern only.
        coins: `none`; `fair`; or `latent`, +1 with probability 0.7 where the task is UP and 0.5 where it is DOWN.
        matching: the short-term task. An agent moves on, and earns 0.1, only by choosing up where the coin is +1 and
            down where it is −1. Without it, every step moves on by itself (every action counts as right, in the last
            cell left counts as up and right as down): an episode takes `length` steps, and its last decision counts.
        timeout: steps after which one more step ends the episode with reward 0 (matching only).
        code: what tells the agent where in time it is: `none`, the `step` number, or a `sinusoid` of it.
        code_width: entries of the sinusoid (even), sin and cos of step / 10000^(2i/width).

    The cue in the first cell (T-LN) is in the first observation of each episode. Our tokens carry it; an agent that
    memorises transitions only, as in the released code, never sees it: hence the P1 mazes.

    Reference: Beck et al., AMRL, ICLR 2020 (T-L, T-LN, T-LO, T-LS); Beck et al., SplAgger, RLC 2024 (the others).
    """

    length: int = eqx.field(static=True, default=100)
    cues: tuple[int, ...] = eqx.field(static=True, default=(1,), converter=tuple)
    rule: Literal["cue", "agree", "up-then-down"] = eqx.field(static=True, default="cue")
    coins: Literal["none", "fair", "latent"] = eqx.field(static=True, default="fair")
    matching: bool = eqx.field(static=True, default=False)
    timeout: int = eqx.field(static=True, default=150)
    code: Literal["none", "step", "sinusoid"] = eqx.field(static=True, default="none")
    code_width: int = eqx.field(static=True, default=2)

    def __check_init__(self) -> None:
        for name, value, known in (
            ("rule", self.rule, ("cue", "agree", "up-then-down")),
            ("coins", self.coins, ("none", "fair", "latent")),
            ("code", self.code, ("none", "step", "sinusoid")),
        ):
            if value not in known:
                raise ConfigError(f"{name} is one of {', '.join(known)}, not '{value}'.")
        wanted = 1 if self.rule == "cue" else 2
        if len(self.cues) != wanted and not (self.coins == "latent" and not self.cues and wanted == 1):
            raise ConfigError(f"rule '{self.rule}' reads {wanted} cue(s), but cues is {self.cues}.")
        if any(not 0 <= cue < self.length for cue in self.cues):
            raise ConfigError(f"Cues stand in the cells 0 … {self.length - 1}, not at {self.cues}.")
        if self.matching and (self.coins == "none" or self.timeout < self.length):
            raise ConfigError(
                f"matching needs coins and a timeout of at least {self.length} steps, not {self.timeout}."
            )
        if self.code_width < 2 or self.code_width % 2:
            raise ConfigError(f"code_width is an even number of at least 2, not {self.code_width}.")

    @property
    def horizon(self) -> int:
        """Steps of the forced walk; with matching, the timeout and the step that finds it has passed."""
        return self.timeout + 1 if self.matching else self.length

    @property
    def splits_disjoint(self) -> bool:
        return False

    @property
    def observation_space(self) -> Box:
        bound = float(self.horizon) if self.code == "step" else 1.0
        width = {"none": 0, "step": 1, "sinusoid": self.code_width}[self.code]
        return Box(3 + (self.coins != "none") + width, -bound, bound)

    @property
    def action_space(self) -> Discrete:
        return Discrete(4)

    @property
    def fixed_length(self) -> bool:
        return not self.matching

    def _tasks(self, split: str) -> Int[np.ndarray, "task cue"]:
        rows = list(product((UP, DOWN), repeat=max(1, len(self.cues))))
        return split_rows(np.array(rows, np.int32), split, 0.0)

    def sample(self, key: Key[Array, ""], split: str = "train") -> Int[Array, " cue"]:
        return draw_row(key, self._tasks(split))

    def enumerate(self, split: str = "test") -> Int[Array, "task cue"]:
        return jnp.asarray(self._tasks(split))

    def describe(self, task: Int[Array, " cue"]) -> str:
        names = {UP: "up", DOWN: "down"}
        shown = ", ".join(names[int(cue)] for cue in task)
        return f"{shown}: go {names[int(self.right_end(task))]}"

    def task_vector(self, task: Int[Array, " cue"]) -> Float[Array, " cue"]:
        return task.astype(jnp.float32)

    def right_end(self, task: Int[Array, " cue"]) -> Int[Array, ""]:
        """The action that pays in the last cell."""
        if self.rule == "agree":
            return jnp.where(task[0] == task[1], DOWN, UP)
        if self.rule == "up-then-down":
            return jnp.where((task[0] == UP) & (task[1] == DOWN), UP, DOWN)
        return task[0]

    def reset(self, key: Key[Array, ""], task: Int[Array, " cue"]) -> tuple[TMazeState, Float[Array, " obs"]]:
        zero = jnp.asarray(0, jnp.int32)
        state = TMazeState(zero, zero, self._coin(key, task))
        return state, self._observe(state, task)

    def step(
        self, key: Key[Array, ""], state: TMazeState, action: Int[Array, ""], task: Int[Array, " cue"]
    ) -> tuple[TMazeState, TimeStep]:
        last = state.position == self.length - 1
        if self.matching:
            late = state.time >= self.timeout
            matched = ~last & (action == jnp.where(state.coin > 0, UP, DOWN)) & ~late
            moved, end = matched, action
        else:
            late, matched, moved = jnp.asarray(False), jnp.asarray(False), ~last
            end = jnp.where(action == LEFT, UP, jnp.where(action == RIGHT, DOWN, action))
        decided = last & ((end == UP) | (end == DOWN)) & ~late
        success = decided & (end == self.right_end(task))
        reward = jnp.where(decided, jnp.where(success, HIT, MISS), jnp.where(matched, MATCH, 0.0))
        following = TMazeState(state.position + moved, state.time + 1, self._coin(key, task))
        # A step after the timeout returns the observation as it was.
        following = jax.tree.map(lambda old, new: jnp.where(late, old, new), state, following)
        timestep = TimeStep.of(
            self._observe(following, task), reward, terminated=decided, truncated=late, info={"success": success}
        )
        return following, timestep

    def _coin(self, key: Key[Array, ""], task: Int[Array, " cue"]) -> Float[Array, ""]:
        """A coin from one 32-bit word of randomness (no coin: no randomness)."""
        if self.coins == "none":
            return jnp.zeros(())
        word = jax.random.bits(key, (), jnp.uint32)
        up, down = (round(p * 2**32) for p in (COINS_LATENT if self.coins == "latent" else (0.5, 0.5)))
        return jnp.where(word < jnp.where(task[0] == UP, jnp.uint32(up), jnp.uint32(down)), 1.0, -1.0)

    def _observe(self, state: TMazeState, task: Int[Array, " cue"]) -> Float[Array, " obs"]:
        here: Bool[Array, " cue"] = state.position == jnp.array(self.cues, jnp.int32)
        signs = jnp.where(task == UP, 1.0, -1.0)[: len(self.cues)]
        parts = [state.position == 0, jnp.sum(here * signs), state.position == self.length - 1]
        if self.coins != "none":
            parts.append(state.coin)
        if self.code == "step":
            parts.append(state.time)
        elif self.code == "sinusoid":
            angles = state.time / 10_000.0 ** (2 * np.arange(self.code_width // 2) / self.code_width)
            parts.extend([*jnp.sin(angles), *jnp.cos(angles)])
        return jnp.stack([jnp.asarray(part, jnp.float32) for part in parts])

    def optimal_return(self, task: Int[Array, " cue"], n_episodes: int = 1) -> Float[Array, " episode"]:
        """The right end, and with matching every coin matched: 4, or 4 + 0.1·(length − 1)."""
        return jnp.full(n_episodes, HIT + (MATCH * (self.length - 1) if self.matching else 0.0))

    def bayes_success(self) -> float:
        """The chance that an ideal observer, *not* told the task, ends its first episode right.

        Where the cues are shown it is 1. For the latent bias the observer has seen `length` coins and weighs two
        binomials: ½ Σ_k max(P_up(k), P_down(k)), 98.1 % for 100 coins.
        """
        if self.coins != "latent" or self.cues:
            return 1.0
        heads = np.arange(self.length + 1)
        likelihoods = [binom.pmf(heads, self.length, p) for p in COINS_LATENT]
        return float(0.5 * np.sum(np.maximum(*likelihoods)))
