"""Bias, variance and cosine of gradient estimators against a known gradient."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from fledge.core.contracts import GradientEstimator
from fledge.core.types import Task
from fledge.learn.lifetimes import Lifetime
from fledge.learn.metagrad import MetaGrad

N_DRAWS = 2_000
"""Draws behind an interval."""


class Moments(NamedTuple):
    """Mean and covariance of n independent estimates (η raveled); n = 0 for numbers that are exact."""

    n: int
    mean: Float[np.ndarray, " eta"]
    covariance: Float[np.ndarray, "eta eta"]

    @property
    def of_mean(self) -> Float[np.ndarray, "eta eta"]:
        """Covariance of the mean itself."""
        return self.covariance / self.n if self.n else np.zeros_like(self.covariance)

    @property
    def variance(self) -> float:
        """Sum of the variances of all coordinates."""
        return float(np.trace(self.covariance))

    def join(self, other: Moments) -> Moments:
        """Both samples together."""
        n = self.n + other.n
        apart = other.mean - self.mean
        total = self.covariance * self.n + other.covariance * other.n
        between = np.outer(apart, apart) * (self.n * other.n / n)
        return Moments(n, self.mean + apart * (other.n / n), (total + between) / n)

    def sc(self, coef: float) -> Moments:
        """Moments of A + λ B, from those of A and B side by side (what `parts_sampler` draws)."""
        half = len(self.mean) // 2
        mix = np.concatenate([np.eye(half), coef * np.eye(half)], axis=1)
        return Moments(self.n, mix @ self.mean, mix @ self.covariance @ mix.T)

    def apart(self) -> Moments:
        """Moments of the first minus the second, from those of pairs (what `paired_sampler` draws)."""
        return self.sc(-1.0)

    def second(self) -> Moments:
        """Moments of the second of a pair."""
        half = len(self.mean) // 2
        return Moments(self.n, self.mean[half:], self.covariance[half:, half:])


Sampler = Callable[[Key[Array, ""], PyTree, Task], Float[Array, " eta"]]
"""One estimate as a flat vector."""


def sampler(estimator: GradientEstimator, lifetime: Lifetime, *, share_task: bool = False) -> Sampler:
    """One estimate, raveled. With `share_task` a task of None is drawn once for the estimate, not by each lifetime."""

    def draw(key: Key[Array, ""], eta: PyTree, task: Task) -> Float[Array, " eta"]:
        task, key = _shared(lifetime, key, task, share_task)
        return ravel_pytree(estimator.estimate(key, eta, task)[0])[0]

    return draw


def parts_sampler(estimator: Any, lifetime: Lifetime, *, share_task: bool = False) -> Sampler:
    """Terms (A) and (B) of one estimate side by side: estimates with every λ at once, for they are A + λ B."""

    def draw(key: Key[Array, ""], eta: PyTree, task: Task) -> Float[Array, " both"]:
        task, key = _shared(lifetime, key, task, share_task)
        return jnp.concatenate([ravel_pytree(part)[0] for part in estimator.parts(key, eta, task)[0]])

    return draw


def paired_sampler(
    estimator: GradientEstimator, reference: GradientEstimator, lifetime: Lifetime, *, share_task: bool = False
) -> Sampler:
    """Two estimates with the same luck side by side. What they have in common drops out of their difference,
    whose moments are `Moments.apart`. Corrections that differ in their baseline alone cost as much as one."""

    def draw(key: Key[Array, ""], eta: PyTree, task: Task) -> Float[Array, " both"]:
        task, key = _shared(lifetime, key, task, share_task)
        if isinstance(estimator, MetaGrad) and isinstance(reference, MetaGrad) and _alike(estimator, reference):
            both = estimator.beside(key, eta, task, reference.baseline)
        else:
            both = (estimator.estimate(key, eta, task)[0], reference.estimate(key, eta, task)[0])
        return jnp.concatenate([ravel_pytree(one)[0] for one in both])

    return draw


def _alike(one: MetaGrad, other: MetaGrad) -> bool:
    """Whether they differ in their baseline alone."""
    if one.constants is not None or other.constants is not None:
        return False
    return bool(eqx.tree_equal(dataclasses.replace(one, baseline="none"), dataclasses.replace(other, baseline="none")))


def _shared(lifetime: Lifetime, key: Key[Array, ""], task: Task, share: bool) -> tuple[Task, Key[Array, ""]]:
    key_task, key = jax.random.split(key)
    return (lifetime.sample_task(key_task) if task is None and share else task), key


class Measure:
    """Draws batches of estimates; one compiled program for all points."""

    def __init__(self, draw: Sampler, batch: int) -> None:
        self.batch = batch

        def program(key: Key[Array, ""], eta: PyTree, task: Task) -> tuple[Array, Array]:
            found = jax.vmap(lambda k: draw(k, eta, task))(jax.random.split(key, batch))
            mean = jnp.mean(found, axis=0)
            apart = found - mean
            return mean, apart.T @ apart / batch

        self.program = jax.jit(program)

    def __call__(self, key: Key[Array, ""], eta: PyTree, task: Task, n: int) -> Moments:
        """Moments of at least n estimates."""
        found = [self._once(jax.random.fold_in(key, i), eta, task) for i in range(max(1, -(-n // self.batch)))]
        return functools.reduce(Moments.join, found)

    def _once(self, key: Key[Array, ""], eta: PyTree, task: Task) -> Moments:
        mean, covariance = self.program(key, eta, task)
        return Moments(self.batch, np.asarray(mean, float), np.asarray(covariance, float))


class Quality(NamedTuple):
    """How good an estimator is, over points. `draws` hold what sampling noise (or the choice of points) could have made
    of each number."""

    bias2: float
    """Mean over points and coordinates of (mean estimate − truth)², less what sampling noise adds to it."""
    variance: float
    """Mean over points of the summed variance of all coordinates."""
    cosine: float
    """Mean over points of the cosine between the mean estimate and the truth."""
    draws: Mapping[str, Float[np.ndarray, " draw"]]


METRICS = ("bias2", "variance", "cosine")


def judge(
    mean_of: Sequence[Moments],
    spread_of: Sequence[Moments],
    truth: Sequence[Moments],
    seed: int = 0,
    bias_of: Sequence[Moments] | None = None,
) -> Quality:
    """Quality of an estimator from its moments at each point.

    Args:
        mean_of: moments whose mean is the estimator's (its own, or those of a twin with the same mean).
        spread_of: its own moments.
        truth: of the gradient, exact or measured.
        seed: of the draws; one seed for all estimators, so that the truth is redrawn alike for them.
        bias_of: moments of how far its estimates lie from unbiased ones with the same luck, where those were drawn;
            the bias is then the mean of that, and no longer the difference of two means measured apart.
    """
    rng = np.random.default_rng(seed)
    dim = len(truth[0].mean)
    truths = [_redraw(rng, t) for t in truth]
    if bias_of is None:
        noise = sum((np.trace(m.of_mean) + np.trace(t.of_mean)) / dim for m, t in zip(mean_of, truth, strict=True))
        apart = [m.mean - t.mean for m, t in zip(mean_of, truth, strict=True)]
        means = [_redraw(rng, m) for m in mean_of]
    else:
        noise = sum(np.trace(b.of_mean) / dim for b in bias_of)
        apart = [b.mean for b in bias_of]
        means = [t + _redraw(rng, b) for t, b in zip(truths, bias_of, strict=True)]
        mean_of = [Moments(t.n, t.mean + b.mean, t.covariance) for t, b in zip(truth, bias_of, strict=True)]
    # A redrawn mean has the noise twice: once in the sample, once in the draw.
    bias2 = np.mean([np.mean((m - t) ** 2, axis=1) for m, t in zip(means, truths, strict=True)], axis=0)
    bias2 = bias2 - 2 * noise / len(truth)
    cosines = np.mean([cosine(m, t) for m, t in zip(means, truths, strict=True)], axis=0)
    variances = np.array([s.variance for s in spread_of])
    chosen = rng.integers(0, len(truth), (N_DRAWS, len(truth)))
    return Quality(
        float(np.mean(np.square(apart)) - noise / len(truth)),
        float(variances.mean()),
        float(np.mean([cosine(m.mean[None], t.mean[None])[0] for m, t in zip(mean_of, truth, strict=True)])),
        {"bias2": bias2, "variance": variances[chosen].mean(1), "cosine": cosines},
    )


def _redraw(rng: np.random.Generator, moments: Moments) -> Float[np.ndarray, "draw eta"]:
    return rng.multivariate_normal(moments.mean, moments.of_mean, N_DRAWS, method="svd", check_valid="ignore")


def cosine(a: Float[np.ndarray, "row eta"], b: Float[np.ndarray, "row eta"]) -> Float[np.ndarray, " row"]:
    """Cosine of each pair of rows; 0 where a row is nought."""
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide(np.sum(a * b, axis=1), size, out=np.zeros_like(size), where=size > 0)


def frontier(qualities: Mapping[str, Quality]) -> list[str]:
    """Names that no other one beats in bias and variance at once."""
    return [
        name
        for name, own in qualities.items()
        if not any(
            max(q.bias2, 0) <= max(own.bias2, 0) and q.variance <= own.variance and (q.bias2, q.variance) != own[:2]
            for other, q in qualities.items()
            if other != name
        )
    ]


def ignored(moments: Sequence[Moments], eta: PyTree) -> list[str]:
    """Names of the parts of η whose gradient is nought in every estimate: the update does not depend on them."""
    nought = np.all([(m.mean == 0) & (np.diag(m.covariance) == 0) for m in moments], axis=0)
    names, at = [], 0
    for path, leaf in jax.tree_util.tree_flatten_with_path(eta)[0]:
        size = int(np.size(leaf))
        if nought[at : at + size].all():
            names.append("eta" + jax.tree_util.keystr(path))
        at += size
    return names
