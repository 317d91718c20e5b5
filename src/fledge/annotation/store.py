"""What a running study remembers. Every change is committed before it is confirmed to anybody.

The database is a value handed in (an SQLAlchemy engine), so this file opens nothing itself.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from typing import Any

from fledge.annotation.assign import Assignment, assign, revivable
from fledge.annotation.design import Step, StudyDesign
from fledge.annotation.schema import schema
from fledge.core.errors import ConfigError, DataError, need

Values = dict[str, Any]


@dataclass(frozen=True)
class Person:
    """An annotator as the store knows them."""

    id: str
    stage: str
    cursor: int
    """The screen that they are on, within the stage."""
    furthest: int
    """The first screen that was never answered."""
    tries: int
    flash: str
    """What the next page says at its top, as JSON."""
    seed: str
    attributes: str
    code: str


@dataclass(frozen=True)
class Given:
    """An answer as it was given."""

    item: str
    construct: str
    value: str | None
    missing: str = ""
    confidence: int | None = None
    position: int = 0
    asked_order: int = 0


class Store:
    """The database of one study.

    Args:
        engine: SQLAlchemy's.

    Raises:
        MissingExtra: SQLAlchemy is not installed.
    """

    def __init__(self, engine: Any) -> None:
        self.engine, self.sa, self.t = engine, need("sqlalchemy", "annotate"), schema()
        # SQLite has one writer: waiting here is fair and quick, waiting in its busy handler is neither.
        alone = engine.dialect.name == "sqlite"
        self._lock: AbstractContextManager[Any] = threading.RLock() if alone else nullcontext()

    @contextmanager
    def writing(self) -> Iterator[Any]:
        """A connection within a transaction that ends by a commit."""
        with self._lock, self.engine.begin() as connection:
            yield connection

    @contextmanager
    def alone(self) -> Iterator[Any]:
        """As `writing`, and nobody else is in such a block, in this process or another."""
        with self.writing() as c:
            c.execute(self.sa.update(self.t.study).values(ticks=self.t.study.c.ticks + 1))
            yield c

    def rows(self, query: Any) -> list[Any]:
        """The rows of a query."""
        with self.engine.connect() as c:
            return list(c.execute(query))

    def open(self, design: StudyDesign, now: float) -> None:
        """Make the tables, or go on with the study that is there.

        Raises:
            ConfigError: what is there is another study, or this one before it was changed.
        """
        self.t.metadata.create_all(self.engine)
        with self.writing() as c:
            row = c.execute(self.sa.select(self.t.study)).first()
            if row is None:
                values: Values = {
                    "name": design.name,
                    "version": design.version,
                    "snapshot": json.dumps(design.snapshot),
                }
                values |= {"secret": secrets.token_hex(32), "salt": secrets.token_hex(32), "started": now, "id": 1}
                c.execute(self.sa.insert(self.t.study).values(**values))
            elif row.version != design.version:
                raise ConfigError(
                    f"The study '{row.name}' (version {row.version}) is under way in this database, and the file now "
                    f"says something else ('{design.name}', version {design.version}). Restore the file, or start anew "
                    "elsewhere (--data DIR): answers to two versions do not belong into one table."
                )

    def study(self) -> Any:
        """The row of the study.

        Raises:
            DataError: there is none.
        """
        if not self.sa.inspect(self.engine).has_table("study") or not (
            found := self.rows(self.sa.select(self.t.study))
        ):
            raise DataError("There is no study in this database. Start one: fledge annotate serve study.yaml")
        return found[0]

    def enter(self, person: str, visit: str, device: Values, stage: str, now: float) -> str | None:
        """A new annotator's id, once they have agreed; None if this person is there already.

        Args:
            person: sealed id of the person on the platform; empty where there is no platform.
            visit: sealed id of the platform's session.
            device: `device`, `viewport`, `language`.
            stage: where they start.
            now: Unix time in seconds.
        """
        name = secrets.token_hex(6)
        values = {"id": name, "created": now, "stage": stage, "seed": secrets.token_hex(8), "attributes": "{}"}
        try:
            with self.writing() as c:
                if person:
                    c.execute(self.sa.insert(self.t.door).values(annotator=name, person=person, visit=visit))
                c.execute(self.sa.insert(self.t.annotators).values(**values, exit="{}", **device))
        except self.sa.exc.IntegrityError:
            return None
        return name

    def at_the_door(self, person: str) -> Any:
        """The row of a person who came before, or None."""
        found = self.rows(self.sa.select(self.t.door).where(self.t.door.c.person == person))
        return found[0] if found else None

    def forget(self) -> int:
        """Delete every platform id, and the salt with them; returns how many.

        After that nobody can come back by a platform's link, and nobody is recognised who took part.
        """
        with self.writing() as c:
            count = c.execute(self.sa.delete(self.t.door)).rowcount
            c.execute(self.sa.update(self.t.study).values(salt=secrets.token_hex(32)))
        return int(count)

    def remember(self, token: str, annotator: str, now: float) -> None:
        """A browser's session; only the token's hash is kept."""
        with self.writing() as c:
            c.execute(self.sa.insert(self.t.sessions).values(token=_hash(token), annotator=annotator, created=now))

    def person(self, token: str) -> Person | None:
        """Whose session it is."""
        a, s = self.t.annotators, self.t.sessions
        columns = [a.c[one.name] for one in fields(Person)]
        query = self.sa.select(*columns).join(s, s.c.annotator == a.c.id).where(s.c.token == _hash(token))
        found = self.rows(query)
        return Person(**found[0]._mapping) if found else None

    def change(self, annotator: str, **values: Any) -> None:
        """Set columns of an annotator."""
        with self.writing() as c:
            c.execute(self.sa.update(self.t.annotators).where(self.t.annotators.c.id == annotator).values(**values))

    def note(self, kind: str, annotator: str, now: float, **detail: Any) -> None:
        """Log an event."""
        row = {"time": now, "kind": kind, "annotator": annotator, "detail": json.dumps(detail)}
        with self.writing() as c:
            c.execute(self.sa.insert(self.t.events).values(**row))

    # Assignment

    def log(self, connection: Any = None) -> list[Assignment]:
        """Everything that was assigned, in order."""
        query = self.sa.select(self.t.assignments).order_by(self.t.assignments.c.n)
        rows = connection.execute(query) if connection is not None else self.rows(query)
        return [_assignment(row) for row in rows]

    def assign(self, design: StudyDesign, person: Person, now: float) -> Assignment | None:
        """Assign an annotator, once; None when the study is full (they are counted as turned away)."""
        with self.alone() as c:
            self._expire(c, now)
            log = self.log(c)
            if mine := next((row for row in log if row.annotator == person.id), None):
                return mine
            row = assign(design.plan, log, person.id, now, json.loads(person.attributes))
            if row is None:
                c.execute(self.sa.update(self.t.study).values(turned_away=self.t.study.c.turned_away + 1))
                return None
            values = asdict(row) | {"probabilities": json.dumps(dict(row.probabilities))}
            c.execute(self.sa.insert(self.t.assignments).values(**values))
        return row

    def assignment(self, annotator: str) -> Assignment | None:
        """Of one annotator."""
        found = self.rows(self.sa.select(self.t.assignments).where(self.t.assignments.c.annotator == annotator))
        return _assignment(found[0]) if found else None

    def hold(self, design: StudyDesign, row: Assignment, now: float) -> bool:
        """Prolong a reservation; False when it ran out and the place was given away."""
        if row.outcome == "completed":
            return True
        with self.alone() as c:
            self._expire(c, now)
            log = self.log(c)
            mine = next(one for one in log if one.annotator == row.annotator)
            if mine.outcome != "active" and not revivable(design.plan, log, mine, now):
                return False
            self._outcome(c, row.annotator, outcome="active", outcome_time=None, until=now + design.plan.timeout)
        return True

    def settle(self, annotator: str, outcome: str, now: float) -> None:
        """The end of an assignment."""
        with self.writing() as c:
            self._outcome(c, annotator, outcome=outcome, outcome_time=now)

    def _outcome(self, c: Any, annotator: str, **values: Any) -> None:
        c.execute(
            self.sa.update(self.t.assignments).where(self.t.assignments.c.annotator == annotator).values(**values)
        )

    def _expire(self, c: Any, now: float) -> None:
        a = self.t.assignments
        over = self.sa.update(a).where(a.c.outcome == "active", a.c.until <= now)
        c.execute(over.values(outcome="timed_out", outcome_time=now))

    # Screens

    def visit(self, annotator: str, stage: str, screen: int, now: float) -> str:
        """A showing of a screen; its id goes into the page and comes back with the answer."""
        name = secrets.token_hex(12)
        row = {"id": name, "annotator": annotator, "stage": stage, "screen": screen, "shown": now}
        with self.writing() as c:
            c.execute(self.sa.insert(self.t.visits).values(**row))
        return name

    def shown(self, visit: str, annotator: str, stage: str) -> Any:
        """The row of a showing, if it was shown to this annotator in this stage; otherwise None."""
        v = self.t.visits
        query = self.sa.select(v).where(v.c.id == visit, v.c.annotator == annotator, v.c.stage == stage)
        found = self.rows(query)
        return found[0] if found else None

    def submit(
        self, visit: Any, step: Step | None, given: Sequence[Given], timing: Values, now: float, **changes: Any
    ) -> bool:
        """Keep the answers of a screen and move the annotator on, in one transaction.

        Returns:
            False if this showing was submitted before: nothing is kept twice.
        """
        v, a = self.t.visits, self.t.answers
        with self.writing() as c:
            fresh = self.sa.update(v).where(v.c.id == visit.id, v.c.submitted.is_(None))
            if c.execute(fresh.values(submitted=now, **timing)).rowcount == 0:
                return False
            same = (a.c.annotator == visit.annotator, a.c.stage == visit.stage, a.c.screen == visit.screen)
            before = c.execute(self.sa.select(self.sa.func.max(a.c.revision)).where(*same)).scalar()
            common = {"annotator": visit.annotator, "visit": visit.id, "stage": visit.stage, "screen": visit.screen}
            common |= {"revision": 0 if before is None else before + 1, "time": now}
            if step is not None:
                common |= {"condition": step.condition, "sweep": step.screen.sweep}
            if given:
                c.execute(self.sa.insert(a), [common | asdict(one) for one in given])
            place = f"{visit.annotator}/{visit.stage}/{visit.screen}"
            c.execute(self.sa.delete(self.t.drafts).where(self.t.drafts.c.place == place))
            people = self.t.annotators
            if changes:
                c.execute(self.sa.update(people).where(people.c.id == visit.annotator).values(**changes))
        return True

    def draft(self, annotator: str, stage: str, screen: int, given: Mapping[str, list[str]], now: float) -> None:
        """Keep what is filled in but not submitted; the newest replaces the one before."""
        d, place = self.t.drafts, f"{annotator}/{stage}/{screen}"
        with self.writing() as c:
            c.execute(self.sa.delete(d).where(d.c.place == place))
            c.execute(self.sa.insert(d).values(place=place, fields=json.dumps(given), time=now))

    def drafted(self, annotator: str, stage: str, screen: int) -> dict[str, list[str]]:
        """What was filled in on this screen and not submitted."""
        d = self.t.drafts
        found = self.rows(self.sa.select(d.c.fields).where(d.c.place == f"{annotator}/{stage}/{screen}"))
        return json.loads(found[0].fields) if found else {}

    def answered(self, annotator: str, stage: str, screen: int) -> list[Any]:
        """The last revision of a screen's answers."""
        a = self.t.answers
        query = self.sa.select(a).where(a.c.annotator == annotator, a.c.stage == stage, a.c.screen == screen)
        rows = self.rows(query.order_by(a.c.n))
        return [row for row in rows if row.revision == rows[-1].revision]


def sealed(secret: str, *words: str) -> str:
    """A keyed hash of some words: cannot be made, and not be undone, without the secret."""
    return hmac.new(secret.encode(), "\0".join(words).encode(), hashlib.sha256).hexdigest()


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _assignment(row: Any) -> Assignment:
    values = dict(row._mapping)
    values.pop("n")
    return Assignment(**values | {"probabilities": json.loads(values["probabilities"])})
