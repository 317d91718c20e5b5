"""What `import fledge` offers: the same things as the command line, as functions."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from fledge.core.errors import ConfigError
from fledge.run import config as tomls
from fledge.run import launch
from fledge.run import recipe as recipes
from fledge.run.folder import RunFolder
from fledge.run.job import Job
from fledge.run.recipe import KINDS, USUAL_SCALE, Recipe
from fledge.run.track import check_trackers


def run(
    name: str | Path,
    *,
    scale: str = USUAL_SCALE,
    seeds: int | None = None,
    out: Path | str | None = None,
    track: Sequence[str] = (),
    quiet: bool = False,
    **overrides: Any,
) -> Any:
    """Run a recipe from its beginning to its report.

    Args:
        name: a shipped recipe, or the path of one's own file.
        scale: `smoke`, `laptop` or `paper`.
        seeds: how many; by default what the recipe says.
        out: the run folder; by default runs/<recipe>-<scale>-<counter>.
        track: extra trackers, `tensorboard` or `wandb`.
        quiet: no progress on the console.
        **overrides: settings, as tables (`learner={"n_envs": 32}`) or dotted (`**{"learner.n_envs": 32}`).

    Returns:
        An object with `.dir` (the run folder) and `.curve` (the adaptation curve).

    Raises:
        ConfigError: lists everything that is wrong with the settings.
    """
    launch.prepare()
    check_trackers(track)
    faults: list[str] = []
    recipe = recipes.load(name, faults)
    config = configure(recipe, scale, overrides, seeds, faults)
    words = ["fledge", "run", str(name), "--scale", scale]
    words += ["--seeds", str(seeds)] if seeds is not None else []
    words += [f"{key}={_word(value)}" for key, value in tomls.flatten(tomls.nest(overrides)).items()]
    return _begin(recipe, config, scale, shlex.join(words), out, track, quiet)


def start(recipe: Recipe, command: str, *, out: Path | str | None = None, quiet: bool = False) -> Any:
    """Run a recipe that is no file: what commands with settings of their own do.

    Raises:
        ConfigError: lists everything that is wrong with its settings.
    """
    launch.prepare()
    config = configure(recipe, USUAL_SCALE, {})
    return _begin(recipe, config, USUAL_SCALE, command, out, (), quiet)


def _begin(
    recipe: Recipe, config: Any, scale: str, command: str, out: Path | str | None, track: Sequence[str], quiet: bool
) -> Any:
    folder = RunFolder.create(recipe.name or "unnamed", scale, out)
    job = Job(recipe, config, scale, folder, command, track, console_of(quiet))
    return recipes.find(KINDS[recipe.header.kind].program).run(job)


def configure(
    recipe: Recipe, scale: str, overrides: Mapping[str, Any], seeds: int | None = None, faults: Sequence[str] = ()
) -> Any:
    """The effective settings.

    Args:
        recipe: the recipe.
        scale: one of its scales.
        overrides: nested or dotted.
        seeds: how many, if the recipe's own number is not wanted.
        faults: what is wrong with the recipe already.

    Raises:
        ConfigError: lists everything that is wrong.
    """
    program = recipes.find(KINDS[recipe.header.kind].program)
    changes = as_study(overrides) if recipe.header.kind == "study" else tomls.nest(overrides)
    if seeds is not None:
        changes = tomls.merge(changes, program.seeded(recipe.base, seeds))
    found = list(faults)
    config = recipe.config(scale, changes, found)
    found += program.faults(config)
    tomls.refuse(found, f"{recipe.origin} with these changes" if changes else recipe.origin)
    return config


def as_study(overrides: Mapping[str, Any]) -> tomls.Tree:
    """Changes of a study: its own settings by name, and everything else laid over its arms."""
    from fledge.run.settings import StudySettings

    own = StudySettings.__dataclass_fields__
    tree: tomls.Tree = {key: value for key, value in overrides.items() if key.partition(".")[0] in own}
    arms = tomls.flatten({key: value for key, value in overrides.items() if key.partition(".")[0] not in own})
    return tomls.merge(tomls.nest(tree), {"overrides": arms} if arms else {})


def resume(path: Path | str, *, track: Sequence[str] = (), quiet: bool = False) -> Any:
    """Go on with a run that was stopped: bit for bit the run that never was (same machine, same device).

    Raises:
        DataError: no run folder, or one from another version.
    """
    launch.prepare()
    folder = RunFolder.open(path)
    record = folder.read_record()
    recipe = recipes.load(folder.config)
    config = recipe.config()
    job = Job(recipe, config, record.scale, folder, record.command, track, console_of(quiet))
    if record.finished:
        job.tell(f"{path} is finished already; measuring and reporting again.")
    return recipes.find(KINDS[recipe.header.kind].program).run(job)


def load(path: Path | str, *, seed: int | None = None) -> Any:
    """The trained agent of a run folder; see `fledge.run.agent.LoadedAgent`."""
    launch.prepare()
    from fledge.run.agent import load as load_agent

    return load_agent(path, seed=seed)


def evaluate(agent: Any, **settings: Any) -> Any:
    """The adaptation curve of a loaded agent or a run folder; see `fledge.run.agent.evaluate`."""
    launch.prepare()
    from fledge.run.agent import evaluate as evaluate_agent

    return evaluate_agent(agent, **settings)


def adapt(agent: Any, task: Any = None, budget: int | None = None, mode: str = "all", **settings: Any) -> Any:
    """What becomes of a trained agent that goes on learning on a task; see `fledge.run.adapt.adapt`."""
    launch.prepare()
    from fledge.run.adapt import adapt as adapt_agent

    return adapt_agent(agent, task, budget, mode, **settings)


def report(folders: Sequence[Path | str], out: Path | str | None = None) -> Path:
    """One page about one or more run folders (a study counts as its arms); returns the page's path."""
    from fledge.report.page import write_report

    if len(folders) == 1 and (page := _own_page(Path(folders[0]), out)):
        return page
    paths: list[Path] = []
    for folder in map(Path, folders):
        RunFolder.open(folder)
        arms = [p.parent for pattern in ("*", "*/*") for p in folder.glob(f"{pattern}/record.json")]
        paths += sorted(path for path in arms if "selection" not in path.relative_to(folder).parts) or [folder]
    if not paths:
        raise ConfigError("A report is about one run folder or more. Name them: fledge report runs/…")
    return write_report(paths, Path(out) if out is not None else Path(folders[0]) / "report.html")


def _own_page(path: Path, out: Path | str | None) -> Path | None:
    """The page of a run whose kind writes one of its own; None for all others."""
    folder = RunFolder.open(path)
    program = recipes.find(KINDS[recipes.load(folder.config, []).header.kind].program)
    write = getattr(program, "report", None)
    return write(path, Path(out) if out is not None else folder.report) if write else None


def console_of(quiet: bool) -> Console:
    """Where progress goes."""
    return Console(stderr=True, quiet=quiet)


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value) if isinstance(value, tuple) else value)
