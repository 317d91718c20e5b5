"""A trust-region step: the natural gradient by conjugate gradients, then a line search (Schulman et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Vector = Float[Array, " n"]
Scalar = Float[Array, ""]


def conjugate_gradient(product: Callable[[Vector], Vector], b: Vector, n_steps: int) -> Vector:
    """x of A x = b after so many steps, for a positive definite A that is only known by its products."""

    def step(carry: tuple[Vector, Vector, Vector], _: None) -> tuple[tuple[Vector, Vector, Vector], None]:
        x, r, p = carry
        ap, rr = product(p), r @ r
        alpha = rr / jnp.maximum(p @ ap, 1e-12)
        x, after = x + alpha * p, r - alpha * ap
        return (x, after, after + (after @ after) / jnp.maximum(rr, 1e-12) * p), None

    return jax.lax.scan(step, (jnp.zeros_like(b), b, b), None, length=n_steps)[0][0]


def trust_region_step(
    objective: Callable[[Vector], Scalar],
    kl: Callable[[Vector], Scalar],
    x: Vector,
    gradient: Vector,
    *,
    max_kl: float,
    n_cg: int,
    damping: float,
    n_line_search: int,
    shrink: float,
) -> tuple[Vector, dict[str, Scalar]]:
    """x after the largest tried step that raises the objective with kl at most `max_kl`; x itself if none does.

    Args:
        objective: to be raised.
        kl: 0 at x, with zero gradient there.
        x: where it starts.
        gradient: of the objective at x.
        max_kl: the trust region, nats.
        n_cg: conjugate-gradient steps.
        damping: added to the diagonal of the Fisher matrix.
        n_line_search: step sizes tried.
        shrink: factor from one to the next.
    """

    def fisher(v: Vector) -> Vector:
        return jax.jvp(jax.grad(kl), (x,), (v,))[1] + damping * v

    direction = conjugate_gradient(fisher, gradient, n_cg)
    length = jnp.sqrt(2 * max_kl / jnp.maximum(direction @ fisher(direction), 1e-12))
    before = objective(x)

    def goes_on(carry: tuple[Array, Array, Vector]) -> Array:
        i, found, _ = carry
        return (i < n_line_search) & ~found

    def attempt(carry: tuple[Array, Array, Vector]) -> tuple[Array, Array, Vector]:
        i, _, _ = carry
        tried = x + length * shrink**i * direction
        good = (objective(tried) > before) & (kl(tried) <= max_kl)
        return i + 1, good, jnp.where(good, tried, x)

    n_tried, found, after = jax.lax.while_loop(goes_on, attempt, (jnp.asarray(0), jnp.asarray(False), x))
    return after, {"ppo/kl": kl(after), "trpo/accepted": found.astype(x.dtype), "trpo/tries": n_tried.astype(x.dtype)}
