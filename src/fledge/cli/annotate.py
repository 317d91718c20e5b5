"""`fledge annotate …`: serve a study, export what it collected, audit its randomisation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(
    name="annotate",
    help="Annotation studies: a web page, its data, its audit.",
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
