"""What an annotator sees next, and what becomes of what they send: the way from the consent to the completion code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from fledge.annotation.answers import Form, Refused, answers_of, filled_in, names_of
from fledge.annotation.assign import Assignment
from fledge.annotation.calls import Call, Reply, checked, to
from fledge.annotation.design import ENDS, Field, Step, StudyDesign, course, practice_course
from fledge.annotation.pages import Pages
from fledge.annotation.store import Given, Person, Store, sealed

OWN = ("csrf", "visit", "timing")
"""Fields of every form, beside the answers."""


class Flow:
    """The stages of one study.

    Args:
        design: the study.
        store: its database, opened.
        pages: how it looks.
    """

    def __init__(self, design: StudyDesign, store: Store, pages: Pages) -> None:
        self.design, self.store, self.pages = design, store, pages
        self.secret = str(store.study().secret)
        self._course = lru_cache(maxsize=2048)(self._compiled)

    def csrf(self, token: str) -> str:
        """What a form of this session carries."""
        return sealed(self.secret, "csrf", token)

    def study(self, call: Call, person: Person) -> Reply:
        """The page of where the annotator is."""
        return self._page(call, person, {}, {})

    def submit(self, call: Call, person: Person) -> Reply:
        """What is sent from a stage's page.

        Raises:
            Refused: it does not come from the page that this annotator was shown.
        """
        stage, form = call.names["stage"], call.form()
        visit = self.store.shown((form.get("visit") or [""])[0][:64], person.id, stage)
        if visit is None:
            raise Refused("an answer to a page that was not shown to this session", 403)
        timing = checked("timing", _json((form.get("timing") or [""])[0]))
        answers = {name: values for name, values in form.items() if name not in OWN}
        if stage != person.stage:  # an old tab, or the browser's own back button: what was answered stands
            self.store.note("stale", person.id, call.now, stage=stage)
            return to("/study")
        handle = getattr(self, f"_{stage}")
        return handle(call, person, visit, answers, timing)

    def back(self, call: Call, person: Person) -> Reply:
        """One screen back; what is filled in on this one is kept as a draft.

        Raises:
            Refused: the study has no way back.
        """
        if not self.design.back or person.stage != "task" or person.cursor == 0:
            raise Refused("there is no screen to go back to", 409)
        form = {name: values for name, values in call.form().items() if name not in OWN}
        screen = self._steps(person, "task")[person.cursor].screen
        if set(form) - names_of(screen):
            raise Refused("the screen has no such field")
        if form:
            self.store.draft(person.id, "task", person.cursor, form, call.now)
        self.store.change(person.id, cursor=person.cursor - 1)
        self.store.note("back", person.id, call.now, screen=person.cursor)
        return to("/study")

    def draft(self, call: Call, person: Person) -> Reply:
        """Autosave.

        Raises:
            Refused: it is not from the screen that the annotator is on.
        """
        sent = checked("draft", call.json())
        visit = self.store.shown(sent["visit"], person.id, person.stage)
        if visit is None:
            raise Refused("a draft of a page that was not shown to this session", 403)
        if visit.submitted is not None:
            return Reply("", 204)
        if person.stage in ("practice", "task"):
            allowed = names_of(self._steps(person, person.stage)[visit.screen].screen)
        else:
            allowed = {f"f.{i}" for i in range(max(len(self.design.attributes), len(self.design.exit)))}
        if set(sent["fields"]) - allowed:
            raise Refused("a draft with a field that the screen has not")
        self.store.draft(person.id, person.stage, visit.screen, sent["fields"], call.now)
        return Reply("", 204)

    def withdraw(self, call: Call, person: Person) -> Reply:
        """Stop taking part: the place is open again."""
        if person.stage not in ENDS:
            self.store.settle(person.id, "withdrawn", call.now)
            self.store.change(person.id, stage="withdrawn")
            self.store.note("withdrawn", person.id, call.now, stage=person.stage, cursor=person.cursor)
        return to("/study")

    # Pages

    def _page(self, call: Call, person: Person, form: Form, faults: Mapping[str, str], visit: str = "") -> Reply:
        stage = person.stage
        common: dict[str, Any] = {
            "csrf": self.csrf(call.token),
            "faults": faults,
            "form": form,
            "flash": _json(person.flash),
        }
        if stage in ("withdrawn", *ENDS):
            return Reply(
                self.pages.end(stage, self._code(person) if stage == "done" else self.design.screened_out_code)
            )
        steps: tuple[Step, ...] = ()
        if stage in ("practice", "ready", "task", "exit"):
            row = self.store.assignment(person.id)
            if row is not None and stage != "exit" and not self._held(row, call.now):
                return Reply(self.pages.end("expired"))
            steps = self._steps(person, "practice" if stage == "practice" else "task")
        cursor = min(person.cursor, max(len(steps) - 1, 0)) if stage in ("practice", "task") else 0
        common["visit"] = visit or self.store.visit(person.id, stage, cursor, call.now)
        if not form and not faults:
            common["form"] = self._before(person, stage, cursor, steps)
        status = 422 if faults else 200
        if stage in ("practice", "task"):
            return Reply(self.pages.screen(stage, steps[cursor], cursor, len(steps), common), status)
        return Reply(self.pages.stage(stage, common, len(steps)), status)

    def _before(self, person: Person, stage: str, cursor: int, steps: tuple[Step, ...]) -> Form:
        """What was filled in or answered on this screen before."""
        if drafted := self.store.drafted(person.id, stage, cursor):
            return drafted
        if stage != "task" or cursor >= person.furthest:
            return {}
        rows = self.store.answered(person.id, stage, cursor)
        names = ("item", "construct", "value", "missing", "confidence", "position", "asked_order")
        answers = {(row.item, row.construct): Given(*(getattr(row, name) for name in names)) for row in rows}
        return filled_in(steps[cursor].screen, answers)

    def _code(self, person: Person) -> str:
        return self.design.completion_code or person.code

    # Posts, one for each stage

    def _attributes(self, call: Call, person: Person, visit: Any, form: Form, timing: dict[str, Any]) -> Reply:
        values, faults = fields_of(self.design.attributes, form)
        if faults:
            return self._page(call, person, form, faults, visit.id)
        self.store.submit(visit, None, (), timing, call.now, attributes=json.dumps(values))
        return self._advance(call, "attributes")

    def _check(self, call: Call, person: Person, visit: Any, form: Form, timing: dict[str, Any]) -> Reply:
        faults = {}
        for i, check in enumerate(self.design.checks):
            values = form.get(f"f.{i}", [])
            if any(value not in [option.value for option in check.options] for value in values):
                raise Refused("a choice that was not offered")
            if not values:
                faults[f"f.{i}"] = "Please answer this question."
        if set(form) - {f"f.{i}" for i in range(len(self.design.checks))}:
            raise Refused("a field that the page has not")
        if faults:
            return self._page(call, person, form, faults, visit.id)
        wrong = [i for i, check in enumerate(self.design.checks) if form[f"f.{i}"] != [check.answer]]
        if not self.store.submit(visit, None, (), timing, call.now, tries=person.tries + 1):
            return to("/study")
        self.store.note("check", person.id, call.now, attempt=person.tries + 1, wrong=wrong)
        if not wrong:
            return self._advance(call, "check")
        if person.tries + 1 >= self.design.tries:
            self.store.change(person.id, stage="screened_out", flash="")
            return to("/study")
        left = self.design.tries - person.tries - 1
        explained = [self.design.checks[i].explain for i in wrong if self.design.checks[i].explain]
        self.store.change(person.id, flash=json.dumps({"kind": "wrong", "left": left, "lines": explained}))
        return to("/study")

    def _practice(self, call: Call, person: Person, visit: Any, form: Form, timing: dict[str, Any]) -> Reply:
        steps = self._steps(person, "practice")
        step = steps[visit.screen]
        given, faults = answers_of(step.screen, form)
        if faults:
            return self._page(call, person, form, faults, visit.id)
        flash = json.dumps(self.pages.feedback(step, given))
        after = visit.screen + 1
        self.store.submit(visit, step, given, timing, call.now, cursor=after, furthest=after, flash=flash)
        return to("/study") if after < len(steps) else self._advance(call, "practice", keep_flash=True)

    def _ready(self, call: Call, person: Person, visit: Any, form: Form, timing: dict[str, Any]) -> Reply:
        self.store.submit(visit, None, (), timing, call.now)
        return self._advance(call, "ready")

    def _task(self, call: Call, person: Person, visit: Any, form: Form, timing: dict[str, Any]) -> Reply:
        if visit.screen > person.furthest:
            raise Refused("a screen ahead of the annotator's", 409)
        steps = self._steps(person, "task")
        step = steps[visit.screen]
        given, faults = answers_of(step.screen, form)
        if faults:
            return self._page(call, person, form, faults, visit.id)
        after = visit.screen + 1
        furthest = max(person.furthest, after)
        self.store.submit(visit, step, given, timing, call.now, cursor=after, furthest=furthest, flash="")
        if after < len(steps):
            return to("/study")
        row = self.store.assignment(person.id)
        if row is not None and self._held(
            row, call.now
        ):  # otherwise they were late: thanked, but the place is another's
            self.store.settle(person.id, "completed", call.now)
        return self._advance(call, "task")

    def _exit(self, call: Call, person: Person, visit: Any, form: Form, timing: dict[str, Any]) -> Reply:
        values, faults = fields_of(self.design.exit, form)
        if faults:
            return self._page(call, person, form, faults, visit.id)
        self.store.submit(visit, None, (), timing, call.now, exit=json.dumps(values))
        return self._advance(call, "exit")

    def _advance(self, call: Call, stage: str, keep_flash: bool = False) -> Reply:
        """To the next stage; whoever comes to the first one that needs a condition is randomised now."""
        person = self.store.person(call.token)
        if person is None or person.stage != stage:
            return to("/study")
        self.begin(person, stage, call.now, keep_flash)
        return to("/study")

    def begin(self, person: Person, stage: str, now: float, keep_flash: bool = False) -> None:
        """Move somebody on from a stage (`consent` at first)."""
        after = self.design.next_stage(stage)
        values: dict[str, Any] = {"stage": after, "cursor": 0, "furthest": 0}
        if not keep_flash:
            values["flash"] = ""
        if after in ("practice", "ready") and self.store.assign(self.design, person, now) is None:
            values["stage"] = after = "full"
        if after == "done":
            values |= {"finished": now, "code": sealed(self.secret, "code", person.id)[:8].upper()}
        self.store.change(person.id, **values)

    def _held(self, row: Assignment, now: float) -> bool:
        """Whether the place is still theirs; prolonged when a quarter of the time is over."""
        if row.outcome == "active" and row.until - now > 0.75 * self.design.plan.timeout:
            return True
        return self.store.hold(self.design, row, now)

    def _steps(self, person: Person, stage: str) -> tuple[Step, ...]:
        row = self.store.assignment(person.id)
        if row is None:
            raise Refused("no condition was assigned yet", 409)
        return self._course(stage, row.arm, row.batch, person.seed)

    def _compiled(self, stage: str, arm: str, batch: str, seed: str) -> tuple[Step, ...]:
        of = self.design.plan.arm(arm)
        return practice_course(self.design, of, seed) if stage == "practice" else course(self.design, of, batch, seed)


def fields_of(fields: tuple[Field, ...], form: Form) -> tuple[dict[str, str], dict[str, str]]:
    """Answers by name, and faults by field (`f.0`, `f.1`, …).

    Raises:
        Refused: a field or choice that the page has not.
    """
    if set(form) - {f"f.{i}" for i in range(len(fields))}:
        raise Refused("a field that the page has not")
    values: dict[str, str] = {}
    faults: dict[str, str] = {}
    for i, one in enumerate(fields):
        sent = [value.strip() for value in form.get(f"f.{i}", []) if value.strip()]
        if one.options and any(value not in [option.value for option in one.options] for value in sent):
            raise Refused("a choice that was not offered")
        if len(sent) > 1 and one.kind != "multi":
            raise Refused("several answers where there is one")
        if not sent:
            if one.required:
                faults[f"f.{i}"] = "Please answer this question."
            continue
        fault = _number_fault(one, sent[0]) if one.kind == "number" else ""
        if len(sent[0]) > 5_000:
            fault = "Please keep to 5000 characters."
        if fault:
            faults[f"f.{i}"] = fault
        values[one.name] = "|".join(sent)
    return values, faults


def _number_fault(one: Field, text: str) -> str:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    return "" if one.low <= number <= one.high else f"Please give a number from {one.low:g} to {one.high:g}."


def _json(text: str) -> Any:
    if not text:
        return {}
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Refused("damaged JSON") from None
