"""The program of feedback recipes: labels, then one policy learner or several, then rollouts and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from fledge.core.errors import FledgeError, unknown
from fledge.core.files import parse_json, read_text, to_json, write_text
from fledge.core.records import Curves, Result, write_curves, write_results
from fledge.data.annotations import read_answers, write_answers
from fledge.data.pictures import png
from fledge.feedback.arms import ARMS, Feedback, train_arm
from fledge.feedback.diagnose import diagnose, examples
from fledge.feedback.domain import Domain, domain
from fledge.feedback.evaluate import Rollouts, rollouts, states_of
from fledge.feedback.gather import Asker, RecordedAsker, gather, wants
from fledge.feedback.items import Presentation
from fledge.feedback.labels import combine
from fledge.feedback.raster import arrange, to_gif
from fledge.learn.actors import Policy
from fledge.report.feedback import write_feedback_report
from fledge.run.feedback_annotators import asker_of, faults_of_annotator
from fledge.run.feedback_judge import claims_of, judge
from fledge.run.feedback_settings import DataSettings, FeedbackSettings
from fledge.run.folder import RunFolder
from fledge.run.job import Clock, Job, begin_record

ANSWERS = "answers.jsonl"
FRAME = 96
"""Pixels of a frame in a strip."""
FILM = 200


@dataclass(frozen=True)
class FeedbackRun:
    """A finished run."""

    dir: Path
    name: str
    results: Sequence[Result]
    scores: Mapping[tuple[str, str], Rollouts]
    """(bound, arm) → rollouts."""

    def show(self, console: Console) -> None:
        """Print success and return of every arm, and where everything lies."""
        console.print(table_of(self.name, self.results))
        console.print(f"report: {self.dir / 'report.html'}", highlight=False, soft_wrap=True)


class FeedbackProgram:
    """Labels behaviour, learns policies, measures them. An arm that is finished is not trained again."""

    def faults(self, config: FeedbackSettings) -> list[str]:
        """Everything that is wrong with the settings."""
        found = faults_of_data(config.data) + faults_of_annotator(config.annotator)
        found += [str(unknown("arm", name, ARMS)) for name in config.arms if name not in ARMS]
        found += ["arms: at least one is wanted."] if not config.arms else []
        found += ["bounds: at least one is wanted."] if not config.bounds else []
        found += (
            ["training_seeds: at least one is wanted, and none twice."]
            if len({*config.training_seeds}) < max(1, len(config.training_seeds))
            else []
        )
        found += [f"rollouts.n_starts is at least 1, not {config.rollouts.n_starts}."] * (config.rollouts.n_starts < 1)
        return found + claims_of(config.claims, config.arms, config.bounds)

    def seeded(self, config: FeedbackSettings, seeds: int) -> Mapping[str, Any]:
        """The change that trains so many seeds: the first of the recipe's, then fresh ones."""
        own = config.training_seeds[:seeds]
        return {"training_seeds": [*own, *(1000 + i for i in range(seeds - len(own)))]}

    def run(self, job: Job) -> FeedbackRun:
        """Label, train what is not trained yet, measure, report."""
        config: FeedbackSettings = job.config
        clock = Clock(job.folder.record, begin_record(job, config.training_seeds))
        where = domain(config.data.domain)
        feedback = _label(job, where)
        scores: dict[tuple[str, str], Rollouts] = {}
        keeps: dict[tuple[str, str], float] = {}
        for bound in config.bounds:
            for arm in config.arms:
                scores[bound, arm], keeps[bound, arm] = _arm(job, where, feedback, arm, bound)
                clock.note()
        results = judge(job.recipe.name, job.scale, config, scores, keeps)
        write_results(job.folder.results, results)
        _curves(job, scores, len(feedback.table))
        clock.note(finished=True)
        write_feedback_report(job.folder.path)
        return FeedbackRun(job.folder.path, job.recipe.name, results, scores)

    def report(self, folder: Path, page: Path) -> Path:
        """The page, from the folder's files."""
        return write_feedback_report(folder, page)


PROGRAM = FeedbackProgram()


def faults_of_data(settings: DataSettings) -> list[str]:
    """What is wrong with the choice of domain and data."""
    try:
        found = domain(settings.domain)
    except FledgeError as error:
        return [f"data.domain: {error}"]
    faults = []
    length = found.make_data(1, 0).n_steps
    if settings.k and (settings.k < 1 or length % settings.k):
        faults.append(f"data.k divides an episode of {length} steps, but {settings.k} does not.")
    if settings.n_episodes < 0:
        faults.append(f"data.n_episodes is at least 1, or 0 for the domain's own, not {settings.n_episodes}.")
    return faults


def behaviour(where: Domain, settings: DataSettings) -> Any:
    """The domain's behaviour."""
    seed = where.seed if settings.seed < 0 else settings.seed
    return where.make_data(settings.n_episodes or where.n_episodes, seed)


def _label(job: Job, where: Domain) -> Feedback:
    """Everything that is said about the behaviour; writes the answers, the diagnosis and the strips.

    Answers that are in the folder already are read, not asked for again: arms of one run learn from the same labels.
    """
    config: FeedbackSettings = job.config
    trajectories, own, file = behaviour(where, config.data), config.annotator, job.folder.path / ANSWERS
    if file.exists():
        ask: Asker = RecordedAsker(read_answers(file), str(file))
    else:
        ask = asker_of(job, where, trajectories)
    feedback, answers = gather(
        where,
        trajectories,
        ask,
        k=config.data.k,
        about=wants(config.arms),
        prob_mode=config.filter.prob_mode,
        shown=Presentation(layout=own.layout, resolution=own.resolution),
        pair_seed=config.oracle.seed,
    )
    write_answers(file, answers)
    found = diagnose(feedback, alpha=config.filter.alpha, retro_k=config.filter.retro_k)
    asked = {segment.id for segment in feedback.table}
    found["annotators"] = sorted({answer.annotator for answer in answers if answer.item in asked})
    found["answers"] = len(answers)
    found["questions"] = {c.name: c.question for c in where.instrument.constructs}
    found["prob_mode"] = config.filter.prob_mode
    found["strips"] = _strips(job.folder, where, feedback, config)
    write_text(job.folder.path / "diagnosis.json", to_json(found, indent=1) + "\n")
    return feedback


def _strips(folder: RunFolder, where: Domain, feedback: Feedback, config: FeedbackSettings) -> list[dict[str, Any]]:
    p = combine(feedback.parts)
    chosen = examples(p, feedback.table, alpha=config.filter.alpha, retro_k=config.filter.retro_k)
    rows = feedback.table.frames(where.n_frames)
    reward = feedback.table.sums(feedback.trajectories.rewards)
    made = []
    for fate, segments in chosen.items():
        for i in segments:
            frames = [where.renderer(feedback.trajectories.observations[row], FRAME) for row in rows[i]]
            name = f"pictures/segment-{i}.png"
            path = folder.path / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(png(arrange(frames, "filmstrip")[0]))
            told = {q: round(float(np.nanmean(np.atleast_2d(x)[:, i])), 4) for q, x in feedback.parts.items()}
            made.append(
                {
                    "fate": fate,
                    "segment": feedback.table[i].id,
                    "file": name,
                    "p": round(float(p[i]), 4),
                    "answers": told,
                    "reward": round(float(reward[i]), 1),
                }
            )
    return made


def _arm(job: Job, where: Domain, feedback: Feedback, arm: str, bound: str) -> tuple[Rollouts, float]:
    """Train and measure an arm, some seeds at a time; what was measured before a stop is read."""
    config: FeedbackSettings = job.config
    size = config.seeds_at_once or len(config.training_seeds)
    groups = [config.training_seeds[i : i + size] for i in range(0, len(config.training_seeds), size)]
    parts = []
    for seeds in groups:
        done = job.folder.path / "arms" / f"{bound}-{_file(arm)}-{seeds[0]}.json"
        if not done.exists():
            job.tell(f"{arm} ({bound}), seeds {', '.join(map(str, seeds))} …")
            write_text(done, to_json(_train(job, where, feedback, arm, bound, seeds)) + "\n")
        parts.append(parse_json(read_text(done, "arm"), done, "arm"))
    returns, success = (np.concatenate([np.array(part[name]) for part in parts]) for name in ("returns", "success"))
    return Rollouts(returns, success), parts[0]["keep"]


def _train(job: Job, where: Domain, feedback: Feedback, arm: str, bound: str, seeds: tuple[int, ...]) -> dict[str, Any]:
    config: FeedbackSettings = job.config
    trained = train_arm(
        arm,
        feedback,
        where.env.action_space,
        config.learner,
        seeds,
        bound=bound,
        alpha=config.filter.alpha,
        retro_k=config.filter.retro_k,
    )
    own = config.rollouts
    n_steps = min(own.n_steps, where.env.horizon)
    found = rollouts(trained.policies, where.env, seeds, n_starts=own.n_starts, n_steps=n_steps)
    if (arm, bound, seeds[0]) == (_filmed(config), config.bounds[0], config.training_seeds[0]) and own.film_steps:
        _film(job, where, trained.policies, own.film_steps)
    losses = trained.losses.mean(0)
    every = max(1, len(losses) // 100)
    return {
        "arm": arm,
        "bound": bound,
        "keep": trained.keep_rate,
        "seeds": list(seeds),
        "loss": losses[: len(losses) // every * every].reshape(-1, every).mean(1).tolist(),
        "loss_every": every,
        "returns": found.returns.tolist(),
        "success": found.success.tolist(),
    }


def _filmed(config: FeedbackSettings) -> str:
    return "SF-BC" if "SF-BC" in config.arms else config.arms[0]


def _film(job: Job, where: Domain, policies: Policy, n_steps: int) -> None:
    states = states_of(policies, where.env, n_steps=n_steps)
    frames = [where.renderer(state, FILM) for state in states[::2]]
    (job.folder.path / "pictures" / "policy.gif").write_bytes(to_gif(frames, 15.0))


def _file(arm: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in arm.lower())


def _curves(job: Job, scores: Mapping[tuple[str, str], Rollouts], n_labels: int) -> None:
    """curves.csv: one point for each arm, at the number of labelled segments."""
    config: FeedbackSettings = job.config
    parts = []
    for (bound, arm), found in scores.items():
        n_seeds, n_starts = found.returns.shape
        for metric, values in (("return_greedy", found.returns), ("success_greedy", found.success)):
            parts.append(
                Curves.of(
                    recipe=arm,
                    split="test",
                    adapt=bound,
                    seed=np.repeat(config.training_seeds, n_starts),
                    task=[f"start {i}" for i in range(n_starts)] * n_seeds,
                    x=float(n_labels if ARMS[arm].uses_labels else 0),
                    x_unit="label",
                    metric=metric,
                    value=values.reshape(-1),
                )
            )
    write_curves(job.folder.curves, Curves.concat(parts))


def table_of(name: str, results: Sequence[Result]) -> Table:
    """Success and return of each arm, with the published numbers where there are any, for `rich`."""
    by_arm: dict[tuple[str, str], dict[str, Result]] = {}
    for row in results:
        by_arm.setdefault((row.study.removeprefix(name).removeprefix("/"), row.arm), {})[row.metric] = row
    rows = {place: found for place, found in by_arm.items() if "success" in found}
    known = any(found["success"].published is not None for found in rows.values())
    several = any(setting for setting, _ in rows)
    table = Table(title=f"{name}: mean [95 % interval over seeds]")
    columns = [*["setting"] * several, "arm", "success", *["published"] * known, "return", *["published"] * known]
    for column in [*columns, "kept"]:
        table.add_column(column, justify="left" if column in ("setting", "arm") else "right")
    for (setting, arm), found in rows.items():
        cells = [*[setting] * several, arm]
        for row, digits in ((found["success"], 2), (found["return"], 0)):
            cells += [_cell(row, digits), *["" if row.published is None else f"{row.published:g}"] * known]
        table.add_row(*cells, f"{found['kept'].value:.2f}" if "kept" in found else "")
    return table


def _cell(row: Result, digits: int) -> str:
    if row.lo is None or row.hi is None:
        return f"{row.value:.{digits}f}"
    return f"{row.value:.{digits}f} [{row.lo:.{digits}f}, {row.hi:.{digits}f}]"
