"""The page about memories that have not learnt anything yet, from statistics.csv and results.csv of a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from fledge.core import stats
from fledge.core.curves import Cube
from fledge.core.files import write_text
from fledge.core.records import Result, read_record, read_results
from fledge.core.stats import Estimate
from fledge.core.token_statistics import Statistics, read_statistics
from fledge.report.figures import draw_lines
from fledge.report.page import save_figures, templates
from fledge.report.style import Drawn
from fledge.report.summarise import Line

_TEMPLATE = "memories.html.j2"


@dataclass(frozen=True)
class About:
    """How a statistic is drawn and told."""

    metric: str
    """In results.csv, followed by the token."""
    title: str
    caption: str
    y_label: str
    floor: float | None = None
    """Where a logarithmic axis ends (0: nowhere); None for a plain axis."""
    by_age: bool = False
    """Drawn against how many tokens ago."""


STATISTICS = {
    "first_input": About(
        "gradient by the first token",
        "What is left of the first token",
        "‖∂ Σ_j out_t[j] / ∂ x_0‖₂, the gradient of the output after token t by the first token.",
        "gradient norm",
        1e-6,
    ),
    "each_input": About(
        "gradient of the last output by the token",
        "What the last output feels of each token",
        "‖∂ Σ_j out_T[j] / ∂ x_i‖₂, the gradient of the last output by each token, against the token's age T − i.",
        "gradient norm",
        1e-6,
        by_age=True,
    ),
    "parameters": About(
        "gradient by the parameters",
        "How the gradient of the parameters grows with the sequence",
        "‖∂ Σ_j out_t[j] / ∂ θ‖₂ over all parameters θ. Straight-through gradients grow with the number of tokens.",
        "gradient norm",
        0.0,
    ),
    "order": About(
        "change by a permutation",
        "How much the order of the tokens matters",
        "Distance of the outputs at t, each scaled to norm 1, for tokens 0 … t as they are and in a random order.",
        "distance",
    ),
    "snr": About(
        "signal-to-noise ratio",
        "A signal against noise",
        "‖out_t‖² after a first token of ones and then zeros, divided by ‖out_t‖² on random tokens; without biases.",
        "ratio",
        1e-6,
    ),
}
"""Statistic → how it is shown. `snr` is made of `signal` and `noise`."""


def metric_at(statistic: str, token: int) -> str:
    """The metric in results.csv of a statistic at a token."""
    return f"{STATISTICS[statistic].metric} at token {token}"


def estimate_of(statistics: Statistics, name: str) -> Estimate:
    """The mean over initialisations of a statistic at each token, with its 95 % bootstrap interval.

    The signal-to-noise ratio is that of the two means, its interval from resampling both together.
    """
    if name != "snr":
        return stats.bootstrap(statistics[name][:, None], stats.mean)
    both = np.stack([statistics["signal"], statistics["noise"]], axis=-1)[:, None]
    return stats.bootstrap(both, lambda s: _ratio(stats.mean(s)))


def _ratio(both: Float[np.ndarray, "*shape 2"]) -> Float[np.ndarray, "*shape"]:
    signal, noise = both[..., 0], both[..., 1]
    return np.divide(signal, noise, out=np.full(signal.shape, np.nan), where=noise > 0)


def write_memory_report(folder: Path, page: Path | None = None) -> Path:
    """Write report.html of a run folder, its figures beside it; returns the page's path.

    Args:
        folder: with statistics.csv, results.csv and record.json.
        page: where to write, if not into the folder.

    Raises:
        DataError: a file is missing or damaged.
    """
    folder = Path(folder)
    page = page or folder / "report.html"
    record = read_record(folder / "record.json")
    results = read_results(folder / "results.csv")
    figures = draw_statistics(read_statistics(folder / "statistics.csv"))
    beside = page.with_name(f"{page.stem}_files")
    save_figures(figures, beside)
    judged = [row for row in results if row.published is not None]
    html = (
        templates()
        .get_template(_TEMPLATE)
        .render(
            title=record.recipe,
            record=record,
            folder=folder,
            sections=[(figure, _table(results, figure.name)) for figure in figures],
            n_inits=max((row.n or 0 for row in results), default=0),
            judged=len(judged),
            reproduced=sum(row.verdict == "reproduced" for row in judged),
            untested=any(row.verdict == "not tested at this scale" for row in judged),
            apart=[row for row in judged if row.verdict == "not reproduced"],
            beside=beside.name,
        )
    )
    return write_text(page, html)


def draw_statistics(table: Mapping[str, Statistics]) -> list[Drawn]:
    """A figure for each statistic, a line for each memory."""
    figures = []
    for name, about in STATISTICS.items():
        lines = [_line(memory, i, rows, name) for i, (memory, rows) in enumerate(table.items())]
        x_label = "age of the token" if about.by_age else "token t"
        raised = f" Below {about.floor:g} lines run along the bottom." if about.floor else ""
        caption = f"{about.caption} Line: mean over initialisations; band: 95 % bootstrap interval.{raised}"
        figures.append(draw_lines(name, about.title, caption, lines, x_label, about.y_label, floor=about.floor))
    return figures


def _line(memory: str, place: int, statistics: Statistics, name: str) -> Line:
    estimate = estimate_of(statistics, name)
    n_inits, n_tokens = next(iter(statistics.values())).shape
    if STATISTICS[name].by_age:
        estimate = estimate._replace(value=estimate.value[::-1], lo=estimate.lo[::-1], hi=estimate.hi[::-1])
    values = np.broadcast_to(estimate.value, (n_inits, 1, n_tokens))
    cube = Cube(values, np.arange(n_inits), ("random tokens",), np.arange(n_tokens, dtype=float))
    return Line(memory, place, estimate, cube)


def _table(results: Sequence[Result], name: str) -> dict[str, Any]:
    """The rows of a statistic: memory → token → row."""
    start = f"{STATISTICS[name].metric} at token "
    rows: dict[str, dict[int, Result]] = {}
    for row in results:
        if row.metric.startswith(start):
            rows.setdefault(row.arm, {})[int(row.metric.removeprefix(start))] = row
    return {"rows": rows, "tokens": sorted({token for cells in rows.values() for token in cells})}
