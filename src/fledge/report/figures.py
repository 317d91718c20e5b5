"""Curves and profiles, drawn from summaries; each comes with the numbers that were drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from fledge.core import stats
from fledge.core.records import check_metric
from fledge.core.stats import Estimate
from fledge.report.style import INK, MUTED, REFERENCE_DASHES, SERIES, Drawn, canvas, plain_axes, spread, to_svg
from fledge.report.summarise import OPTIMUM, Line, Panel, said

_HEIGHT, _PLOT_WIDTH = 3.7, 5.6  # inches
_CHAR = 0.088  # inches that one character of a label takes at most
CURVE_COLUMNS = ("line", "x", "x_unit", "value", "lo", "hi", "seeds", "tasks")
_UNITS = {"episode": "episode", "shot": "shots", "label": "labels", "gradient_step": "gradient steps"}
_UNITS["env_step"] = "environment steps"


def draw_curves(panel: Panel, name: str) -> Drawn:
    """Adaptation curves (or learning curves): a line with its 95 % band for each run, references beside them."""
    meaning = check_metric(panel.metric)
    learning = panel.split == "train" and panel.x_unit == "env_step"
    drawn = [(line, line.xs, line.estimate) for line in panel.lines]
    axis, logarithmic = _metric_axis(panel.metric), _spans_orders(panel)
    heights = [(line, xs, in_orders(e)) for line, xs, e in drawn] if logarithmic else drawn
    counted = panel.x_unit in ("episode", "gradient_step")
    svg = _draw(heights, _axis(panel.x_unit), axis, counted, panel.x_unit, logarithmic=logarithmic)
    rows = [row for line, xs, estimate in drawn for row in _rows(line.label, xs, panel.x_unit, estimate)]
    what = "Learning curve" if not panel.metric.startswith(("grad/", "norm/")) else "During training"
    title = f"{what}: {panel.metric}" if learning else f"Adaptation on {panel.split} tasks: {said(panel.metric)}"
    caption = (
        f"{meaning.about[0].upper()}{meaning.about[1:]}. Line: interquartile mean over "
        + ("seeds" if learning else "seeds and tasks")
        + "; band: 95 % stratified bootstrap interval."
        + (" Lower is better." if meaning.lower_is_better else "")
        + (" Each point averages the updates in its bin." if learning else "")
        + (" The axis is logarithmic: what is exactly 0 is not drawn." if logarithmic else "")
    )
    return Drawn(name, title, caption, svg, CURVE_COLUMNS, rows)


def draw_lines(
    name: str, title: str, caption: str, lines: Sequence[Line], x_label: str, y_label: str, *, floor: float | None
) -> Drawn:
    """Any lines with their bands.

    Args:
        name: of the files.
        title: above the figure.
        caption: below it.
        lines: what is drawn; the y-axis has no unit of its own.
        x_label: of the x-axis; whole numbers.
        y_label: of the y-axis.
        floor: lowest value of a logarithmic y-axis, to which smaller ones are raised; None for a plain axis.
    """
    drawn = [(line, line.xs, line.estimate) for line in lines]
    rows = [row for line, xs, estimate in drawn for row in _rows(line.label, xs, x_label, estimate)]
    heights = drawn if floor is None else [(line, xs, in_orders(e, floor)) for line, xs, e in drawn]
    svg = _draw(heights, x_label, y_label, True, x_label, logarithmic=floor is not None)
    return Drawn(name, title, caption, svg, CURVE_COLUMNS, rows)


def in_orders(estimate: Estimate, floor: float = 0.0) -> Estimate:
    """An estimate of numbers above 0 as powers of ten, for a logarithmic axis; NaN where there is nothing to show."""

    def power(x: np.ndarray) -> np.ndarray:
        raised = np.where(np.isnan(x), np.nan, np.maximum(x, floor))
        return np.asarray(np.log10(np.where(raised > 0, raised, np.nan)))

    return estimate._replace(value=power(estimate.value), lo=power(estimate.lo), hi=power(estimate.hi))


def _spans_orders(panel: Panel) -> bool:
    """Whether a diagnosis of training spans so many orders of magnitude that a plain axis would hide most of it."""
    if not panel.metric.startswith("grad/"):
        return False
    values = np.concatenate([line.estimate.value for line in panel.lines])
    values = values[np.isfinite(values) & (values > 0)]
    return bool(values.size) and bool(values.max() > 30 * np.median(values) or values.max() > 100 * values.min())


def draw_profile(panel: Panel, name: str) -> Drawn:
    """Performance profile at the last x: the share of runs (seed × task) that score above each threshold."""
    lines = [line for line in panel.lines if line.label != OPTIMUM]
    finals = [line.cube.scores[..., -1] for line in lines]
    values = np.concatenate([scores[~np.isnan(scores)] for scores in finals] or [np.zeros(1)])
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    margin = 0.03 * (high - low) or 0.5
    taus = np.linspace(low - margin, high + margin, 101)
    drawn = [
        (line, taus, stats.performance_profile(scores, taus))
        for line, scores in zip(lines, finals, strict=True)
        if not np.isnan(scores).all()
    ]
    what = f"{said(panel.metric)} in {panel.x_unit.replace('_', ' ')} {panel.lines[0].xs[-1]:g}"
    svg = _draw(drawn, f"threshold τ of {what}", "share of runs above τ", False, "tau")
    rows = [row for line, xs, estimate in drawn for row in _rows(line.label, xs, panel.metric, estimate)]
    caption = (
        f"The share of runs (seed × task) whose {what} lies above τ; higher lines are better, and where lines cross no "
        "run is better throughout. Band: 95 % stratified bootstrap interval."
    )
    return Drawn(name, f"Performance profile on {panel.split} tasks", caption, svg, CURVE_COLUMNS, rows)


def _rows(label: str, xs: np.ndarray, unit: str, estimate: Estimate) -> list[tuple[object, ...]]:
    bounds = ([None if np.isnan(b) else float(b) for b in bound] for bound in (estimate.lo, estimate.hi))
    parts = zip(xs.tolist(), estimate.value.tolist(), *bounds, strict=True)
    return [(label, x, unit, value, lo, hi, estimate.n_seeds, estimate.n_tasks) for x, value, lo, hi in parts]


def _axis(unit: str) -> str:
    return _UNITS[unit] + (" of the trial" if unit == "episode" else " of the new task" if unit != "env_step" else "")


def _metric_axis(metric: str) -> str:
    unit = check_metric(metric).unit
    return said(metric) + (f" ({unit})" if unit not in ("", "reward") else "")


def _draw(
    drawn: Sequence[tuple[Line, np.ndarray, Estimate]],
    x_label: str,
    y_label: str,
    whole_x: bool,
    unit: str,
    *,
    logarithmic: bool = False,
) -> str:
    """The figure; with `logarithmic` the estimates are powers of ten (`in_orders`)."""
    labels = [line.label for line, _, _ in drawn]
    right = 0.45 + _CHAR * max(map(len, labels), default=0)
    width = 0.8 + _PLOT_WIDTH + right
    figure = canvas(width, _HEIGHT)
    axes = figure.add_axes((0.8 / width, 0.62 / _HEIGHT, _PLOT_WIDTH / width, (_HEIGHT - 0.8) / _HEIGHT))
    plain_axes(axes)
    n_references = 0
    single = len({float(x) for _, xs, _ in drawn for x in xs}) == 1  # then lines are dots with whiskers, side by side
    colours: list[str] = []
    for line, xs, estimate in drawn:
        marker = "o" if len(xs) <= 12 else ""
        if line.series is None:
            style = "--" if line.label == OPTIMUM else REFERENCE_DASHES[n_references % len(REFERENCE_DASHES)]
            n_references += line.label != OPTIMUM
            colour, marker, thick = (INK if line.label == OPTIMUM else MUTED), "", 1.6
        else:
            colour, thick = SERIES[line.series % len(SERIES)], 2.2
            style = "-" if line.series < len(SERIES) else (0, (5, 2))  # colours come round again, in dashes
            if line.adapt not in ("", "default") and line.label.endswith(f", {line.adapt}"):
                style = (0, (6, 2))
        if single and line.series is None:
            axes.axhline(estimate.value[0], color=colour, linestyle=style, linewidth=thick)
        elif single:
            _dot(axes, xs[0] + 0.8 * ((len(colours) + 0.5) / len(drawn) - 0.5), estimate, colour)
        else:
            axes.plot(xs, estimate.value, color=colour, linestyle=style, linewidth=thick, marker=marker, markersize=5)
            if not np.isnan(estimate.lo).all():
                axes.fill_between(xs, estimate.lo, estimate.hi, color=colour, alpha=0.16, linewidth=0)
        colours.append(colour)
    _limits(axes, drawn)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if single:
        axes.set_xticks([drawn[0][1][0]])
    if whole_x and not single:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if unit == "env_step":
        axes.xaxis.set_major_formatter(FuncFormatter(_short))
    axes.yaxis.set_major_formatter(FuncFormatter(_power if logarithmic else _plain))
    if logarithmic:
        axes.yaxis.set_major_locator(FixedLocator(_powers(*axes.get_ylim())))
    _label_ends(axes, drawn, colours)
    return to_svg(figure)


def _limits(axes: Axes, drawn: Sequence[tuple[Line, np.ndarray, Estimate]]) -> None:
    ys = np.concatenate([np.r_[e.value, e.lo, e.hi] for _, _, e in drawn]) if drawn else np.zeros(1)
    ys = ys[np.isfinite(ys)]
    low, high = (float(ys.min()), float(ys.max())) if ys.size else (0.0, 1.0)
    margin = 0.06 * (high - low) or 0.5
    axes.set_ylim(low - margin, high + margin)
    xs = np.concatenate([xs for _, xs, _ in drawn]) if drawn else np.zeros(1)
    beside = 0.02 * float(np.ptp(xs)) or 0.5
    axes.set_xlim(float(xs.min()) - beside, float(xs.max()) + beside)


def _dot(axes: Axes, x: float, estimate: Estimate, colour: str) -> None:
    value, lo, hi = (float(getattr(estimate, name)[0]) for name in ("value", "lo", "hi"))
    whisker = None if np.isnan(lo) else [[value - lo], [hi - value]]
    axes.errorbar([x], [value], yerr=whisker, color=colour, marker="o", markersize=6, linewidth=2.0, capsize=4)


def _label_ends(axes: Axes, drawn: Sequence[tuple[Line, np.ndarray, Estimate]], colours: Sequence[str]) -> None:
    """Each line's name beside its right end, moved apart where ends are close, outside of the data."""
    low, high = axes.get_ylim()
    ends = []
    for _, _, estimate in drawn:
        there = np.flatnonzero(np.isfinite(estimate.value))
        ends.append(float(estimate.value[there[-1]]) if there.size else (low + high) / 2)
    places = spread(ends, 0.068 * (high - low), low, high)
    beside = axes.get_yaxis_transform()
    for (line, _, _), end, place, colour in zip(drawn, ends, places, colours, strict=True):
        axes.plot([1.0, 1.03], [end, place], color=colour, linewidth=0.9, transform=beside, clip_on=False)
        axes.text(1.04, place, line.label, color=colour, va="center", transform=beside, fontsize=10.5)


def _plain(y: float, _: object) -> str:
    return f"{y:g}".replace("-", "−")


def _power(y: float, _: object) -> str:
    """10^y as people write it."""
    text = f"{10**y:.0f}" if 0 <= y < 4 else f"{10**y:.1g}"
    return text.replace("e-0", "e-").replace("e+0", "e").replace("-", "−")


def _powers(low: float, high: float) -> list[float]:
    """Where a logarithmic axis has its ticks, as powers of ten: at 1, 2, 5, 10 …; where it is long, at some decades."""
    decades = np.arange(np.floor(low), np.ceil(high) + 1)
    if high - low > 2.5:
        decades = decades[:: int(np.ceil(len(decades) / 9))]
        digits = np.zeros(1)
    else:
        digits = np.log10([1, 2, 5])
    ticks = (decades[:, None] + digits).ravel()
    return ticks[(ticks >= low) & (ticks <= high)].tolist()


def _short(x: float, _: object) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(x) >= size:
            return f"{x / size:g}{letter}"
    return f"{x:g}"
