"""The page of an instrument study: what each version of the questions does to labels, and to the policy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fledge.core.files import parse_json, read_text, write_text
from fledge.core.records import read_record, read_results
from fledge.report.feedback import cells, draw_arms, image
from fledge.report.page import save_figures, templates
from fledge.report.style import INK, SERIES, Drawn, canvas, plain_axes, to_svg

_TEMPLATE = "feedback_instruments.html.j2"


def write_feedback_instruments(folder: Path, page: Path | None = None) -> Path:
    """Write the page of a run folder of an instrument study, from its files; returns the page's path.

    Raises:
        DataError: diagnosis.json, results.csv or record.json is missing or damaged.
    """
    folder = Path(folder)
    page = page or folder / "report.html"
    path = folder / "diagnosis.json"
    found = parse_json(read_text(path, "diagnosis"), path, "diagnosis")
    results = read_results(folder / "results.csv")
    arms = [row for row in results if row.metric != "difference of success"]
    figures = [draw_arms("every version", arms), draw_agreement(found)]
    beside = page.with_name(f"{page.stem}_files")
    save_figures(figures, beside)
    by_arm: dict[str, dict[str, Any]] = {}
    for row in arms:
        by_arm.setdefault(row.arm, {})[row.metric] = row
    record = read_record(folder / "record.json")
    html = (
        templates()
        .get_template(_TEMPLATE)
        .render(
            title=record.recipe,
            record=record,
            found=found,
            arms=by_arm,
            contrasts=[row for row in results if row.metric == "difference of success"],
            figures=figures,
            pictures={name: image(folder / v["picture"], "png") for name, v in found["versions"].items()},
            beside=beside.name,
            **cells(),
        )
    )
    return write_text(page, html)


def draw_agreement(found: Mapping[str, Any]) -> Drawn:
    """Cohen's κ between what two versions keep, for all pairs."""
    names = found["names"]
    kappa = np.array([[np.nan if x is None else x for x in row] for row in found["kappa"]], float)
    side = 1.9 + 0.52 * len(names)
    figure = canvas(side + 0.6, side)
    axes = figure.add_axes((1.7 / (side + 0.6), 0.05, (side - 1.8) / (side + 0.6), (side - 1.8) / side))
    plain_axes(axes)
    axes.grid(visible=False)
    for i in range(len(names)):
        for j in range(len(names)):
            value = kappa[i, j]
            strength = 0.0 if np.isnan(value) else float(np.clip(value, 0, 1))
            axes.fill_between((j, j + 1), i, i + 1, color=SERIES[0], alpha=0.75 * strength, linewidth=0)
            axes.text(j + 0.5, i + 0.5, "–" if np.isnan(value) else f"{value:.2f}", ha="center", va="center", color=INK)
    axes.set_xlim(0, len(names))
    axes.set_ylim(len(names), 0)
    places = np.arange(len(names)) + 0.5
    axes.set_yticks(places, names)
    axes.xaxis.tick_top()
    axes.set_xticks(places, names, rotation=50, ha="left")
    rows = [
        (a, b, None if np.isnan(k) else float(k))
        for a, line in zip(names, kappa, strict=True)
        for b, k in zip(names, line, strict=True)
    ]
    caption = "Cohen's κ between the segments that two versions keep; 1 is the same set."
    return Drawn("agreement", "Which versions keep the same", caption, to_svg(figure), ("a", "b", "kappa"), rows)
