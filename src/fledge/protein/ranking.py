"""A ranked list of candidates, with what a person needs to decide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from fledge.core.files import to_csv, write_text
from fledge.data.mutations import Variants
from fledge.protein.choose import distance

COLUMNS = (
    "rank",
    "mutant",
    "n_mutations",
    "predicted",
    "std",
    "percentile",
    "nearest_measured",
    "distance",
    "flags",
    "sequence",
)
FAR = 2
"""More mutations away from every measured variant than this is flagged."""
_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class Ranking:
    """Candidates in order."""

    columns: Mapping[str, list[Any]]
    variants: Variants

    def __len__(self) -> int:
        return len(self.columns["mutant"])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for cells in zip(*self.columns.values(), strict=True):
            yield dict(zip(self.columns, cells, strict=True))

    @property
    def mutants(self) -> list[str]:
        """Their names, best first."""
        return self.columns["mutant"]

    def csv(self) -> str:
        """As CSV text."""
        return to_csv(tuple(self.columns), list(zip(*self.columns.values(), strict=True)))

    def write(self, path: Path) -> Path:
        """As a CSV file."""
        return write_text(path, self.csv())


def ranked(
    wild_type: str,
    candidates: Variants,
    values: Float[np.ndarray, " variant"],
    spread: Float[np.ndarray, " variant"],
    measured: Variants,
    *,
    order: Int[np.ndarray, " pick"] | None = None,
    in_place: bool = False,
) -> Ranking:
    """Candidates by falling value, ties as they came; or in the order given; or `in_place`, with their ranks."""
    percentile = 100 * (rankdata(values) - 0.5) / len(values)
    by_value = np.argsort(-values, kind="stable")
    ranks = np.arange(1, len(values) + 1)
    if in_place:
        order, ranks = np.arange(len(values)), np.argsort(by_value) + 1
    elif order is None:
        order = by_value
    shown = candidates.take(order)
    names = shown.names(wild_type)
    near, far = _nearest(shown, measured)
    known = measured.names(wild_type)
    sites = set(measured.sites[measured.sites >= 0].tolist())
    flags = []
    for row, step in zip(shown.sites.tolist(), far.tolist(), strict=True):
        unseen = len(sites) > 0 and any(site >= 0 and site not in sites for site in row)
        flags.append(" ".join(["unseen-position"] * unseen + ["far"] * (step > FAR)))
    columns = {
        "rank": ranks[: len(order)].tolist(),
        "mutant": names,
        "n_mutations": shown.counts.tolist(),
        "predicted": np.asarray(values, float)[order].tolist(),
        "std": np.asarray(spread, float)[order].tolist(),
        "percentile": percentile[order].round(2).tolist(),
        "nearest_measured": [known[i] if i >= 0 else "" for i in near.tolist()],
        "distance": [None if i < 0 else d for i, d in zip(near.tolist(), far.tolist(), strict=True)],
        "flags": flags,
        "sequence": shown.sequences(wild_type),
    }
    return Ranking(columns, shown)


def _nearest(shown: Variants, measured: Variants) -> tuple[np.ndarray, np.ndarray]:
    """Number of and distance from the nearest measured variant; −1 and 0 where nothing was measured."""
    if not len(measured):
        return np.full(len(shown), -1), np.zeros(len(shown), np.int64)
    near, far = [], []
    for start in range(0, len(shown), _CHUNK):
        steps = distance(shown.take(np.arange(start, min(start + _CHUNK, len(shown)))), measured)
        near.append(steps.argmin(axis=1))
        far.append(steps.min(axis=1))
    return np.concatenate(near), np.concatenate(far)
