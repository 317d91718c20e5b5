"""The program of studies: several recipes at one scale, side by side, with one table and one report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from fledge.core.errors import ConfigError, FledgeError
from fledge.core.records import Result, read_curves, write_results
from fledge.core.stats import bootstrap, probability_of_improvement
from fledge.report.page import write_report
from fledge.run import config as tomls
from fledge.run import recipe as recipes
from fledge.run.curve import AdaptationCurve, by_episode, column
from fledge.run.folder import RunFolder
from fledge.run.job import Clock, Job, begin_record
from fledge.run.program import MetaRLRun
from fledge.run.recipe import KINDS, Recipe
from fledge.run.settings import StudySettings

UNTESTED = "not tested at this scale"


@dataclass(frozen=True)
class StudyRun:
    """A finished study."""

    dir: Path
    runs: Mapping[str, MetaRLRun]
    """Arm → its run."""
    results: Sequence[Result]

    @property
    def curve(self) -> AdaptationCurve:
        """The first arm's."""
        return next(iter(self.runs.values())).curve

    def show(self, console: Console) -> None:
        """Print the arms' curves side by side, what became of the claims, and where everything lies."""
        curves = {name: run.curve for name, run in self.runs.items()}
        console.print(side_by_side(self.results[0].study, curves))
        judged = [row for row in self.results if row.verdict or row.published is not None]
        if judged:
            console.print(table_of(judged))
        console.print(f"report: {self.dir / 'report.html'}", highlight=False, soft_wrap=True)


class StudyProgram:
    """Runs recipes one after the other. Arms that are finished already are not run again."""

    def faults(self, config: StudySettings) -> list[str]:
        """Everything that is wrong with the settings, those of the arms included."""
        faults = [] if config.recipes else ["recipes is a list of at least one recipe, not []."]
        arms = {}
        for name in config.recipes:
            try:
                arm = recipes.load(name)
                arm_config = arm.config(changes=tomls.nest(config.overrides))
                program = recipes.find(KINDS[arm.header.kind].program)
                faults += [f"{name}: {fault}" for fault in program.faults(arm_config)]
                arms[arm.name] = arm
            except FledgeError as error:
                faults.append(f"recipes: {error}")
        for claim in config.claims:
            try:
                sides = sides_of(claim)
            except ConfigError as error:
                faults.append(f"claims: {error}")
                continue
            faults += [f"claims: '{side}' is none of the study's recipes." for side in sides if side not in arms]
        return faults

    def seeded(self, config: StudySettings, seeds: int) -> Mapping[str, Any]:
        """The change that gives every arm so many seeds."""
        return {"overrides": {"train.seeds": seeds}}

    def run(self, job: Job) -> StudyRun:
        """Run what is not finished, then compare."""
        config: StudySettings = job.config
        clock = Clock(job.folder.record, begin_record(job, ()))
        runs: dict[str, MetaRLRun] = {}
        steps = 0
        for name in config.recipes:
            arm = recipes.load(name)
            runs[arm.name] = _run_arm(job, arm)
            record = RunFolder(runs[arm.name].dir).read_record()
            steps += record.env_steps * len(record.seeds)
            clock.note(env_steps=steps)
        results = compare(job.recipe.name, job.scale, config, {name: run.curve for name, run in runs.items()})
        write_results(job.folder.results, results)
        write_report([run.dir for run in runs.values()], job.folder.report)
        clock.note(finished=True)
        return StudyRun(job.folder.path, runs, results)


PROGRAM = StudyProgram()


def _run_arm(job: Job, arm: Recipe) -> MetaRLRun:
    folder = RunFolder(job.folder.path / arm.name)
    config = arm.config(job.scale, tomls.nest(job.config.overrides))
    if folder.record.exists():
        arm = recipes.load(folder.config)  # as it was when it started
        config = arm.config()
    if folder.record.exists() and folder.read_record().finished:
        split = config.evaluation.split
        return MetaRLRun(folder.path, AdaptationCurve(arm.name, split, read_curves(folder.curves)))
    folder.path.mkdir(parents=True, exist_ok=True)
    program = recipes.find(KINDS[arm.header.kind].program)
    command = " ".join([f"fledge run {arm.name} --scale {job.scale}", *_words(job.config.overrides)])
    return program.run(Job(arm, config, job.scale, folder, command, job.track, job.console, study=job.folder.path))


def _words(overrides: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in overrides.items()]


def sides_of(claim: str) -> tuple[str, str]:
    """Better and worse arm of "A > B".

    Raises:
        ConfigError: it is not of that form.
    """
    better, sign, worse = (part.strip() for part in claim.partition(">"))
    if not (better and sign and worse):
        raise ConfigError(f"'{claim}' is not of the form \"A > B\", with A and B among the study's recipes.")
    return better, worse


def compare(study: str, scale: str, config: StudySettings, curves: Mapping[str, AdaptationCurve]) -> list[Result]:
    """The rows of results.csv: each arm's returns, and what became of each claim."""
    results = []
    for arm, curve in curves.items():
        scores = curve.cube("return").scores
        published = config.published.get(arm)
        last = scores.shape[-1]
        row = _result(study, arm, "return of a trial", scores.sum(-1))
        results.append(_judged(row, published, scale))
        results.append(_result(study, arm, "return of episode 1", scores[..., 0]))
        if last > 1:
            results.append(_result(study, arm, f"return of episode {last}", scores[..., -1]))
    first = next(iter(curves.values()))
    results += [_result(study, name, "return of a trial", first.trial("return", name)) for name in first.references]
    for claim in config.claims:
        better, worse = (curves[side].trial("return") for side in sides_of(claim))
        chance = probability_of_improvement(better, worse)
        value, lo, hi = (float(x) for x in chance[:3])
        verdict = UNTESTED
        if scale != "smoke" and not np.isnan(lo):
            verdict = "reproduced" if lo > 0.5 else "not reproduced"
        results.append(Result(study, claim, "chance of improvement", value, lo, hi, chance.n_seeds, None, verdict))
    return results


def _result(study: str, arm: str, metric: str, scores: np.ndarray) -> Result:
    estimate = bootstrap(scores)
    value, lo, hi = (float(x) for x in estimate[:3])
    n = estimate.n_seeds
    return Result(study, arm, metric, value, None if np.isnan(lo) else lo, None if np.isnan(hi) else hi, n)


def _judged(row: Result, published: float | None, scale: str) -> Result:
    """A row beside the published number: reproduced if that lies inside the interval or below it (higher is better)."""
    if published is None:
        return row
    verdict = UNTESTED
    if scale == "paper" and row.hi is not None:
        verdict = "reproduced" if row.hi >= published else "not reproduced"
    return Result(row.study, row.arm, row.metric, row.value, row.lo, row.hi, row.n, published, verdict)


def side_by_side(study: str, curves: Mapping[str, AdaptationCurve]) -> Table:
    """The arms' adaptation curves in one table for `rich`, the first arm's references beside them."""
    columns = {name: column(curve.returns) for name, curve in curves.items()}
    first = next(iter(curves.values()))
    columns |= {name: column(first.cube("return", name).scores, bounds=False) for name in first.references}
    return by_episode(f"{study}: return of each episode on {first.split} tasks", columns)


def table_of(results: Sequence[Result]) -> Table:
    """Results beside what was published or claimed, as a table for `rich`."""
    table = Table(title="what was claimed, and what came of it")
    table.add_column("arm or claim")
    shown = ["metric", "value", *["published"] * any(row.published is not None for row in results), "verdict"]
    for name in shown:
        table.add_column(name, justify="right" if name in ("value", "published") else "left")
    for row in results:
        interval = "" if row.lo is None or row.hi is None else f" [{row.lo:.2f}, {row.hi:.2f}]"
        cells = {"metric": row.metric, "value": f"{row.value:.2f}{interval}", "verdict": row.verdict}
        cells["published"] = "" if row.published is None else f"{row.published:g}"
        table.add_row(row.arm, *(cells[name] for name in shown))
    return table
