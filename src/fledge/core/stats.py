"""Statistics of few seeds on many tasks: interquartile mean, stratified bootstrap, probability of improvement.

Scores are arrays (seed, task) or (seed, task, *x), where x is whatever is drawn along (episodes, steps, labels).
NaN is a missing score: it is left out, and fewer scores give wider intervals.

Reference: Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from fledge.core.errors import ConfigError, DataError, ShapeError

Scores = Num[np.ndarray, "..."]
"""Of shape (seed, task, *x); `check_scores` says what is wrong with anything else."""
Statistic = Callable[[np.ndarray], np.ndarray]
"""Anything that reduces the first two axes (seed, task) and leaves the others; NaN is left out."""

_CHUNK = 4_000_000  # numbers that one block of resamples may hold (32 MB)


class Estimate(NamedTuple):
    """A statistic with its interval. Bounds are NaN where no task has two seeds: one seed says nothing of spread."""

    value: np.ndarray
    """Shape (*x)."""
    lo: np.ndarray
    hi: np.ndarray
    n_seeds: int
    """Seeds with at least one score."""
    n_tasks: int
    """Tasks with at least one score."""


def iqm(scores: Num[np.ndarray, "seed task *x"]) -> Float[np.ndarray, "*x"]:
    """The interquartile mean over seeds and tasks together: the mean of the middle half.

    A quarter of the n scores that are there (rounded down) is dropped at either end, as
    `scipy.stats.trim_mean(., 0.25)` does. NaN where there is no score at all.

    Reference: Agarwal et al. 2021, §4.3.
    """
    pooled = np.sort(_pool(scores), axis=0)  # NaN sorts last
    n = np.sum(~np.isnan(pooled), axis=0)
    cut = n // 4
    rank = np.arange(pooled.shape[0]).reshape((-1,) + (1,) * (pooled.ndim - 1))
    middle = (rank >= cut) & (rank < n - cut)
    return _divide(np.sum(np.where(middle, pooled, 0.0), axis=0), n - 2 * cut)


def mean(scores: Num[np.ndarray, "seed task *x"]) -> Float[np.ndarray, "*x"]:
    """The plain mean over seeds and tasks."""
    return _mean(_pool(scores))


def median(scores: Num[np.ndarray, "seed task *x"]) -> Float[np.ndarray, "*x"]:
    """The median over tasks of the mean over seeds (the field's convention)."""
    ranked = np.sort(_mean(np.asarray(scores, float)), axis=0)
    n = np.sum(~np.isnan(ranked), axis=0)
    middle = (np.maximum(n - 1, 0) // 2, n // 2)
    return np.asarray(np.mean([np.take_along_axis(ranked, rank[None], axis=0)[0] for rank in middle], axis=0))


def optimality_gap(scores: Num[np.ndarray, "seed task *x"], target: float) -> Float[np.ndarray, "*x"]:
    """How far scores fall short of `target` on average; scores beyond it count as reaching it. Lower is better."""
    return np.asarray(target - mean(np.minimum(np.asarray(scores, float), target)))


def bootstrap(
    scores: Scores,
    statistic: Statistic = iqm,
    *,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    whole_seeds: bool = False,
) -> Estimate:
    """A statistic with its stratified percentile bootstrap interval.

    Tasks are the strata: within each, its seeds are drawn anew with replacement, and the x of one seed stay together.
    A task with one seed has no spread of its own; it borrows the deviations of the others, because a missing seed must
    never narrow an interval.

    Args:
        scores: (seed, task, *x); NaN is missing.
        statistic: reduces (seed, task), here `iqm` or any of its neighbours.
        n_resamples: how often.
        level: the share of resampled statistics inside the interval.
        seed: of the draws. The same scores always give the same interval.
        whole_seeds: draw the same seeds for all tasks. Right where one seed is one trained agent that is tested on
            every task, so that its scores stand and fall together; needs five seeds or more to mean anything.

    Raises:
        ShapeError: there are no (seed, task) axes.
        DataError: a score is infinite.
        ConfigError: `level` or `n_resamples` makes no sense.

    Reference: Agarwal et al. 2021, §4.2; Efron 1979.
    """
    scores = check_scores(scores)
    _check_options(n_resamples, level)
    there = ~np.isnan(scores).all(axis=tuple(range(2, scores.ndim)))
    per_task = there.sum(axis=0)
    value = statistic(scores)
    point = Estimate(value, value, value, int(there.any(axis=1).sum()), int(there.any(axis=0).sum()))
    if (point.n_seeds if whole_seeds else per_task.max()) < 2:
        nothing = np.full(np.shape(point.value), np.nan)
        return point._replace(lo=nothing, hi=nothing)
    rng = np.random.default_rng(seed)
    block = max(1, _CHUNK // scores.size)
    drawn = [
        statistic(_resample(rng, scores, there, min(block, n_resamples - done), whole_seeds))
        for done in range(0, n_resamples, block)
    ]
    lo, hi = _bounds(np.concatenate(drawn), level)
    return point._replace(lo=lo, hi=hi)


def probability_of_improvement(
    x: Scores,
    y: Scores,
    *,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """P(X > Y): how often a random run of X (seed, task) beats one of Y (seed, task) on the same task.

    The mean over tasks of the Mann-Whitney statistic (ties count one half); the interval resamples the
    seeds of both within each task. Tasks that only one of them has are left out.

    Raises:
        ShapeError: the two have different numbers of tasks.

    Reference: Agarwal et al. 2021, §4.3.
    """
    x, y = check_scores(x), check_scores(y)
    _check_options(n_resamples, level)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ShapeError(
            f"Two score tables (seed, task) with the same tasks were wanted, but {x.shape} and {y.shape} came. "
            "Choose one x (say the last episode) and the tasks that both were tested on."
        )
    there_x, there_y = ~np.isnan(x), ~np.isnan(y)
    both = there_x.any(axis=0) & there_y.any(axis=0)
    seeds = min(int(there.any(axis=1).sum()) for there in (there_x, there_y))
    if not both.any():
        nan = np.asarray(np.nan)
        return Estimate(nan, nan, nan, seeds, 0)
    x, y, there_x, there_y = (a[:, both] for a in (x, y, there_x, there_y))
    wins = (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])  # (seed_x, seed_y, task); 0 where either is missing

    def score(share_x: np.ndarray, share_y: np.ndarray) -> np.ndarray:
        return np.asarray(np.einsum("...ti,ijt,...tj->...t", share_x, wins, share_y, optimize=True).mean(axis=-1))

    even = [(there / there.sum(axis=0)).T for there in (there_x, there_y)]
    counts = [there.sum(axis=0) for there in (there_x, there_y)]
    estimate = Estimate(score(*even), np.asarray(np.nan), np.asarray(np.nan), seeds, int(both.sum()))
    if max(n.max() for n in counts) < 2:
        return estimate
    rng = np.random.default_rng(seed)
    drawn = [rng.multinomial(n, p, size=(n_resamples, len(n))) / n[:, None] for n, p in zip(counts, even, strict=True)]
    lo, hi = _bounds(score(*drawn), level)
    return estimate._replace(lo=lo, hi=hi)


def performance_profile(
    scores: Scores, thresholds: Num[np.ndarray, " threshold"], *, n_resamples: int = 2000
) -> Estimate:
    """The fraction of runs (seed, task) that score above each threshold, with its interval: shape (threshold,).

    Reference: Agarwal et al. 2021, §4.3 (run-score distributions).
    """
    scores = check_scores(scores)
    if scores.ndim != 2:
        raise ShapeError(f"A profile is drawn of scores (seed, task), but {scores.shape} came. Choose one x first.")
    above = np.where(np.isnan(scores)[..., None], np.nan, scores[..., None] > np.asarray(thresholds, float))
    return bootstrap(above, mean, n_resamples=n_resamples)


def check_scores(scores: Scores) -> Float[np.ndarray, "seed task *x"]:
    """The scores as doubles, or an error that says what is wrong with them."""
    scores = np.asarray(scores, float)
    if scores.ndim < 2 or 0 in scores.shape:
        raise ShapeError(
            f"Scores of shape (seed, task) or (seed, task, x) were wanted, but {scores.shape} came. "
            "Where there is one task, add its axis: scores[:, None]."
        )
    if np.isinf(scores).any():
        where = tuple(int(i) for i in np.argwhere(np.isinf(scores))[0])
        raise DataError(f"Score {where} is infinite. Mark a diverged run as missing (NaN), or clip it, and say so.")
    return scores


def _check_options(n_resamples: int, level: float) -> None:
    if not 0 < level < 1:
        raise ConfigError(f"level is a share in (0, 1), such as 0.95, not {level}.")
    if n_resamples < 1:
        raise ConfigError(f"n_resamples must be 1 or more (2000 is usual), not {n_resamples}.")


def _pool(scores: Num[np.ndarray, "seed task *x"]) -> Float[np.ndarray, "run *x"]:
    scores = np.asarray(scores, float)
    return scores.reshape((-1, *scores.shape[2:]))


def _mean(values: Float[np.ndarray, "run *x"]) -> Float[np.ndarray, "*x"]:
    """The mean over the first axis of what is not NaN, without numpy's warning where nothing is left."""
    there = ~np.isnan(values)
    return _divide(np.sum(np.where(there, values, 0.0), axis=0), np.sum(there, axis=0))


def _divide(total: Any, n: Any) -> np.ndarray:
    """total / n as an array, NaN where n is 0."""
    return np.asarray(total / np.where(n > 0, n, np.nan))


def _resample(
    rng: np.random.Generator,
    scores: Float[np.ndarray, "seed task *x"],
    there: Bool[np.ndarray, "seed task"],
    n_resamples: int,
    whole_seeds: bool,
) -> Float[np.ndarray, "drawn task resample *x"]:
    """Scores with the seeds of each task drawn anew; as many as were there, the rest NaN."""
    n_seeds, n_tasks = there.shape
    if whole_seeds:
        rows = np.flatnonzero(there.any(axis=1))
        chosen = rows[rng.integers(len(rows), size=(len(rows), n_resamples))]
        return np.moveaxis(scores[chosen], 1, 2)
    order = np.argsort(~there, axis=0, kind="stable")  # the seeds that are there first
    n: Int[np.ndarray, " task"] = there.sum(axis=0)
    pick = rng.integers(np.maximum(n, 1)[None, :, None], size=(n_seeds, n_tasks, n_resamples))
    task = np.arange(n_tasks)[None, :, None]
    drawn = scores[order[pick, task], task]
    rank = np.arange(n_seeds)[:, None]
    drawn[rank >= n] = np.nan
    single = np.flatnonzero(n == 1)
    if single.size:
        deviations = _deviations(scores, there)
        drawn[0, single] += deviations[rng.integers(len(deviations), size=(single.size, n_resamples))]
    return drawn


def _deviations(
    scores: Float[np.ndarray, "seed task *x"], there: Bool[np.ndarray, "seed task"]
) -> Float[np.ndarray, "run *x"]:
    """Scores minus their task's mean, for tasks with two seeds or more, scaled to the spread of one new seed."""
    n = there.sum(axis=0)
    centre = _mean(scores)
    scale = np.sqrt(n / np.maximum(n - 1, 1)).reshape((-1,) + (1,) * (scores.ndim - 2))
    return np.nan_to_num(((scores - centre) * scale)[there & (n > 1)])


def _bounds(drawn: Float[np.ndarray, "resample *x"], level: float) -> tuple[np.ndarray, np.ndarray]:
    """The percentile interval; resamples in which nothing was left (NaN) do not count."""
    empty = np.isnan(drawn).all(axis=0)
    quantiles = np.nanquantile(np.where(empty, 0.0, drawn), [(1 - level) / 2, (1 + level) / 2], axis=0)
    quantiles = np.where(empty, np.nan, quantiles)
    return np.asarray(quantiles[0]), np.asarray(quantiles[1])
