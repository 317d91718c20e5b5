"""What a train × test matrix says: scores with intervals, effects of either side, ceilings, and how models differ."""

from __future__ import annotations

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from fledge.annotation.agreement import krippendorff_alpha
from fledge.annotation.frame import Frame, pandas
from fledge.annotation.matrix import Crossed
from fledge.core.errors import unknown

METRICS = ("balanced_accuracy", "auc")


class Draws(NamedTuple):
    """A matrix, and the same of every resample."""

    value: Float[np.ndarray, "train test"]
    drawn: Float[np.ndarray, "draw train test"]


def balanced_accuracy(
    scores: Float[np.ndarray, " item"],
    positive: Float[np.ndarray, "*test item"],
    negative: Float[np.ndarray, "*test item"],
    weight: Float[np.ndarray, "draw item"] | None = None,
) -> Float[np.ndarray, "draw *test"]:
    """The mean of sensitivity and specificity at the threshold 0.5, for item weights of each draw.

    Labels come as counts of each item. NaN where a class does not occur.
    """
    w = np.ones((1, len(scores))) if weight is None else weight
    said = (scores > 0.5).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (w @ (positive * said).T) / (w @ positive.T)
        rejected = (w @ (negative * (1 - said)).T) / (w @ negative.T)
    return (found + rejected) / 2


def auc(
    scores: Float[np.ndarray, " item"],
    positive: Float[np.ndarray, "*test item"],
    negative: Float[np.ndarray, "*test item"],
    weight: Float[np.ndarray, "draw item"] | None = None,
) -> Float[np.ndarray, "draw *test"]:
    """The area under the ROC curve: how often a positive label's score is above a negative's, ties counting half."""
    w = np.ones((1, len(scores))) if weight is None else weight
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])
    w = w[:, order]
    parts = []
    for ups, downs in zip(np.atleast_2d(positive)[:, order], np.atleast_2d(negative)[:, order], strict=True):
        up = np.add.reduceat(w * ups, starts, axis=1)
        down = np.add.reduceat(w * downs, starts, axis=1)
        below = np.cumsum(down, axis=1) - down / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            parts.append((up * below).sum(axis=1) / (up.sum(axis=1) * down.sum(axis=1)))
    found = np.stack(parts, axis=1)
    return found if positive.ndim == 2 else found[:, 0]


_METRICS = {"balanced_accuracy": balanced_accuracy, "auc": auc}


def draws(crossed: Crossed, metric: str, *, n_resamples: int = 1000, seed: int = 0) -> Draws:
    """The matrix of a metric (mean over seeds), and of resamples.

    A resample draws test items and seeds anew at once, the same for all cells: differences between cells are paired.

    Raises:
        ConfigError: there is no such metric.
    """
    if metric not in _METRICS:
        raise unknown("metric", metric, METRICS)
    n_seeds, k, n_items = crossed.scores.shape
    rng = np.random.default_rng(seed)
    weight = rng.multinomial(n_items, np.full(n_items, 1 / n_items), size=n_resamples).astype(float)
    weight = np.vstack([np.ones(n_items), weight])
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=n_resamples) / n_seeds
    seeds = np.vstack([np.full(n_seeds, 1 / n_seeds), seeds])
    total = np.zeros((n_resamples + 1, k, k))
    for s in range(n_seeds):
        for i in range(k):
            own = _METRICS[metric](crossed.scores[s, i], crossed.positive, crossed.negative, weight)
            total[:, i] += seeds[:, [s]] * own
    return Draws(total[0], total[1:])


def _bounds(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    empty = np.isnan(drawn).all(axis=0)  # a class that no resample holds
    lo, hi = np.nanquantile(np.where(empty, 0.0, drawn), [0.025, 0.975], axis=0)
    return np.where(empty, np.nan, lo), np.where(empty, np.nan, hi)


def matrix_table(crossed: Crossed, metric: str, found: Draws) -> Frame:
    """One row per cell: `construct, metric, train, test, value, lo, hi`."""
    lo, hi = _bounds(found.drawn)
    names = crossed.conditions
    rows = [
        (crossed.construct, metric, a, b, found.value[i, j], lo[i, j], hi[i, j])
        for i, a in enumerate(names)
        for j, b in enumerate(names)
    ]
    return pandas().DataFrame(rows, columns=["construct", "metric", "train", "test", "value", "lo", "hi"])


def decompose(values: Float[np.ndarray, "*draw train test"]) -> dict[str, np.ndarray]:
    """A matrix as mean + effect of the training condition + effect of the test condition + own-condition advantage.

    `train` and `test` are row and column means less the grand mean. `own` is the mean of the diagonal less that of
    the other cells; rows and columns cancel in it, because each occurs once on the diagonal. `train_range` and
    `test_range` are largest less smallest effect.
    """
    k = values.shape[-1]
    mean = values.mean(axis=(-2, -1))
    train = values.mean(axis=-1) - mean[..., None]
    test = values.mean(axis=-2) - mean[..., None]
    diagonal = np.trace(values, axis1=-2, axis2=-1)
    own = diagonal / k - (values.sum(axis=(-2, -1)) - diagonal) / (k * (k - 1)) if k > 1 else np.zeros_like(mean)
    found = {"mean": mean, "train": train, "test": test, "own": own}
    found |= {"train_range": np.ptp(train, axis=-1), "test_range": np.ptp(test, axis=-1)}
    return {name: np.asarray(value) for name, value in found.items()}


def effects_table(crossed: Crossed, metric: str, found: Draws) -> Frame:
    """The decomposition with intervals: `construct, metric, effect, condition, value, lo, hi`."""
    value, drawn = decompose(found.value), decompose(found.drawn)
    rows: list[tuple[Any, ...]] = []
    for name in value:
        lo, hi = _bounds(drawn[name])
        if np.ndim(value[name]):
            rows += [
                (crossed.construct, metric, name, condition, float(value[name][i]), float(lo[i]), float(hi[i]))
                for i, condition in enumerate(crossed.conditions)
            ]
        else:
            rows.append((crossed.construct, metric, name, "", float(value[name]), float(lo), float(hi)))
    return pandas().DataFrame(rows, columns=["construct", "metric", "effect", "condition", "value", "lo", "hi"])


def ceilings(crossed: Crossed) -> Frame:
    """What label noise leaves to be had: balanced accuracy of people's own labels as predictions.

    `own majority`: an item's majority (ties positive) predicts the very answers it is made of, which no model can
    beat on average; `other conditions`: the majority of all answers under the other conditions.

    Returns:
        `construct, test, ceiling, value`.
    """
    up, down = crossed.positive, crossed.negative
    rows = []
    for j, condition in enumerate(crossed.conditions):
        others = [i for i in range(len(up)) if i != j]
        predictors = {"own majority": (up[j], down[j])}
        if others:
            predictors["other conditions"] = (up[others].sum(axis=0), down[others].sum(axis=0))
        for name, (yes, no) in predictors.items():
            score = np.where(yes >= no, 1.0, 0.0)
            value = float(balanced_accuracy(score, up[j], down[j])[0])
            rows.append((crossed.construct, condition, name, value))
    return pandas().DataFrame(rows, columns=["construct", "test", "ceiling", "value"])


def compare_predictions(crossed: Crossed) -> tuple[Frame, float]:
    """How models of two conditions differ on the same test items, and Krippendorff's α of all models' predictions.

    A prediction is the most frequent one over seeds (ties positive), a score the mean over seeds.

    Returns:
        One row per pair (`construct, first, second, alpha, differ, score_difference, correlation, first_positive,
        second_positive`), and the α of all.
    """
    mean = crossed.scores.mean(axis=0)
    said = ((crossed.scores > 0.5).mean(axis=0) >= 0.5).astype(float)
    rows = []
    for i, j in combinations(range(len(mean)), 2):
        flat = mean[i].std() == 0 or mean[j].std() == 0
        rows.append(
            {
                "construct": crossed.construct,
                "first": crossed.conditions[i],
                "second": crossed.conditions[j],
                "alpha": krippendorff_alpha(said[[i, j]].T),
                "differ": float(np.mean(said[i] != said[j])),
                "score_difference": float(np.mean(np.abs(mean[i] - mean[j]))),
                "correlation": np.nan if flat else float(np.corrcoef(mean[i], mean[j])[0, 1]),
                "first_positive": float(said[i].mean()),
                "second_positive": float(said[j].mean()),
            }
        )
    return pandas().DataFrame(rows), krippendorff_alpha(said.T)
