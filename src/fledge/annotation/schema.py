"""The tables of a running study, for SQLite and PostgreSQL alike.

`door` is the only table that knows a platform's ids, and only as salted hashes; it can be emptied at any time and no
export reads it. Answers are only ever added: a changed answer is a further row with the next `revision`.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fledge.core.errors import need

TABLES = {
    "study": "id:number! name version snapshot secret salt ticks:number turned_away:number started:time",
    "annotators": "id:key created:time stage cursor:number furthest:number tries:number flash seed attributes exit "
    "device viewport language code finished:time",
    "door": "annotator:key person:once visit",
    "sessions": "token:key annotator:who created:time",
    "assignments": "n:count annotator:once arm batch draw:number probabilities reason time:time until:time seed:large "
    "stratum outcome outcome_time:time",
    "visits": "id:key annotator:who stage screen:number shown:time submitted:time client_shown:time "
    "client_submitted:time first_click_ms:large? revealed_ms:large? changes:number? focus_losses:number? "
    "hidden_ms:large? viewport pointer",
    "answers": "n:count annotator:who visit stage screen:number item construct condition value:text? missing "
    "confidence:number? position:number sweep:number asked_order:number revision:number time:time",
    "drafts": "place:key fields time:time",
    "events": "n:count time:time kind annotator detail",
}
"""Table → columns as `name:kind`. A text where there is no kind; `?` may be empty, `!` is the primary key."""


def schema() -> SimpleNamespace:
    """SQLAlchemy's `metadata` and each table by name.

    Raises:
        MissingExtra: SQLAlchemy is not installed.
    """
    sa = need("sqlalchemy", "annotate")
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "text": (sa.Text, {"default": ""}),
        "number": (sa.Integer, {"default": 0}),
        "large": (sa.BigInteger, {"default": 0}),
        "time": (sa.Double, {"nullable": True}),
        "key": (sa.String(128), {"primary_key": True}),
        "who": (sa.String(64), {"index": True}),
        "once": (sa.String(64), {"unique": True}),
        "count": (sa.Integer, {"primary_key": True, "autoincrement": True}),
    }

    def column(text: str) -> Any:
        name, _, kind = text.partition(":")
        of, settings = kinds[kind.rstrip("?!") or "text"]
        settings = {"nullable": False} | settings
        if kind.endswith("?"):
            settings = {"nullable": True}
        if kind.endswith("!"):
            settings = {"primary_key": True, "autoincrement": False}
        return sa.Column(name, of, **settings)

    meta = sa.MetaData()
    tables = {name: sa.Table(name, meta, *map(column, columns.split())) for name, columns in TABLES.items()}
    return SimpleNamespace(metadata=meta, **tables)
