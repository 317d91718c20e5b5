"""How often a construct is found: shares by condition, with intervals that know that annotators give many answers.

Answers of one annotator resemble each other, so n answers say less than n independent ones. The design effect is by
how much: the variance of the share over that of a simple random sample of as many answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from fledge.annotation.frame import Frame, answered, codes, conditions_of, constructs_of, pandas
from fledge.core.errors import ConfigError, DataError, ShapeError, unknown

Method = Literal["linearised", "bootstrap", "bootstrap_two_way"]
METHODS = ("linearised", "bootstrap", "bootstrap_two_way")


@dataclass(frozen=True)
class Share:
    """A (weighted) mean of answers with its 95 % interval."""

    value: float
    se: float
    lo: float
    hi: float
    deff: float
    """Design effect: variance over that of a simple random sample of the same size."""
    n: int
    n_clusters: int


def clustered_mean(
    values: Float[np.ndarray, " row"],
    cluster: Int[np.ndarray, " row"],
    weights: Float[np.ndarray, " row"] | None = None,
) -> Share:
    """The mean and its linearised variance with clusters drawn with replacement: G/(G−1) Σ (Σ w(y − ȳ))² / (Σw)².

    The interval is value ± 1.96 standard errors. With one cluster there is none (NaN).

    Reference: Binder 1983; Kish 1965 (design effect).
    """
    if len(values) != len(cluster) or not len(values):
        raise ShapeError(
            f"One cluster for each of one answer or more was wanted, but {len(values)} and {len(cluster)}."
        )
    weight = np.ones(len(values)) if weights is None else np.asarray(weights, float)
    mean = float(np.sum(weight * values) / weight.sum())
    totals = np.bincount(cluster, weight * (values - mean))
    totals = totals[np.bincount(cluster) > 0]
    n_clusters = len(totals)
    variance = float(np.sum(totals**2) / weight.sum() ** 2 * n_clusters / max(n_clusters - 1, 1))
    return _share(mean, np.sqrt(variance) if n_clusters > 1 else np.nan, values, n_clusters)


def bootstrap_mean(
    values: Float[np.ndarray, " row"],
    clusters: Sequence[Int[np.ndarray, " row"]],
    weights: Float[np.ndarray, " row"] | None = None,
    *,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Share:
    """The mean with the percentile interval of a cluster bootstrap.

    Args:
        values: answers.
        clusters: one grouping (say annotators), or two (annotators, items). With two, both are drawn anew at once and
            a row counts with the product of its copies ("pigeonhole"), which errs on the wide side.
        weights: of rows.
        n_resamples: how often.
        seed: of the draws.

    Reference: Owen, Annals of Applied Statistics 1, 2007 (two groupings).
    """
    weight = np.ones(len(values)) if weights is None else np.asarray(weights, float)
    rng = np.random.default_rng(seed)
    groups = [np.unique(cluster, return_inverse=True)[1] for cluster in clusters]
    sizes = [int(group.max()) + 1 for group in groups]
    copies = [rng.multinomial(n, np.full(n, 1 / n), size=n_resamples).astype(float) for n in sizes]
    if len(groups) == 1:
        top, bottom = (np.bincount(groups[0], part, sizes[0]) for part in (weight * values, weight))
        drawn = (copies[0] @ top) / (copies[0] @ bottom)
    elif len(groups) == 2:
        import scipy.sparse

        tables = [
            scipy.sparse.csr_array((part, (groups[0], groups[1])), shape=tuple(sizes))
            for part in (weight * values, weight)
        ]
        top, bottom = (np.einsum("rg,rg->r", copies[0], (table @ copies[1].T).T) for table in tables)
        drawn = top / bottom
    else:
        raise ConfigError(f"A bootstrap draws one or two groupings anew, not {len(groups)}.")
    mean = float(np.sum(weight * values) / weight.sum())
    found = _share(mean, float(drawn.std(ddof=1)), values, sizes[0])
    lo, hi = np.quantile(drawn, [0.025, 0.975])
    return Share(found.value, found.se, float(lo), float(hi), found.deff, found.n, found.n_clusters)


def _share(mean: float, se: float, values: np.ndarray, n_clusters: int) -> Share:
    simple = float(np.var(values) / len(values))
    deff = se**2 / simple if simple > 0 else np.nan
    return Share(mean, float(se), mean - 1.96 * se, mean + 1.96 * se, float(deff), len(values), n_clusters)


def prevalence(
    frame: Frame,
    *,
    method: Method = "linearised",
    weights: str | None = None,
    pooled: bool = False,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Frame:
    """Shares of every construct in every condition; annotators are the clusters.

    Args:
        frame: the long table.
        method: `linearised`, `bootstrap` over annotators, or `bootstrap_two_way` over annotators and items.
        weights: a column of weights (see `post_stratify`).
        pooled: also all conditions together, as condition "all".
        n_resamples: of a bootstrap.
        seed: of a bootstrap.

    Returns:
        One row per construct and condition: `construct, condition, value, se, lo, hi, deff, n, n_annotators, n_items,
        n_missing`.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    rows = []
    for construct in constructs_of(frame):
        own = answered(frame, construct)
        for condition in (*conditions_of(own), *(["all"] if pooled else [])):
            part = own if condition == "all" else own[own["condition"] == condition]
            asked = frame[frame["construct"] == construct]
            asked = asked if condition == "all" else asked[asked["condition"] == condition]
            weight = None if weights is None else part[weights].to_numpy(float)
            annotator, item = codes(part["annotator"])[0], codes(part["item"])[0]
            values = part["value"].to_numpy(float)
            if method == "linearised":
                share = clustered_mean(values, annotator, weight)
            else:
                groups = [annotator] if method == "bootstrap" else [annotator, item]
                share = bootstrap_mean(values, groups, weight, n_resamples=n_resamples, seed=seed)
            rows.append(
                {"construct": construct, "condition": condition}
                | {name: getattr(share, name) for name in ("value", "se", "lo", "hi", "deff", "n")}
                | {"n_annotators": share.n_clusters, "n_items": int(item.max()) + 1}
                | {"n_missing": int(asked["value"].isna().sum())}
            )
    return pandas().DataFrame(rows)


def post_stratify(
    attributes: Frame, targets: Mapping[str, Mapping[Any, float]], *, n_steps: int = 200, tolerance: float = 1e-10
) -> Float[np.ndarray, " annotator"]:
    """Weights of annotators (mean 1) with which the sample has the population's shares.

    With one attribute this is post-stratification; with several, raking over their margins.

    Args:
        attributes: one row per annotator.
        targets: attribute → level → share of the population (shares of an attribute add up to 1).
        n_steps: rounds of raking at most.
        tolerance: stop when no share is further off.

    Raises:
        DataError: a level has no annotators, or annotators have a level without a share.
        ConfigError: shares do not add up to 1, or raking does not converge (the targets contradict each other).

    Reference: Holt & Smith 1979; Deming & Stephan 1940 (raking).
    """
    margins = []
    for name, wanted in targets.items():
        if name not in attributes.columns:
            raise unknown("attribute", name, map(str, attributes.columns))
        if abs(sum(wanted.values()) - 1) > 1e-6:
            raise ConfigError(f"Shares of '{name}' add up to {sum(wanted.values()):g}, not 1. Give all levels.")
        there = set(attributes[name])
        if empty := sorted(map(str, set(wanted) - there)):
            raise DataError(
                f"Nobody in the sample has {name} = {', '.join(empty)}: no weight can stand in. Merge levels."
            )
        if more := sorted(map(str, there - set(wanted))):
            raise DataError(f"Annotators have {name} = {', '.join(more)}, which has no share. Add it, or recode them.")
        level, names = codes(attributes[name])
        margins.append((level, np.array([wanted[one] for one in names], float)))
    weight = np.ones(len(attributes))
    for _ in range(n_steps):
        for level, share in margins:
            weight = weight * (share / (np.bincount(level, weight) / weight.sum()))[level]
        off = max((np.abs(np.bincount(level, weight) / weight.sum() - s).max() for level, s in margins), default=0.0)
        if off < tolerance:
            return weight * len(weight) / weight.sum()
    raise ConfigError(
        f"Raking did not reach the shares in {n_steps} rounds (still {off:.2g} off): some combination has no "
        "annotator. Use fewer attributes or merge levels."
    )


def holm(p_values: Sequence[float] | Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """p values adjusted for their number, so that the chance of any false finding stays bounded.

    Reference: Holm, Scandinavian Journal of Statistics 6, 1979.
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    out = np.empty(len(p))
    out[order] = np.minimum(stepped, 1.0)
    return out
