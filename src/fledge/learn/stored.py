"""Whole trials out of rollouts: as they come where all trials are equally long, through a window where they are not."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree

from fledge.core.types import Token, Trajectory
from fledge.learn.elbo import Trials


def steps_of(trajectory: Trajectory) -> Token:
    """The token that is seen after each step: the step itself, whole."""
    return trajectory.token.next(trajectory.decision.action, trajectory.timestep)


def row_like(token: Token, horizon: int) -> Trials:
    """Shapes and dtypes of one stored trial.

    Args:
        token: of the environments; leaves have the leading axis `batch`.
        horizon: most steps of a trial.
    """

    def stored(token: Token) -> Trials:
        steps = jax.tree.map(lambda leaf: jnp.zeros((horizon, 1, *leaf.shape[1:]), leaf.dtype), token)
        return Trials(steps, jnp.ones((horizon, 1), bool))

    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((leaf.shape[0], *leaf.shape[2:]), leaf.dtype), jax.eval_shape(stored, token)
    )


def equal_trials(trajectory: Trajectory, horizon: int) -> Trials:
    """The trials of a rollout in which all begin together and take `horizon` steps; leading axis `row`."""

    def rows(leaf: Array) -> Array:
        cut = leaf.reshape(-1, horizon, *leaf.shape[1:])  # trial in turn, step, environment
        return jnp.swapaxes(cut, 1, 2).reshape(-1, horizon, *leaf.shape[2:])

    steps = jax.tree.map(rows, steps_of(trajectory))
    return Trials(steps, jnp.ones(steps.start.shape, bool))


class Window(eqx.Module):
    """The last steps of each environment, newest last: the running trials, which may be cut by a rollout's end."""

    steps: Token
    """Leaves have the axes (step, batch), with as many steps as a trial can take."""
    length: Int[Array, " batch"]
    """How many of them belong to the running trial; the others are of older ones."""

    @classmethod
    def init(cls, token: Token, horizon: int) -> Window:
        """Before the first step; leaves of `token` have the leading axis `batch`."""
        steps = jax.tree.map(lambda leaf: jnp.zeros((horizon, *leaf.shape), leaf.dtype), token)
        return cls(steps, jnp.zeros(token.start.shape, jnp.int32))

    def after(self, trajectory: Trajectory, key: Key[Array, ""], n_rows: int) -> tuple[Window, Trials, Int[Array, ""]]:
        """The window after a rollout, and the trials that ended in it.

        Args:
            trajectory: of the rollout.
            key: randomness.
            n_rows: most trials that are handed on; of more, a random choice.

        Returns:
            The window; `n_rows` trials (leading axis `row`), padded at their ends; and how many of them, the first
            ones, are trials at all.
        """
        steps, ends = steps_of(trajectory), trajectory.timestep.trial_end
        stream = jax.tree.map(lambda old, new: jnp.concatenate([old, new]), self.steps, steps)
        horizon, (n_steps, n_envs) = self.steps.start.shape[0], ends.shape
        begins = _begins(ends, self.length)
        chance = jnp.where(ends, jax.random.uniform(key, ends.shape), -1.0).reshape(-1)
        n_rows = min(n_rows, chance.shape[0])
        found, chosen = jax.lax.top_k(chance, n_rows)
        time, env = chosen // n_envs, chosen % n_envs
        first = begins[time, env]
        places = jnp.minimum(horizon + first[:, None] + jnp.arange(horizon), horizon + n_steps - 1)
        rows = jax.tree.map(lambda leaf: leaf[places, env[:, None]], stream)
        real = jnp.arange(horizon) < (time + 1 - first)[:, None]
        window = Window(jax.tree.map(lambda leaf: leaf[-horizon:], stream), n_steps - begins[-1])
        return window, Trials(rows, real & (found >= 0)[:, None]), jnp.sum(found >= 0)


def _begins(ends: Bool[Array, "time batch"], length: Int[Array, " batch"]) -> Int[Array, "more batch"]:
    """The step at which the trial of each step began (negative: before the rollout), and that of the step to come."""

    def one(begin: Int[Array, " batch"], x: tuple[PyTree, PyTree]) -> tuple[Array, Array]:
        step, end = x
        return jnp.where(end, step + 1, begin), begin

    last, begins = jax.lax.scan(one, -length, (jnp.arange(ends.shape[0]), ends))
    return jnp.concatenate([begins, last[None]])
