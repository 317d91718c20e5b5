"""From rankings to values: a line through held-out predictions, and intervals that cover what they promise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

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
    """Of labels that the prediction had not seen, each divided by its relative spread."""
    has_unit: bool
    typical: float = 1.0
    """The median spread of the held-out predictions."""

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

    def half_width(self, spread: Float[np.ndarray, " variant"], coverage: float) -> Float[np.ndarray, " variant"]:
        """Half of an interval that covers a new variant with this chance; NaN below 30 labels.

        The ⌈(n + 1) coverage⌉-th smallest held-out residual, scaled by how sure the models are.
        """
        n = len(self.residuals)
        if n < FEWEST_TO_COVER:
            return np.full(spread.shape, np.nan)
        rank = min(n, int(np.ceil((n + 1) * coverage)))
        return float(np.sort(np.abs(self.residuals))[rank - 1]) * self.relative(spread)


def calibrate(
    v: Float[np.ndarray, " label"],
    spread: Float[np.ndarray, " label"],
    y: Float[np.ndarray, " label"],
    seen: Bool[np.ndarray, " label"] | None = None,
) -> Calibration:
    """The line y ≈ a + b v (b ≥ 0) through predictions of labels that were held out, and its residuals.

    Args:
        v: held-out predictions.
        spread: between the models that made each of them.
        y: labels.
        seen: rows to leave out.
    """
    keep = np.ones(len(y), bool) if seen is None else ~seen
    v, spread, y = v[keep], spread[keep], y[keep]
    if len(y) < FEWEST_TO_SCALE or np.ptp(y) == 0:
        return Calibration(1.0, 0.0, np.zeros(0), False)
    variance = float(np.var(v))
    slope = max(0.0, float(np.mean((v - v.mean()) * (y - y.mean()))) / variance) if variance > 0 else 0.0
    intercept = float(y.mean() - slope * v.mean())
    typical = float(np.median(spread)) if len(spread) else 1.0
    plain = Calibration(slope, intercept, y, True, typical)
    residuals = (y - plain.value(v)) / plain.relative(spread)
    return Calibration(slope, intercept, residuals, True, typical)
