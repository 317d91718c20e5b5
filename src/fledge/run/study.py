"""The program of studies: several agents at one scale, side by side, with one table and one report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fledge.core.records import Result, read_curves, read_metrics, write_results
from fledge.report.page import write_report
from fledge.report.study import write_study
from fledge.run import recipe as recipes
from fledge.run.arms import Arm, arms_of, faults_of
from fledge.run.curve import MOST_COLUMNS, AdaptationCurve, by_episode, by_name, column
from fledge.run.folder import RunFolder
from fledge.run.job import Clock, Job, begin_record
from fledge.run.judge import compare, diagnoses, told
from fledge.run.program import MetaRLRun
from fledge.run.recipe import KINDS
from fledge.run.selection import choose_rate
from fledge.run.settings import StudySettings

SELECTION = "selection"
"""Folder of the runs that choose learning rates, inside a case's folder."""


@dataclass(frozen=True)
class StudyRun:
    """A finished study."""

    dir: Path
    name: str
    cases: Mapping[str, Mapping[str, MetaRLRun]]
    """Case → arm → its run. A study without cases has one, named ""."""
    results: Sequence[Result]

    @property
    def runs(self) -> Mapping[str, MetaRLRun]:
        """Arm → its run, in the first case."""
        return next(iter(self.cases.values()))

    @property
    def curve(self) -> AdaptationCurve:
        """The first arm's, in the first case."""
        return next(iter(self.runs.values())).curve

    def show(self, console: Console) -> None:
        """Print the arms' curves side by side, what became of the claims, and where everything lies."""
        for case, runs in self.cases.items():
            title = f"{self.name}/{case}" if case else self.name
            console.print(side_by_side(title, {name: run.curve for name, run in runs.items()}))
        if judged := told(self.results):
            console.print(table_of(judged))
        console.print(f"report: {self.dir / 'report.html'}", highlight=False, soft_wrap=True)


class StudyProgram:
    """Runs arms one after the other. What is finished already is not run again."""

    def faults(self, config: StudySettings) -> list[str]:
        """Everything that is wrong with the settings, those of the arms included."""
        return faults_of(config)

    def seeded(self, config: StudySettings, seeds: int) -> Mapping[str, Any]:
        """The change that gives every arm so many seeds."""
        return {"overrides": {"train.seeds": seeds}}

    def run(self, job: Job) -> StudyRun:
        """Run what is not finished, then compare."""
        config: StudySettings = job.config
        clock = Clock(job.folder.record, begin_record(job, ()))
        cases: dict[str, dict[str, MetaRLRun]] = {}
        steps = 0
        for arm in arms_of(config):
            done = _run_arm(job, arm)
            cases.setdefault(arm.case, {})[arm.name] = done
            record = RunFolder(done.dir).read_record()
            steps += record.env_steps * len(record.seeds)
            clock.note(env_steps=steps)
        results = []
        for case, runs in cases.items():
            curves = {name: run.curve for name, run in runs.items()}
            results += compare(job.recipe.name, job.scale, config, curves, case)
            title = f"{job.recipe.name}/{case}" if case else job.recipe.name
            results += diagnoses(title, {name: read_metrics(RunFolder(run.dir).metrics) for name, run in runs.items()})
        write_results(job.folder.results, results)
        _report(job, cases, results)
        clock.note(finished=True)
        return StudyRun(job.folder.path, job.recipe.name, cases, results)


PROGRAM = StudyProgram()


def _run_arm(job: Job, arm: Arm) -> MetaRLRun:
    """The arm's run, with the learning rate that suits it where the study looks for one."""
    settings: StudySettings = job.config

    def do(arm: Arm, folder: Path) -> Path:
        return run_in(job, arm, RunFolder(folder)).dir

    if settings.learning_rates:
        candidates = job.folder.path / arm.case / SELECTION / arm.name
        arm = arm.with_rate(choose_rate(arm, settings, candidates, do))
    return run_in(job, arm, RunFolder(job.folder.path / arm.path))


def run_in(job: Job, arm: Arm, folder: RunFolder) -> MetaRLRun:
    """Do the run of a folder, go on with it, or read what it found."""
    recipe = arm.recipe
    if folder.record.exists():
        recipe = recipes.load(folder.config)  # as it was when it started
        config = recipe.config()
        if folder.read_record().finished:
            curve = AdaptationCurve(recipe.name, config.evaluation.split, read_curves(folder.curves))
            return MetaRLRun(folder.path, curve)
    else:
        config = arm.config(job.scale)
    folder.path.mkdir(parents=True, exist_ok=True)
    program = recipes.find(KINDS[recipe.header.kind].program)
    command = arm.command(job.scale)
    return program.run(Job(recipe, config, job.scale, folder, command, job.track, job.console, study=job.folder.path))


def _report(job: Job, cases: Mapping[str, Mapping[str, MetaRLRun]], results: Sequence[Result]) -> None:
    """One page; where there are several cases, one more for each, which it points to."""
    if list(cases) == [""]:
        write_report([run.dir for run in cases[""].values()], job.folder.report, results=results)
        return
    pages = {}
    for case, runs in cases.items():
        own = [row for row in results if row.study == f"{job.recipe.name}/{case}"]
        folders = [run.dir for run in runs.values()]
        write_report(folders, job.folder.path / case / "report.html", results=own)
        pages[case] = (folders, own)
    write_study(job.recipe.name, job.recipe.header.about, pages, job.folder.report)


def side_by_side(study: str, curves: Mapping[str, AdaptationCurve]) -> Table:
    """The arms' adaptation curves in one table for `rich`, the first arm's references beside them."""
    columns = {name: column(curve.returns) for name, curve in curves.items()}
    first = next(iter(curves.values()))
    columns |= {name: column(first.cube("return", name).scores, bounds=False) for name in first.references}
    if len(columns) > MOST_COLUMNS:
        return by_name(f"{study}: return on {first.split} tasks", columns, steps=first.by_step)
    what = "gradient step" if first.by_step else "episode"
    return by_episode(f"{study}: return of each {what} on {first.split} tasks", columns, steps=first.by_step)


def table_of(results: Sequence[Result]) -> Table:
    """Results beside what was published or claimed, as a table for `rich`."""
    table = Table(title="what was claimed, and what came of it")
    table.add_column("arm or claim")
    shown = ["metric", "value", *["published"] * any(row.published is not None for row in results), "verdict"]
    for name in shown:
        table.add_column(name, justify="right" if name in ("value", "published") else "left")
    for row in results:
        form = ".2f" if row.published is None else ".4g"
        interval = "" if row.lo is None or row.hi is None else f" [{row.lo:{form}}, {row.hi:{form}}]"
        cells = {"metric": row.metric, "value": f"{row.value:{form}}{interval}", "verdict": row.verdict}
        cells["published"] = "" if row.published is None else f"{row.published:g}"
        table.add_row(row.arm, *(cells[name] for name in shown))
    return table
