"""Every path through a small Markov decision process: for exact means and variances of estimators."""

from __future__ import annotations

import itertools

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fledge.core.errors import ConfigError
from fledge.envs.tabular import MDP

MOST_PATHS = 100_000


class Paths(eqx.Module):
    """Trajectories of one length, stacked."""

    state: Int[Array, "path time"]
    action: Int[Array, "path time"]
    reward: Float[Array, "path time"]
    log_world: Float[Array, " path"]
    """Log-probability of the start and of all transitions (the policy's share is left out)."""


def enumerate_paths(mdp: MDP, horizon: int) -> Paths:
    """All trajectories of `horizon` steps; the state after the last action is not part of one.

    Raises:
        ConfigError: there are more than `MOST_PATHS`.
    """
    n_states, n_actions = mdp.rewards.shape
    count = (n_states * n_actions) ** horizon
    if count > MOST_PATHS:
        raise ConfigError(
            f"{n_states} states and {n_actions} actions have {count:,} paths of {horizon} steps, more than the "
            f"{MOST_PATHS:,} that can be listed. Take a smaller process or a shorter horizon."
        )
    states = np.array(list(itertools.product(range(n_states), repeat=horizon)), np.int32)
    actions = np.array(list(itertools.product(range(n_actions), repeat=horizon)), np.int32)
    s = jnp.asarray(np.repeat(states, len(actions), axis=0))
    a = jnp.asarray(np.tile(actions, (len(states), 1)))
    moves = jnp.log(mdp.transitions[s[:, :-1], a[:, :-1], s[:, 1:]])
    return Paths(s, a, mdp.rewards[s, a], jnp.log(mdp.start[s[:, 0]]) + jnp.sum(moves, axis=1))
