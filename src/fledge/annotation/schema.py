"""The tables of a running study, for SQLite and PostgreSQL alike.

`door` is the only table that knows a platform's ids, and only as salted hashes; it can be emptied at any time and no
export reads it. Answers are only ever added: a changed answer is a further row with the next `revision`.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fledge.core.errors import need


def schema() -> SimpleNamespace:
    """SQLAlchemy's `metadata` and each table by name.

    Raises:
        MissingExtra: SQLAlchemy is not installed.
    """
    sa = need("sqlalchemy", "annotate")
    meta = sa.MetaData()

    def table(name: str, *columns: Any) -> Any:
        return sa.Table(name, meta, *columns)

    def key(name: str = "id") -> Any:
        return sa.Column(name, sa.String(64), primary_key=True)

    def number(name: str, default: int | None = 0) -> Any:
        return sa.Column(name, sa.Integer, nullable=default is None, default=default)

    def time(name: str) -> Any:
        return sa.Column(name, sa.Double, nullable=True)

    def text(name: str) -> Any:
        return sa.Column(name, sa.Text, nullable=False, default="")

    def annotator() -> Any:
        return sa.Column("annotator", sa.String(64), nullable=False, index=True)

    study = table("study", number("id"), text("name"), text("version"), text("snapshot"), text("secret"), text("salt"),
                  number("ticks"), number("turned_away"), time("started"))  # fmt: skip
    annotators = table("annotators", key(), time("created"), text("stage"), number("cursor"), number("furthest"),
                       number("tries"), text("flash"), text("seed"), text("attributes"), text("exit"), text("device"),
                       text("viewport"), text("language"), text("code"), time("finished"))  # fmt: skip
    return SimpleNamespace(
        metadata=meta,
        study=study,
        annotators=annotators,
        door=table("door", key("annotator"), sa.Column("person", sa.String(64), unique=True), text("visit")),
        sessions=table("sessions", key("token"), annotator(), time("created")),
        assignments=table(
            "assignments",
            sa.Column("n", sa.Integer, primary_key=True, autoincrement=True),
            sa.Column("annotator", sa.String(64), unique=True),
            text("arm"),
            text("batch"),
            number("draw"),
            text("probabilities"),
            text("reason"),
            time("time"),
            time("until"),
            sa.Column("seed", sa.BigInteger),
            text("stratum"),
            text("outcome"),
            time("outcome_time"),
        ),
        visits=table(
            "visits",
            key(),
            annotator(),
            text("stage"),
            number("screen"),
            time("shown"),
            time("submitted"),
            time("client_shown"),
            time("client_submitted"),
            number("first_click_ms", None),
            number("revealed_ms", None),
            number("changes", None),
            number("focus_losses", None),
            number("hidden_ms", None),
            text("viewport"),
            text("pointer"),
        ),
        answers=table(
            "answers",
            sa.Column("n", sa.Integer, primary_key=True, autoincrement=True),
            annotator(),
            text("visit"),
            text("stage"),
            number("screen"),
            text("item"),
            text("construct"),
            text("condition"),
            sa.Column("value", sa.Text, nullable=True),
            text("missing"),
            number("confidence", None),
            number("position"),
            number("sweep"),
            number("asked_order"),
            number("revision"),
            time("time"),
        ),
        drafts=table("drafts", sa.Column("place", sa.String(128), primary_key=True), text("fields"), time("time")),
        events=table(
            "events",
            sa.Column("n", sa.Integer, primary_key=True, autoincrement=True),
            time("time"),
            text("kind"),
            text("annotator"),
            text("detail"),
        ),
    )
