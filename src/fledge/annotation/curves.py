"""Learning curves: how well a model does with more and more of a condition's labels.

Subsets are nested and made of whole items: the items of a fraction are the first of one random order, the same for
all conditions, so curves of conditions are paired. Rows go into `curves.csv`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from fledge.annotation.crossed import auc, balanced_accuracy
from fledge.annotation.frame import Frame, Study, answered, pandas
from fledge.annotation.matrix import LabelMode, Progress, job_of, label_counts, train_all, training_rows
from fledge.core.errors import ConfigError, DataError
from fledge.core.records import Curves

TESTS = ("own", "pooled")


def learning_curves(
    study: Study,
    construct: Any,
    backend: Any,
    *,
    fractions: Sequence[float] = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0),
    repeats: int = 3,
    conditions: Sequence[Any] | None = None,
    label_mode: LabelMode = "rows",
    folder: Path | None = None,
    n_jobs: int = 1,
    progress: Progress | None = None,
) -> Frame:
    """Scores of models on growing subsets of the training items.

    Args:
        study: answers, texts and a split by item.
        construct: which question.
        backend: see `fledge.annotation.backends`.
        fractions: of the training items, in (0, 1].
        repeats: random orders of the items; also the seeds of the models.
        conditions: by default all.
        label_mode: as in `fledge.annotation.matrix.cross_condition`.
        folder: finished cells are kept here.
        n_jobs: processes side by side.
        progress: is told how far it is.

    Returns:
        `construct, condition, repeat, n_items, n_labels, test, metric, value`; `test` is `own` (the condition's own
        test labels) or `pooled` (those of all conditions).

    Raises:
        ConfigError: a fraction outside (0, 1], or no repeats.
        DataError: no split, no texts, or a condition without training labels.
    """
    if not fractions or not all(0 < part <= 1 for part in fractions) or repeats < 1:
        raise ConfigError(f"Fractions in (0, 1] and 1 repeat or more were wanted, not {tuple(fractions)}, {repeats}.")
    names = tuple(study.conditions if conditions is None else conditions)
    rows = answered(study.frame, construct, names)
    train, test = study.items("train"), study.items("test")
    texts = tuple(study.texts.get(item, "") for item in test)
    jobs, keys = [], []
    for repeat in range(repeats):
        order = np.random.default_rng(repeat).permutation(len(train))
        for part in sorted(set(fractions)):
            chosen = {train[i] for i in order[: max(2, round(part * len(train)))]}
            for name in names:
                own = rows[(rows["condition"] == name) & rows["item"].isin(chosen)]
                if not len(own):
                    raise DataError(
                        f"A fraction of {part:g} leaves condition {name} without a label of '{construct}'. "
                        "Start with a larger fraction."
                    )
                training = training_rows(own, label_mode, study.texts, repeat)
                jobs.append(job_of(training, texts, backend, f"curve-{construct}-{name}-{repeat}-{part:g}"))
                keys.append((name, repeat, len(training.texts), len(training.label)))
    positive, negative = label_counts(rows, names, test)
    found: list[tuple[Any, ...]] = []
    for (name, repeat, n_items, n_labels), scores in zip(
        keys, train_all(jobs, backend, folder, n_jobs, progress), strict=True
    ):
        own_index = names.index(name)
        tests = {"own": (positive[own_index], negative[own_index]), "pooled": (positive.sum(0), negative.sum(0))}
        for where, (up, down) in tests.items():
            for metric, how in (("balanced_accuracy", balanced_accuracy), ("auc", auc)):
                value = float(np.ravel(how(scores, up[None], down[None]))[0])
                found.append((construct, name, repeat, n_items, n_labels, where, metric, value))
    columns = ["construct", "condition", "repeat", "n_items", "n_labels", "test", "metric", "value"]
    return pandas().DataFrame(found, columns=columns)


def as_curves(table: Frame, label: str = "condition {}") -> Curves:
    """The same as rows of `curves.csv`.

    `recipe` names the condition, `task` the construct, `adapt` the test labels (`own` or `pooled`), `seed` the
    repeat, `x` the number of training labels.
    """
    return Curves.of(
        recipe=[label.format(name) for name in table["condition"]],
        split="test",
        adapt=list(table["test"]),
        seed=table["repeat"].to_numpy(),
        task=list(table["construct"]),
        x=table["n_labels"].to_numpy(float),
        x_unit="label",
        metric=list(table["metric"]),
        value=table["value"].to_numpy(float),
    )


class PowerLaw(NamedTuple):
    """A fitted curve: score = limit − gap · labels^(−rate)."""

    limit: float
    gap: float
    rate: float
    interval: Float[np.ndarray, "bound parameter"]
    """2.5 % and 97.5 % of (limit, gap, rate) over resampled repeats; NaN with one repeat."""

    def __call__(self, n_labels: Float[np.ndarray, " x"]) -> Float[np.ndarray, " x"]:
        """The score at so many labels."""
        return self.limit - self.gap * np.asarray(n_labels, float) ** -self.rate

    def labels_needed(self, score: float) -> float:
        """How many labels reach a score; infinite beyond the limit."""
        if score >= self.limit:
            return float("inf")
        return float((self.gap / (self.limit - score)) ** (1 / self.rate))


def fit_power_law(
    n_labels: Float[np.ndarray, " row"],
    scores: Float[np.ndarray, " row"],
    repeat: Any,
    *,
    n_resamples: int = 200,
    seed: int = 0,
) -> PowerLaw:
    """The power law through the points of one curve, by least squares, with the limit in [0, 1].

    Args:
        n_labels: labels at each point.
        scores: score at each point.
        repeat: whose point it is; whole repeats are resampled.
        n_resamples: how often.
        seed: of the draws.

    Raises:
        DataError: fewer than three different numbers of labels.

    Reference: Hestness et al. 2017 (power laws of learning curves).
    """
    if len(np.unique(n_labels)) < 3:
        raise DataError(f"A power law needs three sizes or more, but {len(np.unique(n_labels))} came. Add fractions.")
    best = _least_squares(n_labels, scores)
    names, group = np.unique(np.asarray(repeat), return_inverse=True)
    interval = np.full((2, 3), np.nan)
    if len(names) > 1:
        rng = np.random.default_rng(seed)
        copies = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n_resamples)
        drawn = [_least_squares(n_labels, scores, one[group].astype(float)) for one in copies]
        interval = np.quantile(drawn, [0.025, 0.975], axis=0)
    limit, gap, rate = best.tolist()
    return PowerLaw(limit, gap, rate, interval)


_RATES = np.linspace(0.05, 2.0, 79)


def _least_squares(x: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """(limit, gap, rate): for each rate on a grid the rest is linear, so the fit cannot get stuck."""
    w = np.ones(len(x)) if weight is None else weight
    power = np.asarray(x, float)[None] ** -_RATES[:, None]
    mean_p, mean_y = (power @ w) / w.sum(), (w @ y) / w.sum()
    spread = ((power - mean_p[:, None]) ** 2) @ w
    slope = ((power - mean_p[:, None]) @ (w * (y - mean_y))) / spread
    limit = np.clip(mean_y - slope * mean_p, 0.0, 1.0)
    gap = np.maximum(-(((y - limit[:, None]) * power) @ w) / ((power**2) @ w), 0.0)
    error = (((y - limit[:, None] + gap[:, None] * power) ** 2) @ w).round(15)
    best = int(np.argmin(error))
    return np.array([limit[best], gap[best], _RATES[best]])
