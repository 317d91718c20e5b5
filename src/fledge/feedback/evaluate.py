"""How good policies are: greedy rollouts from many starts, the same ones for every policy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from fledge.core.contracts import Env
from fledge.core.errors import ConfigError
from fledge.core.stats import Estimate, bootstrap, mean
from fledge.learn.actors import Actor, Policy
from fledge.learn.seeds import keys_of

START_SEED = 10_007
"""Of the starts that all policies share."""


class Rollouts(NamedTuple):
    """What each start of each training seed brought."""

    returns: Float[np.ndarray, "seed start"]
    """Undiscounted sum of rewards."""
    success: Float[np.ndarray, "seed start"]
    """1 where at least half of the steps were on target."""


def rollouts(policies: Policy, env: Env, seeds: Sequence[int], *, n_starts: int = 20, n_steps: int = 1000) -> Rollouts:
    """Greedy rollouts of every seed's policy.

    Args:
        policies: leaves of the actor have the leading axis `seed`.
        env: its `info["on_target"]` says whether a step counts as success; it is not reset in between.
        seeds: of the policies.
        n_starts: starts per seed, the same for all seeds and arms. 1 is the faithful mode of Beck 2025: one rollout
            per seed, from the start that belongs to the seed.
        n_steps: of each rollout.

    Raises:
        ConfigError: the environment ends its episodes before that.
    """
    if n_steps > env.horizon and not env.fixed_length:
        raise ConfigError(f"Rollouts of {n_steps} steps were asked for; this environment ends after {env.horizon}.")
    if n_starts == 1:
        starts = keys_of(seeds)[:, None]
    else:
        shared = jax.random.split(jax.random.key(START_SEED), n_starts)
        starts = jnp.broadcast_to(shared[None], (len(seeds), n_starts))
    returns, share = _walk(policies, env, starts, n_steps)
    return Rollouts(np.asarray(returns), (np.asarray(share) >= 0.5).astype(np.float64))


@partial(jax.jit, static_argnames="n_steps")
def _walk(
    policies: Policy, env: Env, starts: Key[Array, "seed start"], n_steps: int
) -> tuple[Float[Array, "seed start"], Float[Array, "seed start"]]:
    task = env.sample(jax.random.key(0), "test")

    def of_seed(actor: Actor, keys: Key[Array, " start"]) -> tuple[Array, Array]:
        policy = Policy(actor, policies.centre, policies.half)
        states, seen = jax.vmap(lambda key: env.reset(key, task))(keys)

        def step(carry: tuple, _: None) -> tuple[tuple, None]:
            states, seen, total, on_target = carry
            moved = jax.vmap(lambda key, state, action: env.step(key, state, action, task))
            states, timestep = moved(keys, states, policy(seen))
            good = timestep.info["on_target"].astype(jnp.float32)
            return (states, timestep.final_observation, total + timestep.reward, on_target + good), None

        nothing = jnp.zeros(keys.shape[0])
        (_, _, total, on_target), _ = jax.lax.scan(step, (states, seen, nothing, nothing), None, length=n_steps)
        return total, on_target / n_steps

    return jax.vmap(of_seed)(policies.actor, starts)


@partial(jax.jit, static_argnames="n_steps")
def _film(policy: Policy, env: Env, key: Key[Array, ""], n_steps: int) -> Float[Array, "time obs"]:
    task = env.sample(key, "test")
    state, seen = env.reset(key, task)

    def step(carry: tuple, _: None) -> tuple[tuple, Array]:
        state, seen = carry
        state, timestep = env.step(key, state, policy(seen), task)
        return (state, timestep.final_observation), seen

    return jax.lax.scan(step, (state, seen), None, length=n_steps)[1]


def states_of(policies: Policy, env: Env, *, seed: int = 0, start: int = 0, n_steps: int = 200) -> np.ndarray:
    """The observations of one greedy rollout, (time, obs): for a film."""
    one = Policy(jax.tree.map(lambda leaf: leaf[seed], policies.actor), policies.centre, policies.half)
    key = jax.random.split(jax.random.key(START_SEED), start + 1)[start]
    return np.asarray(_film(one, env, key, n_steps))


def interval(scores: Float[np.ndarray, "seed start"]) -> Estimate:
    """Mean over seeds and starts with its 95 % bootstrap interval over whole seeds."""
    return bootstrap(scores, mean, whole_seeds=True)


def difference(better: Float[np.ndarray, "seed start"], worse: Float[np.ndarray, "seed start"]) -> Estimate:
    """Mean difference with its interval, paired by seed and by start."""
    return bootstrap(better - worse, mean, whole_seeds=True)
