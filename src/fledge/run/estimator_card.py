"""The program of estimator cards: measure every arm at every point, judge, report. It can be killed at any moment."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from fledge.core.errors import ConfigError, FledgeError, unknown
from fledge.core.files import to_json, write_text
from fledge.core.records import Result, write_results
from fledge.learn.estimator_bench import METRICS, Moments, Quality, frontier, ignored, judge
from fledge.report.estimators import CardRow, write_estimators
from fledge.run.estimator_arms import Bench, EstimatorArm, arms_of
from fledge.run.estimator_settings import EstimatorCardSettings
from fledge.run.job import Clock, Job, begin_record

NOTHING = "0"
"""In place of the smaller arm of a claim."""
UNTESTED = "not tested at this scale"
TITLES = {"bias2": "squared bias", "variance": "variance", "cosine": "cosine"}


@dataclass(frozen=True)
class EstimatorRun:
    """Finished cards."""

    dir: Path
    name: str
    results: Sequence[Result]

    def show(self, console: Console) -> None:
        """Print the table of arms, what became of the claims, and where everything lies."""
        console.print(table_of(self.name, self.results))
        console.print(f"report: {self.dir / 'report.html'}", highlight=False, soft_wrap=True)


class EstimatorCardProgram:
    """Measures gradient estimators. What was measured already is not measured again."""

    def faults(self, config: EstimatorCardSettings) -> list[str]:
        """Everything that is wrong with the settings, those of the arms included."""
        if config.objective not in ("auc", "final"):
            return [f"objective is auc or final, not {config.objective!r}."]
        try:
            bench = Bench(config)
        except FledgeError as error:
            return [str(error)]
        found = []
        if config.truth.arm:
            paired = [arm.name for arm in bench.arms if arm.twin and arm.twin.reference]
            if config.truth.arm not in paired:
                found.append(
                    f"truth: no arm '{config.truth.arm}' is measured that has paired settings. Let `only` name it, or "
                    "measure the truth by itself (truth.arm='')."
                )
        elif bench.problem.truth == "differences":
            try:
                bench.reference()
            except FledgeError as error:
                found.append(f"truth: {error}")
        for arm in bench.arms:
            for one in (arm, *([arm.twin] if arm.twin else [])):
                try:
                    one.make(bench.problem, config.objective)
                    one.check_reference(bench.problem, config.objective)
                except FledgeError as error:
                    found.append(f"{one.name}: {error}")
        names = every_name(config)
        for text in config.claims:
            try:
                claim_of(text, names)
            except ConfigError as error:
                found.append(f"claims: {error}")
        return found + [f"published: {fault}" for key in config.published if (fault := _unpublished(key, names))]

    def seeded(self, config: EstimatorCardSettings, seeds: int) -> Mapping[str, Any]:
        """The change that draws so many times as many estimates."""
        return {"n_estimates": config.n_estimates * seeds}

    def run(self, job: Job) -> EstimatorRun:
        """Measure what is not measured yet, then judge and report."""
        config: EstimatorCardSettings = job.config
        clock = Clock(job.folder.record, begin_record(job, (config.seed,)))
        bench = Bench(config)
        store = Store(job.folder.path / "moments.json")
        _measure(job, bench, store, clock)
        results = judge_all(job.recipe.name, job.scale, bench, store)
        write_results(job.folder.results, results)
        cards = [
            CardRow(name, arm.card(bench.problem, config.objective), arm.estimator)
            for arm in bench.arms
            for name in arm.names
        ]
        points = [point.label for point in bench.problem.points]
        write_estimators(job.recipe.header, config.problem, points, cards, results, job.command, job.folder.report)
        clock.note(finished=True)
        return EstimatorRun(job.folder.path, job.recipe.name, results)


PROGRAM = EstimatorCardProgram()


class Store:
    """Moments by arm and point, in a file that is written after each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def get(self, name: str, i: int) -> Moments:
        """What was measured."""
        row = self.rows[f"{name} @ {i}"]
        return Moments(row["n"], np.array(row["mean"]), np.array(row["covariance"]))

    def seconds(self, name: str, n_points: int) -> float:
        """Seconds of one estimate, at the fastest point (the first one compiles)."""
        rows = [self.rows[f"{name} @ {i}"] for i in range(n_points)]
        return float(np.min([row["seconds"] / max(row["n"], 1) for row in rows]))

    def add(self, name: str, i: int, moments: Moments, seconds: float) -> None:
        """Keep it."""
        kept = {"n": moments.n, "mean": moments.mean.tolist(), "covariance": moments.covariance.tolist()}
        self.rows[f"{name} @ {i}"] = {**kept, "seconds": round(seconds, 4)}
        write_text(self.path, to_json(self.rows) + "\n")


def _measure(job: Job, bench: Bench, store: Store, clock: Clock) -> None:
    """Every arm, twin and truth at every point, point by point."""
    pairs = [one for arm in bench.arms for one in (arm, arm.twin) if one is not None]
    todo: list[tuple[str, EstimatorArm | None]] = [(arm.name, arm) for arm in pairs]
    if not bench.config.truth.arm:
        todo = [("truth", None), *todo]
    for name, arm in todo:
        for i, point in enumerate(bench.problem.points):
            if f"{name} @ {i}" in store.rows:
                continue
            begun = time.perf_counter()
            found = bench.truth(i) if arm is None else bench.draw(arm, i)
            seconds = time.perf_counter() - begun
            if not np.isfinite(found.mean).all():
                job.tell(
                    f"{name} at {point.label}: some estimates are not finite numbers; its rows will not be either."
                )
            store.add(name, i, found, seconds)
            clock.note()
        job.tell(f"{name}: measured at {len(bench.problem.points)} point(s).")
        kept = [store.get(name, i) for i in range(len(bench.problem.points))]
        if arm is not None and not arm.sweep:
            for part in ignored(kept, bench.problem.points[0].eta):
                job.tell(
                    f"Warning: {name} gives {part} a gradient of exactly zero in every estimate. The update does not "
                    "depend on it, or the way to it is cut (a window that is shorter than the lifetime)."
                )


def judge_all(study: str, scale: str, bench: Bench, store: Store) -> list[Result]:
    """The rows of results.csv: every arm's metrics, the frontier, the cost, and what became of the claims."""
    config, n_points = bench.config, len(bench.problem.points)
    truth = [_truth(store, config, i) for i in range(n_points)]
    qualities: dict[str, Quality] = {}
    results = []
    for arm in bench.arms:
        for name, coef in arm.names.items():
            spread = [_of(store, arm, i, coef) for i in range(n_points)]
            mean = [_of(store, arm.twin, i, coef) for i in range(n_points)] if arm.twin else spread
            bias = [m.apart() for m in mean] if arm.twin and arm.twin.reference else None
            qualities[name] = quality = judge(mean, spread, truth, config.seed, bias)
            results += [_row(study, scale, config, name, metric, quality, spread[0].n) for metric in METRICS]
            apart = (
                [m.mean - t.mean for m, t in zip(mean, truth, strict=True)] if bias is None else [b.mean for b in bias]
            )
            norm = np.mean([np.linalg.norm(x) for x in apart])
            results.append(Result(study, name, "bias (norm)", float(norm), n=n_points))
            milliseconds = 1e3 * store.seconds(arm.name, n_points)
            results.append(Result(study, name, "milliseconds of an estimate", milliseconds, n=spread[0].n))
    best = frontier(qualities)
    results += [Result(study, name, "on the frontier", float(name in best)) for name in qualities]
    size = [float(np.linalg.norm(t.mean)) for t in truth]
    error = [float(np.sqrt(np.trace(t.of_mean))) for t in truth]
    results.append(Result(study, "truth", "norm", float(np.mean(size)), n=truth[0].n))
    results.append(Result(study, "truth", "standard error (norm)", float(np.mean(error)), n=truth[0].n))
    claims = [claim_of(text, every_name(config)) for text in config.claims]
    qualities[NOTHING] = Quality(0.0, 0.0, 0.0, dict.fromkeys(METRICS, np.zeros(1)))
    return results + [_claim(study, scale, *claim, qualities) for claim in claims if {*claim[1:]} <= {*qualities}]


def every_name(config: EstimatorCardSettings) -> list[str]:
    """All arms, those left out by `only` too."""
    return [name for arm in arms_of(replace(config, only=())) for name in arm.names]


def _of(store: Store, arm: EstimatorArm, i: int, coef: float | None) -> Moments:
    found = store.get(arm.name, i)
    return found if coef is None else found.sc(coef)


def _truth(store: Store, config: EstimatorCardSettings, i: int) -> Moments:
    return store.get(f"{config.truth.arm} (twin)", i).second() if config.truth.arm else store.get("truth", i)


def _row(
    study: str, scale: str, config: EstimatorCardSettings, name: str, metric: str, quality: Quality, n: int
) -> Result:
    value = float(getattr(quality, metric))
    lo, hi = (float(x) for x in np.quantile(quality.draws[metric], [0.025, 0.975]))
    published = config.published.get(f"{name}: {metric}")
    verdict = "" if published is None else UNTESTED
    if published is not None and scale != "smoke":
        if metric == "cosine" and hi - lo <= 2 * config.tolerance:
            verdict = "reproduced" if abs(value - published) <= config.tolerance else "not reproduced"
        elif metric == "variance":
            near = 1 / config.variance_factor <= value / published <= config.variance_factor
            verdict = "reproduced" if near else "not reproduced"
        elif metric == "bias2":
            verdict = "reproduced" if lo <= published <= hi else "not reproduced"
    return Result(study, name, TITLES[metric], value, lo, hi, n, published, verdict)


def claim_of(text: str, names: Sequence[str]) -> tuple[str, str, str]:
    """Metric, larger and smaller arm of "metric: A > B", where B may be 0.

    Raises:
        ConfigError: it is not of that form, or names no metric or arm.
    """
    metric, _, order = (part.strip() for part in text.partition(":"))
    more, sign, less = (part.strip() for part in order.partition(" > "))
    if metric not in METRICS or not sign:
        raise ConfigError(f"'{text}' is not of the form \"metric: A > B\" with a metric of {', '.join(METRICS)}.")
    for name in (more, less):
        if name not in names and (name, less) != (NOTHING, NOTHING):
            raise unknown("arm", name, names)
    return metric, more, less


def _unpublished(key: str, names: Sequence[str]) -> str:
    name, _, metric = key.rpartition(": ")
    if metric not in METRICS:
        return f"'{key}' is not \"arm: metric\" with a metric of {', '.join(METRICS)}."
    return "" if name in names else str(unknown("arm", name, names))


def _claim(study: str, scale: str, metric: str, more: str, less: str, qualities: Mapping[str, Quality]) -> Result:
    apart = qualities[more].draws[metric] - qualities[less].draws[metric]
    value = float(getattr(qualities[more], metric) - getattr(qualities[less], metric))
    lo, hi = (float(x) for x in np.quantile(apart, [0.025, 0.975]))
    verdict = UNTESTED
    if scale != "smoke":
        verdict = "reproduced" if lo > 0 else "not reproduced" if hi < 0 else UNTESTED
    return Result(study, f"{more} > {less}", f"difference of {TITLES[metric]}", value, lo, hi, None, None, verdict)


def table_of(study: str, results: Sequence[Result]) -> Table:
    """Arms by metrics, and the claims, as a table for `rich`. Published numbers in brackets."""
    table = Table(title=f"{study}: estimates against the true gradient (published)")
    table.add_column("arm or claim")
    for column in (*TITLES.values(), "verdict"):
        table.add_column(column, justify="right")
    rows: dict[str, dict[str, Result]] = {}
    for row in results:
        rows.setdefault(row.arm, {})[row.metric] = row
    for name, own in rows.items():
        if name == "truth":
            continue
        found = {title: own.get(title, own.get(f"difference of {title}")) for title in TITLES.values()}
        verdicts = [row.verdict for row in found.values() if row is not None and row.verdict]
        table.add_row(name, *(_cell(row) for row in found.values()), "; ".join(dict.fromkeys(verdicts)))
    return table


def _cell(row: Result | None) -> str:
    if row is None:
        return ""
    return f"{row.value:.3g}" + ("" if row.published is None else f" ({row.published:.3g})")
