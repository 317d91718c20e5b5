"""The program of instrument studies: the same behaviour and learner, asked about in several ways (simulated)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from fledge.core.errors import FledgeError
from fledge.core.files import parse_json, read_text, to_json, write_text
from fledge.core.records import Result, write_results
from fledge.data.pictures import png
from fledge.data.segments import SegmentTable, segment
from fledge.data.trajectories import Trajectories
from fledge.feedback.diagnose import correlation, pairwise, reliability
from fledge.feedback.domain import Domain, domain
from fledge.feedback.evaluate import Rollouts, difference, interval, rollouts
from fledge.feedback.items import Presentation, items_of
from fledge.feedback.labels import combine, keep, probabilities, select
from fledge.feedback.raster import arrange
from fledge.feedback.sfbc import examples_of
from fledge.feedback.simulated import SimulatedReader, worded
from fledge.learn.actors import ActionScale
from fledge.learn.clone import CloneSettings, clone
from fledge.learn.seeds import keys_of, over_seeds
from fledge.report.feedback_instruments import write_feedback_instruments
from fledge.run.feedback import FRAME, behaviour, faults_of_data, table_of
from fledge.run.feedback_settings import InstrumentArm, InstrumentSettings
from fledge.run.job import Clock, Job, begin_record


@dataclass(frozen=True)
class InstrumentRun:
    """A finished study of instruments."""

    dir: Path
    name: str
    results: Sequence[Result]

    def show(self, console: Console) -> None:
        """Print success and return of every version, and where everything lies."""
        console.print(table_of(self.name, self.results))
        console.print(f"report: {self.dir / 'report.html'}", highlight=False, soft_wrap=True)


@dataclass(frozen=True, eq=False)
class Version:
    """What one version of the instrument found."""

    p: np.ndarray
    """P of every segment."""
    kept: np.ndarray
    facts: Mapping[str, Any]
    """For the page."""


class InstrumentProgram:
    """Labels the same behaviour by every version, and clones what each of them keeps."""

    def faults(self, config: InstrumentSettings) -> list[str]:
        """Everything that is wrong with the settings."""
        found = faults_of_data(config.data)
        found += ["instruments: two versions are wanted at least."] if len(config.instruments) < 2 else []
        found += ["training_seeds: at least one is wanted."] if not config.training_seeds else []
        if found:
            return found
        where = domain(config.data.domain)
        logged = where.make_data(1, 0)
        table = segment(logged, config.data.k or where.k)
        for name, version in config.instruments.items():
            try:
                _reader(where, logged, table, version, 0)
                arrange([where.renderer(logged.observations[0], 8)], version.layout)
                table.frames(version.n_frames)
            except FledgeError as error:
                found.append(f"instruments.{name}: {error}")
        return found

    def seeded(self, config: InstrumentSettings, seeds: int) -> Mapping[str, Any]:
        """The change that trains so many seeds."""
        own = config.training_seeds[:seeds]
        return {"training_seeds": [*own, *(1000 + i for i in range(seeds - len(own)))]}

    def run(self, job: Job) -> InstrumentRun:
        """Label and learn what is not done yet, compare, report."""
        config: InstrumentSettings = job.config
        clock = Clock(job.folder.record, begin_record(job, config.training_seeds))
        where = domain(config.data.domain)
        logged = behaviour(where, config.data)
        table = segment(logged, config.data.k or where.k)
        versions, scores = {}, {}
        for name, version in config.instruments.items():
            versions[name] = _labelled(job, where, logged, table, name, version)
            scores[name] = _learnt(job, where, logged, table, name, versions[name])
            clock.note()
        results = _judged(job, versions, scores)
        write_results(job.folder.results, results)
        write_text(job.folder.path / "diagnosis.json", to_json(_diagnosis(job, logged, versions), indent=1) + "\n")
        clock.note(finished=True)
        write_feedback_instruments(job.folder.path)
        return InstrumentRun(job.folder.path, job.recipe.name, results)

    def report(self, folder: Path, page: Path) -> Path:
        """The page, from the folder's files."""
        return write_feedback_instruments(folder, page)


PROGRAM = InstrumentProgram()


def _reader(
    where: Domain, logged: Trajectories, table: SegmentTable, version: InstrumentArm, seed: int
) -> SimulatedReader:
    shown = Presentation(version.n_frames, version.layout)
    return SimulatedReader(logged, table, where.judges, shown, version.wording, seed=seed)


def _questions(where: Domain, version: InstrumentArm) -> list[str]:
    names = list(where.judges)
    return {"both": names, "markov": names[:1], "non-markov": names[1:]}[version.questions]


def _labelled(
    job: Job, where: Domain, logged: Trajectories, table: SegmentTable, name: str, version: InstrumentArm
) -> Version:
    config: InstrumentSettings = job.config
    reader = _reader(where, logged, table, version, config.reader_seed)
    instrument = worded(where, version.wording, _questions(where, version), version.together)
    items = list(items_of(logged, table))
    answers = [a for r in range(config.replicates) for a in reader.annotate(items, instrument, replicate=r)]
    parts = probabilities(answers, table, mode=config.filter.prob_mode)
    p = combine(parts)
    own = config.filter
    kept = keep(p, table, alpha=own.alpha, retro_k=own.retro_k)
    frames = [where.renderer(logged.observations[row], FRAME) for row in table.frames(version.n_frames)[0]]
    sheet = arrange(frames, version.layout)
    picture = job.folder.path / "pictures" / f"{name}.png"
    picture.parent.mkdir(exist_ok=True)
    picture.write_bytes(png(sheet[0] if len(sheet) == 1 else arrange(frames, "filmstrip")[0]))
    facts = {
        "wording": instrument.constructs[0].question,
        "questions": [c.name for c in instrument.constructs],
        "frames": version.n_frames,
        "layout": version.layout,
        "together": version.together,
        "version": instrument.version,
        "yes": {q: float(np.nanmean(x >= 0.5)) for q, x in parts.items()},
        "reliability": {q: reliability(x) for q, x in parts.items()},
        "passes": float((p >= own.alpha).mean()),
        "kept": float(kept.mean()),
        "correlation": correlation(p, table.sums(logged.rewards)),
        "picture": f"pictures/{name}.png",
    }
    if (expert := logged.extras.get("expert")) is not None:
        right = expert[table.first]
        facts["kept_of_wanted"] = float(kept[right].mean())
        facts["kept_of_unwanted"] = float(kept[~right].mean())
    return Version(p, kept, facts)


def _learnt(
    job: Job, where: Domain, logged: Trajectories, table: SegmentTable, name: str, version: Version
) -> Rollouts:
    """The policies that SFBC makes of a version's labels, measured; or what was measured before a stop."""
    config: InstrumentSettings = job.config
    done = job.folder.path / "arms" / f"{name}.json"
    if not done.exists():
        job.tell(f"{name} …")
        own, learner = config.filter, config.learner
        chosen = select(version.p, table, alpha=own.alpha, retro_k=own.retro_k)
        scale = ActionScale.of(where.env.action_space, config.bound)
        settings = CloneSettings(learner.hidden, learner.learning_rate, learner.batch_size, learner.n_steps)
        actor, _ = over_seeds(clone, keys_of(config.training_seeds), examples_of(logged, chosen, scale), settings)
        n_steps = min(config.rollouts.n_steps, where.env.horizon)
        found = rollouts(
            scale.policy(actor), where.env, config.training_seeds, n_starts=config.rollouts.n_starts, n_steps=n_steps
        )
        write_text(done, to_json({"returns": found.returns.tolist(), "success": found.success.tolist()}) + "\n")
    tree = parse_json(read_text(done, "version"), done, "version")
    return Rollouts(np.array(tree["returns"]), np.array(tree["success"]))


def _judged(job: Job, versions: Mapping[str, Version], scores: Mapping[str, Rollouts]) -> list[Result]:
    study, first = job.recipe.name, next(iter(versions))
    rows = []
    for name, version in versions.items():
        found = scores[name]
        for metric, values in (("success", found.success), ("return", found.returns)):
            rows.append(_row(study, name, metric, interval(values), len(values)))
        rows.append(Result(study, name, "kept", version.facts["kept"]))
        rows.append(Result(study, name, "κ with the first version", pairwise(*_passes(versions, first, name))["kappa"]))
        if name != first:
            paired = difference(found.success, scores[first].success)
            rows.append(_row(study, f"{name} − {first}", "difference of success", paired, len(found.success)))
    return rows


def _row(study: str, arm: str, metric: str, estimate: Any, n: int) -> Result:
    value, lo, hi = (float(x) for x in estimate[:3])
    known = [None if np.isnan(bound) else bound for bound in (lo, hi)]
    return Result(study, arm, metric, value, known[0], known[1], n)


def _passes(versions: Mapping[str, Version], a: str, b: str) -> tuple[np.ndarray, np.ndarray]:
    """Which segments are kept by two versions, as numbers."""
    return versions[a].kept.astype(float), versions[b].kept.astype(float)


def _diagnosis(job: Job, logged: Trajectories, versions: Mapping[str, Version]) -> dict[str, Any]:
    names = list(versions)
    kappa = [[pairwise(*_passes(versions, a, b))["kappa"] for b in names] for a in names]
    return {
        "data": logged.summary(),
        "alpha": job.config.filter.alpha,
        "retro_k": job.config.filter.retro_k,
        "names": names,
        "kappa": kappa,
        "versions": {name: version.facts for name, version in versions.items()},
    }
