"""`fledge annotate …`: a study from its power to its page: plan, serve, ask models, export, audit, analyse."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(
    name="annotate",
    help="Annotation studies: power, web page, models as annotators, audit, analysis.",
    no_args_is_help=True,
    add_completion=False,
)
Where = Annotated[
    str, typer.Argument(metavar="DIR|URL", help="A study's data folder, a database URL, or its web address.")
]


@app.command()
def serve(
    study: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study.")],
    data: Annotated[
        str | None, typer.Option(help="Folder or database URL; by default STUDY-data beside the file.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.")] = 8000,
) -> None:
    """Serve a study's web page until ctrl-C. What was answered is kept; serving again goes on."""
    from fledge.run import annotate

    console = Console(highlight=False, soft_wrap=True, markup=False)
    annotate.serve(study, data=data, host=host, port=port, say=console.print)


@app.command()
def check(study: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study.")]) -> None:
    """Examine a study file before anybody sees it: everything that is wrong, or how many places it has."""
    from fledge.annotation.design_files import read_design

    design = read_design(study)
    arms = ", ".join(arm.name for arm in design.plan.arms)
    Console(highlight=False, soft_wrap=True, markup=False).print(
        f"{study} is fine: {len(design.items)} items in {len(design.batches)} batches, arms {arms}, "
        f"{design.plan.places} annotators"
    )


@app.command()
def export(
    where: Where,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("export"),
    format: Annotated[str, typer.Option(help="csv, parquet, jsonl, label-studio, argilla or prodigy.")] = "csv",
) -> None:
    """Write annotations, revisions, timings, assignment log and audit; never a platform's id."""
    from fledge.run import annotate

    for path in annotate.export(where, out, format):
        Console(highlight=False, soft_wrap=True, markup=False).print(str(path))


@app.command()
def audit(where: Where) -> None:
    """Counts, balance and attrition of a study's randomisation."""
    from fledge.run import annotate

    _design, found = annotate.audit(where)
    console = Console(highlight=False)
    arms = Table("arm", *("target", "completed", "active", "lost", "expected", "attrition"), box=None, pad_edge=False)
    for arm in found.arms:
        numbers = (arm.target, arm.completed, arm.active, arm.lost, f"{arm.expected:.1f}")
        lost = "–" if arm.completed + arm.lost == 0 else f"{arm.attrition:.0%}"
        arms.add_row(arm.arm, *map(str, numbers), lost)
    console.print(arms)
    console.print(f"\nevery cell exact: {'yes' if found.exact else 'no'}; over-filled: {found.overfilled}; "
                  f"turned away: {found.turned_away}")  # fmt: skip
    console.print(f"arms as the logged probabilities expect: p = {found.shares_p:.3f}; "
                  f"attrition alike in all arms: p = {found.attrition_p:.3f}")  # fmt: skip
    if found.balance:
        balance = Table("attribute", "test", "n", "p", "largest difference (sd)", box=None, pad_edge=False)
        for row in found.balance:
            balance.add_row(row.attribute, row.kind, str(row.n), f"{row.p:.3f}", f"{row.largest_difference:.2f}")
        console.print(balance)


@app.command()
def ask(
    study: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study.")],
    model: Annotated[str, typer.Option(help="Its name at the endpoint.")],
    base_url: Annotated[str, typer.Option(help="Of an OpenAI-compatible endpoint.")] = "https://api.openai.com/v1",
    api_key_env: Annotated[
        str, typer.Option(help="Environment variable with the key; '' for none.")
    ] = "OPENAI_API_KEY",
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("model-answers"),
    memory: Annotated[str, typer.Option(help="none, item or session: what one conversation has in it.")] = "session",
    mode: Annotated[str, typer.Option(help="How a probability is found: auto, votes, verbal, hard, …")] = "auto",
    temperature: Annotated[float, typer.Option(help="Of replies that are asked once.")] = 1.0,
    labels: Annotated[int, typer.Option(help="Conversations for each batch and condition; 0: as many as people.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would cost, and send nothing.")] = False,
    max_requests: Annotated[int | None, typer.Option(help="Hard budget, over all runs with this folder.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Hard budget, in and out.")] = None,
    budget: Annotated[float | None, typer.Option(help="Hard budget in US dollars.")] = None,
    workers: Annotated[int, typer.Option(help="Requests on their way at a time.")] = 8,
    rpm: Annotated[float, typer.Option(help="Requests per minute.")] = float("inf"),
    tpm: Annotated[float, typer.Option(help="Tokens per minute.")] = float("inf"),
) -> None:
    """Ask a language model everything that the study asks people, on the same screens."""
    from fledge.run import annotate_models
    from fledge.run.chats import Asking
    from fledge.run.endpoint import Pace
    from fledge.run.limits import Budget
    from fledge.run.meter import Meter

    asking = Asking(mode=mode, memory=memory, temperature=temperature)  # type: ignore[arg-type]
    pace, limit = Pace(workers, rpm, tpm), Budget(max_requests, max_tokens, budget)
    settings = annotate_models.ModelSettings(base_url, model, api_key_env, asking, labels, pace, limit)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    if dry_run:
        for line in annotate_models.estimate(study, out, settings):
            console.print(line)
        return
    with Meter(console) as meter:
        asked = annotate_models.ask(study, out, settings, meter.show)
    for line in asked.lines():
        console.print(line)
    if not asked.whole:
        raise typer.Exit(3)


@app.command()
def analyse(
    export: Annotated[Path, typer.Argument(metavar="EXPORT_DIR", help="Of 'export' or of 'ask'.")],
    settings: Annotated[list[str] | None, typer.Argument(metavar="[KEY.SUB=VALUE]...")] = None,
    also: Annotated[list[Path] | None, typer.Option(help="More answers to the same study, such as a model's.")] = None,
    screenshots: Annotated[Path | None, typer.Option(help="Folder of pictures (.png) of the screens.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder.")] = None,
) -> None:
    """One page about what the instrument did: audit, attrition, labels, agreement, effects, models, curves."""
    import shlex

    from fledge.run import api
    from fledge.run.recipe import Header, Recipe
    from fledge.run.sensitivity import SensitivitySettings

    faults: list[str] = []
    changes = api.tomls.changes_of(settings or (), faults)
    own: dict[str, object] = {"data": {"path": str(export), "also": [str(path) for path in also or ()]}}
    own |= {"screenshots": str(screenshots)} if screenshots else {}
    config = api.tomls.override(SensitivitySettings(), api.tomls.merge(own, changes), faults)
    api.tomls.refuse(faults, "The command line")
    words = ["fledge", "annotate", "analyse", str(export), *(settings or ())]
    words += [word for path in also or () for word in ("--also", str(path))]
    words += ["--screenshots", str(screenshots)] if screenshots else []
    header = Header("annotation-analysis", "annotation-study", "What the instrument did", minutes=2.0)
    api.start(Recipe(header, config, origin="annotate analyse"), shlex.join(words), out=out).show(Console())


@app.command()
def power(
    study: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study; 'planted' in it gives effects.")],
    effects: Annotated[
        list[str] | None,
        typer.Argument(metavar="[EFFECT=SIZE]...", help="share, split, blocked, second, fatigue, severity, …"),
    ] = None,
    labels: Annotated[str, typer.Option(help="Annotators of an item and condition, such as 3,5,8.")] = "",
    studies: Annotated[int, typer.Option(help="How many are simulated for each row.")] = 200,
    dropout: Annotated[float, typer.Option(help="Share who leave before the second pass.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the simulation.")] = 0,
) -> None:
    """How often the study would find planted effects: simulated, before money is spent."""
    from fledge.core.errors import ConfigError
    from fledge.run import annotate
    from fledge.run.config import changes_of, refuse

    faults: list[str] = []
    changes = changes_of(effects or (), faults)
    refuse(faults, "The command line")
    try:
        counts = [int(word) for word in labels.split(",") if word.strip()]
    except ValueError:
        raise ConfigError(f"--labels is a list of whole numbers such as 3,5,8, not '{labels}'.") from None
    console = Console(highlight=False)
    with console.status("simulating …"):
        rows = annotate.power(study, changes, labels=counts, n_studies=studies, dropout=dropout, seed=seed)
    table = Table("labels", "annotators", "construct", "condition", "planted", "found", "any difference", "coverage",
                  box=None, pad_edge=False)  # fmt: skip
    for row in rows:
        table.add_row(str(row.labels), str(row.annotators), row.construct, row.condition, f"{row.planted:+.3f}",
                      f"{row.found:.0%}", f"{row.joint:.0%}", f"{row.coverage:.0%}")  # fmt: skip
    console.print(table)
    console.print(f"found: share of {studies} simulated studies with p < 0.05 against the first condition, "
                  "clustered by annotator and item")  # fmt: skip
