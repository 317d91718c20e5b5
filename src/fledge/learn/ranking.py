"""Losses of rankings: predictions are to be in the order of measurements; their scale is free.

All take values v and measurements y of one landscape, and a mask of the rows that count.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fledge.core.errors import unknown

RankingLoss = Literal["pairs", "code", "mse"]


def bradley_terry(
    v: Float[Array, " row"],
    y: Float[Array, " row"],
    counts: Bool[Array, " row"] | None = None,
    *,
    smoothing: float = 0.0,
    beta: float | None = None,
) -> Float[Array, ""]:
    """Mean of −log σ(v_i − v_j) over the strictly ordered pairs y_i > y_j; ties are no evidence and are left out.

    The preference loss of Metalic (Beck et al. 2025, §3) divided by the number of pairs; 0 where no pair is ordered.

    Args:
        v: predictions.
        y: measurements.
        counts: rows that take part; all by default.
        smoothing: ε of (1 − ε) loss(v) + ε loss(−v).
        beta: if given, ε_ij = σ(−β |y_i − y_j|) instead: close pairs say less.
    """
    ordered = _ordered(y, counts)
    difference = v[:, None] - v[None, :]
    loss = _smoothed(difference, y, smoothing, beta)
    return jnp.sum(jnp.where(ordered, loss, 0.0)) / jnp.maximum(jnp.sum(ordered), 1)


def agreement(
    v: Float[Array, " row"], y: Float[Array, " row"], counts: Bool[Array, " row"] | None = None
) -> Float[Array, ""]:
    """Share of the strictly ordered pairs that v puts in the same order, minus that of the others: −1 … 1."""
    ordered = _ordered(y, counts)
    signs = jnp.sign(v[:, None] - v[None, :])
    return jnp.sum(jnp.where(ordered, signs, 0.0)) / jnp.maximum(jnp.sum(ordered), 1)


def bradley_terry_sum(v: Float[Array, " row"], y: Float[Array, " row"]) -> Float[Array, ""]:
    """The paper's own form: the sum over ordered pairs."""
    return bradley_terry(v, y) * jnp.sum(_ordered(y, None))


def bradley_terry_code(
    v: Float[Array, " row"], y: Float[Array, " row"], *, smoothing: float = 0.0, beta: float | None = None
) -> Float[Array, ""]:
    """The form of the paper's public code: the mean over the whole matrix of ½ BCE(v_i − v_j, 1[y_i > y_j]).

    The diagonal is zero and counts. Both directions of a tie get the label 0, which draws tied predictions together:
    with ties this is not the paper's form.
    """
    difference = v[:, None] - v[None, :]
    sign = jnp.where(y[:, None] > y[None, :], 1.0, -1.0)
    off = ~jnp.eye(v.shape[0], dtype=bool)
    loss = _smoothed(sign * difference, y, smoothing, beta)
    return 0.5 * jnp.mean(jnp.where(off, loss, 0.0))


def masked_mse(
    v: Float[Array, " row"], y: Float[Array, " row"], counts: Bool[Array, " row"] | None = None
) -> Float[Array, ""]:
    """Mean squared error over the rows that count."""
    squared = (v - y) ** 2
    return (
        jnp.mean(squared) if counts is None else jnp.sum(jnp.where(counts, squared, 0.0)) / jnp.maximum(counts.sum(), 1)
    )


def ranking_loss(
    name: str, v: Float[Array, " row"], y: Float[Array, " row"], counts: Bool[Array, " row"]
) -> Float[Array, ""]:
    """The loss of that name: "pairs" (strictly ordered pairs) or "mse".

    Raises:
        ConfigError: there is none of that name.
    """
    if name == "pairs":
        return bradley_terry(v, y, counts)
    if name == "mse":
        return masked_mse(v, y, counts)
    raise unknown("ranking loss", name, ("pairs", "mse"))


def _ordered(y: Float[Array, " row"], counts: Bool[Array, " row"] | None) -> Bool[Array, "row row"]:
    ordered = y[:, None] > y[None, :]
    return ordered if counts is None else ordered & counts[:, None] & counts[None, :]


def _smoothed(difference: Array, y: Array, smoothing: float, beta: float | None) -> Array:
    epsilon = smoothing if beta is None else jax.nn.sigmoid(-beta * jnp.abs(y[:, None] - y[None, :]))
    if beta is None and smoothing == 0:
        return jax.nn.softplus(-difference)
    return (1 - epsilon) * jax.nn.softplus(-difference) + epsilon * jax.nn.softplus(difference)
