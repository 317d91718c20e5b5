"""The exact Bayes belief over the hidden goal of a grid world: what a perfect memory would know."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fledge.core.contracts import Env
from fledge.envs.gridnav import GridNav
from fledge.envs.wrapper import Wrapper


def grid_of(env: Env) -> GridNav | None:
    """The grid world inside wrappers whose observation is the agent's cell; None if there is none."""
    while isinstance(env, Wrapper):
        env = env.env
    return env if isinstance(env, GridNav) and not env.show else None


def prior(env: GridNav, split: str = "train") -> Float[np.ndarray, " cell"]:
    """The belief before the first step: uniform over the goals of a split. Cell (x, y) is entry x · size + y."""
    with jax.ensure_compile_time_eval():
        goals = np.asarray(env.enumerate(split))
    belief = np.zeros(env.size**2, np.float32)
    belief[goals[:, 0] * env.size + goals[:, 1]] = 1.0 / len(goals)
    return belief


def exact_beliefs(
    env: GridNav,
    positions: Float[Array, "step *batch 2"],
    rewards: Float[Array, "step *batch"],
    *,
    split: str = "train",
) -> Float[Array, "term *batch cell"]:
    """b_0 (the prior), b_1, … after each step of a trial: one more than steps.

    Uniform over the goals of the split that were not entered in vain; all mass on the goal once it is found. (VariBAD's
    belief oracle puts half of it on a random wrong cell then; this one is exact.)

    Args:
        env: the grid world.
        positions: where each step ended.
        rewards: what it earned; 1 on the goal and nowhere else.
        split: whose goals are possible.
    """
    xy = jnp.round(positions).astype(jnp.int32)
    entered = jax.nn.one_hot(xy[..., 0] * env.size + xy[..., 1], env.size**2)
    paid = (rewards == 1.0)[..., None]
    zero = jnp.zeros_like(entered[:1])
    in_vain = jnp.concatenate([zero, jax.lax.cummax(entered * ~paid)])
    goal = jnp.concatenate([zero, jax.lax.cummax(entered * paid)])
    belief = jnp.where(jnp.any(goal > 0, axis=-1, keepdims=True), goal, jnp.asarray(prior(env, split)) * (1 - in_vain))
    return belief / jnp.maximum(jnp.sum(belief, axis=-1, keepdims=True), 1e-12)
