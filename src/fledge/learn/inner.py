"""Inner steps: policy gradient on a batch of episodes, as a differentiable function of what it starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from fledge.core.errors import ConfigError
from fledge.learn.episodes import Episodes, advantages, masked_mean
from fledge.nets.adaptive import AdaptivePolicy, Part, adapted_part


@dataclass(frozen=True)
class InnerSettings:
    """One gradient step of the inner loop, and how many of them there are.

    `objective`: `log_prob`, the mean over steps of log π · A (MAML); or `ratio`, of π/π_old · A, whose gradient is the
    same and whose second derivative is the low-variance curvature of ProMP (Rothfuss et al. 2019, eq. 9).
    `adapts` names what moves: `all`, `head` (ANIL), `context` (CAVIA).
    """

    n_steps: int = 1
    learning_rate: float = 0.1
    batch_size: int = 20
    """Episodes on a task before each step (and after the last)."""
    objective: Literal["log_prob", "ratio"] = "log_prob"
    adapts: Part = "all"
    first_order: bool = False
    """The step's own derivative is dropped (FOMAML)."""
    discount: float = 0.99
    gae_lambda: float = 1.0

    def __post_init__(self) -> None:
        faults = []
        if self.n_steps < 0:
            faults.append(f"n_steps is at least 0, not {self.n_steps}.")
        if self.batch_size < 2:
            faults.append(f"batch_size is at least 2 episodes (a baseline is fitted to them), not {self.batch_size}.")
        if self.learning_rate < 0:
            faults.append(f"learning_rate is at least 0, not {self.learning_rate}.")
        if self.objective not in ("log_prob", "ratio"):
            faults.append(f"objective is 'log_prob' or 'ratio', not '{self.objective}'.")
        if self.adapts not in ("all", "head", "context"):
            faults.append(f"adapts is 'all', 'head' or 'context', not '{self.adapts}'.")
        shares = {"discount": self.discount, "gae_lambda": self.gae_lambda}
        faults += [f"{name} is between 0 and 1, not {x}." for name, x in shares.items() if not 0 <= x <= 1]
        if faults:
            raise ConfigError(" ".join(faults))


class Meta(eqx.Module):
    """η: what the outer loop learns."""

    policy: AdaptivePolicy
    """The initialisation θ_0."""
    step_sizes: AdaptivePolicy | None = None
    """A step size for each parameter (Meta-SGD, Li et al. 2017); None takes the setting for all."""

    @classmethod
    def init(cls, policy: AdaptivePolicy, settings: InnerSettings, *, learn_step_sizes: bool = False) -> Meta:
        """η around an initialisation."""
        sizes = jax.tree.map(lambda leaf: jnp.full(leaf.shape, settings.learning_rate), policy)
        return cls(policy, sizes if learn_step_sizes else None)


def inner_loss(policy: AdaptivePolicy, episodes: Episodes, settings: InnerSettings) -> Float[Array, ""]:
    """What an inner step descends: minus the mean over steps of the surrogate."""
    weights, _ = advantages(episodes, discount=settings.discount, gae_lambda=settings.gae_lambda)
    log_probs = policy(episodes.features).log_prob(episodes.actions)
    if settings.objective == "ratio":
        log_probs = jnp.exp(log_probs - jax.lax.stop_gradient(episodes.log_probs))
    return -masked_mean(log_probs * weights, episodes.mask)


def inner_step(meta: Meta, policy: AdaptivePolicy, episodes: Episodes, settings: InnerSettings) -> AdaptivePolicy:
    """θ_{n+1} = θ_n − α ∘ ∇ loss(θ_n, D_n), on the part of the policy that adapts."""
    gradient = jax.grad(inner_loss)(policy, episodes, settings)
    if settings.first_order:
        gradient = jax.lax.stop_gradient(gradient)
    part = adapted_part(policy, settings.adapts)
    if meta.step_sizes is None:
        moved = jax.tree.map(lambda on, g: settings.learning_rate * on * g, part, gradient)
    else:
        moved = jax.tree.map(lambda on, size, g: on * size * g, part, meta.step_sizes, gradient)
    return jax.tree.map(jnp.subtract, policy, moved)


def adapt_chain(meta: Meta, batches: Episodes, settings: InnerSettings) -> tuple[AdaptivePolicy, PyTree[Array]]:
    """θ_N on recorded batches (leading axis: step), and θ_0 … θ_{N−1} stacked: differentiable functions of η."""

    def step(policy: AdaptivePolicy, episodes: Episodes) -> tuple[AdaptivePolicy, AdaptivePolicy]:
        return inner_step(meta, policy, episodes, settings), policy

    return jax.lax.scan(step, meta.policy, batches)
