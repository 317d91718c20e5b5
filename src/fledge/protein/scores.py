"""How good a ranking is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata


def spearman(predicted: Float[np.ndarray, " row"], measured: Float[np.ndarray, " row"]) -> float:
    """Rank correlation with ties at their mean rank; 0 where either is constant (not left out)."""
    a, b = rankdata(predicted), rankdata(measured)
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else 0.0


def ndcg(predicted: Float[np.ndarray, " row"], measured: Float[np.ndarray, " row"], top: float = 0.1) -> float:
    """Discounted gain of the best-predicted share of the variants; gains are measured values scaled to 0 … 1."""
    spread = float(np.ptp(measured))
    if spread == 0:
        return 1.0
    gains = (measured - measured.min()) / spread
    k = max(1, round(top * len(gains)))
    discounts = 1 / np.log2(np.arange(2, k + 2))
    best = np.sort(gains)[::-1][:k] @ discounts
    return float(gains[np.argsort(-predicted, kind="stable")[:k]] @ discounts / best)


def top_recall(predicted: Float[np.ndarray, " row"], measured: Float[np.ndarray, " row"], top: float = 0.1) -> float:
    """Share of the best-measured tenth that is in the best-predicted tenth."""
    k = max(1, round(top * len(measured)))
    best = set(np.argsort(-measured, kind="stable")[:k].tolist())
    return len(best & set(np.argsort(-predicted, kind="stable")[:k].tolist())) / k


def aggregate(
    scores: Mapping[str, float], proteins: Mapping[str, str], types: Mapping[str, str]
) -> tuple[float, float]:
    """The plain mean over assays, and ProteinGym's: within a protein and type of selection, a type, over types."""
    plain = float(np.mean(list(scores.values())))
    by_protein: dict[tuple[str, str], list[float]] = {}
    for name, value in scores.items():
        by_protein.setdefault((types[name], proteins[name]), []).append(value)
    by_type: dict[str, list[float]] = {}
    for (kind, _), values in by_protein.items():
        by_type.setdefault(kind, []).append(float(np.mean(values)))
    return plain, float(np.mean([np.mean(values) for values in by_type.values()]))


def mean_of(scores: Sequence[float]) -> float:
    """The mean; NaN of nothing."""
    return float(np.mean(scores)) if len(scores) else float("nan")
