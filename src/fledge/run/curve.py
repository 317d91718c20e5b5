"""The adaptation curve as an object: what was measured, with intervals, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from rich.table import Table

from fledge.core.errors import unknown
from fledge.core.records import Cube, Curves
from fledge.core.stats import Estimate, bootstrap, iqm, mean

MOST_ROWS = 10
MOST_COLUMNS = 4
"""Of a table with one row per episode: more do not fit 80 characters."""


@dataclass(frozen=True)
class AdaptationCurve:
    """Performance in each episode of a trial on tasks of a split, with the references measured beside it."""

    recipe: str
    split: str
    curves: Curves
    """All rows, as in curves.csv."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """What was measured."""
        return tuple(sorted(set(self.curves.where(recipe=self.recipe).metric)))

    @property
    def references(self) -> tuple[str, ...]:
        """Who was measured beside the recipe (`optimum`, `thompson` …)."""
        return tuple(dict.fromkeys(name for name in self.curves.recipe if name != self.recipe))

    @property
    def returns(self) -> Float[np.ndarray, "seed task episode"]:
        """Undiscounted returns, actions sampled."""
        return self.cube("return").scores

    def cube(self, metric: str = "return", recipe: str | None = None) -> Cube:
        """The values of a metric as an array (seed, task, episode), with the names of its axes.

        Raises:
            ConfigError: it was not measured.
        """
        rows = self.curves.where(recipe=recipe or self.recipe, split=self.split, metric=metric)
        if not len(rows):
            raise unknown("metric in this curve", metric, self.metrics)
        return rows.cube()

    def estimate(self, metric: str = "return", recipe: str | None = None) -> Estimate:
        """Interquartile mean and 95 % interval of each episode."""
        return bootstrap(self.cube(metric, recipe).scores)

    @property
    def by_step(self) -> bool:
        """Whether x counts gradient steps instead of episodes."""
        return "gradient_step" in set(self.curves.x_unit)

    def trial(self, metric: str = "return", recipe: str | None = None) -> Float[np.ndarray, "seed task"]:
        """Sums over the episodes of a trial; where x counts gradient steps, what came after the last of them."""
        scores = self.cube(metric, recipe).scores
        return scores[..., -1] if self.by_step else scores.sum(-1)

    def table(self) -> Table:
        """A table for `rich`: one row per episode, interquartile means with 95 % intervals over seeds and tasks."""
        shown = [metric for metric in ("return", "return_greedy") if metric in self.metrics]
        cube = self.cube(shown[0])
        columns = {metric.replace("_", " "): column(self.cube(metric).scores) for metric in shown}
        if "success" in self.metrics:
            columns["success"] = [f"{x:.0%}" for x in mean(self.cube("success").scores)] + [""]
        for name in self.references:
            columns[name] = column(self.cube("return", name).scores, bounds=False)
        seeds = "1 seed" if len(cube.seeds) == 1 else f"{len(cube.seeds)} seeds"
        tasks = f"{len(cube.tasks)} {self.split} task{'s' if len(cube.tasks) > 1 else ''}"
        return by_episode(f"{self.recipe}: adaptation on {tasks}, {seeds}", columns, steps=self.by_step)


def column(scores: Float[np.ndarray, "seed task episode"], *, bounds: bool = True) -> list[str]:
    """The cells of one column: each episode, and the sum of all."""
    estimates = [bootstrap(scores[..., k]) if bounds else None for k in range(scores.shape[-1])]
    estimates += [bootstrap(scores.sum(-1)) if bounds else None]
    values = [*np.atleast_1d(iqm(scores)), iqm(scores.sum(-1))]
    digits = 1 if np.nanmax(np.abs(values)) >= 3 else 2
    return [_cell(float(value), estimate, digits) for value, estimate in zip(values, estimates, strict=True)]


def by_episode(title: str, columns: Mapping[str, Sequence[str]], *, steps: bool = False) -> Table:
    """A table with one row per episode (some, of many) and one for their sum; columns hold a cell for each.

    With `steps` a row is a gradient step (0: before the first), and there is no sum.
    """
    table = Table(title=title, caption="return: interquartile mean [95 % interval] over seeds and tasks")
    table.add_column("step" if steps else "ep.", justify="right", no_wrap=True)
    for name in columns:
        table.add_column(name.replace("-", "-\n", 1), justify="right", no_wrap=True)  # narrow enough for 80 columns
    n = len(next(iter(columns.values()))) - 1
    for k in _some(n):
        table.add_row(str(k if steps else k + 1), *(cells[k] for cells in columns.values()))
    if n > 1 and not steps:
        table.add_section()
        table.add_row("sum", *(cells[n] for cells in columns.values()))
    return table


def by_name(title: str, columns: Mapping[str, Sequence[str]], *, steps: bool = False) -> Table:
    """The same cells with one row per name, for many names: the first episode, the last, and their sum.

    With `steps` they are those before the first gradient step and after the last.
    """
    table = Table(title=title, caption="return: interquartile mean [95 % interval] over seeds and tasks")
    table.add_column("")
    n = len(next(iter(columns.values()))) - 1
    shown = {"episode 1": 0, f"episode {n}": n - 1, "sum of all": n} if n > 1 else {"episode": 0}
    if steps:
        shown = {"step 0": 0, f"step {n - 1}": n - 1}
    for name in shown:
        table.add_column(name, justify="right", no_wrap=True)
    for name, cells in columns.items():
        table.add_row(name, *(cells[k] for k in shown.values()))
    return table


def _cell(value: float, estimate: Estimate | None, digits: int) -> str:
    lo, hi = (np.nan, np.nan) if estimate is None else (float(estimate.lo), float(estimate.hi))
    shown = [f"{x:.{digits}f}" for x in (value, lo, hi)]
    return shown[0] if np.isnan(lo) else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def _some(n: int) -> list[int]:
    """All of a few episodes; of many, the first, the last, and some between (evenly in their logarithm)."""
    if n <= MOST_ROWS:
        return list(range(n))
    return sorted({0, n - 1, *(round(x) - 1 for x in np.geomspace(1, n, MOST_ROWS))})
