"""Diagonal linear recurrences h_t = a_t ⊙ h_{t−1} + b_t, in sequence or in parallel."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def _scan(a: Array, b: Array, h0: Array, parallel: bool, reverse: bool = False) -> Array:
    if parallel:
        first = -1 if reverse else 0
        b = b.at[first].add(a[first] * h0)

        def combine(left: tuple[Array, Array], right: tuple[Array, Array]) -> tuple[Array, Array]:
            return left[0] * right[0], right[0] * left[1] + right[1]

        return jax.lax.associative_scan(combine, (a, b), reverse=reverse)[1]

    def step(h: Array, x: tuple[Array, Array]) -> tuple[Array, Array]:
        h = x[0] * h + x[1]
        return h, h

    return jax.lax.scan(step, h0, (a, b), reverse=reverse, unroll=4)[1]


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def linear_scan(
    a: Float[Array, "time *shape"], b: Float[Array, "time *shape"], h0: Float[Array, "*shape"], parallel: bool
) -> Float[Array, "time *shape"]:
    """All states h_1 … h_T. A reset before step t is a_t = 0.

    `parallel` uses `jax.lax.associative_scan`: O(log T) deep, about twice the work; on a CPU the sequential form is
    faster. The backward pass is the same recurrence run the other way (Martin & Cundy 2018), so neither direction
    stores more than a, b and h.
    """
    return _scan(a, b, h0, parallel)


def _forward(a: Array, b: Array, h0: Array, parallel: bool) -> tuple[Array, tuple[Array, Array, Array]]:
    hs = _scan(a, b, h0, parallel)
    return hs, (a, hs, h0)


def _backward(parallel: bool, residuals: tuple[Array, Array, Array], d_hs: Array) -> tuple[Array, Array, Array]:
    a, hs, h0 = residuals
    later = jnp.concatenate([a[1:], jnp.zeros_like(a[:1])])
    d_b = _scan(later, d_hs, jnp.zeros_like(h0), parallel, reverse=True)
    before = jnp.concatenate([h0[None], hs[:-1]])
    return d_b * before, d_b, d_b[0] * a[0]


linear_scan.defvjp(_forward, _backward)
