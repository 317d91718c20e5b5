"""XLand-MiniGrid as an `Env`: grid worlds whose hidden rules and goal are the task (Nikulin et al. 2023)."""

# No `from __future__ import annotations`: Equinox has to see the declaration of fields as objects.

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree, Shaped

from fledge.core.contracts import Env
from fledge.core.errors import ConfigError, need
from fledge.core.spaces import Box, Discrete
from fledge.core.types import Task, TimeStep
from fledge.envs.adapt import flat_task
from fledge.envs.splits import draw_row, known_split, split_rows


class XLandEnv(Env):
    """An environment of XLand-MiniGrid; a task is a rule set: its goal, its rules and the tiles it starts with.

    The agent sees `view`×`view` cells in front of it, each a tile and a colour. Reaching the goal ends an episode and
    pays 1 − 0.9·(steps taken / most steps); running out of time pays nothing.

    Args:
        name: a registered environment, such as `XLand-MiniGrid-R1-9x9`.
        benchmark: what `xminigrid.load_benchmark` returns (it may download: that is yours to decide), or anything with
            its fields `goals`, `rules` and `init_tiles`.
        held_out: fraction of rule sets that `train` never draws; they are `test`.
        horizon: most steps of an episode; by default the environment's own.
        one_hot: cells as one-hot tile and colour (25 numbers each), rather than two numbers each.

    Raises:
        ConfigError: no environment of that name takes rule sets.
        MissingExtra: xminigrid is not installed.

    Reference: Nikulin et al., XLand-MiniGrid, 2023.
    """

    horizon: int = eqx.field(static=True)
    params: PyTree
    rulesets: PyTree[Array]
    env: Any = eqx.field(static=True)
    held_out: float = eqx.field(static=True)
    one_hot: bool = eqx.field(static=True)

    def __init__(
        self,
        name: str,
        benchmark: Any,
        *,
        held_out: float = 0.0,
        horizon: int | None = None,
        one_hot: bool = True,
    ) -> None:
        xminigrid = need("xminigrid", "xland")
        if name not in (known := xminigrid.registered_environments()):
            raise ConfigError(f"XLand-MiniGrid has no environment '{name}'. There is: {', '.join(sorted(known))}.")
        self.env, params = xminigrid.make(name)
        if not hasattr(params, "ruleset"):
            raise ConfigError(f"'{name}' has no rule sets, so nothing in it varies. Choose an XLand-MiniGrid-… one.")
        self.params = params if horizon is None else params.replace(max_steps=horizon)
        self.horizon, self.held_out, self.one_hot = int(self.params.max_steps), held_out, one_hot
        self.rulesets = need("xminigrid.types", "xland").RuleSet(
            goal=jnp.asarray(benchmark.goals),
            rules=jnp.asarray(benchmark.rules),
            init_tiles=jnp.asarray(benchmark.init_tiles),
        )

    @property
    def splits_disjoint(self) -> bool:
        return self.held_out > 0

    @property
    def observation_space(self) -> Box:
        shape = self.env.observation_shape(self.params)
        n_tiles, n_colours = self._kinds()
        if self.one_hot:
            return Box(shape[0] * shape[1] * (n_tiles + n_colours), 0.0, 1.0)
        return Box(int(np.prod(shape)), 0.0, float(max(n_tiles, n_colours) - 1))

    @property
    def action_space(self) -> Discrete:
        return Discrete(int(self.env.num_actions(self.params)))

    @property
    def fixed_length(self) -> bool:
        return False

    def _kinds(self) -> tuple[int, int]:
        constants = need("xminigrid.core.constants", "xland")
        return constants.NUM_TILES, constants.NUM_COLORS

    def _rows(self, split: str) -> np.ndarray:
        return split_rows(np.arange(len(self.rulesets.goal), dtype=np.int32), known_split(split), self.held_out)

    def sample(self, key: Key[Array, ""], split: str = "train") -> Task:
        row = draw_row(key, self._rows(split))
        return jax.tree.map(lambda leaf: leaf[row], self.rulesets)

    def enumerate(self, split: str = "test") -> Task:
        rows = self._rows(split)
        return jax.tree.map(lambda leaf: leaf[rows], self.rulesets)

    def describe(self, task: Task) -> str:
        n_rules = int(np.count_nonzero(np.asarray(task.rules)[:, 0]))
        return f"goal {np.asarray(task.goal).tolist()}, {n_rules} rule{'s' * (n_rules != 1)}"

    def task_vector(self, task: Task) -> Float[Array, " task"]:
        return flat_task(task)

    def reset(self, key: Key[Array, ""], task: Task) -> tuple[PyTree, Shaped[Array, "*obs"]]:
        start = jax.tree.map(_strong, self.env.reset(self.params.replace(ruleset=task), key))
        return start, self._observe(start.observation)

    def step(
        self, key: Key[Array, ""], state: PyTree, action: Shaped[Array, ""], task: Task
    ) -> tuple[PyTree, TimeStep]:
        after = self.env.step(self.params.replace(ruleset=task), state, action)
        terminated = after.discount == 0
        timestep = TimeStep.of(
            self._observe(after.observation),
            after.reward,
            terminated=terminated,
            truncated=(after.state.step_num >= self.horizon) & ~terminated,
            info={"success": terminated},
        )
        return jax.tree.map(lambda new, old: _cast(new, old.dtype), after, state), timestep

    def _observe(self, view: Array) -> Float[Array, " obs"]:
        if not self.one_hot:
            return view.reshape(-1).astype(jnp.float32)
        n_tiles, n_colours = self._kinds()
        tiles, colours = jax.nn.one_hot(view[..., 0], n_tiles), jax.nn.one_hot(view[..., 1], n_colours)
        return jnp.concatenate([tiles, colours], axis=-1).reshape(-1)


def _strong(leaf: Any) -> Array:
    return _cast(leaf, jnp.result_type(leaf))


def _cast(leaf: Any, dtype: Any) -> Array:
    return leaf if jnp.issubdtype(dtype, jax.dtypes.prng_key) else jnp.asarray(leaf, dtype)
