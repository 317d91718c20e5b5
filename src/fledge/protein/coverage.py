"""Do intervals hold what they promise? Measured on assays that were never learnt from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fledge.core.errors import FledgeError
from fledge.data.assays import Assay
from fledge.data.protein_splits import few_shot
from fledge.protein.calibrate import FEWEST_TO_COVER
from fledge.protein.estimator import FitnessEstimator
from fledge.protein.evaluate import Protocol
from fledge.protein.tasks import KINDS, kind_of

LEVELS = (0.5, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Covered:
    """How often an interval held the measurement."""

    nominal: float
    """What it promised."""
    covered: float
    """The share of the ranked variants whose score was inside."""
    n: int
    """Labels."""
    assay: str
    width: float
    """Of the interval, in standard deviations of the assay."""


def coverage(
    assays: Sequence[Assay],
    protocol: Protocol,
    *,
    weights: Path | str | None = None,
    levels: Sequence[float] = LEVELS,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Covered]:
    """Coverage of `FitnessEstimator.predict_interval` on variants whose scores it never saw; the first shuffle of each.

    Only numbers of labels from which there are intervals are measured, and scores that differ.

    Args:
        assays: none of which was learnt from.
        protocol: numbers of labels, ranked variants and the seed.
        weights: of the models; the shipped ones by default.
        levels: promises.
        tell: called with a line for each assay that is left out.
    """
    found: list[Covered] = []
    for assay in assays:
        kept = np.isfinite(assay.scores)
        variants, scores = assay.variants.take(kept), assay.scores[kept]
        for shots in protocol.shots:
            if shots < FEWEST_TO_COVER:
                continue
            model = FitnessEstimator(assay.wild_type, weights=weights, kind=KINDS[kind_of(assay)])
            try:
                shot = few_shot(len(scores), shots, protocol.seed, most=protocol.n_query)
                model.fit(variants.take(shot.support), scores[shot.support])
                bounds = [model.predict_interval(variants.take(shot.query), level) for level in levels]
            except FledgeError as error:
                tell(f"{assay.name}: {error}")
                continue
            truth, sd = scores[shot.query], float(scores.std())
            for level, (low, high) in zip(levels, bounds, strict=True):
                inside = float(np.mean((truth >= low) & (truth <= high)))
                found.append(Covered(level, inside, shots, assay.name, float(np.mean(high - low)) / sd))
    return found


def mean_coverage(found: Sequence[Covered]) -> dict[tuple[int, float], float]:
    """(labels, promise) → the mean over assays."""
    cells: dict[tuple[int, float], list[float]] = {}
    for row in found:
        cells.setdefault((row.n, row.nominal), []).append(row.covered)
    return {key: float(np.mean(values)) for key, values in cells.items()}
