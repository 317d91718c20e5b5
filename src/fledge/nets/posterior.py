"""A posterior that is a product of Gaussian factors, one per transition: what PEARL infers the task with."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from fledge.core.distributions import DiagonalNormal
from fledge.core.errors import ConfigError
from fledge.nets.blocks import MLP

LEAST_VARIANCE = 1e-7
"""Of a factor (released code): a single one cannot fix the latent for ever."""


class Evidence(eqx.Module):
    """What factors N(μ_n, σ_n²) say together, as sums: the order in which they came is lost."""

    weighted: Float[Array, "*batch latent"]
    """Σ μ_n / σ_n²."""
    precision: Float[Array, "*batch latent"]
    """Σ 1 / σ_n²; 0 where nothing was seen."""

    @classmethod
    def none(cls, size: int) -> Evidence:
        """Nothing was seen."""
        return cls(jnp.zeros(size), jnp.zeros(size))

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence(self.weighted + other.weighted, self.precision + other.precision)

    def together(self, axis: int = -2) -> Evidence:
        """All factors along an axis."""
        return Evidence(jnp.sum(self.weighted, axis), jnp.sum(self.precision, axis))


class PosteriorEncoder(eqx.Module):
    """One transition → one Gaussian factor Ψ(z | c_n) = N(μ_n, σ_n²); the posterior is q(z | c) ∝ Π_n Ψ(z | c_n).

    Before anything was seen it is the prior N(0, I). With `prior_factor` the prior is a factor too, so that evidence
    can only narrow it; equation and released code leave it out, and a first factor may be wider than the prior.

    Reference: Rakelly et al. 2019 (PEARL), equation 2; public code: three layers of 200, σ² = max(softplus, 1e-7).
    """

    mlp: MLP
    latent_size: int = eqx.field(static=True)
    prior_factor: bool = eqx.field(static=True, default=False)

    @classmethod
    def init(
        cls, key: Key[Array, ""], n_in: int, latent_size: int, hidden: Sequence[int], *, prior_factor: bool = False
    ) -> PosteriorEncoder:
        """Random weights.

        Raises:
            ConfigError: no latent dimension.
        """
        if latent_size < 1:
            raise ConfigError(
                f"latent_size is the number of latent dimensions, at least 1 (5 published); got {latent_size}."
            )
        mlp = MLP.init(key, n_in, hidden, 2 * latent_size, activation="relu", init="uniform_fan_in", gain=1.0)
        return cls(mlp, latent_size, prior_factor)

    def __call__(self, context: Float[Array, "*batch context"]) -> Evidence:
        """What each transition says by itself."""
        mean, raw = jnp.split(self.mlp(context), 2, axis=-1)
        precision = 1.0 / jnp.maximum(jax.nn.softplus(raw), LEAST_VARIANCE)
        return Evidence(mean * precision, precision)

    def posterior(self, evidence: Evidence) -> DiagonalNormal:
        """q(z | c)."""
        if self.prior_factor:
            precision = 1.0 + evidence.precision
        else:
            precision = jnp.where(evidence.precision > 0, evidence.precision, 1.0)
        return DiagonalNormal(evidence.weighted / precision, -0.5 * jnp.log(precision))


def standard(like: Float[Array, "*batch latent"]) -> DiagonalNormal:
    """The prior N(0, I), as many of them as needed."""
    return DiagonalNormal(jnp.zeros_like(like), jnp.zeros_like(like))
