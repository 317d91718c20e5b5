"""The page of an estimator card: the bias-variance plane, directions, cards, numbers beside published ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from fledge.core.contracts import EstimatorCard
from fledge.core.files import write_text
from fledge.core.records import Result
from fledge.report.page import save_figures, templates
from fledge.report.style import INK, MUTED, SERIES, Drawn, canvas, plain_axes, spread, to_svg

_TEMPLATE = "estimators.html.j2"
_WIDTH, _HEIGHT, _LEFT, _PLOT = 9.2, 4.6, 0.95, 5.4  # inches
_MARKS = ("o", "s", "D", "^", "v", "P")
COLUMNS = ("arm", "variance", "variance_lo", "variance_hi", "value", "lo", "hi", "published", "on_frontier")


@dataclass(frozen=True)
class CardRow:
    """An arm, what its estimator says of itself, and the estimator's name."""

    arm: str
    card: EstimatorCard
    estimator: str


def write_estimators(
    header: Any,
    problem: str,
    points: Sequence[str],
    cards: Sequence[CardRow],
    results: Sequence[Result],
    command: str,
    page: Path,
) -> Path:
    """Write the page of an estimator card; returns its path. Figures and their numbers lie beside it.

    Args:
        header: of the recipe: `name`, `about`, `paper`.
        problem: what was measured on.
        points: where, in words.
        cards: one row for each arm.
        results: the rows of results.csv.
        command: that repeats it.
        page: where to write.
    """
    names = [row.arm for row in cards]
    figures = [draw_plane(names, results), draw_direction(names, results)]
    beside = page.with_name(f"{page.stem}_files")
    save_figures(figures, beside)
    table = by_arm(results)
    html = (
        templates()
        .get_template(_TEMPLATE)
        .render(
            title=header.name,
            about=header.about,
            paper=header.paper,
            problem=problem,
            points=points,
            cards=cards,
            table={name: table[name] for name in names},
            truth=table.get("truth", {}),
            claims=[row for row in results if row.metric.startswith("difference of")],
            figures=figures,
            beside=beside.name,
            command=command,
        )
    )
    return write_text(page, html)


def by_arm(results: Sequence[Result]) -> dict[str, dict[str, Result]]:
    """Arm → metric → row."""
    table: dict[str, dict[str, Result]] = {}
    for row in results:
        table.setdefault(row.arm, {})[row.metric] = row
    return table


def draw_plane(names: Sequence[str], results: Sequence[Result]) -> Drawn:
    """The bias-variance plane: squared bias over variance, an arm a mark, arms of one sweep joined by a line."""
    caption = (
        "Squared bias (mean over points and coordinates, less what sampling noise adds) over the summed variance of "
        "one estimate. Lower left is better. Bars: 95 % of what sampling noise could have made of it. Filled: no other "
        "arm is better in both. Crosses: published. Bars that leave the picture belong to arms whose bias is not known."
    )
    return _draw("plane", "Bias and variance", caption, names, results, "squared bias")


def draw_direction(names: Sequence[str], results: Sequence[Result]) -> Drawn:
    """Cosine between mean estimate and truth, over variance."""
    caption = (
        "Cosine between the mean estimate and the true gradient (mean over points), over the summed variance of one "
        "estimate. Upper left is better. Bars: 95 % of what sampling noise could have made of it. Crosses: published."
    )
    return _draw("direction", "Direction and variance", caption, names, results, "cosine")


def _draw(name: str, title: str, caption: str, names: Sequence[str], results: Sequence[Result], metric: str) -> Drawn:
    table = by_arm(results)
    rows = [_point(arm, table[arm], metric) for arm in names]
    figure = canvas(_WIDTH, _HEIGHT)
    axes = figure.add_axes((_LEFT / _WIDTH, 0.62 / _HEIGHT, _PLOT / _WIDTH, (_HEIGHT - 0.8) / _HEIGHT))
    plain_axes(axes)
    axes.set_xscale("log")
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["arm"].partition(" λ=")[0], []).append(row)
    for i, members in enumerate(groups.values()):
        _group(axes, members, SERIES[i % len(SERIES)], _MARKS[(i // len(SERIES)) % len(_MARKS)])
    if metric == "squared bias":
        axes.axhline(0.0, color=MUTED, linewidth=0.8)
        # What is not known to be above nought does not set the scale.
        known = [row["value"] for row in rows if row["lo"] > 0] + [row["published"] or 0.0 for row in rows]
        top = max(known, default=0.0) or max(row["value"] for row in rows) or 1.0
        axes.set_ylim(-0.15 * abs(top), 1.15 * abs(top))
    else:
        axes.set_ylim(min(-0.05, *(row["value"] - 0.05 for row in rows)), 1.05)
    axes.set_xlabel("variance of one estimate")
    axes.set_ylabel(metric)
    _labels(axes, groups, metric)
    return Drawn(name, title, caption, to_svg(figure), COLUMNS, [tuple(row[c] for c in COLUMNS) for row in rows])


def _point(arm: str, row: Mapping[str, Result], metric: str) -> dict[str, Any]:
    variance, found = row["variance"], row[metric]
    best = row.get("on the frontier")
    return {
        "arm": arm,
        "variance": max(variance.value, 1e-12),
        "variance_lo": variance.lo,
        "variance_hi": variance.hi,
        "value": found.value,
        "lo": found.lo,
        "hi": found.hi,
        "published": found.published,
        "published_variance": variance.published,
        "on_frontier": bool(best and best.value),
    }


def _group(axes: Axes, members: Sequence[Mapping[str, Any]], colour: str, mark: str) -> None:
    xs, ys = [m["variance"] for m in members], [m["value"] for m in members]
    axes.plot(xs, ys, color=colour, linewidth=1.4, alpha=0.75)
    for m in members:
        axes.plot([m["variance"]] * 2, [m["lo"], m["hi"]], color=colour, linewidth=1.2, alpha=0.6)
        face = colour if m["on_frontier"] else "none"
        axes.plot([m["variance"]], [m["value"]], marker=mark, color=colour, markerfacecolor=face, markersize=6.5)
        if m["published"] is not None and m["published_variance"] is not None:
            axes.plot([m["published_variance"]], [m["published"]], marker="x", color=colour, markersize=6, alpha=0.9)


def _labels(axes: Axes, groups: Mapping[str, Sequence[Mapping[str, Any]]], metric: str) -> None:
    """Names of the groups at the right edge, each beside the height of its last mark."""
    low, high = axes.get_ylim()
    wanted = [members[-1]["value"] for members in groups.values()]
    places = spread([(w - low) / (high - low) for w in wanted], 0.055, 0.0, 1.0)
    for i, ((name, members), y) in enumerate(zip(groups.items(), places, strict=True)):
        swept = " (λ " + " … ".join(m["arm"].partition(" λ=")[2] for m in (members[0], members[-1])) + ")"
        text = name + (swept if len(members) > 1 else "")
        axes.plot(
            [1.03], [float(y)], transform=axes.transAxes, marker=_MARKS[(i // len(SERIES)) % len(_MARKS)],
            color=SERIES[i % len(SERIES)], markersize=6, clip_on=False,
        )  # fmt: skip
        axes.text(1.055, float(y), text, transform=axes.transAxes, va="center", color=INK, fontsize=9.5)
