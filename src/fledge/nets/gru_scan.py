"""A GRU over a whole sequence whose weight gradient is one matrix product."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Residuals = tuple[Array, ...]


def gru_cell(
    weight: Float[Array, "hidden gates"],
    bias: Float[Array, " hidden"],
    h: Float[Array, "*batch hidden"],
    gates_x: Float[Array, "*batch gates"],
) -> tuple[Float[Array, "*batch hidden"], tuple[Array, Array, Array, Array]]:
    """One step from the input's share of the gates; also returns (r, z, n, U_n h + b), which the backward pass needs.

    r = σ(x_r + U_r h), z = σ(x_z + U_z h), n = tanh(x_n + r ⊙ (U_n h + b)), h' = (1 − z) ⊙ n + z ⊙ h
    (Cho et al. 2014, in the variant that cuDNN, PyTorch and Equinox use).
    """
    size = h.shape[-1]
    gates_h = h @ weight
    rz = jax.nn.sigmoid(gates_x[..., : 2 * size] + gates_h[..., : 2 * size])
    r, z = rz[..., :size], rz[..., size:]
    u = gates_h[..., 2 * size :] + bias
    n = jnp.tanh(gates_x[..., 2 * size :] + r * u)
    return n + z * (h - n), (r, z, n, u)


@jax.custom_vjp
def gru_scan(
    weight: Float[Array, "hidden gates"],
    bias: Float[Array, " hidden"],
    h0: Float[Array, "*batch hidden"],
    gates_x: Float[Array, "time *batch gates"],
    keep: Float[Array, "time *batch 1"],
) -> Float[Array, "time *batch hidden"]:
    """Hidden states after every step. Where keep[t] = 0 the state is zero before step t.

    The backward pass scans only the gate gradients; the gradient of `weight` is formed after it, in one product over
    time and batch. Plain autodiff adds a (hidden, 3 hidden) outer product in every step instead.
    """
    return _forward(weight, bias, h0, gates_x, keep)[0]


def _forward(
    weight: Array, bias: Array, h0: Array, gates_x: Array, keep: Array
) -> tuple[Float[Array, "time *batch hidden"], Residuals]:
    def step(h: Array, x: tuple[Array, Array]) -> tuple[Array, tuple[Array, ...]]:
        gates, kept = x
        before = h * kept
        h, saved = gru_cell(weight, bias, before, gates)
        return h, (h, before, *saved)

    _, (hs, befores, r, z, n, u) = jax.lax.scan(step, h0, (gates_x, keep))
    return hs, (weight, keep, befores, r, z, n, u)


def _backward(residuals: Residuals, d_hs: Array) -> tuple[Array, ...]:
    weight, keep, befores, r, z, n, u = residuals
    weight_t = weight.T

    def step(d_h: Array, x: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
        d_out, kept, before, r, z, n, u = x
        d_h = d_h + d_out
        d_n = d_h * (1 - z) * (1 - n * n)
        d_z = d_h * (before - n) * z * (1 - z)
        d_r = d_n * u * r * (1 - r)
        d_u = d_n * r
        d_gates_h = jnp.concatenate([d_r, d_z, d_u], axis=-1)
        d_before = d_h * z + d_gates_h @ weight_t
        return d_before * kept, (d_gates_h, d_n)

    zeros = jnp.zeros_like(d_hs[0])
    d_h0, (d_gates_h, d_n) = jax.lax.scan(step, zeros, (d_hs, keep, befores, r, z, n, u), reverse=True)
    size = zeros.shape[-1]
    d_weight = jnp.tensordot(befores, d_gates_h, axes=[tuple(range(befores.ndim - 1))] * 2)
    d_bias = jnp.sum(d_gates_h[..., 2 * size :], axis=tuple(range(d_gates_h.ndim - 1)))
    d_gates_x = jnp.concatenate([d_gates_h[..., : 2 * size], d_n], axis=-1)
    return d_weight, d_bias, d_h0, d_gates_x, jnp.zeros_like(keep)


gru_scan.defvjp(_forward, _backward)
