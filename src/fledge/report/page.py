"""The report: one HTML page that needs nothing beside it, with the figures' numbers as files next to it."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from fledge import __version__
from fledge.core.files import write_text
from fledge.core.records import Result
from fledge.report.figures import draw_curves, draw_profile
from fledge.report.paths import choose, draw_walks
from fledge.report.read import Run, read_runs
from fledge.report.style import COLOURS, Drawn, variable
from fledge.report.summarise import (
    Panel,
    adaptation,
    changes,
    diagnoses,
    duels,
    interval,
    learning,
    said,
    sentences,
    show,
)

_TEMPLATE = "report.html.j2"
_WHOLE = ("return of a trial", "return after the last gradient step")
"""What arms are ranked by."""
_FIRST = ("curve-1", "paths-", "learning-1", "gradient-1")
"""The figures that a reader wants to see first; the others are folded away."""


def write_report(folders: Sequence[Path], out: Path, *, results: Sequence[Result] = ()) -> Path:
    """Write the report of one or more run folders; returns the page's path.

    Figures are inside the page; each is also saved as SVG and CSV in a folder beside it (`report_files/`).

    Args:
        folders: run folders. Several are compared.
        out: the page (`….html`), or a folder to put `report.html` into.
        results: of the study that the runs are arms of: claims and ranking come first on the page.

    Raises:
        DataError: a folder is not there. Missing and damaged files inside one become notes on the page.
    """
    out = Path(out)
    page = out if out.suffix in (".html", ".htm") else out / "report.html"
    runs = read_runs(folders)
    panels = adaptation(runs)
    figures = draw_all(runs, panels)
    beside = page.with_name(f"{page.stem}_files")
    save_figures(figures, beside)
    return write_text(page, _render(runs, panels, figures, beside.name, results))


def save_figures(figures: Sequence[Drawn], folder: Path) -> None:
    """Each figure as SVG, and the numbers in it as CSV."""
    for drawn in figures:
        write_text(folder / f"{drawn.name}.svg", drawn.svg)
        write_text(folder / f"{drawn.name}.csv", drawn.csv)


def draw_all(runs: Sequence[Run], panels: Sequence[Panel]) -> list[Drawn]:
    """Every figure that the runs have data for: adaptation, paths, learning, gradients, profile."""
    figures = [draw_curves(panel, f"curve-{i}") for i, panel in enumerate(panels, 1)]
    for i, run in enumerate(runs, 1):
        trials = [trial for trial in choose(run.paths, run.name) if trial.episodes]
        if trials:
            figures.append(draw_walks(trials, f"paths-{i}", run.label))
    profiled = [panel for panel in panels if panel.x_unit != "env_step"][:1]
    figures += [draw_profile(panel, "profile") for panel in profiled]
    figures += [draw_curves(panel, f"learning-{i}") for i, panel in enumerate(learning(runs), 1)]
    figures += [draw_curves(panel, f"gradient-{i}") for i, panel in enumerate(diagnoses(runs), 1)]
    return figures


def templates() -> Environment:
    """The templates of pages, and what they can call."""
    environment = Environment(
        loader=PackageLoader("fledge.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "show": _cell,
        "fine": _fine,
        "interval": interval,
        "said": said,
        "unit": lambda text: text.replace("_", " "),
        "wholes": lambda results: {row.arm: row for row in results if row.metric in _WHOLE},
    }
    environment.globals |= {
        "download": _download,
        "light": "; ".join(f"{variable(colour)}: {colour}" for colour in COLOURS),
        "dark": "; ".join(f"{variable(colour)}: {dark}" for colour, dark in COLOURS.items()),
        "version": __version__,
    }
    return environment


def _render(
    runs: Sequence[Run], panels: Sequence[Panel], figures: Sequence[Drawn], beside: str, results: Sequence[Result]
) -> str:
    table, matches = changes(panels), duels(panels)
    adapted = [panel for panel in panels if panel.x_unit != "env_step"]
    return (
        templates()
        .get_template(_TEMPLATE)
        .render(
            title=" · ".join(run.label for run in runs),
            runs=runs,
            sentences=sentences(panels, table) or sentences(learning(runs)[:1], []),
            sections=[
                (panel, [row for row in table if row.of(panel)], [duel for duel in matches if duel.of(panel)])
                for panel in adapted
            ],
            spots=_spots,
            point=_point,
            shown=[figure for figure in figures if figure.name.startswith(_FIRST)],
            more=[figure for figure in figures if not figure.name.startswith(_FIRST)],
            beside=beside,
            results=results,
            settings={run.label: list(_flat(run.config)) for run in runs},
        )
    )


def _spots(panel: Panel) -> list[float]:
    """The x of a table's columns: all of them, or five spread over them."""
    xs = np.unique(np.concatenate([line.xs for line in panel.lines]))
    return xs[np.unique(np.linspace(0, len(xs) - 1, min(len(xs), 5)).round().astype(int))].tolist()


def _point(line: Any, x: float) -> str:
    """The value with its interval at x, for a table's cell."""
    for k, here in enumerate(line.xs):
        if here == x:
            value, lo, hi = (getattr(line.estimate, name)[k] for name in ("value", "lo", "hi"))
            return interval(line.estimate._replace(value=value, lo=lo, hi=hi))
    return "–"


def _cell(value: object) -> str:
    return "" if value is None else show(value) if isinstance(value, float) else str(value)


def _fine(value: float | None, published: float | None) -> str:
    """The value for a table's cell, with four digits where it stands beside a published one."""
    return _cell(value) if published is None or value is None else f"{value:.4g}".replace("-", "−")


def _download(drawn: Drawn) -> str:
    return "data:text/csv;base64," + base64.b64encode(drawn.csv.encode()).decode()


def _flat(config: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", str(value)
