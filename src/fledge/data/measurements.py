"""Measurements as people bring them: replicates, values below detection, rounds on different scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from fledge.core.errors import ConfigError, DataError
from fledge.data.mutations import Variants

_BELOW = ("<", "≤", "lod", "bdl", "n.d.", "nd", "dead", "below")
_MISSING = ("", "na", "nan", "n/a", "none", "null", "-", "?")
Normalise = Literal["none", "standardise", "wild_type"]


def read_scores(cells: Sequence[str | float], rows: Sequence[str] | None = None) -> Float[np.ndarray, " row"]:
    """Numbers of cells. Missing ones are NaN; censored ones (`<LOD`, `<0.1`, `dead`) are −inf, to be put at the bottom.

    Raises:
        DataError: one error that lists every cell that is neither.
    """
    faults, values = [], np.empty(len(cells))
    for i, cell in enumerate(cells):
        text = str(cell).strip()
        if text.lower() in _MISSING:
            values[i] = np.nan
            continue
        if text.lower().startswith(_BELOW):
            values[i] = -np.inf
            continue
        try:
            values[i] = float(text)
        except ValueError:
            faults.append(f"  {rows[i] if rows is not None else f'row {i + 1}'}: '{text}'")
        else:
            if values[i] == np.inf:
                faults.append(f"  {rows[i] if rows is not None else f'row {i + 1}'}: infinite")
    if faults:
        shown = "\n".join(faults[:40]) + (f"\n  … and {len(faults) - 40} more" if len(faults) > 40 else "")
        raise DataError(
            f"{len(faults)} of {len(cells)} scores are not numbers:\n{shown}\n"
            "Write a number, nothing (or nan) for what is missing, or '<LOD' for what is below detection."
        )
    return values


def place_censored(scores: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """Scores with everything below detection (−inf) tied at the bottom: at the lowest value that was measured.

    Raises:
        DataError: nothing was measured above detection.
    """
    scores = np.asarray(scores, float)
    if not np.isneginf(scores).any():
        return scores
    measured = scores[np.isfinite(scores)]
    if not measured.size:
        raise DataError("All scores are below detection, so nothing can be ranked. Add variants with measured values.")
    return np.where(np.isneginf(scores), measured.min(), scores)


def normalise_rounds(
    scores: Float[np.ndarray, " row"],
    rounds: Sequence[object] | np.ndarray | None,
    *,
    how: Normalise = "standardise",
    is_wild_type: Sequence[object] | np.ndarray | None = None,
) -> Float[np.ndarray, " row"]:
    """Scores of several rounds or plates on one scale.

    Args:
        scores: NaN is left alone.
        rounds: which round each belongs to; None: all are of one.
        how: "standardise" subtracts each round's mean and divides by its standard deviation; "wild_type" divides by
            the mean of the round's wild-type wells; "none" leaves them.
        is_wild_type: which rows are wild-type wells; needed for "wild_type".

    Raises:
        ConfigError: `how` is none of these.
        DataError: a round has no wild-type well above 0, or only one value to standardise by.
    """
    if how not in ("none", "standardise", "wild_type"):
        raise ConfigError(f"Rounds are normalised by 'none', 'standardise' or 'wild_type', not '{how}'.")
    scores = np.asarray(scores, float).copy()
    if how == "none":
        return scores
    labels = np.array(["" if rounds is None else str(x) for x in (rounds if rounds is not None else scores)])
    wild = np.zeros(len(scores), bool) if is_wild_type is None else np.asarray(is_wild_type, bool)
    for label in dict.fromkeys(labels.tolist()):
        here = labels == label
        if how == "wild_type":
            wells = scores[here & wild]
            wells = wells[np.isfinite(wells)]
            if not wells.size or wells.mean() <= 0:
                where = f"Round '{label}'" if rounds is not None else "The file"
                raise DataError(
                    f"{where} has no wild-type well with a value above 0 to divide by. Add one (variant 'WT'), or "
                    "normalise by 'standardise'."
                )
            scores[here] /= wells.mean()
        else:
            values = scores[here]
            values = values[np.isfinite(values)]
            if values.size < 2:
                raise DataError(f"Round '{label}' has {values.size} values; standardising it takes at least two.")
            spread = values.std()
            scores[here] = (scores[here] - values.mean()) / (spread if spread > 0 else 1.0)
    return scores


@dataclass(frozen=True, eq=False)
class Replicates:
    """One row per variant."""

    variants: Variants
    mean: Float[np.ndarray, " variant"]
    sd: Float[np.ndarray, " variant"]
    """Between replicates; NaN where there is one."""
    count: Int[np.ndarray, " variant"]
    rows: Int[np.ndarray, " variant"]
    """The first row of each variant."""


def combine_replicates(variants: Variants, scores: Float[np.ndarray, " row"]) -> Replicates:
    """Mean, standard deviation and number of the measurements of each variant, in the order of their first rows.

    Rows without a value (NaN) are left out.
    """
    scores = np.asarray(scores, float)
    groups: dict[bytes, list[int]] = {}
    for i, key in enumerate(variants.keys()):
        if not np.isnan(scores[i]):
            groups.setdefault(key, []).append(i)
    rows = np.array([group[0] for group in groups.values()], np.int64)
    mean = np.array([scores[group].mean() for group in groups.values()], float)
    sd = np.array([scores[group].std(ddof=1) if len(group) > 1 else np.nan for group in groups.values()], float)
    count = np.array([len(group) for group in groups.values()], np.int64)
    return Replicates(variants.take(rows), mean, sd, count, rows)


def join(variants: Variants, table: Variants, values: Float[np.ndarray, " entry"]) -> Float[np.ndarray, " variant"]:
    """The values of a table for these variants, found by mutant and never by row order; NaN where there is none.

    Raises:
        DataError: the table has two different values for one variant.
    """
    known: dict[bytes, float] = {}
    for key, value in zip(table.keys(), np.asarray(values, float).tolist(), strict=True):
        if known.setdefault(key, value) != value and not (np.isnan(known[key]) and np.isnan(value)):
            raise DataError("The table to be joined has two different values for one variant. Keep one of them.")
    return np.array([known.get(key, np.nan) for key in variants.keys()], float)  # noqa: SIM118
