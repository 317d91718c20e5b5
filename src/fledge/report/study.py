"""The page of a study with several cases: the same comparison on each, one below the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fledge.core.files import write_text
from fledge.core.records import Result
from fledge.core.stats import Estimate
from fledge.report.figures import draw_curves
from fledge.report.page import save_figures, templates
from fledge.report.read import read_runs
from fledge.report.style import Drawn
from fledge.report.summarise import OPTIMUM, adaptation, interval, learning, what_ends

_TEMPLATE = "study.html.j2"


def write_study(
    title: str, about: str, cases: Mapping[str, tuple[Sequence[Path], Sequence[Result]]], page: Path
) -> Path:
    """Write the page of a study; returns its path.

    Args:
        title: name of the study.
        about: what it asks.
        cases: case → run folders of its arms, and its rows of results. The page of a case is `<case>/report.html`.
        page: where to write.

    Raises:
        DataError: a run folder is not there.
    """
    beside = page.with_name(f"{page.stem}_files")
    sections = [_section(name, i, *parts) for i, (name, parts) in enumerate(cases.items(), 1)]
    for section in sections:
        save_figures(section["figures"], beside)
    html = templates().get_template(_TEMPLATE).render(title=title, about=about, cases=sections, beside=beside.name)
    return write_text(page, html)


def _section(name: str, number: int, folders: Sequence[Path], results: Sequence[Result]) -> dict[str, Any]:
    runs = read_runs(folders)
    found = adaptation(runs)
    panels = [panel for panel in found if panel.x_unit != "env_step"][:1] or found[:1]
    figures: list[Drawn] = [draw_curves(panel, f"curve-{number}") for panel in panels]
    figures += [draw_curves(panel, f"learning-{number}") for panel in learning(runs)[:1]]
    sentence = "no adaptation curve to summarise."
    if panels:
        whole = panels[0].is_trial
        ends = {line.label: line.total if whole else _last(line.estimate) for line in panels[0].lines}
        ordered = sorted(ends, key=lambda label: -float(ends[label].value))
        parts = [f"{label} {interval(ends[label])}" for label in ordered if label != OPTIMUM]
        parts += [f"the optimum is {interval(ends[OPTIMUM])}"] if OPTIMUM in ends else []
        sentence = "; ".join(parts) + "."
    what = what_ends(panels[0]) if panels else ""
    named = {"name": name, "page": f"{name}/report.html", "sentence": sentence, "what": what}
    return {**named, "results": results, "figures": figures}


def _last(curve: Estimate) -> Estimate:
    """The last point of a curve."""
    return curve._replace(value=curve.value[-1], lo=curve.lo[-1], hi=curve.hi[-1])
