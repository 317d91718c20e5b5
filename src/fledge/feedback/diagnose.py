"""What labels look like before anything is learnt from them: their spread, what a filter keeps, whether they repeat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import pearsonr, spearmanr

from fledge.data.segments import SegmentTable
from fledge.feedback.arms import Feedback
from fledge.feedback.labels import combine, keep, keep_rates

ALPHAS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
BINS = 20
POINTS = 600


def diagnose(feedback: Feedback, *, alpha: float = 0.1, retro_k: int = 1) -> dict[str, Any]:
    """Plain values for a file: histogram of P, keep rates, yes rates, correlation with reward, reliability.

    Args:
        feedback: behaviour and answers.
        alpha: of the filter.
        retro_k: of the look back.
    """
    table = feedback.table
    p = combine(feedback.parts)
    judged = ~np.isnan(p)
    counts, edges = np.histogram(p[judged], bins=BINS, range=(0.0, 1.0))
    reward = table.sums(feedback.trajectories.rewards)
    kept = keep(p, table, alpha=alpha, retro_k=retro_k)
    found: dict[str, Any] = {
        "data": feedback.trajectories.summary(),
        "segments": len(table),
        "not_judged": int((~judged).sum()),
        "alpha": alpha,
        "retro_k": retro_k,
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
        "keep": [list(row) for row in keep_rates(p, table, ALPHAS, retro_k)],
        "kept": float(kept.mean()),
        "kept_before": float(keep(p, table, alpha=alpha, retro_k=0).mean()),
        "yes": {name: float(np.nanmean(np.atleast_2d(x) >= 0.5)) for name, x in feedback.parts.items()},
        "by_index": _by_index(p, table, alpha),
        "correlation": correlation(p, reward),
        "scatter": _scatter(p, reward),
        "reliability": {name: reliability(np.atleast_2d(x)) for name, x in feedback.parts.items()},
    }
    expert = feedback.trajectories.extras.get("expert")
    if expert is not None:
        right = expert[table.first]
        found["wanted"] = {
            "kept_of_wanted": float(kept[right].mean()),
            "kept_of_unwanted": float(kept[~right].mean()),
            "exact": bool((kept == right).all()),
        }
    return found


def correlation(p: Float[np.ndarray, " segment"], reward: Float[np.ndarray, " segment"]) -> dict[str, float]:
    """Pearson's and Spearman's correlation of P with the true reward of the segment; NaN where either is constant."""
    there = ~np.isnan(p)
    x, y = p[there], reward[there]
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return {"pearson": float("nan"), "spearman": float("nan")}
    return {"pearson": float(pearsonr(x, y)[0]), "spearman": float(spearmanr(x, y)[0])}


def _scatter(p: np.ndarray, reward: np.ndarray) -> list[list[float]]:
    """P and true reward of some segments, drawn at random: what a picture can show."""
    rows = np.flatnonzero(~np.isnan(p))
    rows = np.sort(np.random.default_rng(0).choice(rows, min(POINTS, len(rows)), replace=False))
    return [[round(float(p[i]), 4), round(float(reward[i]), 3)] for i in rows]


def reliability(p: Float[np.ndarray, "replicate segment"]) -> dict[str, float]:
    """Agreement of replicates, over all pairs of them: share of equal answers, Cohen's κ, correlation of P.

    One replicate says nothing: NaN.
    """
    n = len(p)
    pairs = [pairwise(p[i], p[j]) for i in range(n) for j in range(i)]
    nothing = {"agreement": float("nan"), "kappa": float("nan"), "correlation": float("nan")}
    if not pairs:
        return nothing
    found = {name: [pair[name] for pair in pairs if not np.isnan(pair[name])] for name in nothing}
    return {name: float(np.mean(values)) if values else float("nan") for name, values in found.items()}


def pairwise(a: Float[np.ndarray, " segment"], b: Float[np.ndarray, " segment"]) -> Mapping[str, float]:
    """Share of equal answers, Cohen's κ and correlation of two sets of P, where both said something.

    κ is NaN where chance agreement is 1: everybody always says the same.
    """
    there = ~(np.isnan(a) | np.isnan(b))
    x, y = a[there] >= 0.5, b[there] >= 0.5
    if not len(x):
        return {"agreement": float("nan"), "kappa": float("nan"), "correlation": float("nan")}
    agreement = float((x == y).mean())
    chance = float(x.mean() * y.mean() + (1 - x.mean()) * (1 - y.mean()))
    kappa = (agreement - chance) / (1 - chance) if chance < 1 else float("nan")
    varied = np.ptp(a[there]) > 0 and np.ptp(b[there]) > 0
    r = float(np.corrcoef(a[there], b[there])[0, 1]) if varied else float("nan")
    return {"agreement": agreement, "kappa": kappa, "correlation": r}


def _by_index(p: np.ndarray, table: SegmentTable, alpha: float) -> list[float]:
    """Share that passes α, by the segment's number in its episode."""
    index = table.index
    return [float((p[index == i] >= alpha).mean()) for i in range(int(index.max()) + 1)]


def examples(
    p: Float[np.ndarray, " segment"], table: SegmentTable, *, alpha: float, retro_k: int, n: int = 3, seed: int = 0
) -> dict[str, list[int]]:
    """A few segments of each fate: kept, dropped by the filter, dropped by the look back. Drawn at random."""
    rng = np.random.default_rng(seed)
    passes = keep(p, table, alpha=alpha, retro_k=0)
    kept = keep(p, table, alpha=alpha, retro_k=retro_k)
    fates = {"kept": kept, "below alpha": ~passes & ~np.isnan(p), "dropped by the look back": passes & ~kept}
    chosen = {}
    for name, mine in fates.items():
        rows = np.flatnonzero(mine)
        chosen[name] = sorted(rng.choice(rows, min(n, len(rows)), replace=False).tolist())
    return chosen
