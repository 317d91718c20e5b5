"""The exact Bayes belief over the hidden goal of a grid world: what a perfect memory would know."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree, Shaped

from fledge.core.contracts import Env
from fledge.core.spaces import Box
from fledge.core.types import Task, TimeStep
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


class BeliefState(eqx.Module):
    """The grid's own state, and what is known of the goal in this trial."""

    inner: PyTree
    belief: Float[Array, " cell"]


class BeliefGridNav(Wrapper):
    """A grid world that shows the exact Bayes belief beside the position: the belief oracle.

    A policy without memory can be Bayes-optimal here, so that what it earns bounds every agent that has to remember.
    It is not told the task. The prior is uniform over the goals of `train` and `test`.

    Reference: Zintgraf et al., VariBAD, ICLR 2020 (public code), whose oracle is deliberately noisy once it has found.
    """

    env: GridNav

    @property
    def observation_space(self) -> Box:
        return Box(2 + self.env.size**2, 0.0, float(self.env.size - 1))

    def reset(self, key: Key[Array, ""], task: Task) -> tuple[BeliefState, Float[Array, " obs"]]:
        inner, observation = self.env.reset(key, task)
        possible = np.maximum(prior(self.env, "train"), prior(self.env, "test")) > 0
        belief = jnp.asarray(possible / possible.sum(), jnp.float32)
        return BeliefState(inner, belief), jnp.concatenate([observation, belief])

    def restart(self, key: Key[Array, ""], state: BeliefState, task: Task) -> tuple[BeliefState, Float[Array, " obs"]]:
        inner, observation = self.env.restart(key, state.inner, task)
        return BeliefState(inner, state.belief), jnp.concatenate([observation, state.belief])

    def step(
        self, key: Key[Array, ""], state: BeliefState, action: Shaped[Array, "*act"], task: Task
    ) -> tuple[BeliefState, TimeStep]:
        inner, timestep = self.env.step(key, state.inner, action, task)
        x, y = inner.position
        here = jax.nn.one_hot(x * self.env.size + y, self.env.size**2)
        rest = state.belief * (1.0 - here)
        belief = jnp.where(timestep.reward == 1.0, here, rest / jnp.maximum(jnp.sum(rest), 1e-12))
        seen = jnp.concatenate([timestep.observation, belief])
        timestep = eqx.tree_at(lambda t: (t.observation, t.final_observation), timestep, (seen, seen))
        return BeliefState(inner, belief), timestep

    def position(self, state: BeliefState) -> Float[Array, "2"] | None:
        return self.env.position(state.inner)


def belief_gridnav(**settings: Any) -> BeliefGridNav:
    """The belief oracle's world; settings are those of `GridNav`."""
    return BeliefGridNav(GridNav(**settings))
