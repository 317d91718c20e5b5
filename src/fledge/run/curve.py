"""The adaptation curve as an object: what was measured, with intervals, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from rich.table import Table

from fledge.core.errors import unknown
from fledge.core.records import Cube, Curves
from fledge.core.stats import Estimate, bootstrap, iqm

MOST_ROWS = 10


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

    def trial(self, metric: str = "return", recipe: str | None = None) -> Float[np.ndarray, "seed task"]:
        """Sums over the episodes of a trial."""
        return self.cube(metric, recipe).scores.sum(-1)

    def table(self, metrics: Sequence[str] | None = None) -> Table:
        """Rows for `rich`: one per episode, interquartile means with 95 % intervals over seeds and tasks."""
        shown = [m for m in (metrics or ("return", "return_greedy", "success")) if m in self.metrics]
        cube = self.cube(shown[0])
        table = Table(
            title=f"{self.recipe}: adaptation on {len(cube.tasks)} {self.split} tasks, {len(cube.seeds)} seed(s)",
            caption="interquartile mean [95 % interval] over seeds and tasks; the others: interquartile mean",
        )
        table.add_column("episode", justify="right")
        estimates = [self.estimate(metric) for metric in shown]
        for metric in shown:
            table.add_column(metric.replace("_", " "), justify="right")
        beside = [name for name in self.references if len(self.curves.where(recipe=name, metric="return"))]
        means = [iqm(self.cube("return", name).scores) for name in beside]
        for name in beside:
            table.add_column(name, justify="right")
        for k in _some(len(cube.xs)):
            cells = [_interval(e, k) for e in estimates] + [f"{mean[k]:.2f}" for mean in means]
            table.add_row(f"{cube.xs[k]:.0f}", *cells)
        if len(cube.xs) > 1:
            sums = [bootstrap(self.trial(metric)) if metric != "success" else None for metric in shown]
            totals = [_interval(s) if s else "" for s in sums]
            totals += [f"{iqm(self.trial('return', name)):.2f}" for name in beside]
            table.add_section()
            table.add_row("sum", *totals)
        return table


def _interval(estimate: Estimate, k: int | None = None) -> str:
    value, lo, hi = (float(x if k is None else x[k]) for x in estimate[:3])
    return f"{value:.2f}" if np.isnan(lo) else f"{value:.2f} [{lo:.2f}, {hi:.2f}]"


def _some(n: int) -> list[int]:
    """All of a few episodes; of many, the first, the last, and some between (evenly in their logarithm)."""
    if n <= MOST_ROWS:
        return list(range(n))
    return sorted({0, n - 1, *(round(x) - 1 for x in np.geomspace(1, n, MOST_ROWS))})
