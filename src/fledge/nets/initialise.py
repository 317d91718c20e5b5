"""Initialisers of weight matrices, stored as (in, out)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from fledge.core.errors import unknown

TANH_GAIN = 5.0 / 3.0

Initialiser = Callable[[Key[Array, ""], int, int, float], Float[Array, "in out"]]


def normc(key: Key[Array, ""], n_in: int, n_out: int, gain: float = TANH_GAIN) -> Float[Array, "in out"]:
    """Normal draws, the weights of each output unit scaled to the L2 norm `gain` (VariBAD's hidden layers)."""
    weight = jax.random.normal(key, (n_in, n_out))
    return gain * weight / jnp.linalg.norm(weight, axis=0, keepdims=True)


def orthogonal(key: Key[Array, ""], n_in: int, n_out: int, gain: float = 1.0) -> Float[Array, "in out"]:
    """A (semi-)orthogonal matrix times `gain`, uniformly distributed (Saxe et al. 2014).

    Gram-Schmidt on normal draws, each column twice, instead of `jnp.linalg.qr`: LAPACK calls under `vmap` (seeds) wait
    for each other's threads, and with two cores and JAX 0.10.2 they can wait for ever.
    """
    tall = (max(n_in, n_out), min(n_in, n_out))
    draws = jax.random.normal(key, tall)

    def column(j: Array, basis: Float[Array, "rows columns"]) -> Float[Array, "rows columns"]:
        v = draws[:, j]
        for _ in range(2):
            v = v - basis @ (basis.T @ v)
        return basis.at[:, j].set(v / jnp.linalg.norm(v))

    basis = jax.lax.fori_loop(0, tall[1], column, jnp.zeros(tall))
    return gain * (basis if n_in >= n_out else basis.T)


def kaiming(key: Key[Array, ""], n_in: int, n_out: int, gain: float = 2.0**0.5) -> Float[Array, "in out"]:
    """Uniform with variance gain² / fan-in (He et al. 2015)."""
    bound = gain * (3.0 / n_in) ** 0.5
    return jax.random.uniform(key, (n_in, n_out), minval=-bound, maxval=bound)


def uniform_fan_in(key: Key[Array, ""], n_in: int, n_out: int, gain: float = 1.0) -> Float[Array, "in out"]:
    """Uniform in ± gain / √fan-in: what PyTorch's `nn.Linear` does by default."""
    bound = gain / n_in**0.5
    return jax.random.uniform(key, (n_in, n_out), minval=-bound, maxval=bound)


INITIALISERS: dict[str, Initialiser] = {
    "normc": normc,
    "orthogonal": orthogonal,
    "kaiming": kaiming,
    "uniform_fan_in": uniform_fan_in,
}


def initialiser(name: str) -> Initialiser:
    """The initialiser of that name.

    Raises:
        ConfigError: nobody registered it.
    """
    if name not in INITIALISERS:
        raise unknown("initialiser", name, INITIALISERS)
    return INITIALISERS[name]
