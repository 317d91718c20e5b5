"""Learning rates over the steps of training."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array


def warmup_cosine(warmup: int, total: int, floor: float = 0.0) -> Callable[[Array | int], Array]:
    """The factor of the peak learning rate at a step: linear from 0, then a half cosine, never below `floor`.

    Metalic's published setting is `warmup_cosine(5_000, 100_000, 1e-5)`, left after 50,000 steps at 0.541 of the peak.
    """

    def factor(step: Array | int) -> Array:
        rising = jnp.asarray(step, jnp.float32) / max(warmup, 1)
        progress = jnp.clip((step - warmup) / max(total - warmup, 1), 0.0, 1.0)
        falling = jnp.maximum(0.5 * (1 + jnp.cos(math.pi * progress)), floor)
        return jnp.where(step < warmup, rising, falling)

    return factor
