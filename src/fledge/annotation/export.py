"""What a study's database gives away: annotations, revisions, timings, people, assignments, audit. Never the door."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fledge.annotation.assign import Assignment
from fledge.annotation.audit import Audit, audit
from fledge.annotation.design import StudyDesign, course
from fledge.annotation.design_files import design_of
from fledge.annotation.store import Store
from fledge.core.annotations import Annotation
from fledge.core.files import to_csv, to_json, write_text
from fledge.data.annotations import AnnotationTable, csv_text, jsonl_text

VISITS = ("id", "annotator", "stage", "screen", "shown", "submitted", "client_shown", "client_submitted",
          "first_click_ms", "revealed_ms", "changes", "focus_losses", "hidden_ms", "viewport", "pointer")  # fmt: skip
PEOPLE = ("id", "created", "stage", "tries", "device", "viewport", "language", "code", "finished", "attributes", "exit")
LOG = ("annotator", "arm", "batch", "draw", "seed", "stratum", "probabilities", "reason", "time", "until", "outcome",
       "outcome_time")  # fmt: skip


def design_in(store: Store) -> StudyDesign:
    """The study of a database, without its pictures.

    Raises:
        DataError: there is none.
    """
    return design_of(json.loads(store.study().snapshot), "The stored study")


def table_in(store: Store, design: StudyDesign, revisions: bool = False) -> AnnotationTable:
    """The annotations of a study.

    Everybody who was assigned has a row for every question of their screens, and one for every construct that their
    condition does not ask about an item: `dropped_out` where they did not come to the screen, `not_asked` where they
    could not. Practice is left out.

    Args:
        store: its database.
        design: the study.
        revisions: every revision of answers, and no row without one.
    """
    a = store.t.answers
    given: dict[tuple[str, int, str, str], list[Any]] = {}
    for row in store.rows(store.sa.select(a).where(a.c.stage == "task").order_by(a.c.n)):
        given.setdefault((row.annotator, row.screen, row.item, row.construct), []).append(row)
    visits = {row.id: row for row in store.rows(store.sa.select(store.t.visits))}
    people = {row.id: row for row in store.rows(store.sa.select(store.t.annotators))}
    version = design.instrument.version
    rows: list[Annotation] = []
    for one in store.log():
        for cell in _questions(design, one, people[one.annotator].seed):
            found = given.get((one.annotator, cell["screen"], cell["item"], cell["construct"]), [])
            common = cell | {"annotator": one.annotator, "instrument": version}
            rows += [Annotation(**common | _said(row, visits)) for row in (found if revisions else found[-1:])]
            if not found and not revisions and one.outcome != "active":
                rows.append(Annotation(**common, missing="dropped_out"))
        if not revisions:
            rows += _not_asked(design, one, version)
    attributes = {name: json.loads(row.attributes) | _device(row) for name, row in people.items()}
    return AnnotationTable(tuple(rows), design.texts(), attributes)


def _questions(design: StudyDesign, one: Assignment, seed: str) -> Iterator[dict[str, Any]]:
    for step in course(design, design.plan.arm(one.arm), one.batch, seed):
        screen = step.screen
        for item, position in zip(screen.items, screen.positions, strict=True):
            for j, construct in enumerate(screen.constructs):
                yield {
                    "item": item.id,
                    "construct": construct.name,
                    "condition": step.condition,
                    "screen": screen.index,
                    "position": position,
                    "sweep": screen.sweep,
                    "asked_order": screen.asked_order + j,
                }


def _said(row: Any, visits: dict[str, Any]) -> dict[str, Any]:
    visit = visits.get(row.visit)
    sure = None if row.confidence is None or row.value is None else {row.value: row.confidence / 100}
    return {
        "value": row.value,
        "missing": row.missing,
        "revision": row.revision,
        "probability": sure,
        "mode": "verbal" if sure else "",
        "shown": visit.shown if visit else None,
        "submitted": row.time,
        "raw": f"visit:{row.visit}",
    }


def _not_asked(design: StudyDesign, one: Assignment, version: str) -> list[Annotation]:
    arm = design.plan.arm(one.arm)
    found = []
    for condition in arm.sequence if len(arm.sequence) == 1 else ():
        program = design.instrument.condition(condition)
        asked = {name for block in program.blocks for ask in block.screens for name in ask.constructs}
        for i in design.batches[one.batch]:
            common: dict[str, Any] = {"item": design.items[i].id, "annotator": one.annotator, "condition": condition}
            never = [c.name for c in design.instrument.constructs if c.name not in asked]
            found += [Annotation(**common, construct=n, missing="not_asked", instrument=version) for n in never]
    return found


def _device(row: Any) -> dict[str, str]:
    return {name: value for name, value in (("device", row.device), ("language", row.language)) if value}


def audit_of(store: Store, design: StudyDesign, now: float) -> Audit:
    """The audit of a study's assignment."""
    people = store.rows(store.sa.select(store.t.annotators))
    attributes = {row.id: json.loads(row.attributes) | _device(row) for row in people}
    return audit(design.plan, store.log(), attributes, now, int(store.study().turned_away))


def files_of(store: Store, design: StudyDesign, now: float) -> dict[str, str]:
    """File name → text of everything that is exported."""
    table = table_in(store, design)
    log = [asdict(row) | {"probabilities": json.dumps(dict(row.probabilities))} for row in store.log()]
    events = store.rows(store.sa.select(store.t.events).order_by(store.t.events.c.n))
    return {
        "annotations.csv": csv_text(table),
        "annotations.jsonl": jsonl_text(table),
        "revisions.csv": csv_text(table_in(store, design, revisions=True)),
        "visits.csv": _table(store, store.t.visits, VISITS),
        "annotators.csv": _table(store, store.t.annotators, PEOPLE),
        "assignments.csv": to_csv(LOG, ([row[name] for name in LOG] for row in log)),
        "practice.csv": _practice(store),
        "events.jsonl": "".join(
            to_json({"time": e.time, "kind": e.kind, "annotator": e.annotator, "detail": json.loads(e.detail)}) + "\n"
            for e in events
        ),
        "audit.json": audit_of(store, design, now).to_json(),
        "instrument.json": to_json(asdict(design.instrument), indent=1),
        "study.json": to_json(dict(design.snapshot), indent=1),
    }


def _table(store: Store, table: Any, columns: tuple[str, ...]) -> str:
    rows = store.rows(store.sa.select(*(table.c[name] for name in columns)))
    return to_csv(columns, rows)


def _practice(store: Store) -> str:
    a, columns = store.t.answers, ("annotator", "screen", "item", "construct", "condition", "value", "missing", "time")
    query = store.sa.select(*(a.c[name] for name in columns)).where(a.c.stage == "practice").order_by(a.c.n)
    return to_csv(columns, store.rows(query))


def write_export(files: dict[str, str], out: Path) -> list[Path]:
    """Write the files of an export into a folder."""
    return [write_text(Path(out) / name, text) for name, text in files.items()]


def zipped(files: dict[str, str]) -> bytes:
    """The same as one ZIP file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()
