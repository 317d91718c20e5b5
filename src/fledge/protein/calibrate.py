"""From rankings to values: a line through held-out predictions, and intervals that cover what they promise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

FEWEST_TO_SCALE = 5
"""Labels below which predictions keep no unit."""
FEWEST_TO_COVER = 30
"""Labels from which residual quantiles give intervals (split conformal; Vovk et al. 2005)."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """What turns values v into the assay's unit."""

    slope: float
    intercept: float
    residuals: Float[np.ndarray, " label"]
    """Of labels that neither the prediction nor the line had seen."""
    has_unit: bool
    typical: float = 1.0
    """The median spread between models, over random single mutants."""

    def value(self, v: Float[np.ndarray, " variant"]) -> Float[np.ndarray, " variant"]:
        """In the assay's unit, where there were labels enough; else v itself."""
        return self.intercept + self.slope * v

    def relative(self, spread: Float[np.ndarray, " variant"]) -> Float[np.ndarray, " variant"]:
        """How much less sure than usual: between ¾ and 4/3, for spreads of few models are noisy themselves."""
        return np.clip(np.sqrt((spread + 1e-9) / (self.typical + 1e-9)), 0.75, 4 / 3)

    def std(self, spread: Float[np.ndarray, " variant"]) -> Float[np.ndarray, " variant"]:
        """Standard deviation of a prediction: that of held-out residuals, larger where the models disagree."""
        if not self.has_unit:
            return spread
        return float(np.sqrt(np.mean(self.residuals**2))) * self.relative(spread)

    def half_width(self, n: int, coverage: float) -> Float[np.ndarray, " variant"]:
        """Half of an interval that covers a new variant with this chance, for `n` of them; NaN below 30 labels.

        The ⌈(n + 1) coverage⌉-th smallest held-out residual. (Widths that follow the models' disagreement covered
        worse: with few labels it is a noisy guide.)
        """
        labels = len(self.residuals)
        if labels < FEWEST_TO_COVER:
            return np.full(n, np.nan)
        rank = min(labels, int(np.ceil((labels + 1) * coverage)))
        return np.full(n, float(np.sort(np.abs(self.residuals))[rank - 1]))


def calibrate(v: Float[np.ndarray, " label"], y: Float[np.ndarray, " label"], typical: float = 1.0) -> Calibration:
    """The line y ≈ a + b v (b ≥ 0) through predictions of labels that were held out, and its residuals.

    Each residual is that of a line through the other labels: divided by 1 − leverage.

    Args:
        v: held-out predictions.
        y: labels.
        typical: the usual spread between the models.
    """
    n = len(y)
    if n < FEWEST_TO_SCALE or np.ptp(y) == 0:
        return Calibration(1.0, 0.0, np.zeros(0), False)
    centred = v - v.mean()
    power = float(centred @ centred)
    slope = max(0.0, float(centred @ (y - y.mean())) / power) if power > 0 else 0.0
    leverage = 1 / n + (centred**2 / power if power > 0 and slope > 0 else 0.0)
    intercept = float(y.mean() - slope * v.mean())
    residuals = (y - intercept - slope * v) / np.maximum(1 - leverage, 0.1)
    return Calibration(slope, intercept, residuals, True, typical)
