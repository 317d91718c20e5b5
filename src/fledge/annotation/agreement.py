"""Agreement of annotators, or of conditions: Cohen, Fleiss, Krippendorff, Gwet, intraclass correlation, entropy.

Every measure but Cohen's and the intraclass correlation is a function of sums over items, so an interval costs one
matrix product: resampling items reweights the sums. Resampling annotators counts a copied annotator's answers with
its number of copies, but never compares an annotator with a copy of itself.

Where chance agreement is 1 (everybody always gives one and the same answer) a coefficient is undefined: NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from fledge.annotation.frame import Frame, answered, codes
from fledge.core.errors import ConfigError, ShapeError, unknown

Ratings = Float[np.ndarray, "unit rater"]
"""Answers as numbers; NaN where a rater did not answer."""
Level = Literal["nominal", "ordinal", "interval"]
LEVELS = ("nominal", "ordinal", "interval")


class Counts(NamedTuple):
    """Who said what, item by item."""

    n: Float[np.ndarray, "unit category"]
    """Answers in each category."""
    self_pairs: Float[np.ndarray, "unit category"]
    """Pairs of an answer with itself: `n` again, unless annotators count several times."""
    values: Float[np.ndarray, " category"]
    """What the categories stand for, ascending."""


class Estimate(NamedTuple):
    """A number with its 95 % interval (NaN where none was asked for)."""

    value: float
    lo: float
    hi: float
    n_items: int
    """Items with two answers or more."""
    n_annotators: int


def counts(ratings: Ratings) -> Counts:
    """The categories of a table, and how often each was said of each item."""
    values = np.unique(ratings[~np.isnan(ratings)])
    n = (ratings[:, :, None] == values).sum(axis=1).astype(float)
    return Counts(n, n, values)


def counts_of(rows: Frame, copies: Float[np.ndarray, " rater"] | None = None) -> Counts:
    """The same from the rows of one construct; `copies` says how often each annotator counts."""
    item, items = codes(rows["item"])
    category, values = codes(rows["value"])
    weight = np.ones(len(rows)) if copies is None else copies[codes(rows["annotator"])[0]]
    shape = (len(items), len(values))
    place = item * shape[1] + category
    n, pairs = (np.bincount(place, w, shape[0] * shape[1]).reshape(shape) for w in (weight, weight**2))
    return Counts(n, pairs, np.asarray(values, float))


class Measure(NamedTuple):
    """A measure as sums over items, and what is made of them."""

    sums: Callable[[Counts, Level], Float[np.ndarray, "unit feature"]]
    combine: Callable[[Float[np.ndarray, "draw feature"], Float[np.ndarray, " category"], Level], np.ndarray]


def _pairs(counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    """Ordered pairs of answers by different annotators: (unit, category, category), and their number (unit)."""
    both = counts.n[:, :, None] * counts.n[:, None, :]
    index = np.arange(len(counts.values))
    both[:, index, index] -= counts.self_pairs
    return both, both.sum(axis=(1, 2))


def _share(total: np.ndarray, n: np.ndarray) -> np.ndarray:
    return np.divide(total, n, out=np.zeros_like(total, float), where=n > 0)


def _percent_sums(counts: Counts, level: Level) -> np.ndarray:
    both, n = _pairs(counts)
    same = np.einsum("uck,ck->u", both, similarity(counts.values, level))
    return np.stack([_share(same, n), (n > 0).astype(float)], axis=1)


def _percent(sums: np.ndarray, values: np.ndarray, level: Level) -> np.ndarray:
    return np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0)


def _alpha_sums(counts: Counts, level: Level) -> np.ndarray:
    both, n = _pairs(counts)
    m = counts.n.sum(axis=1)
    return _share(both * m[:, None, None], np.broadcast_to(n[:, None, None], both.shape)).reshape(len(m), -1)


def _alpha(sums: np.ndarray, values: np.ndarray, level: Level) -> np.ndarray:
    q = len(values)
    coincidence = sums.reshape(-1, q, q)
    n_c = coincidence.sum(axis=2)
    n = n_c.sum(axis=1)
    apart = _distance(n_c, values, level)
    observed = (coincidence * apart).sum(axis=(1, 2)) / n
    chance = (n_c[:, :, None] * n_c[:, None, :] * apart).sum(axis=(1, 2)) / (n * (n - 1))
    return _corrected(1 - observed, 1 - chance)


def _distance(n_c: np.ndarray, values: np.ndarray, level: Level) -> np.ndarray:
    """Squared differences of categories, (draw, category, category); the ordinal ones depend on the totals."""
    if level == "nominal":
        return np.broadcast_to(1 - np.eye(len(values)), (len(n_c), len(values), len(values)))
    if level == "interval":
        return np.broadcast_to((values[:, None] - values) ** 2, (len(n_c), len(values), len(values)))
    rank = np.cumsum(n_c, axis=1) - n_c / 2  # the middle of each category's ranks
    return (rank[:, :, None] - rank[:, None, :]) ** 2


def _fleiss_sums(counts: Counts, level: Level) -> np.ndarray:
    both, n = _pairs(counts)
    there = n > 0
    same = np.einsum("ucc->u", both)
    return np.concatenate([_share(same, n)[:, None], there[:, None], counts.n * there[:, None]], axis=1)


def _fleiss(sums: np.ndarray, values: np.ndarray, level: Level) -> np.ndarray:
    share = sums[:, 2:] / sums[:, 2:].sum(axis=1, keepdims=True)
    return _corrected(sums[:, 0] / sums[:, 1], (share**2).sum(axis=1))


def _gwet_sums(counts: Counts, level: Level) -> np.ndarray:
    m = counts.n.sum(axis=1)
    share = _share(counts.n, np.broadcast_to(m[:, None], counts.n.shape))
    return np.concatenate([_percent_sums(counts, level), (m > 0)[:, None], share], axis=1)


def _gwet(sums: np.ndarray, values: np.ndarray, level: Level) -> np.ndarray:
    q = len(values)
    share = sums[:, 3:] / sums[:, 2:3]
    if q < 2:
        return np.full(len(sums), np.nan)
    weight = similarity(values, level).sum() / (q * (q - 1))
    return _corrected(_percent(sums, values, level), weight * (share * (1 - share)).sum(axis=1))


def _entropy_sums(counts: Counts, level: Level) -> np.ndarray:
    m = counts.n.sum(axis=1, keepdims=True)
    share = _share(counts.n, np.broadcast_to(m, counts.n.shape))
    bits = -np.sum(share * np.log2(np.where(share > 0, share, 1.0)), axis=1)
    return np.stack([bits, m[:, 0] > 0], axis=1)


def similarity(values: Float[np.ndarray, " category"], level: Level) -> Float[np.ndarray, "category category"]:
    """Gwet's weights: identity, ordinal (pairs of ranks between), or quadratic in the values.

    Reference: Gwet, Handbook of Inter-Rater Reliability, 4th ed., 2014, §3.
    """
    q = len(values)
    if level == "nominal" or q < 2:
        return np.eye(q)
    if level == "interval":
        return 1 - (values[:, None] - values) ** 2 / (values.max() - values.min()) ** 2
    between = np.abs(np.subtract.outer(np.arange(q), np.arange(q))) + 1
    pairs = between * (between - 1) / 2
    return 1 - pairs / pairs.max()


def _corrected(observed: np.ndarray, chance: np.ndarray) -> np.ndarray:
    out = np.full(np.shape(observed), np.nan)
    return np.divide(observed - chance, 1 - chance, out=out, where=chance < 1 - 1e-12)


MEASURES: dict[str, Measure] = {
    "percent": Measure(_percent_sums, _percent),
    "alpha": Measure(_alpha_sums, _alpha),
    "fleiss": Measure(_fleiss_sums, _fleiss),
    "gwet": Measure(_gwet_sums, _gwet),
    "entropy": Measure(_entropy_sums, _percent),
}
"""Name → measure. `gwet` is AC1 at the nominal level and AC2 above it; `entropy` is the mean bits of an item."""


def of_counts(counts: Counts, measure: str = "alpha", level: Level = "nominal") -> float:
    """One number for a table of counts.

    Raises:
        ConfigError: there is no such measure or level.
    """
    how = _measure(measure, level)
    if not len(counts.values):
        return float("nan")
    with np.errstate(invalid="ignore", divide="ignore"):
        sums = how.sums(counts, level).sum(axis=0, keepdims=True)
        return float(how.combine(sums, counts.values, level)[0])


def krippendorff_alpha(ratings: Ratings, level: Level = "nominal") -> float:
    """Krippendorff's α with missing answers; 1 − D_o / D_e over the coincidences of answers to one item.

    Reference: Krippendorff, Content Analysis, 2013, ch. 12.
    """
    return of_counts(counts(ratings), "alpha", level)


def fleiss_kappa(ratings: Ratings) -> float:
    """Fleiss' κ. Items may have different numbers of answers: each weighs the same in the observed agreement, each
    answer the same in the chance agreement.

    Reference: Fleiss 1971.
    """
    return of_counts(counts(ratings), "fleiss")


def gwet_ac(ratings: Ratings, level: Level = "nominal") -> float:
    """Gwet's AC1 (nominal) or AC2 (ordinal or quadratic weights).

    Reference: Gwet, British Journal of Mathematical and Statistical Psychology 61, 2008.
    """
    return of_counts(counts(ratings), "gwet", level)


def percent_agreement(ratings: Ratings) -> float:
    """The share of pairs of annotators who gave an item the same answer, averaged over items."""
    return of_counts(counts(ratings), "percent")


def item_entropy(ratings: Ratings) -> Float[np.ndarray, " unit"]:
    """Bits of the answers to each item; 0 where all agree, NaN where nobody answered."""
    table = _entropy_sums(counts(ratings), "nominal")
    return np.where(table[:, 1] > 0, table[:, 0], np.nan)


def cohen_kappa(
    first: Float[np.ndarray, " unit"], second: Float[np.ndarray, " unit"], weights: Level = "nominal"
) -> float:
    """Cohen's κ of two raters (or conditions) over the items that both answered.

    Args:
        first: answers of one; NaN is missing.
        second: answers of the other, item by item.
        weights: how near two answers are, as in `similarity`; `interval` is the usual quadratic weighting.

    Reference: Cohen 1960, 1968.
    """
    if first.shape != second.shape:
        raise ShapeError(f"One answer of each per item was wanted, but {first.shape} and {second.shape} came.")
    there = ~(np.isnan(first) | np.isnan(second))
    if not there.any():
        return float("nan")
    values = np.unique(np.r_[first[there], second[there]])
    rows, columns = ((one[there][:, None] == values).astype(float) for one in (first, second))
    near = similarity(values, weights)
    joint = rows.T @ columns / there.sum()
    chance = np.outer(rows.mean(axis=0), columns.mean(axis=0))
    return float(_corrected(np.asarray(np.sum(joint * near)), np.asarray(np.sum(chance * near))))


def icc(ratings: Ratings, kind: Literal["1", "2", "3"] = "1") -> float:
    """Intraclass correlation of a single answer.

    `1`: each item has its own annotators (numbers may differ); `2`: the same annotators, a random sample, absolute
    agreement; `3`: the same annotators, consistency. `2` and `3` want a complete table; where annotators and items
    cross incompletely, use the components of `fledge.annotation.mixed`.

    Raises:
        ShapeError: `2` or `3` of a table with gaps.

    Reference: Shrout & Fleiss 1979.
    """
    there = ~np.isnan(ratings)
    if kind == "1":
        kept = there.sum(axis=1) > 0
        ratings, there = ratings[kept], there[kept]
        m, n = there.sum(axis=1), there.sum()
        means = np.nansum(ratings, axis=1) / m
        between = np.sum(m * (means - np.nansum(ratings) / n) ** 2) / (len(m) - 1)
        within = np.nansum((ratings - means[:, None]) ** 2) / (n - len(m))
        typical = (n - np.sum(m**2) / n) / (len(m) - 1)
        return float((between - within) / (between + (typical - 1) * within))
    if not there.all():
        raise ShapeError(
            f"ICC({kind},1) wants every item rated by every annotator, but {int((~there).sum())} answers are missing. "
            "Use kind '1', or the variance components of a crossed mixed model."
        )
    n_items, n_raters = ratings.shape
    item = n_raters * ratings.mean(axis=1).var(ddof=1)
    rater = n_items * ratings.mean(axis=0).var(ddof=1)
    total = ((ratings - ratings.mean()) ** 2).sum()
    error = (total - item * (n_items - 1) - rater * (n_raters - 1)) / ((n_items - 1) * (n_raters - 1))
    extra = n_raters * (rater - error) / n_items if kind == "2" else 0.0
    return float((item - error) / (item + (n_raters - 1) * error + extra))


def agreement(
    frame: Frame,
    construct: Any,
    *,
    measure: str = "alpha",
    level: Level = "nominal",
    conditions: Any = None,
    over: Literal["items", "annotators", "none"] = "items",
    n_resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """A measure of one construct's answers with its 95 % percentile bootstrap interval.

    Args:
        frame: the long table. To compare conditions, hand in aggregated rows (`fledge.annotation.aggregate`).
        construct: which question.
        measure: of `MEASURES`.
        level: how answers differ.
        conditions: only these; by default all.
        over: what is drawn anew: items, annotators, or nothing (then there is no interval).
        n_resamples: how often.
        seed: of the draws.
    """
    rows = answered(frame, construct, conditions)
    how, table = _measure(measure, level), counts_of(rows)
    n_raters = rows["annotator"].nunique()
    point = Estimate(
        of_counts(table, measure, level), np.nan, np.nan, int((table.n.sum(axis=1) > 1).sum()), int(n_raters)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        if over == "none":
            return point
        if over == "items":
            sums = how.sums(table, level)
            drawn = how.combine(_copies(len(sums), n_resamples, seed) @ sums, table.values, level)
        elif over == "annotators":
            copies = _copies(n_raters, n_resamples, seed)
            drawn = np.array([of_counts(counts_of(rows, one), measure, level) for one in copies])
        else:
            raise unknown("way to resample (over)", over, ("items", "annotators", "none"))
    if np.isnan(drawn).all():  # undefined in every resample
        return point
    lo, hi = np.nanquantile(drawn, [0.025, 0.975])
    return point._replace(lo=float(lo), hi=float(hi))


@lru_cache(maxsize=2)
def _copies(n: int, n_resamples: int, seed: int) -> Float[np.ndarray, "draw unit"]:
    """How often each of n units is drawn, in every resample. Kept, because many measures are taken of one study."""
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_resamples).astype(float)
    drawn.setflags(write=False)
    return drawn


def _measure(name: str, level: str) -> Measure:
    if name not in MEASURES:
        raise unknown("measure of agreement", name, MEASURES)
    if level not in LEVELS:
        raise unknown("level of measurement", level, LEVELS)
    if name == "fleiss" and level != "nominal":
        raise ConfigError("Fleiss' kappa is for nominal answers. Take measure 'alpha' or 'gwet' at this level.")
    return MEASURES[name]
