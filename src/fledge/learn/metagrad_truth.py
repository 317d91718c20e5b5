"""Ground truth for meta-gradients: everything enumerated, finite differences, expected updates in closed form."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key, PyTree

from fledge.core.contracts import EstimatorCard, GradientEstimator
from fledge.core.errors import ConfigError
from fledge.core.types import Task
from fledge.learn.lifetimes import Lifetime, Objective, Scripted, outer_weights, start_life, unroll
from fledge.learn.metagrad import MetaGrad
from fledge.learn.surrogates import PolicyGradient, Surrogate

MOST_SCRIPTS = 200_000
"""Lives that enumeration will list; more would not fit in memory."""


class Enumerated(GradientEstimator):
    """The exact meta-gradient of a lifetime that is so small that every outcome can be listed."""

    lifetime: Lifetime
    surrogate: Surrogate = eqx.field(default_factory=PolicyGradient)
    objective: Objective = eqx.field(static=True, default="auc")

    @property
    def card(self) -> EstimatorCard:
        """Nothing biases it."""
        return EstimatorCard("lifetime", (), "every outcome of a lifetime", "none: every outcome is listed")

    def estimate(self, key: Key[Array, ""], eta: PyTree[Array], task: Task) -> tuple[PyTree[Array], dict[str, Array]]:
        """The gradient; `value` in the diagnostics is J(η)."""
        task = self.lifetime.sample_task(key) if task is None else task
        value, gradient = jax.value_and_grad(self.value)(eta, task)
        return gradient, {"value": value}

    def value(self, eta: PyTree[Array], task: Task) -> Float[Array, ""]:
        """J(η) on this task."""
        scripts = scripts_of(self.lifetime, task)
        weights = outer_weights(self.objective, self.lifetime.n_batches)

        def one(choice: Array) -> Array:
            probability, returns = chance(self.lifetime, choice, scripts, eta, task, self.surrogate)
            return probability * jnp.sum(weights * returns)

        return jnp.sum(jax.vmap(one)(jnp.asarray(scripts.choices)))


class Scripts(eqx.Module):
    """Every life of a tiny problem."""

    outcomes: PyTree
    log_world: Float[Array, " outcome"]
    choices: Int[np.ndarray, "script n"]


def scripts_of(lifetime: Lifetime, task: Task) -> Scripts:
    """All sequences of batches.

    Raises:
        ConfigError: there are too many.
    """
    outcomes, log_world = lifetime.outcomes(task)
    count = log_world.shape[0] ** lifetime.n_batches
    if count > MOST_SCRIPTS:
        raise ConfigError(
            f"{type(lifetime).__name__} has {log_world.shape[0]} outcomes for each of {lifetime.n_batches} batches: "
            f"{count:,} lives, more than the {MOST_SCRIPTS:,} that can be listed. Make it smaller, or take finite "
            "differences for ground truth."
        )
    return Scripts(outcomes, log_world, all_choices(log_world.shape[0], lifetime.n_batches))


def all_choices(n_outcomes: int, n_batches: int) -> Int[np.ndarray, "script n"]:
    """Every sequence of outcome numbers."""
    return np.array(list(itertools.product(range(n_outcomes), repeat=n_batches)), np.int32)


def chance(
    lifetime: Lifetime, choice: Int[Array, " n"], scripts: Scripts, eta: PyTree[Array], task: Task, surrogate: Surrogate
) -> tuple[Float[Array, ""], Float[Array, " n"]]:
    """The probability of one script, and its returns R_n."""
    life, task, _ = start_life(lifetime, jax.random.key(0), eta, task)

    def step(carry: tuple[PyTree, Array], n: Array) -> tuple[tuple[PyTree, Array], Array]:
        life, log_chance = carry
        data = jax.tree.map(lambda leaf: leaf[choice[n]], scripts.outcomes)
        log_chance = log_chance + jnp.sum(lifetime.log_probs(life, data, eta)) + scripts.log_world[choice[n]]
        return (lifetime.update(n, life, data, eta, surrogate), log_chance), jnp.mean(lifetime.returns(data))

    start = (life, jnp.zeros_like(scripts.log_world[0]))
    (_, log_chance), returns = jax.lax.scan(step, start, jnp.arange(lifetime.n_batches))
    return jnp.exp(log_chance), returns


class ExactMoments(NamedTuple):
    """Mean and covariance of an estimator over all outcomes, η raveled."""

    mean: Float[np.ndarray, " eta"]
    covariance: Float[np.ndarray, "eta eta"]


def enumerate_estimators(estimators: Mapping[str, MetaGrad], eta: PyTree[Array], task: Task) -> dict[str, ExactMoments]:
    """Exact mean and covariance of estimators on a tiny problem, over all its outcomes; one program for all of them.

    Args:
        estimators: of one lifetime each (`n_lifetimes` is 1), on the same problem.
        eta: where.
        task: on which task.

    Raises:
        ConfigError: an estimator averages several lifetimes, or there are too many outcomes.
    """
    for name, estimator in estimators.items():
        if estimator.n_lifetimes != 1:
            raise ConfigError(f"{name}: enumeration wants estimates of one lifetime, not of {estimator.n_lifetimes}.")
    lifetime = next(iter(estimators.values())).lifetime
    scripts = scripts_of(lifetime, task)

    def one(choice: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        scripted = Scripted.of(lifetime, scripts.outcomes, choice)
        chances, found = {}, {}
        for name, estimator in estimators.items():
            own = eqx.tree_at(lambda e: e.lifetime, estimator, scripted)
            found[name] = ravel_pytree(own.estimate(jax.random.key(0), eta, task)[0])[0]
            chances[str(estimator.surrogate)] = chance(lifetime, choice, scripts, eta, task, estimator.surrogate)[0]
        return chances, found

    chances, gradients = jax.jit(jax.vmap(one))(jnp.asarray(scripts.choices))
    return {
        name: _moments(np.asarray(chances[str(estimator.surrogate)], float), np.asarray(gradients[name], float))
        for name, estimator in estimators.items()
    }


def _moments(chances: np.ndarray, samples: np.ndarray) -> ExactMoments:
    mean = chances @ samples
    apart = samples - mean
    return ExactMoments(mean, (chances[:, None] * apart).T @ apart)


class FiniteDifferences(GradientEstimator):
    """Central differences of the lifetime's return, both sides with the same luck. 2 dim(η) lifetimes each.

    Args:
        lifetime: the problem.
        step: ε; the error of the mean is O(ε²), O(ε⁴) with `richardson`.
        richardson: combine the steps ε and 2ε so that the leading error cancels.
        n_lifetimes: lifetimes that one estimate averages.
        expected: measure E[R_n | θ_n] where the lifetime knows it.
        objective: `auc` or `final`.
        surrogate: what the inner update ascends.
    """

    lifetime: Lifetime
    step: float = eqx.field(static=True, default=0.01)
    richardson: bool = eqx.field(static=True, default=False)
    n_lifetimes: int = eqx.field(static=True, default=2)
    expected: bool = eqx.field(static=True, default=False)
    objective: Objective = eqx.field(static=True, default="auc")
    surrogate: Surrogate = eqx.field(default_factory=PolicyGradient)

    def __check_init__(self) -> None:
        if self.step <= 0:
            raise ConfigError(f"The step of finite differences is above 0, not {self.step}.")

    @property
    def card(self) -> EstimatorCard:
        """Its bias shrinks with the square of the step."""
        bias = (f"finite step {self.step:g}: O(step{'⁴' if self.richardson else '²'})",)
        sides = 4 if self.richardson else 2
        return EstimatorCard("lifetime", bias, "O(1)", f"{sides} dim(η) (N + 1) B × {self.n_lifetimes} lifetimes")

    def estimate(self, key: Key[Array, ""], eta: PyTree[Array], task: Task) -> tuple[PyTree[Array], dict[str, Array]]:
        """One estimate; with `task` None each lifetime draws its own."""
        keys = jax.random.split(key, self.n_lifetimes)
        weights = outer_weights(self.objective, self.lifetime.n_batches)

        def value(point: PyTree[Array]) -> Array:
            def one(k: Array) -> Array:
                return unroll(self.lifetime, k, point, task, self.surrogate, expected=self.expected)

            return jnp.mean(jax.vmap(one)(keys) @ weights)

        near = differences(value, eta, self.step)
        if not self.richardson:
            return near, {}
        far = differences(value, eta, 2 * self.step)
        return jax.tree.map(lambda a, b: (4 * a - b) / 3, near, far), {}


class ExpectedUpdate(GradientEstimator):
    """The exact gradient of the *expected-update* view: every update made with infinitely many trajectories.

    What DiCE, LVC and their relatives aim at. It is not the gradient of a lifetime with finite batches.
    """

    lifetime: Lifetime
    objective: Objective = eqx.field(static=True, default="final")

    @property
    def card(self) -> EstimatorCard:
        """Nothing biases it."""
        return EstimatorCard("expected_update", (), "O(N)", "none: closed form")

    def estimate(self, key: Key[Array, ""], eta: PyTree[Array], task: Task) -> tuple[PyTree[Array], dict[str, Array]]:
        """The gradient; `value` in the diagnostics is the objective."""
        weights = outer_weights(self.objective, self.lifetime.n_batches)

        def value(point: PyTree[Array]) -> Array:
            life, own, _ = start_life(self.lifetime, key, point, task)

            def step(life: PyTree, n: Array) -> tuple[PyTree, Array]:
                found = self.lifetime.expected_return(life, point, own)
                return self.lifetime.expected_update(n, life, point, own), found

            return jnp.sum(weights * jax.lax.scan(step, life, jnp.arange(self.lifetime.n_batches))[1])

        found, gradient = jax.value_and_grad(value)(eta)
        return gradient, {"value": found}


def differences(value: Callable[[PyTree], Array], eta: PyTree[Array], step: float) -> PyTree[Array]:
    """Central differences of a function of a pytree."""
    flat, unravel = ravel_pytree(eta)
    moves = step * jnp.eye(len(flat), dtype=flat.dtype)
    both = jax.vmap(lambda move: value(unravel(flat + move)) - value(unravel(flat - move)))(moves)
    return unravel(both / (2 * step))
