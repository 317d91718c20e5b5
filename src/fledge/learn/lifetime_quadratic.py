"""A lifetime without samples: gradient ascent on a quadratic, whose meta-gradient is known in closed form."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from fledge.core.types import Task
from fledge.learn.lifetimes import Lifetime
from fledge.learn.surrogates import Surrogate


class QuadraticLifetime(Lifetime):
    """θ climbs −½ Σ_i h_i (θ_i − t_i)²; R_n is that height at θ_n. η = {"start": θ_0, "log_step": log α}.

    Nothing is random, so that every estimator of a derivative must agree: in closed form
    θ_n − t = (1 − α h)^n (θ_0 − t), coordinate by coordinate. The task is the summit t.

    Args:
        n_updates: N.
        curvature: h.
    """

    n_updates: int = eqx.field(static=True, default=4)
    curvature: tuple[float, ...] = eqx.field(static=True, default=(1.0, 0.3))
    batch_size: int = eqx.field(static=True, default=1, init=False)
    episode_len: int = eqx.field(static=True, default=1, init=False)

    def sample_task(self, key: Key[Array, ""]) -> Float[Array, " dim"]:
        return jax.random.normal(key, (len(self.curvature),))

    def begin(self, key: Key[Array, ""], eta: PyTree[Array], task: Task) -> PyTree:
        return eta["start"], task

    def height(self, life: PyTree) -> Float[Array, ""]:
        """R at θ."""
        theta, summit = life
        return -0.5 * jnp.sum(jnp.asarray(self.curvature) * (theta - summit) ** 2)

    def collect(self, key: Key[Array, ""], n: Int[Array, ""], life: PyTree, eta: PyTree[Array], task: Task) -> PyTree:
        return self.height(life)

    def log_probs(self, life: PyTree, data: PyTree, eta: PyTree[Array]) -> Float[Array, "batch time"]:
        return jnp.zeros((1, 1))

    def returns(self, data: PyTree) -> Float[Array, " batch"]:
        return data[None]

    def outer(self, life: PyTree, data: PyTree, eta: PyTree[Array], baseline: Float[Array, ""]) -> Float[Array, ""]:
        return self.height(life)

    def update(self, n: Int[Array, ""], life: PyTree, data: PyTree, eta: PyTree[Array], surrogate: Surrogate) -> PyTree:
        theta, summit = life
        direction = surrogate.shield(-jnp.asarray(self.curvature) * (theta - summit))
        return theta + jnp.exp(eta["log_step"]) * direction, summit

    def closed_form(self, eta: PyTree[Array], task: Task) -> Float[Array, " n"]:
        """R_0 … R_N."""
        h, n = jnp.asarray(self.curvature), jnp.arange(self.n_batches)[:, None]
        apart = (1 - jnp.exp(eta["log_step"]) * h) ** n * (eta["start"] - task)
        return -0.5 * jnp.sum(h * apart**2, axis=1)
