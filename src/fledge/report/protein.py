"""The page about rankings of proteins, from curves.csv, results.csv, heatmap.csv and calibration.csv of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from fledge.core import stats
from fledge.core.curves import Cube, Curves
from fledge.core.errors import DataError
from fledge.core.files import csv_rows, number, read_text, write_text
from fledge.core.records import read_curves, read_record, read_results
from fledge.report.figures import draw_lines
from fledge.report.page import save_figures, templates
from fledge.report.style import INK, MUTED, SERIES, Drawn, canvas, plain_axes, to_svg
from fledge.report.summarise import Line

_TEMPLATE = "protein.html.j2"
RESIDUES = "GAVLIMFWYCPSTNQDEKRH"
"""Rows of the heat map: like beside like."""
HEATMAP_COLUMNS = ("position", "wild_type", "mutant", "predicted", "of")
PUBLISHED_COLUMNS = ("method", "assay", "labels", "spearman", "differs")
CALIBRATION_COLUMNS = ("nominal", "covered", "assay", "n", "width")
ARMS = {
    "meta": "the meta-trained models, fine-tuned on the labels where these are enough",
    "context-only": "meta without fine-tuning: labels are shown, and that is all",
    "shuffled-labels": "meta with the labels dealt out wrongly: a check that it is the labels which help",
    "untrained": "a model that was never meta-trained, fine-tuned on the labels",
    "without-context": "meta-trained models that see no other variant, fine-tuned on the labels",
    "ridge": "ridge regression on the mutated site and residues",
    "gaussian-process": "a Gaussian process with a kernel of mutations, after Kermut",
    "blosum62": "likeness of the exchanged residues, without labels",
    "mutation-count": "fewer mutations are fitter; 0 where all variants have equally many",
}
"""What the names of arms mean, for the page."""
_MAP = LinearSegmentedColormap.from_list("fitness", ["#d55e00", "#f4f6f8", "#0072b2"])


def write_protein_report(folder: Path, page: Path | None = None) -> Path:
    """Write report.html of a folder, its figures beside it; returns the page's path.

    Args:
        folder: with curves.csv, and where there are any results.csv, heatmap.csv, calibration.csv, record.json.
        page: where to write, if not into the folder.

    Raises:
        DataError: a file is missing or damaged.
    """
    folder = Path(folder)
    page = page or folder / "report.html"
    curves = read_curves(folder / "curves.csv")
    results = read_results(folder / "results.csv") if (folder / "results.csv").exists() else []
    figures = draw_shots(curves)
    if (folder / "heatmap.csv").exists():
        figures.append(draw_heatmap(folder / "heatmap.csv"))
    if (folder / "calibration.csv").exists():
        figures.append(draw_calibration(folder / "calibration.csv"))
    beside = page.with_name(f"{page.stem}_files")
    save_figures(figures, beside)
    record = read_record(folder / "record.json") if (folder / "record.json").exists() else None
    html = (
        templates()
        .get_template(_TEMPLATE)
        .render(
            title=record.recipe if record else "Protein rankings",
            record=record,
            folder=folder,
            figures=figures,
            results=results,
            tables=assay_tables(curves),
            arms=[(arm, text) for arm, text in ARMS.items() if arm in curves.recipe],
            judged=any(row.published is not None for row in results),
            published=published_tables(folder / "published.csv"),
            beside=beside.name,
        )
    )
    return write_text(page, html)


def draw_shots(curves: Curves) -> list[Drawn]:
    """Spearman against the number of labels, a line for each arm, over the assays of each group (split)."""
    figures = []
    for i, group in enumerate(dict.fromkeys(curves.split.tolist()), 1):
        rows = curves.where(split=group, metric="spearman")
        lines = [_line(rows.where(recipe=arm), place) for place, arm in enumerate(dict.fromkeys(rows.recipe.tolist()))]
        n = len(set(rows.task.tolist()))
        caption = (
            f"{group}: mean over {n} assays that were not learnt from, of the mean over shuffles (and seeds); "
            "band: 95 % bootstrap interval over assays."
        )
        title = "How a ranking improves with labels"
        figures.append(draw_lines(f"shots-{i}", title, caption, lines, "labels", "Spearman", floor=None))
    return figures


def _line(rows: Curves, place: int) -> Line:
    by_assay = np.nanmean(rows.cube().scores, axis=0)  # (assay, x)
    scores = by_assay[:, None]
    estimate = stats.bootstrap(scores, stats.mean)
    xs = rows.cube().xs
    return Line(str(rows.recipe[0]), place, estimate, Cube(scores, np.arange(len(scores)), ("assays",), xs))


def assay_tables(curves: Curves) -> list[dict[str, Any]]:
    """For each group: assay → arm → the values after each number of labels."""
    found = []
    for group in dict.fromkeys(curves.split.tolist()):
        rows = curves.where(split=group, metric="spearman")
        arms = list(dict.fromkeys(rows.recipe.tolist()))
        xs = sorted(set(rows.x.tolist()))
        cells: dict[str, dict[str, list[str]]] = {}
        for arm in arms:
            cube = rows.where(recipe=arm).cube()
            values = np.nanmean(cube.scores, axis=0)
            at = {x: k for k, x in enumerate(cube.xs.tolist())}
            for j, task in enumerate(cube.tasks):
                shown = [f"{values[j, at[x]]:.2f}" if x in at and np.isfinite(values[j, at[x]]) else "–" for x in xs]
                cells.setdefault(task, {})[arm] = shown
        found.append({"group": group, "arms": arms, "xs": [f"{x:g}" for x in xs], "cells": cells})
    return found


def published_tables(path: Path) -> dict[str, Any] | None:
    """Published numbers beside ours: means by number of labels, and single assays; None without the file.

    Raises:
        DataError: the file is damaged.
    """
    if not path.exists():
        return None
    lines = list(csv_rows(read_text(path, "published numbers (published.csv)"), PUBLISHED_COLUMNS, path))
    rows = [(c[0], c[1], c[2], number(c[3], "spearman", path, line), c[4]) for line, c in lines]
    averages = [row for row in rows if row[1].startswith("mean")]
    labels = sorted({int(row[2]) for row in averages})
    value = {(row[0], int(row[2])): f"{row[3]:.3f}" for row in averages}
    told = {row[0]: row[4] for row in averages}
    means = [(method, [value.get((method, n), "") for n in labels], differs) for method, differs in told.items()]
    each = [row for row in rows if not row[1].startswith("mean")]
    methods = list(dict.fromkeys(row[0] for row in each))
    cells = {(row[1], row[0]): f"{row[3]:.2f}" for row in each}
    assays = {name: [cells.get((name, m), "–") for m in methods] for name in dict.fromkeys(row[1] for row in each)}
    return {"labels": labels, "means": means, "methods": methods, "assays": assays}


def draw_heatmap(path: Path) -> Drawn:
    """Predictions for every single mutant of a protein: positions across, residues down."""
    rows = [cells for _, cells in csv_rows(read_text(path, "heat map (heatmap.csv)"), HEATMAP_COLUMNS, path)]
    if not rows:
        raise DataError(f"{path} has a header and nothing below it. Make it again.")
    positions = sorted({int(row[0]) for row in rows})
    values = np.full((len(RESIDUES), len(positions)), np.nan)
    place = {position: j for j, position in enumerate(positions)}
    wild = {int(row[0]): row[1] for row in rows}
    for position, _, mutant, predicted, _ in rows:
        values[RESIDUES.index(mutant), place[int(position)]] = float(predicted)
    figure = canvas(7.6, 3.4)
    axes = figure.add_axes((0.06, 0.17, 0.82, 0.78))
    size = float(np.nanpercentile(np.abs(values - np.nanmedian(values)), 98)) or 1.0
    middle = float(np.nanmedian(values))
    shown = axes.pcolormesh(values, cmap=_MAP, vmin=middle - size, vmax=middle + size, rasterized=True)
    heights = [RESIDUES.index(wild[at]) + 0.5 for at in positions]
    axes.plot(np.arange(len(positions)) + 0.5, heights, ".", color=INK, markersize=2, linestyle="none")
    axes.set_yticks(np.arange(len(RESIDUES)) + 0.5, list(RESIDUES), fontsize=7)
    step = max(1, len(positions) // 12)
    axes.set_xticks(np.arange(0, len(positions), step) + 0.5, [str(p) for p in positions[::step]], fontsize=8)
    axes.set_xlabel("position")
    axes.invert_yaxis()
    figure.colorbar(shown, cax=figure.add_axes((0.895, 0.17, 0.015, 0.78)))
    caption = (
        f"Predicted score of every single mutant of {rows[0][4]}; dots: the wild type. Blue is fitter than the middle, "
        "orange less."
    )
    numbers = [(int(r[0]), r[1], r[2], float(r[3]), r[4]) for r in rows]
    return Drawn("heatmap", "Every single mutant", caption, to_svg(figure), HEATMAP_COLUMNS, numbers)


def draw_calibration(path: Path) -> Drawn:
    """What share of new measurements intervals hold, against what they promise; a dot per assay."""
    text = read_text(path, "calibration (calibration.csv)")
    rows = [
        (number(c[0], "nominal", path, line), number(c[1], "covered", path, line), c[2], int(c[3]), float(c[4]))
        for line, c in csv_rows(text, CALIBRATION_COLUMNS, path)
    ]
    nominal = np.array([row[0] for row in rows])
    covered = np.array([row[1] for row in rows])
    levels = np.unique(nominal)
    figure = canvas(4.2, 3.6)
    axes = figure.add_axes((0.16, 0.16, 0.8, 0.8))
    plain_axes(axes)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
    axes.plot(nominal, covered, ".", color=SERIES[4], markersize=4, alpha=0.6)
    labels = np.array([row[3] for row in rows])
    for place, n in enumerate(np.unique(labels).tolist()):
        means = [covered[(nominal == x) & (labels == n)].mean() for x in levels]
        axes.plot(levels, means, "o-", color=SERIES[place % len(SERIES)], markersize=5, label=f"{n} labels")
    axes.legend(frameon=False)
    axes.set_xlabel("promised coverage")
    axes.set_ylabel("covered")
    caption = (
        "Share of new measurements inside the interval; lines: means over assays, dots: assays, dashes: as promised."
    )
    return Drawn(
        "calibration", "Do intervals hold what they promise?", caption, to_svg(figure), CALIBRATION_COLUMNS, rows
    )
