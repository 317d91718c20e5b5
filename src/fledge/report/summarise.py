"""From files to numbers: what the figures draw and the tables say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from fledge.core import stats
from fledge.core.records import METRICS, Cube, check_metric
from fledge.core.stats import Estimate
from fledge.report.read import Run

OPTIMUM = "optimum"
N_POINTS = 80
"""Most points of a learning curve; each averages the updates in its bin of environment steps."""
_SUMMABLE = ("return", "regret")
_SPLIT_ORDER = ("test", "ood", "train")
_LEARNING = ("return/trial", "return/eval", "return/best", "return/life", "loss/train", "loss/total")
_DIAGNOSES = ("grad/value_by_latent", "grad/value_by_state", "norm/latent", "norm/state")


@dataclass(frozen=True, eq=False)
class Line:
    """One line of a figure: the interquartile mean at each x, with its 95 % interval."""

    label: str
    series: int | None
    """The run's place in the report, which is its colour; None for a reference."""
    estimate: Estimate
    cube: Cube
    adapt: str = ""

    @property
    def xs(self) -> Float[np.ndarray, " x"]:
        """Where the line is measured."""
        return self.cube.xs

    @cached_property
    def total(self) -> Estimate:
        """The sum over all x: what a whole trial brought, where x counts its episodes."""
        return stats.bootstrap(self.cube.scores.sum(-1))


@dataclass(frozen=True, eq=False)
class Panel:
    """The lines that share axes."""

    split: str
    x_unit: str
    metric: str
    lines: Sequence[Line]

    @property
    def is_trial(self) -> bool:
        """Whether the sum over x means something: a return or a regret of every episode of a trial."""
        summable = self.metric.removesuffix("_greedy") in _SUMMABLE
        return summable and self.x_unit == "episode" and all(len(line.xs) > 1 for line in self.lines)

    @property
    def runs(self) -> list[Line]:
        """The lines of runs, without the references."""
        return [line for line in self.lines if line.series is not None]


@dataclass(frozen=True)
class Change:
    """One line from its first x to its last: what adapting was worth."""

    label: str
    series: int | None
    split: str
    metric: str
    x_unit: str
    first_x: float
    last_x: float
    first: Estimate
    last: Estimate
    gain: Estimate
    last_whole: Estimate
    """The last value with whole seeds (training runs) resampled, all tasks of one together."""

    def of(self, panel: Panel) -> bool:
        """Whether it was measured on this panel."""
        return (self.split, self.metric, self.x_unit) == (panel.split, panel.metric, panel.x_unit)


@dataclass(frozen=True)
class Duel:
    """How likely one line beats another, in a whole trial or (x given) at the last x."""

    split: str
    metric: str
    x_unit: str
    x: float | None
    better: str
    other: str
    probability: Estimate

    def of(self, panel: Panel) -> bool:
        """Whether it was measured on this panel."""
        return (self.split, self.metric, self.x_unit) == (panel.split, panel.metric, panel.x_unit)


def adaptation(runs: Sequence[Run]) -> list[Panel]:
    """The adaptation curves of all runs and their references, one panel for each split, unit and metric."""
    keys: dict[tuple[str, str, str], None] = {}
    for run in runs:
        keys.update(dict.fromkeys(zip(run.curves.split, run.curves.x_unit, run.curves.metric, strict=True)))
    panels = []
    for split, x_unit, metric in sorted(keys, key=_panel_order):
        lines: list[Line] = []
        for i, run in enumerate(runs):
            lines += _lines(run, i, split, x_unit, metric)
        once = {line.label: line for line in reversed(lines) if line.series is None}  # several runs may carry it
        lines = [line for line in lines if line.series is not None] + [once[label] for label in sorted(once)]
        if lines:
            panels.append(Panel(split, x_unit, metric, lines))
    return panels


def _panel_order(key: tuple[str, str, str]) -> tuple[Any, ...]:
    split, x_unit, metric = key
    place = _SPLIT_ORDER.index(split) if split in _SPLIT_ORDER else len(_SPLIT_ORDER)
    return x_unit == "env_step", place, list(METRICS).index(metric) if metric in METRICS else len(METRICS), x_unit


def _lines(run: Run, place: int, split: str, x_unit: str, metric: str) -> list[Line]:
    rows = run.curves.where(split=split, x_unit=x_unit, metric=metric)
    own = sorted(set(rows.where(recipe=run.name).adapt))
    lines = []
    for recipe, adapt in sorted(set(zip(rows.recipe, rows.adapt, strict=True))):
        cube = rows.where(recipe=recipe, adapt=adapt).cube()
        if not cube.scores.size:
            continue
        is_run = recipe == run.name
        label = run.label if is_run else recipe
        if is_run and len(own) > 1:
            label += f", {adapt}"
        lines.append(Line(label, place if is_run else None, stats.bootstrap(cube.scores), cube, adapt))
    return sorted(lines, key=lambda line: (line.series is None, line.label))


def learning(runs: Sequence[Run]) -> list[Panel]:
    """Learning curves from metrics.jsonl: metric against environment steps, with intervals over seeds."""
    return _trained(runs, [name for name in _LEARNING if _logged(runs, name)][:2])


def diagnoses(runs: Sequence[Run]) -> list[Panel]:
    """What training said about gradients and latents, where it was asked to (`learner.latent_gradients`)."""
    return _trained(runs, [name for name in _DIAGNOSES if _logged(runs, name)])


def _logged(runs: Sequence[Run], name: str) -> bool:
    return any(run.metrics and name in run.metrics.values for run in runs)


def _trained(runs: Sequence[Run], names: Sequence[str]) -> list[Panel]:
    """A panel for each metric of metrics.jsonl, against environment steps."""
    panels = []
    for name in names:
        lines = []
        for i, run in enumerate(runs):
            cube = _binned(run, name)
            if cube is not None:
                lines.append(Line(run.label, i, stats.bootstrap(cube.scores), cube))
        if lines:
            panels.append(Panel("train", "env_step", name, lines))
    return panels


def _binned(run: Run, name: str) -> Cube | None:
    """One metric as (seed, 1, bin): the mean over the updates whose environment steps fall into the bin."""
    if run.metrics is None or name not in run.metrics.values:
        return None
    values = run.metrics.values[name]
    there = ~np.isnan(values)
    if not there.any():
        return None
    steps, values, seed = run.metrics.env_steps[there], values[there], run.metrics.seed[there]
    n_bins = min(N_POINTS, len(np.unique(steps)))
    edges = np.linspace(steps.min(), steps.max(), n_bins + 1)
    place = np.clip(np.searchsorted(edges, steps, side="right") - 1, 0, n_bins - 1)
    seeds, row = np.unique(seed, return_inverse=True)
    total, count = np.zeros((2, len(seeds), n_bins))
    np.add.at(total, (row, place), values)
    np.add.at(count, (row, place), 1)
    x_total, x_count = (np.bincount(place, weights=w, minlength=n_bins) for w in (steps.astype(float), None))
    used = x_count > 0
    scores = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)[:, None, used]
    return Cube(scores, seeds, ("training",), x_total[used] / x_count[used])


def changes(panels: Sequence[Panel]) -> list[Change]:
    """First against last x of every line that has two or more; the gain is resampled on the same seeds as both."""
    table = []
    for panel in panels:
        for line in panel.lines:
            if len(line.xs) < 2 or line.label == OPTIMUM or panel.x_unit == "env_step":
                continue
            ends = line.cube.scores[..., [0, -1]]
            first, last = (_at(line.estimate, k) for k in (0, -1))
            gain = stats.bootstrap(ends, lambda s: stats.iqm(s[..., 1]) - stats.iqm(s[..., 0]))
            whole = stats.bootstrap(ends[..., 1], whole_seeds=True)
            key = (line.label, line.series, panel.split, panel.metric, panel.x_unit)
            table.append(Change(*key, float(line.xs[0]), float(line.xs[-1]), first, last, gain, whole))
    return table


def duels(panels: Sequence[Panel]) -> list[Duel]:
    """P(one beats the other) on the tasks that both were tested on, per pair once: by the sum over a trial where that
    means something, otherwise at the last x that both have."""
    table = []
    for panel in panels:
        if panel.x_unit == "env_step":
            continue
        lower = check_metric(panel.metric).lower_is_better
        lines = [line for line in panel.lines if line.label != OPTIMUM]
        for i, a in enumerate(lines):
            for b in lines[i + 1 :]:
                common_x = np.intersect1d(a.xs, b.xs)
                tasks = [task for task in a.cube.tasks if task in set(b.cube.tasks)]
                if a.series is None or not len(common_x) or not tasks:
                    continue
                at = None if panel.is_trial else float(common_x[-1])
                x, y = (_scores_at(line.cube, at, tasks) for line in (a, b))
                chance = stats.probability_of_improvement(*((-x, -y) if lower else (x, y)))
                key = (panel.split, panel.metric, panel.x_unit, at)
                table.append(Duel(*key, a.label, b.label, chance))
    return table


def _scores_at(cube: Cube, x: float | None, tasks: Sequence[str]) -> Float[np.ndarray, "seed task"]:
    columns = [cube.tasks.index(task) for task in tasks]
    if x is None:
        return cube.scores[:, columns].sum(-1)
    return cube.scores[:, columns, int(np.flatnonzero(cube.xs == x)[0])]


def _at(estimate: Estimate, k: int) -> Estimate:
    return estimate._replace(value=estimate.value[k], lo=estimate.lo[k], hi=estimate.hi[k])


def sentences(panels: Sequence[Panel], table: Sequence[Change]) -> list[str]:
    """The result in plain words: a sentence for each run on the first panel that has any, and what its numbers are."""
    for panel in panels:
        rows = [row for row in table if row.of(panel) and row.series is not None]
        if rows:
            totals = {line.label: line.total for line in panel.runs} if panel.is_trial else {}
            return [_sentence(row, totals.get(row.label)) for row in rows] + [_what(panel)]
    for panel in panels:
        if panel.runs and (panel.x_unit == "env_step" or all(len(line.xs) == 1 for line in panel.runs)):
            return [_reached(panel, line) for line in panel.runs] + [_what(panel)]
    return []


def _reached(panel: Panel, line: Line) -> str:
    """The sentence of a line that was measured at one x only, or along a budget."""
    unit = panel.x_unit.replace("_", " ")
    return (
        f"On {panel.split} tasks, {line.label} reaches {interval(_at(line.estimate, -1))} in "
        f"{unit}\N{NO-BREAK SPACE}{line.xs[-1]:,.10g}."
    )


def _sentence(row: Change, total: Estimate | None) -> str:
    unit = row.x_unit.replace("_", " ")
    whole = "" if total is None else f", {interval(total)} in a whole trial"
    return (
        f"On {row.split} tasks, {row.label} goes from {interval(row.first)} in {unit}\N{NO-BREAK SPACE}{row.first_x:g} "
        f"to {interval(row.last)} in {unit}\N{NO-BREAK SPACE}{row.last_x:g}{whole}."
    )


def what_ends(panel: Panel) -> str:
    """What the numbers at the end of a panel's lines are."""
    unit = panel.x_unit.replace("_", " ")
    return "the return of a whole trial" if panel.is_trial else f"{said(panel.metric)} at the last {unit}"


def _what(panel: Panel) -> str:
    seeds, tasks = (sorted({getattr(line.estimate, n) for line in panel.runs}) for n in ("n_seeds", "n_tasks"))
    best = [
        f"{show(float(line.estimate.value[-1]))} in an episode"
        + (f", {show(float(line.total.value))} in a trial" if panel.is_trial else "")
        for line in panel.lines
        if line.label == OPTIMUM
    ]
    return (
        f"The numbers are {said(panel.metric)}: interquartile mean with 95 % interval over "
        f"{_count(seeds, 'seed')} and {_count(tasks, 'task')}." + (f" The optimum is {best[0]}." if best else "")
    )


def _count(numbers: Sequence[int], what: str) -> str:
    text = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    return f"{text} {what}" + ("" if numbers[-1] == 1 else "s")


def said(metric: str) -> str:
    """A metric's name for people: `return_greedy` is "return (greedy actions)"."""
    return f"{metric.removesuffix('_greedy')} (greedy actions)" if metric.endswith("_greedy") else metric


def interval(estimate: Estimate) -> str:
    """A value with its bounds, such as 10.6 [10.2, 11.0]; alone where nothing was uncertain, or nothing is known."""
    value, lo, hi = (float(getattr(estimate, name)) for name in ("value", "lo", "hi"))
    if np.isnan(value):
        return "–"
    return (
        show(value)
        if np.isnan(lo) or np.allclose([lo, hi], value, rtol=1e-9, atol=1e-12)
        else f"{show(value)} [{show(lo)}, {show(hi)}]"
    )


def show(value: float) -> str:
    """Three significant digits, without exponents where a person would not use them; a true minus sign.

    What is nearer to nought than 1e-5 is rounding, and shown as 0.00.
    """
    if not np.isfinite(value):
        return "–"
    size = abs(value)
    value = 0.0 if size < 1e-5 else value
    digits = 0 if size >= 100 else 1 if size >= 10 else 2
    text = f"{value:.{digits}f}" if size >= 0.01 or size < 1e-5 else f"{value:.1e}"
    return text.replace("-", "−")
