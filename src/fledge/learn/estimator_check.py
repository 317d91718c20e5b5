"""The exam for gradient estimators: everything in the table takes it, and so can a user's own class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import PyTree

from fledge.core.contracts import EstimatorCard, GradientEstimator
from fledge.core.errors import ConfigError, ContractError, FledgeError
from fledge.core.types import Task
from fledge.envs.findings import Failure, Finding, attempt, structure_changes, value_change
from fledge.learn.estimator_bench import Measure, Moments, Quality, ignored, judge, sampler
from fledge.learn.estimators import refuse_shaped, require_card
from fledge.learn.lifetime_bandit import golden_bandit
from fledge.learn.lifetimes import Lifetime
from fledge.learn.metagrad_truth import Enumerated

CHECKS: dict[str, str] = {
    "card": "the card is an EstimatorCard that names its estimand and what biases it",
    "runs": "estimate does not raise",
    "traces": "estimate works on traced arrays (under jit and vmap)",
    "shape": "the gradient has the structure, shapes and dtypes of η",
    "pure": "the same key gives the same estimate",
    "finite": "estimates are finite numbers",
    "unbiased": "where the card names no bias, the mean estimate is the exact gradient (within 5 standard errors)",
}
N_ESTIMATES, BATCH = 20_000, 4_000
STANDARD_ERRORS = 5.0


class Exam(NamedTuple):
    """What the exam found."""

    findings: tuple[Finding, ...]
    card: EstimatorCard | None
    quality: Quality | None
    """Against the exact gradient of a tiny bandit; None if it could not be measured."""
    ignored: tuple[str, ...]
    """Parts of η whose gradient was nought in every estimate."""


def check_estimator(make: Callable[[Lifetime], Any], name: str = "the estimator", n: int = N_ESTIMATES) -> Exam:
    """The exam of an estimator, on a bandit of two updates whose gradient is known exactly.

    Args:
        make: called with the lifetime; returns the estimator.
        name: in messages.
        n: estimates behind its bias.

    Raises:
        ConfigError: its fitness is shaped.
    """
    lifetime, eta, task = golden_bandit()
    made = attempt(f"{name}(lifetime)", lambda: make(lifetime))
    if isinstance(made, Failure):
        return Exam((made.finding,), None, None, ())
    try:
        card = require_card(made, name)
    except ContractError as error:
        cure = "See the page of the contract GradientEstimator."
        return Exam((Finding("card", str(error), CHECKS["card"], cure),), None, None, ())
    refuse_shaped(made, name)
    findings = tuple(_shapes(made, eta, task))
    if findings:
        return Exam(findings, card, None, ())
    measured = Measure(sampler(made, lifetime), min(BATCH, n))(jax.random.key(1), eta, task, n)
    if not np.isfinite(measured.mean).all():
        cure = "Look for logarithms of 0 and divisions by it; `jax.config.update('jax_debug_nans', True)` stops there."
        return Exam((Finding("finite", "estimates that are not finite", CHECKS["finite"], cure),), card, None, ())
    truth = _truth(made, lifetime, eta, task)
    findings = tuple(_bias(card, measured, truth))
    return Exam(findings, card, judge([measured], [measured], [truth]), tuple(ignored([measured], eta)))


def require_estimator(make: Callable[[Lifetime], Any], name: str = "the estimator") -> Exam:
    """The exam, passed.

    Raises:
        ContractError: it was not; all broken promises are listed together.
        ConfigError: its fitness is shaped.
    """
    exam = check_estimator(make, name)
    if exam.findings:
        lines = "\n".join(f"  {finding}" for finding in exam.findings)
        raise ContractError(f"{name} breaks {len(exam.findings)} promise(s) of GradientEstimator:\n{lines}")
    return exam


def _shapes(estimator: GradientEstimator, eta: PyTree, task: Task) -> Iterator[Finding]:
    key = jax.random.key(0)

    def gradient(k: Any) -> PyTree:
        return estimator.estimate(k, eta, task)[0]

    program = jax.jit(jax.vmap(gradient))
    keys = jax.numpy.stack([key, key])
    try:
        found = attempt("estimate", lambda: program(keys))
    except FledgeError as error:
        found = Failure(Finding("runs", str(error), "a result", ""))
    if isinstance(found, Failure):
        yield found.finding
        return
    first, again = (jax.tree.map(lambda leaf, i=i: leaf[i], found) for i in (0, 1))
    for came, wanted in structure_changes(eta, first):
        yield Finding("shape", f"the gradient has {came}", f"{wanted}, as η has", "Return one number per number of η.")
        return
    if difference := value_change(first, again):
        cure = "Draw all randomness from the key, and keep no state between calls."
        yield Finding("pure", f"two calls with one key differ: {difference}", "one result per key", cure)


def _truth(estimator: Any, lifetime: Lifetime, eta: PyTree, task: Task) -> Moments:
    objective: Any = getattr(estimator, "objective", "auc")
    if objective not in ("auc", "final"):
        raise ConfigError(f"objective is 'auc' or 'final', not {objective!r}.")
    exact, _ = jax.jit(Enumerated(lifetime, objective=objective).estimate)(jax.random.key(0), eta, task)
    flat = np.asarray(ravel_pytree(exact)[0], float)
    return Moments(0, flat, np.zeros((len(flat), len(flat))))


def _bias(card: EstimatorCard, measured: Moments, truth: Moments) -> Iterator[Finding]:
    if card.biased_by or card.estimand != "lifetime":
        return
    errors = np.sqrt(np.diag(measured.of_mean)) + 1e-6
    worst = float(np.max(np.abs(measured.mean - truth.mean) / errors))
    if worst > STANDARD_ERRORS:
        came = f"the card names no bias, and the mean of {measured.n:,} estimates is {worst:.1f} standard errors off"
        cure = "Name what biases it in biased_by, or look for what the estimate leaves out."
        yield Finding("unbiased", came, "the exact gradient of the lifetime's mean return", cure)
