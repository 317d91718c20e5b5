"""Meta-learning by gradient steps on supervised losses: MAML and Reptile for any model and loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

Loss = Callable[[Any, Key[Array, ""]], Float[Array, ""]]
"""(parameters, randomness) → loss of one task."""


def descend(
    loss: Loss, parameters: PyTree[Array], key: Key[Array, ""], *, n_steps: int, learning_rate: float
) -> PyTree[Array]:
    """Parameters after gradient steps on a task: θ ← θ − α ∇ loss(θ). Derivatives pass through it.

    Args:
        loss: of the task.
        parameters: to begin with.
        key: randomness; each step has its own.
        n_steps: of the inner loop.
        learning_rate: α.
    """
    for i in range(n_steps):
        gradient = jax.grad(loss)(parameters, jax.random.fold_in(key, i))
        parameters = jax.tree.map(lambda p, g: p - learning_rate * g, parameters, gradient)
    return parameters


def maml_loss(
    inner: Loss,
    outer: Loss,
    parameters: PyTree[Array],
    key: Key[Array, ""],
    *,
    n_steps: int,
    learning_rate: float,
) -> Float[Array, ""]:
    """The outer loss after the inner steps; its gradient is MAML's, second order included (Finn et al. 2017, eq. 1)."""
    key_inner, key_outer = jax.random.split(key)
    adapted = descend(inner, parameters, key_inner, n_steps=n_steps, learning_rate=learning_rate)
    return outer(adapted, key_outer)


def reptile_direction(
    loss: Loss, parameters: PyTree[Array], key: Key[Array, ""], *, n_steps: int, learning_rate: float
) -> PyTree[Array]:
    """(θ − θ_K) / α after K steps: what Reptile takes for a gradient (Nichol et al. 2018, §2)."""
    adapted = descend(loss, parameters, key, n_steps=n_steps, learning_rate=learning_rate)
    return jax.tree.map(lambda p, a: (p - a) / jnp.asarray(learning_rate, p.dtype), parameters, adapted)
