"""Meta-gradients by autodiff through the sampled updates, with or without credit for the data learned from.

For J(η) = E Σ_n w_n R_n (see `fledge.learn.lifetimes`), exactly,

    ∇J = Σ_n w_n E[ (d/dη) log P_n · R_n            (A) the effect on the data that the return is measured on
                  + R_n · Σ_{m<n} (d/dη) log P_m ]  (B) the sampling correction: the effect on the data learned from

with log P_n the score of the *whole* batch n (a sum over its trajectories, not a mean) and d/dη the total derivative
through θ_1 … θ_n at fixed data. No Hessian of an expected return occurs in it: the derivative of the update as it was
sampled is the right one, and (B) is all that is missing from what is usually coded.

Reference: Vuorio et al. 2022, An Investigation of the Bias-Variance Tradeoff in Meta-Gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key, PyTree

from fledge.core.contracts import EstimatorCard, GradientEstimator
from fledge.core.errors import ConfigError, ContractError
from fledge.core.types import Task
from fledge.learn.lifetimes import Lifetime, Objective, live, no_gradient, outer_weights, start_life
from fledge.learn.surrogates import PolicyGradient, Surrogate

Baseline = Literal["loo", "none", "fixed", "critic", "critic-loo"]
Weight = Callable[[Array], Array | float]
"""The outer weight w_n of batch n."""


class MetaGrad(GradientEstimator):
    """Autodiff through the sampled updates; `sc_coef` weighs the sampling correction (B).

    Args:
        lifetime: the problem.
        sc_coef: λ of the sampling correction; 0 is the naive meta-gradient, 1 is unbiased. Bias is linear in 1 − λ.
        sc_discount: d in C_{n+1} = d (C_n + log P_n): forgets credit for old data; 1 keeps all of it.
        baseline: subtracted from R_n. `loo`: mean of the other lifetimes of this estimate (same η); `none`; `fixed`:
            `constants`, one for each n; `critic`: the agent's own, which biases (B) back to the naive gradient;
            `critic-loo`: the critic, and the mean of what it leaves in the other lifetimes. Its mean is the critic's.
        constants: of the baseline `fixed`.
        surrogate: what the inner update ascends, and with it the update's Jacobian.
        window: K, updates that are back-propagated through (K + 1 batches are seen); None is all N.
        start: first batch of the window. None draws it uniformly from 0 … N − K (objective `auc`; the window's mean
            return is then what is differentiated) or takes N − K (`final`).
        objective: `auc` or `final`.
        n_lifetimes: lifetimes that one estimate averages.
        mode: `reverse` needs memory for K updates; `forward` carries one tangent for each meta-parameter instead.
        remat: recompute each update in the backward pass rather than store it.
        expected: put E[R_n | θ_n] in place of R_n where the lifetime knows it: same mean, less variance.

    Raises:
        ConfigError: a window longer than the lifetime, or a leave-one-out baseline with one lifetime.
        ContractError: the update cannot be differentiated.

    Reference: Vuorio et al. 2022; Al-Shedivat et al. 2018 and Stadie et al. 2018 (the sampling correction).
    """

    lifetime: Lifetime
    sc_coef: float = eqx.field(static=True, default=1.0)
    sc_discount: float = eqx.field(static=True, default=1.0)
    baseline: Baseline = eqx.field(static=True, default="loo")
    constants: Float[Array, " n"] | None = None
    surrogate: Surrogate = eqx.field(default_factory=PolicyGradient)
    window: int | None = eqx.field(static=True, default=None)
    start: int | None = eqx.field(static=True, default=None)
    objective: Objective = eqx.field(static=True, default="auc")
    n_lifetimes: int = eqx.field(static=True, default=2)
    mode: Literal["reverse", "forward"] = eqx.field(static=True, default="reverse")
    remat: bool = eqx.field(static=True, default=False)
    expected: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        check_window(self.window, self.start, self.lifetime.n_updates)
        if self.n_lifetimes < 1:
            raise ConfigError(f"n_lifetimes is 1 or more, not {self.n_lifetimes}.")
        if self.baseline.endswith("loo") and self.n_lifetimes < 2:
            raise ConfigError(
                "A leave-one-out baseline needs two lifetimes or more in an estimate, and n_lifetimes is 1. "
                "Raise it, or take baseline='none'."
            )
        if (self.baseline == "fixed") != (self.constants is not None):
            raise ConfigError("baseline='fixed' and constants (one number for each of the N + 1 batches) go together.")

    @property
    def card(self) -> EstimatorCard:
        """What biases it, from its settings."""
        n, window = self.lifetime.n_updates, self.span
        biases = []
        if window < n:
            biases.append(f"truncation: credit older than {window} of {n} updates")
        if self.sc_coef != 1 and window > 0:
            biases.append(f"sampling correction weighed by {self.sc_coef:g} instead of 1")
        if self.sc_discount != 1:
            biases.append(f"sampling correction forgets (discount {self.sc_discount:g})")
        if self.baseline.startswith("critic"):
            biases.append("the agent's own critic as baseline depends on the data that is to be credited")
        biases += jacobian_bias(self.surrogate)
        memory = "O(dim η)" if self.mode == "forward" else "O(K), one state each" if self.remat else "O(K)"
        lives = "" if self.n_lifetimes == 1 else f" × {self.n_lifetimes} lifetimes"
        return EstimatorCard("lifetime", tuple(biases), memory, f"(N + 1) B{lives}")

    @property
    def span(self) -> int:
        """Updates that are differentiated through."""
        return self.lifetime.n_updates if self.window is None else self.window

    def estimate(self, key: Key[Array, ""], eta: PyTree[Array], task: Task) -> tuple[PyTree[Array], dict[str, Array]]:
        """One estimate, averaged over `n_lifetimes`; with `task` None each of them draws its own."""
        (naive, correction), aux = self.parts(key, eta, task)
        gradient = jax.tree.map(lambda a, b: a + self.sc_coef * b, naive, correction)
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(gradient)]))
        return gradient, {**aux, "finite": finite}

    def parts(
        self, key: Key[Array, ""], eta: PyTree[Array], task: Task
    ) -> tuple[tuple[PyTree[Array], PyTree[Array]], dict[str, Array]]:
        """The two terms (A) and (B) of one estimate, each shaped like η. Estimates with any λ are A + λ B."""
        ((naive, correction),), aux = self._terms(key, eta, task, (self.baseline,))
        return (naive, correction), aux

    def beside(self, key: Key[Array, ""], eta: PyTree[Array], task: Task, baseline: Baseline) -> tuple[PyTree, PyTree]:
        """This estimate, and the one with another baseline on the same lives, at the cost of one."""
        pairs, _ = self._terms(key, eta, task, (self.baseline, baseline))
        own, other = (jax.tree.map(lambda a, b: a + self.sc_coef * b, *terms) for terms in pairs)
        return own, other

    def _terms(
        self, key: Key[Array, ""], eta: PyTree[Array], task: Task, baselines: tuple[Baseline, ...]
    ) -> tuple[list[tuple[PyTree, PyTree]], dict[str, Array]]:
        """(A) and (B) with each of the baselines, on the same lives."""
        flat, unravel = ravel_pytree(eta)
        jacobian = jax.jacfwd if self.mode == "forward" else jax.jacrev
        try:
            found, aux = jacobian(lambda x: self._surrogates(key, unravel(x), task, baselines), has_aux=True)(flat)
        except (TypeError, ValueError, NotImplementedError) as error:
            if reason := not_differentiable(error):
                raise ContractError(
                    f"{type(self.lifetime).__name__}'s update cannot be differentiated: {reason} A meta-gradient runs "
                    "through the update; write it with differentiable operations (lax.scan instead of while_loop, no "
                    "callbacks), or estimate with ES or PES, which need no derivative."
                ) from error
            raise
        return [(unravel(naive), unravel(correction)) for naive, correction in found], aux

    def _surrogates(
        self, key: Key[Array, ""], eta: PyTree[Array], task: Task, baselines: tuple[Baseline, ...]
    ) -> tuple[Float[Array, "baseline 2"], dict[str, Array]]:
        """The scalars whose gradients are (A) and (B), with each of the baselines."""
        key_window, key_lives = jax.random.split(key)
        keys = jax.random.split(key_lives, self.n_lifetimes)
        lives, tasks, keys_data = jax.vmap(lambda k: start_life(self.lifetime, k, eta, task))(keys)
        first, weight = self._window(key_window)
        if self.span < self.lifetime.n_updates:
            lives = self._skip(lives, tasks, keys_data, eta, first)
        credit = jnp.zeros(self.n_lifetimes)

        def step(carry: tuple[PyTree, Array], n: Int[Array, ""]) -> tuple[tuple[PyTree, Array], tuple[Array, Array]]:
            lives, credit = carry
            terms, returns, scores, lives = self._batch(n, lives, tasks, keys_data, eta, credit, baselines)
            return (lives, self.sc_discount * (credit + scores)), (weight(n) * jnp.mean(terms, axis=-1), returns)

        body = jax.checkpoint(step) if self.remat else step
        _, (terms, returns) = jax.lax.scan(body, (lives, credit), first + jnp.arange(self.span + 1))
        return jnp.sum(terms, axis=0), {"returns": no_gradient(returns), "first_batch": first}

    def _batch(
        self,
        n: Int[Array, ""],
        lives: PyTree,
        tasks: Task,
        keys: Key[Array, " life"],
        eta: PyTree,
        credit: Array,
        baselines: tuple[Baseline, ...],
    ) -> tuple[Float[Array, "baseline 2 life"], Float[Array, " life"], Float[Array, " life"], PyTree]:
        """Terms (A) and (B) of batch n with each of the baselines, its returns and scores, and the lives after it."""
        own, fixed = self.lifetime, no_gradient((lives, eta))
        collected = jax.vmap(lambda k, life, t: own.collect(jax.random.fold_in(k, n), n, life, fixed[1], t))
        data = no_gradient(collected(keys, fixed[0], tasks))
        returns = jax.vmap(lambda d: jnp.mean(own.returns(d)))(data)
        measured = returns
        if self.expected:
            measured = jax.vmap(lambda life, t: own.expected_return(life, eta, t))(lives, tasks)
        scores = jax.vmap(lambda life, d: jnp.sum(own.log_probs(life, d, eta)))(lives, data)
        terms = []
        for name in baselines:
            baseline = no_gradient(self._baseline(name, n, fixed[0], data, tasks, no_gradient(measured)))
            direct = measured
            if not self.expected:
                direct = jax.vmap(lambda life, d, b: own.outer(life, d, eta, b))(lives, data, baseline)
            terms.append(jnp.stack([direct, no_gradient(measured - baseline) * credit]))
        after = jax.vmap(lambda life, d: own.update(n, life, d, eta, self.surrogate))(lives, data)
        return jnp.stack(terms), no_gradient(measured), scores, after

    def _baseline(
        self,
        name: Baseline,
        n: Int[Array, ""],
        lives: PyTree,
        data: PyTree,
        tasks: Task,
        returns: Float[Array, " life"],
    ) -> Float[Array, " life"]:
        if name == "loo":
            return self._of_others(returns)
        if name.startswith("critic"):
            values = jax.vmap(self.lifetime.value)(lives, data, tasks)
            return values if name == "critic" else values + self._of_others(returns - values)
        if name == "fixed" and self.constants is not None:
            return jnp.broadcast_to(self.constants[n], returns.shape)
        return jnp.zeros_like(returns)

    def _of_others(self, x: Float[Array, " life"]) -> Float[Array, " life"]:
        return (jnp.sum(x) - x) / (self.n_lifetimes - 1)

    def _window(self, key: Key[Array, ""]) -> tuple[Int[Array, ""], Weight]:
        """The window's first batch, and the weight of batch n in the outer objective."""
        return choose_window(key, self.lifetime.n_updates, self.window, self.start, self.objective)

    def _skip(self, lives: PyTree, tasks: Task, keys: Key[Array, " life"], eta: PyTree, first: Array) -> PyTree:
        """The lives at the window's first batch. What lies before it carries no gradient."""
        skipped = skip(self.lifetime, no_gradient(lives), tasks, keys, no_gradient(eta), self.surrogate, first)
        return jax.tree.map(lambda here, there: jnp.where(first > 0, there, here), lives, no_gradient(skipped))


def skip(
    lifetime: Lifetime,
    lives: PyTree,
    tasks: Task,
    keys: Key[Array, " life"],
    eta: PyTree,
    surrogate: Surrogate,
    first: Int[Array, ""],
) -> PyTree:
    """Several lives, lived without gradients up to batch `first`."""

    def one_more(n: Array, now: PyTree) -> PyTree:
        batch = jnp.asarray(n)[None]
        return jax.vmap(lambda life, task, key: live(lifetime, key, life, eta, task, surrogate, batch)[0])(
            now, tasks, keys
        )

    return jax.lax.fori_loop(0, first, one_more, lives)


def check_window(window: int | None, start: int | None, n_updates: int) -> None:
    """Nothing, if a window of K updates fits into a lifetime of N.

    Raises:
        ConfigError: it does not.
    """
    if window is not None and not 0 <= window <= n_updates:
        raise ConfigError(
            f"A window of {window} updates was asked for, and the lifetime has {n_updates}. Take a window of 0 to "
            f"{n_updates} (K updates see K + 1 batches), or None for the whole life."
        )
    if start is not None and not 0 <= start <= n_updates - (n_updates if window is None else window):
        raise ConfigError(
            f"A window of {window} updates that starts at batch {start} does not end before the lifetime's last batch "
            f"({n_updates}). Start it earlier, or leave start out."
        )


def choose_window(
    key: Key[Array, ""], n_updates: int, window: int | None, start: int | None, objective: Objective
) -> tuple[Int[Array, ""], Weight]:
    """The first batch of a window of K updates, and the outer weight of each batch.

    A window at a random place counts its mean return, so that its length does not scale the gradient.
    """
    weights = outer_weights(objective, n_updates + 1)
    if window is None or window == n_updates:
        return jnp.asarray(0), lambda n: weights[n]
    if start is None and objective == "auc":
        first = jax.random.randint(key, (), 0, n_updates - window + 1)
        return first, lambda n: 1.0 / (window + 1)
    return jnp.asarray(n_updates - window if start is None else start), lambda n: weights[n]


def jacobian_bias(surrogate: Surrogate) -> list[str]:
    """What an inner surrogate's own derivative does to the gradient of a sampled lifetime."""
    if isinstance(surrogate, PolicyGradient):
        return ["first-order: the update's own derivative is dropped"] if surrogate.first_order else []
    return [f"{type(surrogate).__name__} differentiates the expected update, while the update is a sampled one"]


def not_differentiable(error: Exception) -> str:
    """JAX's reason why something has no derivative, as one sentence; empty for any other error."""
    text = str(error)
    marks = ("ifferentiation", "ifferentiable", "do not support JVP", "does not support JVP", "while_loop", "not imple")
    if not any(mark in text for mark in marks):
        return ""
    return text.strip().splitlines()[0].rstrip(".") + "."
