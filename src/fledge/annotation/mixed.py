"""Mixed models with crossed random effects: annotators and items (and more) as samples of who and what there is.

Libraries at hand either fit nested effects only or build the dense covariance of all rows, so this is short code of
our own, tested against statsmodels where the two overlap. The largest grouping is eliminated by hand (its block of
the penalised normal equations is diagonal), what remains is dense and small.

Reference: Bates, Mächler, Bolker, Walker, Journal of Statistical Software 67, 2015 (profiled REML, Laplace);
Henderson 1975 (mixed model equations).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.sparse
from jaxtyping import Float
from scipy.stats import norm

from fledge.annotation.effects import design
from fledge.annotation.frame import Frame, answered, codes, pandas
from fledge.core.errors import ConfigError, DataError, unknown

MOST_DENSE = 4000
"""Levels of all groupings but the largest: their equations are dense."""
_LOGIT_RESIDUAL = np.pi**2 / 3


@dataclass(frozen=True)
class MixedFit:
    """A fitted mixed model."""

    names: tuple[str, ...]
    """Of the fixed effects."""
    params: Float[np.ndarray, " coefficient"]
    se: Float[np.ndarray, " coefficient"]
    variances: Mapping[str, float]
    """Grouping → variance of its random intercepts; "residual" → that of an answer (π²/3 in a logit)."""
    effects: Mapping[str, Mapping[Any, float]]
    """Grouping → level → predicted random intercept."""
    log_likelihood: float
    n: int

    def table(self) -> Frame:
        """Fixed effects: `term, value, se, lo, hi, p`."""
        half = 1.96 * self.se
        return pandas().DataFrame(
            {
                "term": self.names,
                "value": self.params,
                "se": self.se,
                "lo": self.params - half,
                "hi": self.params + half,
            }
            | {"p": 2 * norm.sf(np.abs(self.params / self.se))}
        )

    @property
    def icc(self) -> dict[str, float]:
        """Grouping → its share of the variance of an answer that the fixed effects leave."""
        total = sum(self.variances.values())
        return {name: value / total for name, value in self.variances.items()}


class _Equations:
    """The penalised weighted normal equations [Z'WZ + 1/θ², Z'WX; X'WZ, X'WX] with the largest grouping taken out."""

    def __init__(self, groups: Sequence[np.ndarray], matrix: np.ndarray) -> None:
        self.sizes = [int(group.max()) + 1 for group in groups]
        self.big = int(np.argmax(self.sizes))
        others = [i for i in range(len(groups)) if i != self.big]
        n = len(matrix)
        blocks = [scipy.sparse.csr_array((np.ones(n), (np.arange(n), groups[i])), (n, self.sizes[i])) for i in others]
        self.small = scipy.sparse.csr_array(scipy.sparse.hstack(blocks)) if blocks else scipy.sparse.csr_array((n, 0))
        if self.small.shape[1] > MOST_DENSE:
            raise ConfigError(
                f"The groupings beside the largest have {self.small.shape[1]} levels; at most {MOST_DENSE} can be "
                "solved here. Leave out a grouping, or analyse a sample of it."
            )
        self.owner = np.concatenate([np.full(self.sizes[i], i) for i in others]) if others else np.zeros(0, int)
        self.group, self.matrix = groups[self.big], matrix
        self.gram_cache: tuple[bool, tuple[Any, ...]] = (False, ())

    def gram(self, weight: np.ndarray | None) -> tuple[Any, ...]:
        """Z'WZ and so on, without the penalty; kept where all weights are 1."""
        if weight is None and self.gram_cache[0]:
            return self.gram_cache[1]
        w = np.ones(len(self.matrix)) if weight is None else weight
        k = self.sizes[self.big]
        diagonal = np.bincount(self.group, w, k)
        picker = scipy.sparse.csr_array((w, (self.group, np.arange(len(w)))), (k, len(w)))
        cross = scipy.sparse.csr_array(picker @ self.small)
        cross_x = picker @ self.matrix
        weighted = scipy.sparse.csr_array(scipy.sparse.diags_array(w) @ self.small)
        found = (
            diagonal,
            cross,
            cross_x,
            (weighted.T @ self.small).toarray(),
            weighted.T @ self.matrix,
            (self.matrix * w[:, None]).T @ self.matrix,
        )
        if weight is None:
            self.gram_cache = (True, found)
        return found

    def solve(self, precision: np.ndarray, response: np.ndarray, weight: np.ndarray | None = None) -> dict[str, Any]:
        """Random and fixed effects for given penalties (one per grouping), and the determinants that REML needs."""
        diagonal, cross, cross_x, small, small_x, xx = self.gram(weight)
        wy = response if weight is None else weight * response
        d = diagonal + precision[self.big]
        right_big = np.bincount(self.group, wy, self.sizes[self.big])
        scaled = scipy.sparse.csr_array(scipy.sparse.diags_array(1 / d) @ cross)  # few annotators per item: sparse
        left = small - (cross.T @ scaled).toarray()
        left[np.diag_indices_from(left)] += precision[self.owner]
        factor = scipy.linalg.cho_factor(left, lower=True) if len(left) else None
        mixed_x = small_x - scaled.T @ cross_x
        right_small = self.small.T @ wy - scaled.T @ right_big
        inner = (
            scipy.linalg.cho_solve(factor, np.c_[mixed_x, right_small]) if factor else np.zeros((0, xx.shape[0] + 1))
        )
        fixed = xx - cross_x.T @ (cross_x / d[:, None]) - mixed_x.T @ inner[:, :-1]
        right_x = self.matrix.T @ wy - cross_x.T @ (right_big / d) - mixed_x.T @ inner[:, -1]
        fixed_factor = scipy.linalg.cho_factor(fixed, lower=True)
        beta = scipy.linalg.cho_solve(fixed_factor, right_x)
        u_small = inner[:, -1] - inner[:, :-1] @ beta
        u_big = (right_big - cross @ u_small - cross_x @ beta) / d
        log_random = np.sum(np.log(d)) + (2 * np.sum(np.log(np.diag(factor[0]))) if factor else 0.0)
        return {
            "beta": beta,
            "u_big": u_big,
            "u_small": u_small,
            "fitted": self.matrix @ beta + self.small @ u_small + u_big[self.group],
            "log_random": float(log_random),
            "log_fixed": float(2 * np.sum(np.log(np.diag(fixed_factor[0])))),
            "cov": scipy.linalg.cho_solve(fixed_factor, np.eye(len(beta))),
        }

    def penalty(self, solved: Mapping[str, Any], precision: np.ndarray) -> float:
        """Σ u²·precision."""
        return float(
            precision[self.big] * np.sum(solved["u_big"] ** 2) + np.sum(precision[self.owner] * solved["u_small"] ** 2)
        )

    def log_penalties(self, precision: np.ndarray) -> float:
        """log determinant of the penalties."""
        return float(sum(size * np.log(p) for size, p in zip(self.sizes, precision, strict=True)))

    def named(self, solved: Mapping[str, Any], names: Sequence[str], levels: Sequence[list[Any]]) -> dict[str, Any]:
        """Grouping → level → effect."""
        found = {}
        for i, name in enumerate(names):
            values = solved["u_big"] if i == self.big else solved["u_small"][self.owner == i]
            found[name] = dict(zip(levels[i], np.asarray(values).tolist(), strict=True))
        return found


def fit_linear_mixed(
    frame: Frame,
    construct: Any,
    *,
    terms: Sequence[str] = ("condition",),
    groups: Sequence[str] = ("annotator", "item"),
    reference: Any = None,
) -> MixedFit:
    """A linear (probability) model with random intercepts of each grouping, by restricted maximum likelihood.

    Args:
        frame: the long table.
        construct: which question.
        terms: fixed effects, as in `fledge.annotation.effects.design`.
        groups: columns with random intercepts; they may cross.
        reference: the condition that others are compared with.

    Raises:
        ConfigError: an unknown column or condition, or too many levels.
        DataError: fewer answers than effects.
    """
    rows, matrix, names, numbers, levels = _parts(frame, construct, terms, groups, reference)
    values = rows["value"].to_numpy(float)
    equations = _Equations(numbers, matrix)
    n, p = matrix.shape

    def criterion(log_ratio: np.ndarray) -> tuple[float, dict[str, Any], float]:
        precision = np.exp(-log_ratio)  # residual over random variance
        solved = equations.solve(precision, values)
        sigma2 = float(values @ (values - solved["fitted"])) / (n - p)
        logs = solved["log_random"] - equations.log_penalties(precision) + solved["log_fixed"]
        return logs + (n - p) * (1 + np.log(2 * np.pi * sigma2)), solved, sigma2

    best = _search(lambda x: criterion(x)[0], len(groups), start=-2.0)
    deviance, solved, sigma2 = criterion(best)
    variances = dict(zip(groups, (sigma2 * np.exp(best)).tolist(), strict=True)) | {"residual": sigma2}
    se = np.sqrt(sigma2 * np.diag(solved["cov"]))
    return MixedFit(names, solved["beta"], se, variances, equations.named(solved, groups, levels), -deviance / 2, n)


def fit_logit_mixed(
    frame: Frame,
    construct: Any,
    *,
    terms: Sequence[str] = ("condition",),
    groups: Sequence[str] = ("annotator", "item"),
    reference: Any = None,
) -> MixedFit:
    """A logit model with random intercepts of each grouping, by the Laplace approximation.

    Fixed effects are found together with the random ones for each set of variances (lme4's `nAGQ = 0`). With very few
    answers per level, variances come out too small, as they do there.

    Raises:
        ConfigError, DataError: as `fit_linear_mixed`; or answers other than 0 and 1.
    """
    rows, matrix, names, numbers, levels = _parts(frame, construct, terms, groups, reference)
    values = rows["value"].to_numpy(float)
    if set(np.unique(values)) - {0.0, 1.0}:
        raise DataError(f"A logit is for answers 0 and 1, but '{construct}' has others. Use fit_linear_mixed.")
    equations = _Equations(numbers, matrix)
    eta = np.zeros(len(values))

    def criterion(log_variance: np.ndarray) -> tuple[float, dict[str, Any]]:
        nonlocal eta
        precision = np.exp(-log_variance)
        before = np.inf
        for _ in range(50):
            mean = 1 / (1 + np.exp(-eta))
            weight = np.clip(mean * (1 - mean), 1e-6, None)
            solved = equations.solve(precision, eta + (values - mean) / weight, weight)
            eta = np.clip(solved["fitted"], -15, 15)  # also where the next set of variances starts from
            log_p = np.sum(values * eta - np.logaddexp(0, eta))
            now = -2 * log_p + equations.penalty(solved, precision)
            if abs(before - now) < 1e-7 * (1 + abs(now)):
                break
            before = now
        return now + solved["log_random"] - equations.log_penalties(precision), solved

    best = _search(lambda x: criterion(x)[0], len(groups), start=-0.5)
    deviance, solved = criterion(best)
    variances = dict(zip(groups, np.exp(best).tolist(), strict=True)) | {"residual": float(_LOGIT_RESIDUAL)}
    se = np.sqrt(np.diag(solved["cov"]))
    effects = equations.named(solved, groups, levels)
    return MixedFit(names, solved["beta"], se, variances, effects, -deviance / 2, len(values))


def _parts(
    frame: Frame, construct: Any, terms: Sequence[str], groups: Sequence[str], reference: Any
) -> tuple[Frame, np.ndarray, tuple[str, ...], list[np.ndarray], list[list[Any]]]:
    rows = answered(frame, construct)
    if not groups:
        raise ConfigError("A mixed model has one grouping or more, such as annotator and item.")
    for name in groups:
        if name not in rows.columns:
            raise unknown("column", name, map(str, rows.columns))
    matrix, names = design(rows, terms, reference)
    if len(rows) <= matrix.shape[1] + 1:
        raise DataError(f"{len(rows)} answers cannot settle {matrix.shape[1]} effects. Collect more, or drop terms.")
    pairs = [codes(rows[name]) for name in groups]
    return rows, matrix, names, [number for number, _ in pairs], [levels for _, levels in pairs]


def _search(deviance: Any, n: int, start: float) -> np.ndarray:
    """The log variances with the smallest deviance; −14 stands for no variance at all."""
    found = scipy.optimize.minimize(
        lambda x: deviance(np.clip(x, -14.0, 6.0)) + 10 * np.sum(np.clip(np.abs(x + 4) - 10, 0, None) ** 2),
        np.full(n, start),
        method="Nelder-Mead",
        options={
            "xatol": 1e-3,
            "fatol": 1e-4,
            "initial_simplex": np.vstack([np.full(n, start), start + 2 * np.eye(n)]),
        },
    )
    return np.clip(found.x, -14.0, 6.0)


def cumulative_design_effects(frame: Frame, construct: Any, *, n: int | None = None) -> dict[str, float]:
    """How much wider the uncertainty of a share gets, as more of what was left to chance is counted.

    The unit is the variance of a share among n independent answers. `sampling` adds that answers share annotators;
    `instrument` adds that another instrument could have been chosen (the variance between conditions, less what
    sampling alone puts there).

    Args:
        frame: the long table.
        construct: which question.
        n: of the simple random sample; by default the mean number of answers in a condition.

    Raises:
        DataError: there is one condition only.
    """
    from fledge.annotation.prevalence import prevalence

    table = prevalence(frame[frame["construct"] == construct])
    if len(table) < 2:
        raise DataError("The choice of an instrument varies only with two conditions or more.")
    answered_n = float(table["n"].mean())
    share = float(np.average(table["value"], weights=table["n"]))
    simple = share * (1 - share) / (n or answered_n)
    sampling = float(np.mean(table["se"] ** 2))
    between = max(0.0, float(np.var(table["value"], ddof=1)) - sampling)
    if simple == 0:  # everybody always said the same
        return {"simple": 1.0, "sampling": float("nan"), "instrument": float("nan")}
    return {"simple": 1.0, "sampling": sampling / simple, "instrument": (sampling + between) / simple}
