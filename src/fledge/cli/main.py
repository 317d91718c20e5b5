"""The command `fledge`. Everything that needs JAX is imported inside the command that needs it: help is quick."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console

from fledge.cli import annotate, feedback, lists, protein
from fledge.core.errors import ConfigError, FledgeError

app = typer.Typer(
    name="fledge",
    help="Agents and models that learn to adapt, and pictures of how fast they do.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(feedback.app, name="feedback")

app.add_typer(annotate.app)

app.add_typer(protein.app, name="protein")

Scale = Annotated[str, typer.Option(help="smoke (seconds), laptop (minutes) or paper (the published setting).")]
Out = Annotated[Optional[Path], typer.Option(help="Where to write; never overwrites.")]  # noqa: UP045
Overrides = Annotated[Optional[list[str]], typer.Argument(metavar="[KEY.SUB=VALUE]...", help="Settings to change.")]  # noqa: UP045
Track = Annotated[Optional[list[str]], typer.Option(help="tensorboard or wandb, beside console and metrics.jsonl.")]  # noqa: UP045
RunDir = Annotated[Path, typer.Argument(metavar="DIR", help="A run folder.")]
Name = Annotated[str, typer.Argument(metavar="RECIPE|FILE.toml", help="A recipe ('fledge ls'), or a file.")]
PIPED_WIDTH = 1000
"""Columns of a list that goes into a file or another program: nothing is cut."""


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks (or set FLEDGE_DEBUG=1).")] = False,
) -> None:
    """Agents and models that learn to adapt, and pictures of how fast they do."""
    if debug:
        os.environ["FLEDGE_DEBUG"] = "1"


@app.command("ls")
def ls(
    what: Annotated[str, typer.Argument(help="recipes, envs, memories or papers.")] = "recipes",
) -> None:
    """What there is, one line each."""
    out = _out()
    (out if out.is_terminal else Console(width=PIPED_WIDTH)).print(lists.table(what))


@app.command()
def show(recipe: Name) -> None:
    """Every setting of a recipe at each scale, with its source."""
    _out().print(lists.settings(recipe))


@app.command()
def cp(recipe: Annotated[str, typer.Argument(help="The recipe to copy.")], to: Path) -> None:
    """Copy a recipe to a file of your own, to edit."""
    from fledge.run import recipe as recipes

    text = recipes.text_of(recipe)
    if to.is_dir():
        to = to / f"{recipe}.toml"
    if to.exists():
        raise ConfigError(f"{to} is there already. Choose another name, or delete it first.")
    if not to.parent.is_dir():
        raise ConfigError(f"There is no folder {to.parent} to copy into. Make it first.")
    to.write_text(text, encoding="utf-8")
    _out().print(f"{to}\nedit it, then: fledge check {to}; fledge run {to}", highlight=False, soft_wrap=True)


@app.command()
def check(
    what: Annotated[str, typer.Argument(metavar="FILE.toml|RECIPE|env|estimator", help="What to examine.")],
    target: Annotated[str | None, typer.Argument(metavar="[MODULE:NAME]", help="After 'env' or 'estimator'.")] = None,
) -> None:
    """Examine a recipe, or an environment or gradient estimator of your own (env|estimator MODULE:NAME)."""
    from fledge.run import check as checks
    from fledge.run.launch import prepare

    prepare()
    if what == "env":
        if target is None:
            raise ConfigError("Which environment? Write: fledge check env MODULE:NAME (or a name of 'fledge ls envs').")
        line = checks.check_environment(target)
    elif what == "estimator":
        if target is None:
            raise ConfigError("Which estimator? Write: fledge check estimator MODULE:NAME (or a name such as sc).")
        line = checks.check_estimator(target)
    elif target is not None:
        raise ConfigError(f"'{target}' is one word too many. Write: fledge check {what}")
    else:
        line = checks.check_recipe(what)
    _out().print(line, highlight=False, soft_wrap=True)


@app.command()
def run(
    recipe: Name,
    overrides: Overrides = None,
    scale: Scale = "laptop",
    seeds: Annotated[Optional[int], typer.Option(help="How many seeds, trained side by side.")] = None,  # noqa: UP045
    out: Out = None,
    track: Track = None,
) -> None:
    """Train, measure and report: everything lands in one run folder."""
    from fledge.run import api

    faults: list[str] = []
    changes = api.tomls.changes_of(overrides or (), faults)
    api.tomls.refuse(faults, "The command line")
    flat = api.tomls.flatten(changes)
    done = api.run(recipe, scale=scale, seeds=seeds, out=out, track=track or (), **flat)
    done.show(_out())


@app.command()
def resume(folder: RunDir, track: Track = None) -> None:
    """Go on with a run that was stopped, bit for bit."""
    from fledge.run import api

    api.resume(folder, track=track or ()).show(_out())


@app.command("eval")
def evaluate(
    folder: RunDir,
    split: Annotated[Optional[str], typer.Option(help="train, test or ood; by default the recipe's.")] = None,  # noqa: UP045
    adapt: Annotated[
        str, typer.Option(help="default; or learn on: all, subset:NAME,NAME, scratch or multitask.")
    ] = "default",
    budget: Annotated[Optional[int], typer.Option(help="Environment steps on each task, to learn on.")] = None,  # noqa: UP045
    tasks: Annotated[int, typer.Option(help="How many tasks to learn on.")] = 10,
    episodes: Annotated[Optional[int], typer.Option(help="Episodes of a trial; by default as in training.")] = None,  # noqa: UP045
    greedy: Annotated[bool, typer.Option("--greedy", help="Only the most likely actions.")] = False,
    out: Annotated[Optional[Path], typer.Option(help="Write the rows to this CSV file.")] = None,  # noqa: UP045
) -> None:
    """Measure a trained agent anew: other tasks, longer trials."""
    from fledge.run import api

    if out is not None and out.exists():
        raise ConfigError(f"{out} is there already. Choose another name, or delete it first.")
    if adapt == "default":
        for name, value in (("--budget", budget),):
            if value is not None:
                raise ConfigError(f"{name} is for agents that learn on. Add --adapt all, or leave it out.")
        curve = api.evaluate(folder, split=split, episodes=episodes, greedy=True if greedy else None)
        rows = curve.curves
    else:
        if episodes is not None or greedy:
            raise ConfigError(
                "An agent that learns on is measured as it is trained. Leave out --episodes and --greedy."
            )
        tell = Console(stderr=True).print
        curve = api.adapt(folder, None, budget, adapt, split=split or "ood", n_tasks=tasks, tell=tell)
        rows = curve.curves()
    _out().print(curve.table())
    if out is not None:
        from fledge.core.records import write_curves

        write_curves(out, rows)
        _out().print(str(out), highlight=False, soft_wrap=True)


@app.command()
def report(folders: Annotated[list[Path], typer.Argument(metavar="DIR...")], out: Out = None) -> None:
    """One self-contained page about one or more runs."""
    from fledge.run import api

    _out().print(str(api.report(folders, out)), highlight=False, soft_wrap=True)


@app.command()
def export(
    folder: RunDir,
    out: Out = None,
    seed: Annotated[Optional[int], typer.Option(help="Which seed's agent; the first by default.")] = None,  # noqa: UP045
) -> None:
    """Write a trained agent as one file that runs with JAX alone, without Fledge."""
    from fledge.run.export import export_agent
    from fledge.run.launch import prepare

    prepare()
    _out().print(str(export_agent(folder, out, seed=seed)), highlight=False, soft_wrap=True)


@app.command(context_settings={"ignore_unknown_options": True})
def bench(
    what: Annotated[str, typer.Argument(help="A script of benchmarks/.")] = "speed",
    words: Annotated[Optional[list[str]], typer.Argument(metavar="[OPTION]...", help="Its own options.")] = None,  # noqa: UP045
) -> None:
    """Run a benchmark (from a checkout of the source)."""
    from fledge.run.launch import benchmark

    raise typer.Exit(benchmark(what, words or []))


@app.command()
def quickstart(
    scale: Scale = "laptop",
    seeds: Annotated[Optional[int], typer.Option(help="How many seeds, trained side by side.")] = None,  # noqa: UP045
    out: Out = None,
) -> None:
    """Train an agent that adapts beside one that cannot and one that is told; a minute on two cores."""
    run("study-gridnav", scale=scale, seeds=seeds, out=out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (2 for what Fledge refuses, 130 for ctrl-C)."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # so that MODULE:NAME finds a module beside the user
    command = typer.main.get_command(app)
    try:
        result = command.main(list(sys.argv[1:] if arguments is None else arguments), "fledge", standalone_mode=False)
    except FledgeError as error:
        return _failed(error, 2)
    except (KeyboardInterrupt, typer.Abort) as error:
        return _failed(error, 130)
    except Exception as error:
        if not hasattr(error, "exit_code") or not hasattr(error, "format_message"):
            raise
        return _failed(error, 2, error.format_message())
    return result if isinstance(result, int) else 0


def _failed(error: BaseException, code: int, text: str = "") -> int:
    if os.environ.get("FLEDGE_DEBUG"):
        traceback.print_exc()
    word = "fledge" if code == 130 else "fledge: error"
    print(f"{word}: {text or str(error) or 'stopped.'}", file=sys.stderr)
    return code


def _out() -> Any:
    return Console()
