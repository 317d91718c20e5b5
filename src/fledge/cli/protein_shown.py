"""What the commands about proteins print with."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def print_rows(console: Console, columns: Any, rows: Any) -> None:
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def bar() -> Any:
    """A progress bar on the error channel; shown where a person looks on."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True, highlight=False, soft_wrap=True))


def tell(line: str) -> None:
    Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)


def out() -> Console:
    return Console()
