"""Replies of endpoints in one SQLite file: nothing is paid for twice, whatever is killed and when.

A request is written down *before* it is sent. If the program is killed before its reply is stored, the request is "in
doubt" from then on: it may have been paid for. Keys of endpoints are never written here.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fledge.core.errors import DataError
from fledge.core.files import read_text, write_text
from fledge.data.packs import Recorded, Reply, from_pack, to_pack
from fledge.data.prompts import cache_key

_TABLES = """
CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, request TEXT NOT NULL, reply TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, latency REAL NOT NULL, time REAL NOT NULL);
CREATE TABLE IF NOT EXISTS attempts (id INTEGER PRIMARY KEY, key TEXT NOT NULL, job TEXT NOT NULL, time REAL NOT NULL,
    outcome TEXT, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS attempts_by_key ON attempts (key);
CREATE INDEX IF NOT EXISTS attempts_by_job ON attempts (job);
CREATE TABLE IF NOT EXISTS failures (id INTEGER PRIMARY KEY, key TEXT NOT NULL, job TEXT NOT NULL, items TEXT NOT NULL,
    status TEXT NOT NULL, reason TEXT NOT NULL, tries INTEGER NOT NULL, time REAL NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Spent:
    """What a job has used so far, over all its runs."""

    requests: int = 0
    """Sent, repeats after a refusal or a time-out included."""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        """In and out."""
        return self.prompt_tokens + self.completion_tokens


class ReplyCache:
    """Replies by key, and a journal of what was sent. Every write is whole or not at all."""

    def __init__(self, path: Path | str):
        """
        Args:
            path: of the file, made where there is none; ":memory:" for a cache that is forgotten.

        Raises:
            DataError: the file is there but is not a cache.
        """
        self.path = str(path)
        if self.path != ":memory:":
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            # The clerk of one event loop; another thread takes over only where a loop was running already.
            self._db = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")  # whole after a kill; a power cut may lose the last moments
            self._db.executescript(_TABLES)
        except sqlite3.DatabaseError as error:
            raise DataError(f"{path} is not a cache of replies ({error}). Name another file, or delete it.") from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # --- replies ---

    def get(self, key: str) -> Reply | None:
        """The stored reply to a request."""
        row = self._db.execute(
            "SELECT reply, prompt_tokens, completion_tokens, latency, time FROM replies WHERE key = ?", (key,)
        ).fetchone()
        return None if row is None else Reply(json.loads(row[0]), *row[1:])

    def __len__(self) -> int:
        return int(self._db.execute("SELECT COUNT(*) FROM replies").fetchone()[0])

    def rows(self) -> Iterator[Recorded]:
        """All replies, oldest first."""
        columns = "key, request, reply, prompt_tokens, completion_tokens, latency, time"
        for key, request, reply, *numbers in self._db.execute(f"SELECT {columns} FROM replies ORDER BY time, key"):
            yield Recorded(key, json.loads(request), Reply(json.loads(reply), *numbers))

    def _insert(self, key: str, request: Mapping[str, Any], reply: Reply) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                key,
                json.dumps(request, ensure_ascii=False),
                json.dumps(reply.body, ensure_ascii=False),
                reply.prompt_tokens,
                reply.completion_tokens,
                reply.latency,
                reply.time,
            ),
        )

    # --- the journal ---

    def sending(self, key: str, job: str, prompt_tokens: int, completion_tokens: int) -> int:
        """Write down that a request is about to be sent, with the tokens it may cost; returns the attempt's number."""
        done = self._db.execute(
            "INSERT INTO attempts (key, job, time, prompt_tokens, completion_tokens) VALUES (?, ?, ?, ?, ?)",
            (key, job, time.time(), prompt_tokens, completion_tokens),
        )
        return int(done.lastrowid or 0)

    def answered(self, attempt: int, key: str, request: Mapping[str, Any], reply: Reply) -> None:
        """Store a reply and close its attempt, in one transaction."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._insert(key, request, reply)
            self._db.execute(
                "UPDATE attempts SET outcome = 'answered', prompt_tokens = ?, completion_tokens = ? WHERE id = ?",
                (reply.prompt_tokens, reply.completion_tokens, attempt),
            )
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def refused(self, attempt: int, outcome: str, *, paid: bool) -> None:
        """Close an attempt that brought no reply. Where it may have been paid for, its estimated tokens stay."""
        tokens = "" if paid else ", prompt_tokens = 0, completion_tokens = 0"
        self._db.execute(f"UPDATE attempts SET outcome = ?{tokens} WHERE id = ?", (outcome, attempt))

    def in_doubt(self, key: str) -> bool:
        """Whether a request was sent, and nobody lived to see the reply."""
        row = self._db.execute("SELECT 1 FROM attempts WHERE key = ? AND outcome IS NULL LIMIT 1", (key,)).fetchone()
        return row is not None

    def forget_doubts(self, key: str) -> None:
        """Settle what is in doubt about a request: it counts as paid for, and may be asked again."""
        self._db.execute("UPDATE attempts SET outcome = 'in doubt' WHERE key = ? AND outcome IS NULL", (key,))

    def failed(self, key: str, job: str, items: list[str], status: str, reason: str, tries: int) -> None:
        """Write down that items got no answer. Kept in the log, never a label."""
        self._db.execute(
            "INSERT INTO failures (key, job, items, status, reason, tries, time) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (key, job, json.dumps(items), status, reason, tries, time.time()),
        )

    def failures(self, job: str = "") -> list[tuple[str, list[str], str]]:
        """(status, items, reason) of all failures, of one job if named."""
        where, values = (" WHERE job = ?", (job,)) if job else ("", ())
        rows = self._db.execute(f"SELECT status, items, reason FROM failures{where} ORDER BY id", values)
        return [(status, json.loads(items), reason) for status, items, reason in rows]

    def spent(self, job: str) -> Spent:
        """What a job has used so far."""
        row = self._db.execute(
            "SELECT COUNT(*), COALESCE(SUM(prompt_tokens), 0), COALESCE(SUM(completion_tokens), 0) "
            "FROM attempts WHERE job = ?",
            (job,),
        ).fetchone()
        return Spent(*row)

    # --- facts: what endpoints can do, how labellers were set ---

    def fact(self, kind: str, about: Mapping[str, Any]) -> Any:
        """What was noted about something; None where nothing was."""
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (_name(kind, about),)).fetchone()
        return None if row is None else json.loads(row[0])["value"]

    def note(self, kind: str, about: Mapping[str, Any], value: Any) -> None:
        """Note something, over what was noted before."""
        text = json.dumps({"about": dict(about), "value": value})
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (_name(kind, about), text))

    def noted(self, kind: str) -> list[dict[str, Any]]:
        """Everything noted of a kind: `about` and `value`."""
        rows = self._db.execute("SELECT value FROM facts WHERE name LIKE ? ORDER BY name", (f"{kind}/%",))
        return [json.loads(value) for (value,) in rows]

    # --- packs ---

    def write_pack(self, path: Path | str) -> int:
        """Write everything as a label pack; returns how many replies there are."""
        facts = [{"kind": kind, **fact} for kind in ("labeller", "capabilities") for fact in self.noted(kind)]
        rows = list(self.rows())
        write_text(Path(path), to_pack(facts, rows))
        return len(rows)

    def read_pack(self, path: Path | str) -> int:
        """Take in the replies of a label pack; those already here are kept. Returns how many were new.

        Raises:
            DataError: it is not a pack, or a line is damaged (then nothing of it is taken in).
        """
        facts, rows = from_pack(read_text(Path(path), "label pack"), Path(path))
        before = len(self)
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for row in rows:
                if row.key != cache_key(row.request):
                    raise DataError(
                        f"{path}: the key of a reply is not that of its request. The pack was changed by hand."
                    )
                if self.get(row.key) is None:
                    self._insert(row.key, row.request, row.reply)
            for fact in facts:
                self.note(str(fact["kind"]), fact["about"], fact["value"])
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        return len(self) - before


def _name(kind: str, about: Mapping[str, Any]) -> str:
    return f"{kind}/{cache_key(about)}"
