"""The program of consistency studies: agents that learn on, further and further from what they were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tomli_w
from rich.console import Console

from fledge.agents.adapt import AdaptSettings, check_mode
from fledge.core.errors import ConfigError, FledgeError, nearest, unknown
from fledge.core.files import write_text
from fledge.core.records import Result, read_results, write_curves, write_record, write_results
from fledge.envs.trial import Trial
from fledge.report.page import write_report
from fledge.report.study import write_study
from fledge.run import build
from fledge.run import recipe as recipes
from fledge.run.adapt import Adapted, adapt_to, tasks_of
from fledge.run.agent import LoadedAgent, load
from fledge.run.arms import Arm, load_arm
from fledge.run.folder import RunFolder
from fledge.run.job import Clock, Job, begin_record
from fledge.run.recipe import KINDS
from fledge.run.settings import Scalar
from fledge.run.study import run_in, table_of
from fledge.run.verdicts import results_of, verdict

TRAINED = "trained"
"""Folder of an arm's training run, inside the arm's folder."""


@dataclass(frozen=True)
class ConsistencySettings:
    """Train agents on one family, and let them learn on tasks of others at increasing distance."""

    arms: dict[str, dict[str, Scalar]] = field(default_factory=dict)
    """Arm → `recipe`, and dotted settings laid over it."""
    shifts: dict[str, dict[str, Scalar]] = field(default_factory=dict)
    """"arm: name" (or "arm, arm: name") → settings of the environment whose `ood` tasks are the shifted ones; beside
    them `distance`, any number that orders the shifts."""
    modes: tuple[str, ...] = ("default", "all", "scratch")
    n_tasks: int = 5
    """Of each shift."""
    seeds: int = 5
    """Agents of each arm."""
    seed: int = 0
    """Of the tasks and of all randomness at test time."""
    adapt: AdaptSettings = field(default_factory=AdaptSettings)
    overrides: dict[str, Scalar] = field(default_factory=dict)
    """Dotted setting → value, laid over every arm."""


@dataclass(frozen=True)
class Shift:
    """Tasks that an arm was not trained on."""

    name: str
    distance: float
    changes: Mapping[str, Any]
    """Of the environment's settings."""


@dataclass(frozen=True)
class ConsistencyRun:
    """A finished study."""

    dir: Path
    name: str
    verdicts: Sequence[str]
    results: Sequence[Result]

    def show(self, console: Console) -> None:
        """Print the verdict on each agent and shift, what became of the claims, and where everything lies."""
        for line in self.verdicts:
            console.print(line, highlight=False, soft_wrap=True)
        if judged := [row for row in self.results if row.verdict]:
            console.print(table_of(judged))
        console.print(f"report: {self.dir / 'report.html'}", highlight=False, soft_wrap=True)


class ConsistencyProgram:
    """Trains arms that are not trained yet, and lets them learn on. What was measured is not measured again."""

    def faults(self, config: ConsistencySettings) -> list[str]:
        """Everything that is wrong with the settings, those of the arms included."""
        faults = [
            f"{name} is at least 1, not {getattr(config, name)}."
            for name in ("n_tasks", "seeds")
            if getattr(config, name) < 1
        ]
        if not config.arms:
            return [*faults, "arms is a table of at least one agent: arms.NAME = { recipe = … }."]
        for mode in config.modes:
            faults += _raised("modes", lambda: check_mode(mode))  # noqa: B023
        faults += [f"shifts: {fault}" for key in config.shifts for fault in _shift_faults(key, config)]
        for name in config.arms:
            try:
                arm = arm_of(name, config)
                settings = arm.config(recipes.USUAL_SCALE)
                program = recipes.find(KINDS[arm.recipe.header.kind].program)
                faults += [f"{name}: {fault}" for fault in program.faults(settings)]
                shifts = shifts_of(name, config)
            except (FledgeError, ValueError) as error:
                faults.append(f"{name}: {error}")
                continue
            if not shifts:
                faults.append(f'{name}: it has no shift. Write one: [shifts."{name}: far"].')
            for shift in shifts:
                faults += _raised(f"shifts: {name}: {shift.name}", lambda: shifted(settings, shift))  # noqa: B023
        return faults

    def seeded(self, config: ConsistencySettings, seeds: int) -> Mapping[str, Any]:
        """The change that trains so many agents of each arm."""
        return {"seeds": seeds}

    def run(self, job: Job) -> ConsistencyRun:
        """Train what is not trained, let it learn on where it has not, then judge and report."""
        config: ConsistencySettings = job.config
        clock = Clock(job.folder.record, begin_record(job, tuple(range(config.seeds))))
        results, lines = [], []
        for name in config.arms:
            arm, shifts = arm_of(name, config), shifts_of(name, config)
            done = run_in(job, arm, RunFolder(job.folder.path / name / TRAINED))
            clock.note()
            agent = load(done.dir)
            tasks = [tasks_of(shifted(agent.config, shift), "ood", config.n_tasks, config.seed) for shift in shifts]
            found = {mode: _measured(job, clock, agent, name, shifts, tasks, mode) for mode in config.modes}
            for i, shift in enumerate(shifts):
                own = {mode: parts[i] for mode, parts in found.items()}
                results += results_of(f"{job.recipe.name}/{name}/{shift.name}", name, own, job.scale)
                lines.append(verdict(name, f"{shift.name} (distance {shift.distance:g})", own))
                job.tell(lines[-1])
        write_results(job.folder.results, results)
        write_text(job.folder.path / "verdicts.txt", "\n".join(lines) + "\n")
        clock.note(finished=True)
        self.report(job.folder.path, job.folder.report)
        return ConsistencyRun(job.folder.path, job.recipe.name, lines, results)

    def report(self, folder: Path, page: Path) -> Path:
        """One page with a section for each arm and shift, and a page for each of those; from the files alone."""
        results = read_results(folder / "results.csv")
        recipe = recipes.load(folder / "config.toml")
        config: ConsistencySettings = recipe.config()
        pages: dict[str, tuple[list[Path], list[Result]]] = {}
        for name in config.arms:
            for shift in shifts_of(name, config):
                case = f"{name}/{shift.name}"
                folders = [folder / case / mode.replace(":", "-") for mode in config.modes]
                own = [row for row in results if row.study.endswith(f"/{case}")]
                write_report(folders, folder / case / "report.html", results=own)
                pages[case] = (folders, own)
        return write_study(recipe.name, recipe.header.about, pages, page)


PROGRAM = ConsistencyProgram()


def arm_of(name: str, config: ConsistencySettings) -> Arm:
    """One arm; every arm has the study's number of seeds.

    Raises:
        ConfigError: it names no recipe, or one that does not exist.
    """
    own = config.arms[name]
    base = str(own.get("recipe", ""))
    recipe = load_arm(base, f"arms.{name}: ")
    recipe = replace(recipe, header=replace(recipe.header, name=name))
    changes = {key: value for key, value in own.items() if key != "recipe"}
    return Arm("", name, base, recipe, {**changes, **config.overrides, "train.seeds": config.seeds})


def shifts_of(arm: str, config: ConsistencySettings) -> list[Shift]:
    """The shifts of an arm, nearest first."""
    found = []
    for key, own in config.shifts.items():
        arms, _, name = key.rpartition(":")
        if arm in [part.strip() for part in arms.split(",")]:
            changes = {k: v for k, v in own.items() if k != "distance"}
            found.append(Shift(name.strip(), float(own.get("distance", 0.0)), changes))  # type: ignore[arg-type]
    return sorted(found, key=lambda shift: shift.distance)


def shifted(config: Any, shift: Shift) -> Trial:
    """Trials of the environment whose `ood` tasks are the shifted ones.

    Raises:
        ConfigError: the environment has no such setting.
    """
    settings = {**config.env.settings, **shift.changes}
    return build.make_trial(replace(config.env, settings=settings))


def _shift_faults(key: str, config: ConsistencySettings) -> list[str]:
    arms, colon, name = key.rpartition(":")
    if not (colon and name.strip()):
        return [f"'{key}' is not of the form \"arm: name\"."]
    strange = [part.strip() for part in arms.split(",") if part.strip() not in config.arms]
    return [f"'{key}': {unknown('arm', arm, config.arms)}" for arm in strange]


def _raised(where: str, call: Any) -> list[str]:
    try:
        call()
    except FledgeError as error:
        return [f"{where}: {error}"]
    return []


def _measured(
    job: Job, clock: Clock, agent: LoadedAgent, arm: str, shifts: Sequence[Shift], tasks: Sequence[Any], mode: str
) -> list[Adapted]:
    """What came of one mode, shift by shift: from an archive, or measured now, all shifts in one program."""
    config: ConsistencySettings = job.config
    archive = job.folder.path / arm / f"{mode.replace(':', '-')}.npz"
    sizes = [jax.tree.leaves(some)[0].shape[0] for some in tasks]
    ends = np.cumsum(sizes)
    rows = [slice(int(end - n), int(end)) for end, n in zip(ends, sizes, strict=True)]
    if archive.exists():
        whole = read_archive(archive)
    else:
        job.tell(f"{job.recipe.name}: {arm}, {mode}, {sum(sizes)} tasks × {len(agent.seeds)} seeds")
        every = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *tasks)
        whole = adapt_to(agent, every, mode, split="ood", settings=config.adapt, seed=config.seed, tell=job.tell)
        if whole.oracle is None:
            raise ConfigError(
                f"{arm}: the best return on '{agent.config.env.family}' is unknown, so no share of it can be judged. "
                f"{nearest('', ())} Take a family with an optimum: gridnav, bandits, point-nav, mdp."
            )
        write_archive(archive, whole)
    parts = [whole.take(own) for own in rows]
    for shift, part in zip(shifts, parts, strict=True):
        folder = job.folder.path / arm / shift.name / mode.replace(":", "-")
        write_curves(folder / "curves.csv", replace(part, recipe=mode).curves())
        about = {"name": mode, "arm": arm, "shift": shift.name, "distance": shift.distance, **shift.changes}
        write_text(folder / "config.toml", tomli_w.dumps(about))
        write_text(folder / "metrics.jsonl", "")
        write_record(folder / "record.json", replace(clock.record, recipe=mode, finished=True))
    clock.note()
    return parts


_ARRAYS = ("env_steps", "trials", "oracle", "floor")


def write_archive(path: Path, adapted: Adapted) -> None:
    """Keep the numbers of one mode (the agents are not kept)."""
    arrays = {name: np.asarray(getattr(adapted, name)) for name in _ARRAYS}
    arrays |= {f"log {name}": x for name, x in adapted.log.items()}
    words = {"recipe": adapted.recipe, "split": adapted.split, "mode": adapted.mode}
    beside = path.with_suffix(".part.npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(beside, seeds=adapted.seeds, tasks=np.array(adapted.tasks), **words, **arrays)  # type: ignore[arg-type]
    beside.replace(path)


def read_archive(path: Path) -> Adapted:
    """The numbers that `write_archive` kept."""
    with np.load(path) as found:
        log = {name.removeprefix("log "): found[name] for name in found.files if name.startswith("log ")}
        words: dict[str, Any] = {name: str(found[name]) for name in ("recipe", "split", "mode")}
        arrays: dict[str, Any] = {name: found[name] for name in _ARRAYS}
        seeds, tasks = tuple(int(x) for x in found["seeds"]), tuple(str(x) for x in found["tasks"])
    return Adapted(**words, seeds=seeds, tasks=tasks, **arrays, log=log, agents=None)
