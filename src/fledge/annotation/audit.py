"""Did the randomisation do what it should: counts, balance of attributes over the arms, attrition by arm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
from scipy import stats

from fledge.annotation.assign import Assignment, Plan, filled
from fledge.core.files import to_json

PERMUTATIONS = 2_000


@dataclass(frozen=True)
class ArmCount:
    """Places of one arm."""

    arm: str
    target: int
    assigned: int
    completed: int
    active: int
    lost: int
    """Timed out or withdrawn."""
    expected: float
    """How many the logged probabilities lead one to expect."""

    @property
    def attrition(self) -> float:
        """Share of those whose outcome is known who did not finish; NaN where nobody's is."""
        known = self.completed + self.lost
        return self.lost / known if known else float("nan")


@dataclass(frozen=True)
class Balance:
    """Whether an attribute differs between the arms."""

    attribute: str
    kind: str
    """`chi2` for categories, `anova` for numbers."""
    statistic: float
    p: float
    """Of a permutation test: the statistic under arms shuffled among annotators (2,000 times)."""
    largest_difference: float
    """Between two arms, in standard deviations (numbers), or in the share of a category over its pooled standard
    deviation (categories). Below 0.1 is usually called balanced."""
    n: int


@dataclass(frozen=True)
class Audit:
    """What `audit` found."""

    arms: tuple[ArmCount, ...]
    cells: tuple[tuple[str, str, int, int], ...]
    """(arm, batch, taken, target)."""
    balance: tuple[Balance, ...]
    attrition_p: float
    """Whether attrition differs between arms: a permutation test of its χ²; NaN where all or none were lost."""
    shares_p: float
    """Whether the arms' sizes fit the logged probabilities (χ² goodness of fit)."""
    overfilled: int
    turned_away: int = 0

    @property
    def exact(self) -> bool:
        """Whether every cell holds exactly its target."""
        return all(taken == target for _, _, taken, target in self.cells)

    def to_json(self) -> str:
        """All of it, for a file."""
        return to_json(
            {
                "arms": [vars(arm) | {"attrition": arm.attrition} for arm in self.arms],
                "cells": [dict(zip(("arm", "batch", "taken", "target"), cell, strict=True)) for cell in self.cells],
                "balance": [vars(row) for row in self.balance],
                "attrition_p": self.attrition_p,
                "shares_p": self.shares_p,
                "overfilled": self.overfilled,
                "exact": self.exact,
                "turned_away": self.turned_away,
            },
            indent=1,
        )


def audit(
    plan: Plan,
    log: Sequence[Assignment],
    attributes: Mapping[str, Mapping[str, str]] | None = None,
    now: float = float("inf"),
    turned_away: int = 0,
) -> Audit:
    """Counts, balance tests and attrition of an assignment.

    Args:
        plan: what was planned.
        log: what was assigned.
        attributes: annotator → attribute → answer. One whose answers are all numbers is tested as a number.
        now: reservations that ran out before count as lost.
        turned_away: how many came when all places were taken.
    """
    taken = filled(log, now)
    cells = tuple((a.name, b, taken[a.name, b], plan.labels) for a in plan.arms for b in plan.batches)
    counts = tuple(_count(plan, arm.name, log, now) for arm in plan.arms)
    known = [row for row in log if row.outcome != "active" or row.until <= now]
    lost = np.array([row.outcome != "completed" for row in known])
    codes = np.array([[a.name for a in plan.arms].index(row.arm) for row in known], int)
    p = float("nan")
    if len(known) and 0 < lost.sum() < len(known):
        p = _permuted(codes, lambda c: _chi2(c, lost.astype(int)))[1]
    over = sum(max(0, taken - target) for _, _, taken, target in cells)
    return Audit(counts, cells, _balances(plan, log, attributes or {}), p, _shares_p(counts), over, turned_away)


def _count(plan: Plan, arm: str, log: Sequence[Assignment], now: float) -> ArmCount:
    rows = [row for row in log if row.arm == arm]
    active = sum(row.outcome == "active" and row.until > now for row in rows)
    completed = sum(row.outcome == "completed" for row in rows)
    expected = float(sum(row.probabilities.get(arm, 0.0) for row in log))
    target = plan.labels * len(plan.batches)
    return ArmCount(arm, target, len(rows), completed, active, len(rows) - active - completed, expected)


def _balances(
    plan: Plan, log: Sequence[Assignment], attributes: Mapping[str, Mapping[str, str]]
) -> tuple[Balance, ...]:
    names = dict.fromkeys(name for answers in attributes.values() for name in answers)
    arms = [arm.name for arm in plan.arms]
    found = []
    for name in names:
        rows = [(arms.index(row.arm), attributes.get(row.annotator, {}).get(name, "")) for row in log]
        rows = [(arm, value) for arm, value in rows if value]
        if len({arm for arm, _ in rows}) < 2 or len({value for _, value in rows}) < 2:
            continue
        codes = np.array([arm for arm, _ in rows])
        numbers = _numbers([value for _, value in rows])
        if numbers is not None:
            statistic, p = _permuted(codes, partial(_anova, numbers=numbers))
            largest, kind = _largest(codes, numbers), "anova"
        else:
            levels = sorted({value for _, value in rows})
            values = np.array([levels.index(value) for _, value in rows])
            statistic, p = _permuted(codes, partial(_chi2, values=values))
            largest, kind = max(_largest(codes, (values == i).astype(float)) for i in range(len(levels))), "chi2"
        found.append(Balance(name, kind, statistic, p, largest, len(rows)))
    return tuple(found)


def _numbers(values: Sequence[str]) -> np.ndarray | None:
    try:
        return np.array([float(value) for value in values])
    except ValueError:
        return None


def _permuted(codes: np.ndarray, statistic: Callable[[np.ndarray], float]) -> tuple[float, float]:
    """A statistic, and the share of shuffled arms that reach it (Phipson & Smyth 2010: never zero)."""
    seen = statistic(codes)
    draw = np.random.default_rng(0)
    reached = sum(statistic(draw.permutation(codes)) >= seen - 1e-12 for _ in range(PERMUTATIONS))
    return float(seen), (1 + reached) / (1 + PERMUTATIONS)


def _chi2(codes: np.ndarray, values: np.ndarray) -> float:
    table = np.zeros((codes.max() + 1, values.max() + 1))
    np.add.at(table, (codes, values), 1)
    table = table[table.sum(1) > 0][:, table.sum(0) > 0]
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    return float(((table - expected) ** 2 / expected).sum())


def _anova(codes: np.ndarray, numbers: np.ndarray) -> float:
    """Between-arm sum of squares: of all shuffles of the same numbers it orders as F does."""
    n = np.bincount(codes)
    means = np.bincount(codes, numbers)[n > 0] / n[n > 0]
    return float((n[n > 0] * (means - numbers.mean()) ** 2).sum())


def _largest(codes: np.ndarray, numbers: np.ndarray) -> float:
    """The largest standardised difference between two arms (Austin 2009)."""
    groups = [numbers[codes == code] for code in np.unique(codes)]
    worst = 0.0
    for a, b in combinations(groups, 2):
        spread = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2) if min(len(a), len(b)) > 1 else 0.0
        if spread > 0:
            worst = max(worst, abs(a.mean() - b.mean()) / spread)
    return float(worst)


def _shares_p(counts: Sequence[ArmCount]) -> float:
    """Whether the arms' sizes fit the logged probabilities: χ² goodness of fit; 1 where nothing was assigned."""
    assigned = np.array([count.assigned for count in counts], float)
    expected = np.array([count.expected for count in counts])
    keep = expected > 0
    if keep.sum() < 2:
        return 1.0
    return float(stats.chisquare(assigned[keep], expected[keep] * assigned[keep].sum() / expected[keep].sum()).pvalue)
