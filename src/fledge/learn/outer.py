"""Outer objectives of the MAML family: what η ascends, on recorded lifetimes, and how far it has moved the policies."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fledge.core.errors import ConfigError
from fledge.learn.episodes import Episodes, advantages, masked_mean
from fledge.learn.inner import InnerSettings, Meta, adapt_chain
from fledge.nets.adaptive import AdaptivePolicy


@dataclass(frozen=True)
class OuterSettings:
    """The surrogate after adaptation.

    `sc_coef` weighs the sampling correction: credit of what was earned after adaptation for the data that was adapted
    to. 0 is MAML; 1 is E-MAML, the unbiased gradient, whose variance grows with the number of sampled actions.
    """

    sc_coef: float = 0.0
    clip_ratio: float = 0.3
    """Of the `ppo` outer loop."""
    kl_coef: float = 0.0
    """Penalty on how far the policies *before* adaptation have moved from those that collected (ProMP's inner KL)."""

    def __post_init__(self) -> None:
        faults = []
        if not 0 <= self.sc_coef <= 1:
            faults.append(f"sc_coef is between 0 (MAML) and 1 (E-MAML), not {self.sc_coef}.")
        if self.clip_ratio <= 0:
            faults.append(f"clip_ratio is above 0, not {self.clip_ratio}.")
        if self.kl_coef < 0:
            faults.append(f"kl_coef is at least 0, not {self.kl_coef}.")
        if faults:
            raise ConfigError(" ".join(faults))


class Played(eqx.Module):
    """One lifetime on one task, recorded. (With a leading axis `task`, several.)"""

    before: Episodes
    """The batches that were adapted to; leading axis: inner step."""
    after: Episodes
    adapted: AdaptivePolicy
    """The policy that collected `after`."""


def objective(
    meta: Meta,
    played: Played,
    inner: InnerSettings,
    outer: OuterSettings,
    lifetimes_per_task: int,
    *,
    clip: bool,
) -> Float[Array, ""]:
    """The surrogate that the outer loop ascends, mean over tasks. `played` has a leading axis `task`.

    (A) mean over steps of ratio · A after adaptation, the ratio that of θ_N(η) to the policy that collected; (B) with
    `sc_coef`, Σ log π of *all* steps before adaptation · (R_N − b), on the scale of (A): R is the discounted return of
    the start, over the steps of an episode and the scale of its advantages. b is the mean R of the other lifetimes of
    the task, or of all others where there is one lifetime a task; either is independent of this lifetime's data.
    """

    def one(played: Played) -> tuple[Array, Array, Array]:
        policy, chain = adapt_chain(meta, played.before, inner)
        weights, scale = advantages(played.after, discount=inner.discount, gae_lambda=inner.gae_lambda)
        log_probs = policy(played.after.features).log_prob(played.after.actions)
        ratio = jnp.exp(log_probs - played.after.log_probs)
        gained = ratio * weights
        if clip:
            gained = jnp.minimum(gained, jnp.clip(ratio, 1 - outer.clip_ratio, 1 + outer.clip_ratio) * weights)
        scores = jax.vmap(_scores)(chain, played.before) if outer.sc_coef else jnp.zeros(())
        earned = discounted_start(played.after, inner.discount)
        length = jnp.mean(jnp.sum(played.after.mask, axis=0))
        return masked_mean(gained, played.after.mask), jnp.sum(scores), earned / (length * scale)

    direct, scores, earned = jax.vmap(one)(played)
    if not outer.sc_coef:
        return jnp.mean(direct)
    credit = jax.lax.stop_gradient(earned - others_mean(earned, lifetimes_per_task))
    return jnp.mean(direct) + outer.sc_coef * jnp.mean(credit * (scores - jax.lax.stop_gradient(scores)))


def _scores(policy: AdaptivePolicy, episodes: Episodes) -> Float[Array, ""]:
    """log P of a whole batch: a sum over all its real steps, not a mean."""
    return jnp.sum(policy(episodes.features).log_prob(episodes.actions) * episodes.mask)


def discounted_start(episodes: Episodes, discount: float) -> Float[Array, ""]:
    """Mean discounted return of an episode."""
    weights = discount ** jnp.arange(episodes.rewards.shape[0])[:, None]
    return jnp.mean(jnp.sum(episodes.rewards * episodes.mask * weights, axis=0))


def others_mean(values: Float[Array, " task"], group: int) -> Float[Array, " task"]:
    """The mean of the other values of each group of neighbours; of all others, in groups of one."""
    groups = values.reshape(-1, group) if group > 1 else values[None]
    n = groups.shape[1]
    return ((jnp.sum(groups, axis=1, keepdims=True) - groups) / max(n - 1, 1)).reshape(-1)


def outer_kl(meta: Meta, played: Played, inner: InnerSettings) -> Float[Array, ""]:
    """Mean KL from the adapted policies that collected to those that η adapts to now, in nats."""

    def one(played: Played) -> Float[Array, ""]:
        policy, _ = adapt_chain(meta, played.before, inner)
        return _kl(jax.lax.stop_gradient(played.adapted), policy, played.after)

    return jnp.mean(jax.vmap(one)(played))


def penalty(meta: Meta, old: Meta, played: Played, inner: InnerSettings) -> Float[Array, ""]:
    """Mean KL from the policies that collected *before* adaptation to those of η now, in nats."""

    def one(played: Played) -> Float[Array, ""]:
        _, now = adapt_chain(meta, played.before, inner)
        _, then = adapt_chain(jax.lax.stop_gradient(old), played.before, inner)
        return jnp.mean(jax.vmap(_kl)(then, now, played.before))

    return jnp.mean(jax.vmap(one)(played))


def _kl(old: AdaptivePolicy, new: AdaptivePolicy, episodes: Episodes) -> Float[Array, ""]:
    ours: Float[Array, "time episode"] = old(episodes.features).kl(new(episodes.features))  # type: ignore[attr-defined]
    return masked_mean(ours, episodes.mask)
