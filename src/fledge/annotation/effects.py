"""Regressions of answers on how they were asked: linear probability and logit models with multiway clustering.

The models are statsmodels'; the covariance clusters by annotator and item at once, because answers share both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy import stats as distributions

from fledge.annotation.frame import EXTRA, Frame, answered, codes, pandas
from fledge.annotation.prevalence import holm
from fledge.core.errors import ConfigError, DataError, need, unknown

Model = Literal["linear", "logit"]


@dataclass(frozen=True)
class Fit:
    """A fitted regression: coefficients with a cluster-robust covariance."""

    names: tuple[str, ...]
    """Of the coefficients: "intercept", "condition[B]", "position", "position:condition[B]" …"""
    params: Float[np.ndarray, " coefficient"]
    cov: Float[np.ndarray, "coefficient coefficient"]
    n: int
    n_clusters: tuple[int, ...]
    """In each grouping."""
    dof: float = np.inf
    """Degrees of freedom of the t and F distributions that judge; infinite for the normal and χ²."""

    @property
    def se(self) -> Float[np.ndarray, " coefficient"]:
        """Standard errors."""
        return np.sqrt(np.clip(np.diag(self.cov), 0, None))

    def table(self) -> Frame:
        """One row per coefficient: `term, value, se, lo, hi, p`."""
        value, se, half, p = self._judge(np.eye(len(self.params)))
        return pandas().DataFrame(
            {"term": self.names, "value": value, "se": se, "lo": value - half, "hi": value + half, "p": p}
        )

    def contrast(self, weights: Float[np.ndarray, "contrast coefficient"]) -> dict[str, np.ndarray]:
        """Linear combinations of coefficients: `value, se, lo, hi, p`."""
        value, se, half, p = self._judge(np.atleast_2d(weights))
        return {"value": value, "se": se, "lo": value - half, "hi": value + half, "p": p}

    def _judge(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        value = weights @ self.params
        se = np.sqrt(np.clip(np.einsum("ij,jk,ik->i", weights, self.cov, weights), 0, None))
        law = distributions.t(self.dof)  # the normal, where dof is infinite
        score = np.divide(value, se, out=np.full(len(se), np.nan), where=se > 0)
        return value, se, law.ppf(0.975) * se, 2 * law.sf(np.abs(score))

    def joint_p(self, term: str = "condition") -> float:
        """The p value of the hypothesis that all coefficients of a term are zero (Wald).

        Raises:
            ConfigError: the model has no such term.
        """
        own = [i for i, name in enumerate(self.names) if name == term or name.startswith(f"{term}[")]
        if not own:
            raise unknown("term", term, sorted({name.partition("[")[0] for name in self.names}))
        b, v = self.params[own], self.cov[np.ix_(own, own)]
        wald = float(b @ np.linalg.pinv(v) @ b)
        if np.isinf(self.dof):
            return float(distributions.chi2.sf(wald, len(own)))
        left = self.dof - len(own) + 1  # Hotelling's T²: the covariance is estimated too
        return float(distributions.f.sf(wald * left / (self.dof * len(own)), len(own), left)) if left > 0 else 1.0


def design(rows: Frame, terms: Sequence[str], reference: Any = None) -> tuple[np.ndarray, tuple[str, ...]]:
    """The design matrix of terms, with an intercept, and the names of its columns.

    A term is a column (`condition`, `position`, an attribute of the annotators), or a product of two (`a:b`). Words
    become one column per level except the first (of conditions, except `reference`); numbers stay as they are.

    Raises:
        ConfigError: there is no such column.
        DataError: a column has gaps, or the columns say the same thing twice.
    """
    columns, names = [np.ones(len(rows))], ["intercept"]
    for term in terms:
        parts = [_columns(rows, name, reference) for name in term.split(":")]
        block, labels = parts[0]
        for more, others in parts[1:]:
            block = np.concatenate([block[:, [i]] * more for i in range(block.shape[1])], axis=1)
            labels = [f"{one}:{other}" for one in labels for other in others]
        columns += list(block.T)
        names += labels
    matrix = np.stack(columns, axis=1)
    if np.linalg.matrix_rank(matrix) < matrix.shape[1]:
        raise DataError(
            f"The terms {', '.join(terms)} say the same thing twice in these {len(rows)} rows, so their effects cannot "
            "be told apart. Drop one, or merge levels that hardly occur."
        )
    return matrix, tuple(names)


def _columns(rows: Frame, name: str, reference: Any) -> tuple[np.ndarray, list[str]]:
    if name not in rows.columns:
        raise unknown("column", name, map(str, rows.columns))
    column = rows[name]
    if column.isna().any():
        raise DataError(f"Column '{name}' has {int(column.isna().sum())} gaps. Fill them, or drop those rows first.")
    if name != "condition" and pandas().api.types.is_numeric_dtype(column):
        return column.to_numpy(float)[:, None], [name]
    number, levels = codes(column)
    if name == "condition" and reference is not None and reference not in levels:
        raise unknown("condition", str(reference), map(str, levels))
    first = levels.index(reference) if name == "condition" and reference is not None else 0
    kept = [i for i in range(len(levels)) if i != first]
    return (number[:, None] == kept).astype(float), [f"{name}[{levels[i]}]" for i in kept]


def regress(
    frame: Frame,
    construct: Any,
    *,
    model: Model = "linear",
    terms: Sequence[str] = ("condition",),
    reference: Any = None,
    cluster: Sequence[str] = ("annotator", "item"),
    few_clusters: bool = False,
) -> Fit:
    """Answers of one construct on how they were asked.

    Args:
        frame: the long table, with a column for each attribute among the terms.
        construct: which question; its answers are 0 or 1 for `logit`.
        model: `linear` (effects are differences of shares) or `logit` (log odds).
        terms: see `design`.
        reference: the condition that others are compared with; by default the first.
        cluster: one or two columns; covariances add up as V_annotator + V_item − V_both.
        few_clusters: for studies with fewer than a hundred annotators or so in a condition, where the usual intervals
            are too narrow: a t distribution with one degree of freedom less than the clusters of the smallest
            condition, and (linear) a covariance from leaving out one cluster at a time.

    Raises:
        ConfigError, DataError: as `design`; or answers other than 0 and 1 in a logit.

    Reference: Cameron, Gelbach & Miller, Journal of Business & Economic Statistics 29, 2011; for few clusters
        MacKinnon, Nielsen & Webb, Jackknife inference with two-way clustering, 2024.
    """
    if not 1 <= len(cluster) <= 2:
        raise ConfigError(f"Clusters are one or two columns (annotator, item), not {len(cluster)}.")
    rows = answered(frame, construct)
    matrix, names = design(rows, terms, reference)
    values = rows["value"].to_numpy(float)
    groups = np.stack([codes(rows[name])[0] for name in cluster], axis=1)
    how: dict[str, Any] = {"cov_type": "cluster", "cov_kwds": {"groups": groups if len(cluster) > 1 else groups[:, 0]}}
    if model == "linear":
        how = {} if few_clusters else how
        fit = need("statsmodels.regression.linear_model", EXTRA).OLS(values, matrix).fit(**how)
    elif model == "logit":
        if set(np.unique(values)) - {0.0, 1.0}:
            raise DataError(f"A logit is for answers 0 and 1, but '{construct}' has others. Use model='linear'.")
        fit = need("statsmodels.discrete.discrete_model", EXTRA).Logit(values, matrix).fit(disp=0, **how)
    else:
        raise unknown("model", model, ("linear", "logit"))
    sizes = tuple(int(groups[:, i].max()) + 1 for i in range(groups.shape[1]))
    cov, dof = np.asarray(fit.cov_params()), np.inf
    if few_clusters:
        dof = min(int(rows.groupby("condition")[name].nunique().min()) for name in cluster) - 1.0
        if model == "linear":
            cov = _jackknife(matrix, values, groups)
    return Fit(names, np.asarray(fit.params), _positive(cov), len(rows), sizes, float(max(dof, 1.0)))


def _jackknife(matrix: np.ndarray, values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The covariance of least squares from leaving out a cluster at a time; two groupings add up, less their cells."""
    cov = sum(_leave_out(matrix, values, groups[:, i]) for i in range(groups.shape[1]))
    if groups.shape[1] == 2:
        cell = np.unique(groups[:, 0] * (int(groups[:, 1].max()) + 1) + groups[:, 1], return_inverse=True)[1]
        cov = cov - _leave_out(matrix, values, cell)
    return np.asarray(cov)


def _leave_out(matrix: np.ndarray, values: np.ndarray, group: np.ndarray) -> np.ndarray:
    n, k = int(group.max()) + 1, matrix.shape[1]
    gram, moment = np.zeros((n, k, k)), np.zeros((n, k))
    for i in range(k):
        moment[:, i] = np.bincount(group, matrix[:, i] * values, n)
        for j in range(i, k):
            gram[:, i, j] = gram[:, j, i] = np.bincount(group, matrix[:, i] * matrix[:, j], n)
    left, right = gram.sum(axis=0) - gram, moment.sum(axis=0) - moment
    try:
        away = np.linalg.solve(left, right[..., None])[..., 0]
    except np.linalg.LinAlgError:  # a cluster holds all there is of a level
        away = np.einsum("gij,gj->gi", np.linalg.pinv(left, hermitian=True), right)
    away -= np.linalg.solve(gram.sum(axis=0), moment.sum(axis=0))
    return (n - 1) / n * away.T @ away


def _positive(cov: np.ndarray) -> np.ndarray:
    """The nearest covariance: a two-way one can have slightly negative eigenvalues (Cameron et al. 2011, §2.3)."""
    values, vectors = np.linalg.eigh((cov + cov.T) / 2)
    return cov if values.min() >= 0 else (vectors * np.clip(values, 0, None)) @ vectors.T


def contrasts(frame: Frame, construct: Any, *, few_clusters: bool = False) -> Frame:
    """Differences of shares between all pairs of conditions, with p values adjusted by Holm.

    Returns:
        One row per pair: `construct, first, second, value (second − first), se, lo, hi, p, p_holm`. Intervals are not
        adjusted.
    """
    fit = regress(frame, construct, few_clusters=few_clusters)
    levels = codes(answered(frame, construct)["condition"])[1]
    pairs = list(combinations(range(len(levels)), 2))
    weights = np.zeros((len(pairs), len(fit.params)))
    for row, (i, j) in enumerate(pairs):
        if i:
            weights[row, i] = -1.0
        weights[row, j] = 1.0
    found = fit.contrast(weights)
    return pandas().DataFrame(
        {
            "construct": construct,
            "first": [levels[i] for i, _ in pairs],
            "second": [levels[j] for _, j in pairs],
            **found,
            "p_holm": holm(found["p"]),
        }
    )
