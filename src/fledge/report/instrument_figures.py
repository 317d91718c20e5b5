"""Figures of annotation studies: dots with intervals, heat maps with numbers in their cells, learning curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from fledge.core.curves import Curves
from fledge.report.style import INK, MUTED, SERIES, Drawn, canvas, plain_axes, spread, to_svg

Row = Mapping[str, Any]
_HEAT = LinearSegmentedColormap.from_list("heat", ["#f3ead3", "#7fb5b5", "#12436d"])
_DARK_TEXT, _LIGHT_TEXT = "#101820", "#fdfdfd"  # on the cells' own colours, on light and dark pages alike
_PANEL = 3.55  # inches


def said_of(name: object) -> str:
    """A construct's name for people."""
    return str(name).replace("_", " ")


def _panels(n: int, height: float, widths: float = _PANEL) -> tuple[Any, list[Axes]]:
    left, gap, bottom, top = 0.75, 0.75, 0.62, 0.42
    width = left + n * widths + (n - 1) * gap + 0.15
    figure = canvas(width, height)
    axes = []
    for i in range(n):
        box = (
            (left + i * (widths + gap)) / width,
            bottom / height,
            widths / width,
            (height - bottom - top) / height,
        )
        axes.append(figure.add_axes(box))
    return figure, axes


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", color=INK, fontsize=11, pad=8)


def draw_dots(
    rows: Sequence[Row],
    *,
    name: str,
    title: str,
    caption: str,
    label: str,
    scale: float = 1.0,
    zero: bool = False,
    planted: Mapping[tuple[str, str], float] | None = None,
    order: Sequence[str] = (),
) -> Drawn:
    """A panel for each construct, a dot with its interval for each condition.

    Args:
        rows: with `construct, condition, value, lo, hi`.
        name: of the files.
        title: of the figure.
        caption: under it.
        label: of the vertical axis.
        scale: numbers are drawn times this (100 for percent); the CSV holds them as they are.
        zero: draw a line at 0.
        planted: (construct, condition) → the truth, drawn as a hollow diamond.
        order: of all conditions, so that each keeps its colour where some are left out.
    """
    constructs = list(dict.fromkeys(str(row["construct"]) for row in rows))
    figure, panels = _panels(len(constructs), 3.1)
    for axes, construct in zip(panels, constructs, strict=True):
        own = [row for row in rows if str(row["construct"]) == construct]
        plain_axes(axes)
        _title(axes, said_of(construct))
        if zero:
            axes.axhline(0, color=MUTED, linewidth=1)
        for i, row in enumerate(own):
            value, lo, hi = (scale * float(np.nan if row[key] is None else row[key]) for key in ("value", "lo", "hi"))
            condition = str(row["condition"])
            colour = SERIES[(order.index(condition) if condition in order else i) % len(SERIES)]
            if not np.isnan(lo):
                axes.plot([i, i], [lo, hi], color=colour, linewidth=2.4, solid_capstyle="round")
            axes.plot(i, value, "o", color=colour, markersize=7)
            if planted and (construct, condition) in planted:
                truth = scale * planted[(construct, condition)]
                axes.plot(
                    i + 0.22, truth, marker="D", markersize=6, markerfacecolor="none", color=INK, markeredgewidth=1.2
                )
        axes.set_xticks(range(len(own)), [str(row["condition"]) for row in own])
        axes.set_xlim(-0.6, len(own) - 0.4)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}".replace("-", "−")))
    panels[0].set_ylabel(label)
    columns = ("construct", "condition", "value", "lo", "hi")
    return Drawn(name, title, caption, to_svg(figure), columns, [[row[key] for key in columns] for row in rows])


def draw_heat(
    panels: Sequence[tuple[str, Sequence[str], Sequence[str], np.ndarray]],
    *,
    name: str,
    title: str,
    caption: str,
    down: str,
    across: str,
    show: Callable[[float], str] = "{:.3f}".format,
    shared: bool = False,
) -> Drawn:
    """Heat maps side by side, the number in each cell.

    Args:
        panels: title, names of the rows, names of the columns, values (NaN cells stay empty).
        name: of the files.
        title: of the figure.
        caption: under it.
        down: what rows are.
        across: what columns are.
        show: a number as text.
        shared: one colour scale for all panels; otherwise each has its own.
    """
    figure, spots = _panels(len(panels), 3.35, 3.0)
    everything = np.concatenate([values.ravel() for *_, values in panels])
    rows: list[list[Any]] = []
    for axes, (heading, names_down, names_across, values) in zip(spots, panels, strict=True):
        seen = everything if shared else values.ravel()
        low, high = (float(f(seen)) for f in (np.nanmin, np.nanmax)) if not np.isnan(seen).all() else (0.0, 1.0)
        norm = Normalize(low, high if high > low else low + 1e-9)
        axes.set_facecolor("none")
        axes.pcolormesh(np.ma.masked_invalid(values), cmap=_HEAT, norm=norm, edgecolors="none")
        for i, j in np.ndindex(values.shape):
            rows.append([heading, names_down[i], names_across[j], float(values[i, j])])
            if not np.isnan(values[i, j]):
                colour = _LIGHT_TEXT if values[i, j] - low > 0.55 * (high - low) else _DARK_TEXT
                number = show(float(values[i, j]))
                axes.text(j + 0.5, i + 0.5, number, ha="center", va="center", color=colour, fontsize=10)
        axes.set_xticks(np.arange(len(names_across)) + 0.5, names_across)
        axes.set_yticks(np.arange(len(names_down)) + 0.5, names_down)
        axes.invert_yaxis()
        axes.tick_params(length=0, labelcolor=INK, labelsize=10)
        for spine in axes.spines.values():
            spine.set_visible(False)
        _title(axes, heading)
        axes.set_xlabel(across, color=INK)
    spots[0].set_ylabel(down, color=INK)
    return Drawn(name, title, caption, to_svg(figure), ("panel", down, across, "value"), rows)


def draw_learning(curves: Curves, *, metric: str, test: str, name: str, title: str, caption: str) -> Drawn:
    """A panel for each construct (`task`), a line for each condition (`recipe`): mean and range over repeats."""
    chosen = curves.where(metric=metric, adapt=test)
    constructs = list(dict.fromkeys(chosen.task))
    figure, panels = _panels(max(1, len(constructs)), 3.4)
    rows: list[list[Any]] = []
    for axes, construct in zip(panels, constructs, strict=False):
        plain_axes(axes)
        _title(axes, said_of(construct))
        ends: list[tuple[str, float, str]] = []
        own = chosen.where(task=construct)
        for i, line in enumerate(dict.fromkeys(own.recipe)):
            part = own.where(recipe=line)
            xs, low, mean, high = _by_rank(part)
            colour = SERIES[i % len(SERIES)]
            axes.fill_between(xs, low, high, color=colour, alpha=0.13, linewidth=0)
            axes.plot(xs, mean, color=colour, linewidth=2, marker="o", markersize=4)
            ends.append((str(line).removeprefix("condition "), float(mean[-1]), colour))
            rows += [[construct, line, *numbers] for numbers in zip(xs, mean, low, high, strict=True)]
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("training labels")
        _label_ends(axes, ends, max(float(x) for x in own.x))
    if panels:
        panels[0].set_ylabel(metric.replace("_", " "))
    return Drawn(
        name, title, caption, to_svg(figure), ("construct", "condition", "labels", "mean", "low", "high"), rows
    )


def _by_rank(part: Curves) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean and range over repeats at each size; repeats have about, not exactly, as many labels."""
    table = [np.sort(part.x[part.seed == seed]) for seed in np.unique(part.seed)]
    values = [part.value[part.seed == seed][np.argsort(part.x[part.seed == seed])] for seed in np.unique(part.seed)]
    n = min(map(len, table))
    xs, ys = (np.array([line[:n] for line in lines]) for lines in (table, values))
    return xs.mean(axis=0), ys.min(axis=0), ys.mean(axis=0), ys.max(axis=0)


def _label_ends(axes: Axes, ends: Sequence[tuple[str, float, str]], x: float) -> None:
    low, high = axes.get_ylim()
    places = spread([y for _, y, _ in ends], 0.075 * (high - low), low, high)
    for (text, _, colour), y in zip(ends, places, strict=True):
        axes.text(x * 1.12, y, text, color=colour, va="center", fontsize=10.5, fontweight="bold", clip_on=False)
