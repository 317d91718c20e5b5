"""The posterior over a latent, as the numbers that an encoder puts out."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from fledge.core.distributions import DiagonalNormal

LOGVAR_RANGE = (-20.0, 20.0)
"""Log-variances outside are cut off: exp of them would leave float32."""


def posterior(belief: Float[Array, "*batch twice"]) -> DiagonalNormal:
    """N(μ, σ²) of the numbers that stand for it: means, then log-variances."""
    mean, logvar = jnp.split(belief, 2, axis=-1)
    return DiagonalNormal(mean, 0.5 * jnp.clip(logvar, *LOGVAR_RANGE))


def chain_kl(beliefs: Float[Array, "term *batch twice"], *, to_standard: bool = False) -> Float[Array, "term *batch"]:
    """KL_t = KL(q_t ‖ q_{t−1}) in nats, q_{−1} being the standard normal (Zintgraf et al. 2020, appendix A).

    Gradients flow into both arguments.

    Args:
        beliefs: q_0, q_1, …: means and log-variances.
        to_standard: take KL(q_t ‖ N(0, I)) at every t instead.
    """
    zeros = jnp.zeros_like(beliefs)
    before = zeros if to_standard else jnp.concatenate([zeros[:1], beliefs[:-1]])
    return posterior(beliefs).kl(posterior(before))
