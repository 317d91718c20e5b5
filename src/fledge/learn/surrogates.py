"""Surrogates of an expected return: scalars whose derivatives estimate its derivatives.

An inner update ascends the gradient of one of them. They agree in that gradient (or in its mean) and differ in what its
*own* derivative is, which is what a meta-gradient runs through: plain autodiff of the sampled update, nothing at all
(first order), or an estimate of the Hessian of the expected return (DiCE and its relatives).
"""

from __future__ import annotations

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from fledge.core.errors import ConfigError
from fledge.core.returns import gae


class Surrogate(eqx.Module):
    """What an inner update ascends."""

    @abstractmethod
    def __call__(
        self,
        log_probs: Float[Array, "batch time"],
        rewards: Float[Array, "batch time"],
        values: Float[Array, "batch time"],
        *,
        discount: float,
    ) -> Float[Array, ""]:
        """The surrogate of a batch of trajectories; mean over the batch, sum over time."""

    def shield(self, direction: PyTree) -> PyTree:
        """The update direction as the meta-gradient is to see it; by default as it is."""
        return direction


def box(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """exp(x − sg(x)): 1 in value, and d box(x) = box(x) dx at every order (Foerster et al. 2018, DiCE)."""
    return jnp.exp(x - jax.lax.stop_gradient(x))


def advantages(
    rewards: Float[Array, "batch time"], values: Float[Array, "batch time"], *, discount: float, td_lambda: float = 1.0
) -> Float[Array, "batch time"]:
    """A_t = Σ_l (γτ)^l δ_{t+l}, δ_t = r_t + γ V_{t+1} − V_t, with V = 0 after the last step; constants to autodiff.

    Args:
        rewards: r_t of whole episodes of one length.
        values: V_t, zeros for none: then A_t is the reward to go.
        discount: γ.
        td_lambda: τ of Loaded DiCE, the λ of TD(λ) elsewhere; 1 is Monte Carlo.
    """
    following = jnp.concatenate([values[:, 1:], jnp.zeros_like(values[:, :1])], axis=1)
    rewards_, values_, following_ = (jnp.swapaxes(x, 0, 1) for x in (rewards, values, following))
    cuts = jnp.zeros(rewards_.shape, bool)
    found = gae(rewards_, values_, following_, cuts, discount=discount, gae_lambda=td_lambda)[0]
    return jax.lax.stop_gradient(jnp.swapaxes(found, 0, 1))


def discounts(like: Float[Array, "batch time"], discount: float) -> Float[Array, " time"]:
    """γ^t."""
    return jnp.asarray(discount, like.dtype) ** jnp.arange(like.shape[1], dtype=like.dtype)


class PolicyGradient(Surrogate):
    """mean_b Σ_t γ^t log π_t sg(A_t): the update as it is sampled, differentiated as it stands.

    Differentiated twice it is no Hessian of the expected return (terms with products of scores are missing), and need
    not be: the meta-gradient of a *sampled* update runs through exactly this derivative.

    Args:
        weigh: weigh step t by γ^t, as the gradient of the discounted return asks; without, as most code does.
        first_order: hide the direction's own derivative (FOMAML): the update's Jacobian is the identity.
    """

    weigh: bool = eqx.field(static=True, default=True)
    first_order: bool = eqx.field(static=True, default=False)

    def __call__(
        self,
        log_probs: Float[Array, "batch time"],
        rewards: Float[Array, "batch time"],
        values: Float[Array, "batch time"],
        *,
        discount: float,
    ) -> Float[Array, ""]:
        earned = advantages(rewards, values, discount=discount)
        if self.weigh:
            earned = earned * discounts(rewards, discount)
        return jnp.mean(jnp.sum(log_probs * earned, axis=1))

    def shield(self, direction: PyTree) -> PyTree:
        return jax.lax.stop_gradient(direction) if self.first_order else direction


class DiCE(Surrogate):
    """mean_b Σ_t γ^t r_t box(Σ_{t' ≤ t} log π_{t'}): unbiased derivatives of the expected return at every order.

    Reference: Foerster et al. 2018, DiCE: The Infinitely Differentiable Monte Carlo Estimator, eq. 6.
    """

    def __call__(
        self,
        log_probs: Float[Array, "batch time"],
        rewards: Float[Array, "batch time"],
        values: Float[Array, "batch time"],
        *,
        discount: float,
    ) -> Float[Array, ""]:
        earned = rewards * discounts(rewards, discount)
        return jnp.mean(jnp.sum(earned * box(jnp.cumsum(log_probs, axis=1)), axis=1))


class LoadedDiCE(Surrogate):
    """mean_b Σ_t γ^t A_t (box(w_t) − box(v_t)), w_t = λ w_{t−1} + log π_t, v_t = w_t − log π_t. Its value is 0.

    λ = 1 is unbiased at every order with any state values; λ = 0 is LVC, which drops terms across time.

    Args:
        td_lambda: τ, how far advantages look; below 1, wrong values bias already the first derivative.
        dice_lambda: λ, how far scores reach; below 1 it biases from the second derivative on.

    Reference: Farquhar et al. 2019, Loaded DiCE, eq. 12–14; LVC: Rothfuss et al. 2019, ProMP.
    """

    td_lambda: float = eqx.field(static=True, default=1.0)
    dice_lambda: float = eqx.field(static=True, default=1.0)

    def __check_init__(self) -> None:
        for name in ("td_lambda", "dice_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is a number from 0 to 1, not {getattr(self, name)}.")

    def __call__(
        self,
        log_probs: Float[Array, "batch time"],
        rewards: Float[Array, "batch time"],
        values: Float[Array, "batch time"],
        *,
        discount: float,
    ) -> Float[Array, ""]:
        earned = advantages(rewards, values, discount=discount, td_lambda=self.td_lambda)
        earned = earned * discounts(rewards, discount)

        def step(w: Array, log_prob: Array) -> tuple[Array, tuple[Array, Array]]:
            v = self.dice_lambda * w
            return v + log_prob, (v + log_prob, v)

        _, (w, v) = jax.lax.scan(step, jnp.zeros_like(log_probs[:, 0]), jnp.swapaxes(log_probs, 0, 1))
        return jnp.mean(jnp.sum(earned * jnp.swapaxes(box(w) - box(v), 0, 1), axis=1))


def lvc() -> LoadedDiCE:
    """The low-variance-curvature surrogate: Σ_t box(log π_t) A_t in its derivatives (Rothfuss et al. 2019, ProMP)."""
    return LoadedDiCE(td_lambda=1.0, dice_lambda=0.0)
