"""Returns and advantages."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def gae(
    rewards: Float[Array, "time *batch"],
    values: Float[Array, "time *batch"],
    next_values: Float[Array, "time *batch"],
    cuts: Bool[Array, "time *batch"],
    *,
    discount: float | Float[Array, ""],
    gae_lambda: float | Float[Array, ""],
) -> tuple[Float[Array, "time *batch"], Float[Array, "time *batch"]]:
    """Generalised advantage estimates, and the value targets (advantage + value).

    δ_t = r_t + γ V'_t − V_t;  A_t = δ_t + γ λ (1 − cut_t) A_{t+1}.

    In a trial, `next_values[t]` is the value of the next token, across inner episode ends too (the trial is one long
    episode, specs of RL²: Duan et al. 2016); at a trial's end it is 0 (or the value of the final observation, where a
    time limit is to be bootstrapped through) and `cuts` holds.

    Args:
        rewards: r_t.
        values: V_t.
        next_values: V'_t, what is bootstrapped from after step t.
        cuts: where the estimate of step t must not reach into step t+1 (another task).
        discount: γ per environment step.
        gae_lambda: λ; 1 gives Monte-Carlo advantages, 0 one-step TD errors.

    Reference: Schulman et al. 2016, High-Dimensional Continuous Control Using Generalized Advantage Estimation, eq. 16.
    """
    deltas = rewards + discount * next_values - values
    weights = discount * gae_lambda * (1.0 - cuts.astype(values.dtype))

    def back(advantage: Array, x: tuple[Array, Array]) -> tuple[Array, Array]:
        delta, weight = x
        advantage = delta + weight * advantage
        return advantage, advantage

    _, advantages = jax.lax.scan(back, jnp.zeros_like(values[0]), (deltas, weights), reverse=True)
    return advantages, advantages + values


def discounted_returns(
    rewards: Float[Array, "time *batch"], cuts: Bool[Array, "time *batch"], *, discount: float
) -> Float[Array, "time *batch"]:
    """Discounted reward-to-go G_t = r_t + γ (1 − cut_t) G_{t+1}."""
    zeros = jnp.zeros_like(rewards)
    return gae(rewards, zeros, zeros, cuts, discount=discount, gae_lambda=1.0)[0]
