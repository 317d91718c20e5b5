"""The page of a feedback run: labels, what the filter keeps, pictures, and policies beside the published numbers."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fledge.core.files import parse_json, read_text, write_text
from fledge.core.records import Result, read_record, read_results
from fledge.report.page import save_figures, templates
from fledge.report.style import GRID, INK, MUTED, SERIES, Drawn, canvas, plain_axes, to_svg

_TEMPLATE = "feedback.html.j2"


def write_feedback_report(folder: Path, page: Path | None = None) -> Path:
    """Write the page of a run folder of a feedback recipe, from its files; returns the page's path.

    Reads diagnosis.json, results.csv, record.json, pictures/ and, where they are, cost.json and arms/.

    Raises:
        DataError: one of the first three is missing or damaged.
    """
    folder = Path(folder)
    page = page or folder / "report.html"
    found = _json(folder / "diagnosis.json", "diagnosis of labels")
    results = read_results(folder / "results.csv")
    beside = page.with_name(f"{page.stem}_files")
    figures = [draw_histogram(found), draw_keep(found), draw_scatter(found)]
    measured = [row for row in results if row.metric != "kept"]
    figures += [draw_arms(study, rows) for study, rows in _by_study(measured).items()]
    save_figures(figures, beside)
    record = read_record(folder / "record.json")
    cost = folder / "cost.json"
    html = (
        templates()
        .get_template(_TEMPLATE)
        .render(
            title=record.recipe,
            record=record,
            found=found,
            sentences=_sentences(found, results),
            tables={study: _arms(_by_study(results)[study]) for study in _by_study(measured)},
            claims=[row for row in results if ">" in row.arm],
            figures=figures,
            strips=[{**strip, "image": image(folder / strip["file"], "png")} for strip in found["strips"]],
            film=image(folder / "pictures" / "policy.gif", "gif"),
            cost=_json(cost, "cost") if cost.exists() else None,
            beside=beside.name,
            **cells(),
        )
    )
    return write_text(page, html)


def draw_histogram(found: Mapping[str, Any]) -> Drawn:
    """How often the judged probability of success falls where, and where the filter cuts."""
    edges, counts = np.array(found["histogram"]["edges"]), np.array(found["histogram"]["counts"])
    figure = canvas(7.0, 3.2)
    axes = figure.add_axes((0.11, 0.19, 0.86, 0.72))
    plain_axes(axes)
    passes = edges[:-1] >= found["alpha"] - 1e-9
    for mask, colour, label in ((passes, SERIES[0], "passes"), (~passes, SERIES[1], "below α")):
        axes.bar(edges[:-1][mask], counts[mask], np.diff(edges)[mask], align="edge", color=colour, label=label, lw=0)
    axes.axvline(found["alpha"], color=INK, linewidth=1.2, linestyle="--")
    axes.set_xlabel("P, the judged probability of success")
    axes.set_ylabel("segments")
    axes.legend(frameon=False, labelcolor=INK)
    rows = list(zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True))
    caption = f"P of {found['segments']:,} segments; the dashed line is α = {found['alpha']:g}."
    return Drawn("histogram", "Histogram of P", caption, to_svg(figure), ("from", "to", "segments"), rows)


def draw_keep(found: Mapping[str, Any]) -> Drawn:
    """The share of segments that a threshold keeps, before and after the look back."""
    alphas, before, after = (np.array(column, float) for column in zip(*found["keep"], strict=True))
    figure = canvas(7.0, 3.2)
    axes = figure.add_axes((0.11, 0.19, 0.66, 0.72))
    plain_axes(axes)
    for values, colour, label in ((before, SERIES[1], "filter"), (after, SERIES[0], "and look back")):
        axes.plot(alphas, values, color=colour, linewidth=2.2, marker="o", markersize=4)
        axes.annotate(label, (alphas[-1], values[-1]), (8, 0), textcoords="offset points", color=colour, va="center")
    axes.axvline(found["alpha"], color=INK, linewidth=1.2, linestyle="--")
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("threshold α")
    axes.set_ylabel("share of segments kept")
    rows = [tuple(row) for row in found["keep"]]
    caption = f"With α = {found['alpha']:g} and a look back of {found['retro_k']}, {found['kept']:.1%} are kept."
    return Drawn("keep-rate", "What a threshold keeps", caption, to_svg(figure), ("alpha", "filter", "look_back"), rows)


def draw_scatter(found: Mapping[str, Any]) -> Drawn:
    """The judged probability of success beside the reward that no annotator saw."""
    p, reward = np.array(found["scatter"], float).reshape(-1, 2).T
    figure = canvas(7.0, 3.2)
    axes = figure.add_axes((0.13, 0.19, 0.84, 0.72))
    plain_axes(axes)
    axes.plot(p, reward, "o", color=SERIES[0], markersize=3.5, alpha=0.4, markeredgewidth=0)
    axes.axvline(found["alpha"], color=INK, linewidth=1.2, linestyle="--")
    axes.set_xlabel("P, the judged probability of success")
    axes.set_ylabel("true reward of the segment")
    r = found["correlation"]
    said = [
        f"{name} {r[key]:.2f}" for name, key in (("Pearson", "pearson"), ("Spearman", "spearman")) if r[key] is not None
    ]
    told = f"Correlation over all segments: {', '.join(said)}." if said else "P or the reward is the same everywhere."
    caption = f"{len(p):,} of {found['segments']:,} segments, drawn at random. {told}"
    rows = list(zip(p.tolist(), reward.tolist(), strict=True))
    return Drawn("label-reward", "Labels and true reward", caption, to_svg(figure), ("p", "reward"), rows)


def draw_arms(study: str, results: Sequence[Result]) -> Drawn:
    """Success of every arm with its interval, the published number beside it."""
    rows = [row for row in results if row.metric == "success" and ">" not in row.arm]
    high = 0.6 + 0.36 * len(rows)
    figure = canvas(8.2, high)
    axes = figure.add_axes((0.3, 0.5 / high, 0.67, 1 - 0.6 / high))
    plain_axes(axes)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    places = np.arange(len(rows))[::-1]
    for place, row in zip(places, rows, strict=True):
        if row.lo is not None and row.hi is not None:
            axes.plot((row.lo, row.hi), (place, place), color=SERIES[0], linewidth=2.4)
        axes.plot(row.value, place, "o", color=SERIES[0], markersize=7)
        if row.published is not None:
            axes.plot(row.published, place, "D", color=MUTED, markersize=6, fillstyle="none")
    axes.set_yticks(places, [row.arm for row in rows])
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("share of rollouts that succeed")
    table = [(row.arm, row.value, row.lo, row.hi, row.n, row.published) for row in rows]
    hollow = " Hollow: published." if any(row.published is not None for row in rows) else ""
    caption = f"Mean over seeds and starts; line: 95 % interval over whole seeds.{hollow}"
    name = "success-" + "".join(c if c.isalnum() else "-" for c in study)
    columns = ("arm", "success", "lo", "hi", "n", "published")
    return Drawn(name, f"Success: {study}", caption, to_svg(figure), columns, table)


def _by_study(results: Sequence[Result]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for row in results:
        found.setdefault(row.study, []).append(row)
    return found


def _arms(results: Sequence[Result]) -> list[tuple[str, dict[str, Result]]]:
    """Arm → metric → row, in the order of the file."""
    found: dict[str, dict[str, Result]] = {}
    for row in results:
        if ">" not in row.arm:
            found.setdefault(row.arm, {})[row.metric] = row
    return list(found.items())


def _sentences(found: Mapping[str, Any], results: Sequence[Result]) -> list[str]:
    best = max((row for row in results if row.metric == "success"), key=lambda row: row.value, default=None)
    said = [
        f"{found['segments']:,} segments were judged by {', '.join(found['annotators'])}; the filter keeps "
        f"{found['kept_before']:.1%} of them, and {found['kept']:.1%} after the look back."
    ]
    if best is not None:
        where = f" ({best.study})" if len(_by_study(results)) > 1 else ""
        said.append(
            f"Highest success: {best.arm}{where} with {_percent(best)}, mean over {best.n} seeds and all starts."
        )
    if wanted := found.get("wanted"):
        said.append(
            f"Of the segments of the policy that is wanted {wanted['kept_of_wanted']:.1%} are kept, of the others "
            f"{wanted['kept_of_unwanted']:.1%}."
        )
    return said


def _percent(row: Result) -> str:
    return f"{row.value:.0%}" + (f" [{row.lo:.0%}, {row.hi:.0%}]" if row.lo is not None and row.hi is not None else "")


def _number(row: Result) -> str:
    bounds = f" [{row.lo:,.0f}, {row.hi:,.0f}]" if row.lo is not None and row.hi is not None else ""
    return f"{row.value:,.0f}{bounds}"


def cells() -> dict[str, Any]:
    """How templates write a row with its interval: as a share, and as a number."""
    return {"percent": _percent, "number": _number}


def image(path: Path, kind: str) -> str:
    """A picture's file as a data URL; empty where there is none."""
    if not path.exists():
        return ""
    return f"data:image/{kind};base64," + base64.b64encode(path.read_bytes()).decode()


def _json(path: Path, what: str) -> Any:
    return parse_json(read_text(path, what), path, what)
