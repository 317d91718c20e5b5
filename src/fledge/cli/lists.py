"""What `fledge ls` and `fledge show` print."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from rich.table import Table
from rich.text import Text

from fledge.core.errors import unknown
from fledge.run import config as tomls
from fledge.run import recipe as recipes

KEPT = ("recipe", "env", "memory", "minutes")
"""Columns that are never cut."""


def table(what: str) -> Table:
    """One line each of what there is; what does not fit into a narrow terminal is cut.

    Raises:
        ConfigError: no such list.
    """
    if what not in LISTS:
        raise unknown("list", what, LISTS)
    columns, rows = LISTS[what]()
    found = Table(box=None, pad_edge=False, title_justify="left")
    for name in columns:
        justify: Any = "right" if name == "minutes" else "left"
        found.add_column(name, no_wrap=name in KEPT, justify=justify)
    for row in rows:
        found.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in row))
    return found


Listing = tuple[tuple[str, ...], list[tuple[str, ...]]]


def _recipes() -> Listing:
    rows: list[tuple[str, ...]] = [(h.name, h.about, h.paper, f"{h.minutes:g}") for h in recipes.headers()]
    return ("recipe", "what it is", "paper", "minutes"), rows


def _envs() -> Listing:
    from fledge.envs.families import FAMILIES

    return ("env", "what it is", "paper"), [(name, row.about, row.paper) for name, row in FAMILIES.items()]


def _memories() -> Listing:
    from fledge.agents.memories import MEMORIES

    return ("memory", "what it is"), [(name, about) for name, (_, about) in MEMORIES.items()]


def _papers() -> Listing:
    papers: dict[str, list[str]] = {}
    for header in recipes.headers():
        for paper in header.paper.split(";"):
            papers.setdefault(paper.strip(), []).append(header.name)
    return ("paper", "recipes"), [(paper, ", ".join(names)) for paper, names in sorted(papers.items()) if paper]


LISTS: dict[str, Callable[[], Listing]] = {
    "recipes": _recipes,
    "envs": _envs,
    "memories": _memories,
    "papers": _papers,
}


def settings(name: str) -> Table:
    """Every setting of a recipe with its value at each scale and its source."""
    recipe = recipes.load(name)
    flat = {scale: tomls.flatten(tomls.to_tree(recipe.config(scale))) for scale in recipes.SCALES}
    header = recipe.header
    found = Table(
        title=f"{header.name} ({header.kind}): {header.about}\n{header.paper}",
        caption="a dot: as in the scale before; what stands without a source is Fledge's own choice",
        pad_edge=False,
        box=None,
        title_justify="left",
    )
    for column in ("setting", *recipes.SCALES, "source"):
        found.add_column(column, no_wrap=column == "setting", justify="left", overflow="fold")
    for key in dict.fromkeys(key for values in flat.values() for key in values):
        values = [_value(flat[scale].get(key)) for scale in recipes.SCALES]
        shown = [values[0], *("·" if a == b else b for a, b in pairwise(values))]
        found.add_row(key, *shown, recipe.source_of(key))
    return found


def _value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:,}".replace(",", "_") if isinstance(value, int) else str(value)
