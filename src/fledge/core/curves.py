"""Adaptation curves: the long table that all studios write and one report draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from fledge.core.errors import DataError, FledgeError, ShapeError, unknown
from fledge.core.files import csv_rows, number, one_of, read_text, to_csv, write_text
from fledge.core.metrics import check_metric

X_UNITS = ("episode", "shot", "label", "gradient_step", "env_step")
CURVE_COLUMNS = ("recipe", "split", "adapt", "seed", "task", "x", "x_unit", "metric", "value")
_NUMBERS = {"seed": np.int64, "x": np.float64, "value": np.float64}

Text = Shaped[np.ndarray, " row"]
"""A column of strings (dtype object)."""


@dataclass(frozen=True, eq=False)
class Curves:
    """curves.csv as columns of one length, one row per measurement.

    Build it with `Curves.of`, which spreads single values over all rows and checks names. NaN in `value` is a
    measurement that failed; a row that is not there is one that was never made. Both count as missing.
    """

    recipe: Text
    split: Text
    adapt: Text
    """How the agent adapted at test time (`default`, `all`, `scratch` …)."""
    seed: Int[np.ndarray, " row"]
    task: Text
    """A person's name for the task, such as "goal at (3, 4)"; equal names are the same task."""
    x: Float[np.ndarray, " row"]
    """How much of the new task had been seen; episodes count from 1."""
    x_unit: Text
    metric: Text
    value: Float[np.ndarray, " row"]

    @classmethod
    def of(cls, **columns: Any) -> Curves:
        """Curves from columns; a single string or number stands for a whole column.

        Raises:
            ConfigError: a unit or metric is unknown, or a column.
            ShapeError: columns of different lengths.
        """
        for name in columns:
            if name not in CURVE_COLUMNS:
                raise unknown("column", name, CURVE_COLUMNS)
        missing = [name for name in CURVE_COLUMNS if name not in columns]
        if missing:
            raise ShapeError(f"Curves need every column, but these are missing: {', '.join(missing)}.")
        parts = [_column(name, columns[name]) for name in CURVE_COLUMNS]
        lengths = {len(part) for part in parts if part.ndim}
        if len(lengths) > 1:
            found = ", ".join(f"{n} {len(p)}" for n, p in zip(CURVE_COLUMNS, parts, strict=True) if p.ndim)
            raise ShapeError(f"Columns of one length were wanted, but these came: {found}. Repeat the shorter ones.")
        length = lengths.pop() if lengths else 1
        curves = cls(*(np.broadcast_to(part, length) if part.ndim == 0 else part for part in parts))
        for unit in set(curves.x_unit):
            if unit not in X_UNITS:
                raise unknown("x_unit", unit, X_UNITS)
        for name in set(curves.metric):
            check_metric(name)
        return curves

    @classmethod
    def empty(cls) -> Curves:
        """No rows."""
        return cls.of(**dict.fromkeys(CURVE_COLUMNS, ()))

    @classmethod
    def concat(cls, parts: Sequence[Curves]) -> Curves:
        """All rows, one table after another."""
        if not parts:
            return cls.empty()
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in CURVE_COLUMNS))

    def __len__(self) -> int:
        return len(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Curves) and all(
            np.array_equal(getattr(self, f.name), getattr(other, f.name), equal_nan=f.name in ("x", "value"))
            for f in fields(self)
        )

    __hash__ = None  # type: ignore[assignment]

    def rows(self) -> list[tuple[object, ...]]:
        """Plain Python values, row by row."""
        return list(zip(*(getattr(self, name).tolist() for name in CURVE_COLUMNS), strict=True))

    def take(self, rows: Bool[np.ndarray, " row"]) -> Curves:
        """The rows where `rows` holds."""
        return Curves(*(getattr(self, name)[rows] for name in CURVE_COLUMNS))

    def where(self, **equals: object) -> Curves:
        """The rows whose columns equal these values: `curves.where(split="test", metric="return")`."""
        keep = np.ones(len(self), bool)
        for name, value in equals.items():
            if name not in CURVE_COLUMNS:
                raise unknown("column", name, CURVE_COLUMNS)
            keep &= np.asarray(getattr(self, name) == value, bool)
        return self.take(keep)

    def cube(self, tasks: Sequence[str] | None = None) -> Cube:
        """The values as an array (seed, task, x) for `fledge.core.stats`. Narrow the rows with `where` first.

        What was never measured is NaN; what was measured more than once is averaged.

        Args:
            tasks: the tasks to keep, in this order; by default all, sorted.

        Raises:
            ShapeError: rows of several recipes, splits, units … are mixed.
        """
        for name in ("recipe", "split", "adapt", "x_unit", "metric"):
            mixed = sorted(set(getattr(self, name)))
            if len(mixed) > 1:
                raise ShapeError(f"A cube holds one {name}, but {mixed} came. Choose with curves.where({name}=…).")
        rows = self.take(~np.isnan(self.value))
        if tasks is not None:
            rows = rows.take(np.isin(rows.task, np.asarray(list(tasks), object)))
        seeds, i = np.unique(rows.seed, return_inverse=True)
        xs, k = np.unique(rows.x, return_inverse=True)
        names = tuple(sorted(set(rows.task))) if tasks is None else tuple(tasks)
        place = {name: j for j, name in enumerate(names)}
        at = (i, np.array([place[name] for name in rows.task], int), k)
        total, count = np.zeros((2, len(seeds), len(names), len(xs)))
        np.add.at(total, at, rows.value)
        np.add.at(count, at, 1)
        scores = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
        return Cube(scores, seeds, names, xs)


@dataclass(frozen=True)
class Cube:
    """Scores with the names of their axes."""

    scores: Float[np.ndarray, "seed task x"]
    seeds: Int[np.ndarray, " seed"]
    tasks: tuple[str, ...]
    xs: Float[np.ndarray, " x"]


def write_curves(path: Path, curves: Curves, *, append: bool = False) -> Path:
    """Write curves.csv, whole or not at all. With `append`, after the rows that are there already.

    Raises:
        DataError: `append`, and the rows that are there are damaged (they stay as they are).
    """
    if append and Path(path).exists():
        curves = Curves.concat([read_curves(path), curves])
    return write_text(path, to_csv(CURVE_COLUMNS, curves.rows()))


def read_curves(path: Path) -> Curves:
    """The rows of curves.csv.

    Raises:
        DataError: the file is missing, or names the line with a wrong column, unit, metric or number.
    """
    path = Path(path)
    columns: list[list[Any]] = [[] for _ in CURVE_COLUMNS]
    known: set[str] = set()
    for line, cells in csv_rows(read_text(path, "adaptation curves (curves.csv)"), CURVE_COLUMNS, path):
        _, _, _, seed, _, x, x_unit, metric, value = cells
        one_of(x_unit, X_UNITS, "x_unit", path, line)
        if metric not in known:
            known.add(_known_metric(metric, path, line))
        numbers = {3: _whole(seed, path, line), 5: number(x, "x", path, line), 8: number(value, "value", path, line)}
        for i, column in enumerate(columns):
            column.append(numbers.get(i, cells[i]))
    return Curves(*(_column(name, column) for name, column in zip(CURVE_COLUMNS, columns, strict=True)))


def _known_metric(name: str, path: Path, line: int) -> str:
    try:
        check_metric(name)
    except FledgeError as error:
        raise DataError(f"{path}, line {line}: {error}") from None
    return name


def _whole(text: str, path: Path, line: int) -> int:
    try:
        return int(text)
    except ValueError:
        raise DataError(f"{path}, line {line}: '{text}' in column 'seed' is not a whole number.") from None


def _column(name: str, values: Any) -> np.ndarray:
    if name in _NUMBERS:
        return np.asarray(values, _NUMBERS[name])
    if isinstance(values, str):
        return np.array(values, object)
    texts = list(values)
    column = np.empty(len(texts), object)
    column[:] = [str(text) for text in texts]
    return column
