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
from fledge.data.assays import Assay, Library
from fledge.data.mutations import all_singles
from fledge.data.protein_splits import few_shot, protein_of
from fledge.protein.baselines import BASELINES
from fledge.protein.coverage import Covered, coverage, mean_coverage
from fledge.protein.estimator import FitnessEstimator
from fledge.protein.evaluate import CONTEXT_ONLY, META, SHUFFLED, Measured, Protocol, curves_of, evaluate, table
from fledge.protein.published import beside
from fledge.protein.tasks import KINDS, kind_of
from fledge.protein.weights import load_prior
from fledge.report.protein import HEATMAP_COLUMNS, PUBLISHED_COLUMNS, draw_heatmap, write_protein_report
from fledge.run.protein_pretrain import MemberSettings, split_of

UNSEEN = "unseen"
"""The split that ranks all that the weights have not learnt from."""


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
    split: str = UNSEEN,
    repeats: int = 2,
    limit: int = 0,
    weights: Path | None = None,
    intervals: bool = True,
    tell: Callable[[str], None] = lambda line: None,
) -> EvaluationRun:
    """Rank assays of a folder that the weights have not learnt from, beside trivial rankings.

    What the weights were trained on is left out, and told. `intervals` also asks how often intervals hold new
    measurements, from 30 labels on: calibration.csv, and its picture. The first assay is drawn as a heat map, and
    published numbers stand beside ours where assays of the published split are among those ranked.

    Args:
        data: a folder with `index.csv`, `assays/` and `domains/`.
        out: a new folder.
        shots: numbers of labels.
        split: "unseen": every assay of the folder; "domains", "strict" or "paper": the test assays of that split.
        repeats: shuffles of each assay.
        limit: at most so many assays; 0: all.
        weights: of the models; the shipped ones by default.
        intervals: whether intervals are measured.
        tell: called with a line of progress.

    Raises:
        ConfigError: the folder to write to is there already, no assay is left, or a number is out of range.
        DataError: the folder of assays is not one.
    """
    if out.exists():
        raise ConfigError(f"{out} is there already. Choose another name, or delete it first.")
    if not shots or min(shots) < 0 or repeats < 1 or limit < 0:
        raise ConfigError("Shots are 0 or more, repeats at least 1, and limit is 0 (all assays) or more.")
    library, prior = Library(data), load_prior(weights)
    names = _to_rank(library, split, limit, set(prior.about["train"]), tell)
    protocol = Protocol(
        shots=tuple(sorted(set(shots))), repeats=repeats, arms=(META, CONTEXT_ONLY, SHUFFLED, *BASELINES)
    )
    assays = [library.read(name) for name in names]
    found = evaluate(prior, assays, protocol, tell=tell)
    held = coverage(assays, protocol, weights=weights, tell=tell) if intervals else []
    out.mkdir(parents=True)
    write_curves(out / "curves.csv", curves_of(found))
    write_results(out / "results.csv", [*results_of("protein", found), *coverage_results("protein", held)])
    if held:
        rows = [(row.nominal, row.covered, row.assay, row.n, row.width) for row in held]
        write_text(out / "calibration.csv", to_csv(("nominal", "covered", "assay", "n", "width"), rows))
    if published := beside({n: by for (arm, n), by in table(found).items() if arm == META}):
        cells = [(row.method, row.assay, row.labels, row.spearman, row.differs) for row in published]
        write_text(out / "published.csv", to_csv(PUBLISHED_COLUMNS, cells))
    write_text(out / "heatmap.csv", heatmap_csv(_example(assays[0], protocol, weights), assays[0].name))
    write_protein_report(out)
    return EvaluationRun(out, found)


def _to_rank(library: Library, split: str, limit: int, seen: set[str], tell: Callable[[str], None]) -> list[str]:
    """Names of the assays that are ranked; tells what is left out, and which share a protein with training."""
    everything = split in (UNSEEN, "all")
    names = library.names() if everything else list(split_of(library, MemberSettings(split=split)).test)
    if left_out := [name for name in names if name in seen]:
        shown = ", ".join(left_out[:5]) + (" …" if len(left_out) > 5 else "")
        tell(f"{len(left_out)} left out, for the weights were trained on them: {shown}")
    names = [name for name in names if name not in seen]
    proteins = {protein_of(name) for name in seen}
    if known := [name for name in names if protein_of(name) in proteins]:
        tell(f"the weights know other assays of these proteins, which may help them: {', '.join(known)}")
    if not names:
        raise ConfigError("No assay is left that the weights were not trained on. Make weights with another split.")
    return names[:limit] if limit else names


def _example(assay: Assay, protocol: Protocol, weights: Path | None) -> FitnessEstimator:
    """The estimator of an assay after the largest number of labels that leaves something to rank."""
    kept = np.isfinite(assay.scores)
    variants, scores = assay.variants.take(kept), assay.scores[kept]
    n = max((n for n in protocol.shots if n <= len(scores) - 2), default=0)
    support = few_shot(len(scores), n, protocol.seed).support
    model = FitnessEstimator(assay.wild_type, weights=weights, kind=KINDS[kind_of(assay)])
    return model.fit(variants.take(support), scores[support])


def heatmap_csv(model: FitnessEstimator, name: str = "") -> str:
    """heatmap.csv of a fitted estimator: every single mutant. `name` is what to call the protein."""
    variants = all_singles(model.wild_type_)
    values = np.asarray(model.predict(variants))
    title = f"{name or 'this protein'}, {model.n_labels_} labels"
    names = variants.names(model.wild_type_)
    rows = [(m[1:-1], m[0], m[-1], float(v), title) for m, v in zip(names, values, strict=True)]
    return to_csv(HEATMAP_COLUMNS, rows)


def write_heatmap(model: FitnessEstimator, path: Path, name: str = "") -> Path:
    """The heat map as an SVG file, its numbers as CSV beside it."""
    numbers = write_text(path.with_suffix(".csv"), heatmap_csv(model, name))
    return write_text(path, draw_heatmap(numbers).svg)


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
