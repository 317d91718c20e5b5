"""statistics.csv: what memories do with each token, a row for each memory, statistic, initialisation and token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from fledge.core.errors import DataError
from fledge.core.files import csv_rows, number, read_text, to_csv, write_text

STATISTIC_COLUMNS = ("memory", "statistic", "init", "token", "value")

Statistics = Mapping[str, Float[np.ndarray, "init token"]]
"""Statistic → its values."""


def write_statistics(path: Path, table: Mapping[str, Statistics]) -> Path:
    """Write the statistics of each memory, whole or not at all."""
    return write_text(path, to_csv(STATISTIC_COLUMNS, _rows(table)))


def _rows(table: Mapping[str, Statistics]) -> Iterator[tuple[object, ...]]:
    for memory, statistics in table.items():
        for name, values in statistics.items():
            for (init, token), value in np.ndenumerate(values):
                yield memory, name, init, token, float(value)


def read_statistics(path: Path) -> dict[str, dict[str, Float[np.ndarray, "init token"]]]:
    """Memory → statistic → values; what is not in the file is NaN.

    Raises:
        DataError: the file is missing, or names the line with a wrong column or number.
    """
    path = Path(path)
    found: dict[str, dict[str, dict[tuple[int, int], float]]] = {}
    for line, cells in csv_rows(read_text(path, "statistics (statistics.csv)"), STATISTIC_COLUMNS, path):
        memory, name, init, token, value = cells
        place = (_count(init, "init", path, line), _count(token, "token", path, line))
        found.setdefault(memory, {}).setdefault(name, {})[place] = number(value, "value", path, line)
    return {memory: {name: _array(cells) for name, cells in rows.items()} for memory, rows in found.items()}


def _array(cells: Mapping[tuple[int, int], float]) -> Float[np.ndarray, "init token"]:
    places = np.array(list(cells))
    values = np.full(places.max(axis=0) + 1, np.nan)
    values[tuple(places.T)] = list(cells.values())
    return values


def _count(text: str, column: str, path: Path, line: int) -> int:
    if not text.isdecimal():
        raise DataError(f"{path}, line {line}: '{text}' in column '{column}' is not a whole number from 0 on.")
    return int(text)
