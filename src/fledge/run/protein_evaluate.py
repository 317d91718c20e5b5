"""Ranks a folder of assays after different numbers of labels and writes curves.csv, results.csv and a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from fledge.core import stats
from fledge.core.errors import ConfigError
from fledge.core.files import to_csv, write_text
from fledge.core.records import Result, write_curves, write_results
from fledge.data.assays import Library
from fledge.protein.baselines import BASELINES
from fledge.protein.coverage import Covered, coverage, mean_coverage
from fledge.protein.evaluate import CONTEXT_ONLY, META, SHUFFLED, Measured, Protocol, curves_of, evaluate, table
from fledge.protein.weights import load_prior
from fledge.report.protein import write_protein_report
from fledge.run.protein_pretrain import MemberSettings, split_of


@dataclass(frozen=True)
class EvaluationRun:
    """A finished evaluation."""

    dir: Path
    measured: Sequence[Measured]

    def show(self, console: Console) -> None:
        """Print every assay, the mean of each arm, and where everything lies."""
        cells = table(self.measured)
        shots = sorted({n for _, n in cells})
        found = Table(title="Spearman", box=None, pad_edge=False)
        found.add_column("assay")
        for n in shots:
            found.add_column(f"{n} labels", justify="right")
        for name in dict.fromkeys(row.assay for row in self.measured):
            found.add_row(
                name, *(f"{cells[META, n][name]:.3f}" if name in cells.get((META, n), {}) else "" for n in shots)
            )
        for arm in dict.fromkeys(row.arm for row in self.measured):
            means = [np.mean(list(cells[arm, n].values())) if (arm, n) in cells else np.nan for n in shots]
            found.add_row(f"mean, {arm}", *("" if np.isnan(x) else f"{x:.3f}" for x in means), style="bold")
        console.print(found)
        console.print(f"report: {self.dir / 'report.html'}", highlight=False, soft_wrap=True)


def evaluate_folder(
    data: Path,
    out: Path,
    *,
    shots: tuple[int, ...],
    split: str = "strict",
    repeats: int = 2,
    limit: int = 0,
    weights: Path | None = None,
    intervals: bool = True,
    tell: Callable[[str], None] = lambda line: None,
) -> EvaluationRun:
    """Rank the test assays of a split (all of them for "all"), beside trivial rankings.

    What the weights were trained on is left out, and told. `intervals` also asks how often intervals hold new
    measurements, from 30 labels on: calibration.csv, and its picture.

    Raises:
        ConfigError: the folder to write to is there already, or no assay is left.
        DataError: the folder of assays is not one.
    """
    if out.exists():
        raise ConfigError(f"{out} is there already. Choose another name, or delete it first.")
    library, prior = Library(data), load_prior(weights)
    names = list(split_of(library, MemberSettings(split=split)).test) or library.names()
    seen = set(prior.about["train"])
    if leaks := [name for name in names if name in seen]:
        tell(f"left out, for the weights were trained on them: {', '.join(leaks)}")
    names = [name for name in names if name not in seen]
    names = names[:limit] if limit else names
    if not names:
        raise ConfigError("No assay is left that the weights were not trained on. Make weights with another split.")
    protocol = Protocol(shots=shots, repeats=repeats, arms=(META, CONTEXT_ONLY, SHUFFLED, *BASELINES))
    assays = [library.read(name) for name in names]
    found = evaluate(prior, assays, protocol, tell=tell)
    held = coverage(assays, protocol, weights=weights, tell=tell) if intervals else []
    out.mkdir(parents=True)
    write_curves(out / "curves.csv", curves_of(found))
    write_results(out / "results.csv", [*results_of("protein", found), *coverage_results("protein", held)])
    if held:
        rows = [(row.nominal, row.covered, row.assay, row.n, row.width) for row in held]
        write_text(out / "calibration.csv", to_csv(("nominal", "covered", "assay", "n", "width"), rows))
    write_protein_report(out)
    return EvaluationRun(out, found)


def coverage_results(study: str, held: Sequence[Covered]) -> list[Result]:
    """Mean coverage over assays of each promise after each number of labels."""
    counts = {key: sum((row.n, row.nominal) == key for row in held) for key in mean_coverage(held)}
    return [
        Result(study, META, f"coverage of {level:.0%} intervals after {n} labels", value, None, None, counts[n, level])
        for (n, level), value in mean_coverage(held).items()
    ]


def results_of(study: str, found: Sequence[Measured], prefix: str = "") -> list[Result]:
    """Mean Spearman over assays of each arm after each number of labels, with bootstrap bounds over assays."""
    rows = []
    for (arm, shots), by in table(found).items():
        values = np.array(list(by.values()))
        estimate = stats.bootstrap(values[:, None], stats.mean)
        lo, hi = float(estimate.lo), float(estimate.hi)
        known = len(values) > 1
        metric = f"{prefix}spearman after {shots} labels"
        rows.append(
            Result(study, arm, metric, float(values.mean()), lo if known else None, hi if known else None, len(values))
        )
    return rows
