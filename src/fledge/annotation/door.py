"""The way in: consent, and who somebody is without keeping who they are.

A platform's ids are salted and hashed here, before anything is stored; nothing is stored before consent. A person takes
part once. They come back by the cookie of their browser, or by the platform's link with the same session id.
"""

from __future__ import annotations

import secrets
from dataclasses import replace

from fledge.annotation.answers import Refused
from fledge.annotation.calls import SESSION, TWO_WEEKS, Call, Reply, checked, to
from fledge.annotation.flow import Flow
from fledge.annotation.store import sealed

PLATFORM = ("PROLIFIC_PID", "STUDY_ID", "SESSION_ID")


class Door:
    """The first page of a study."""

    def __init__(self, flow: Flow) -> None:
        self.flow, self.store, self.pages = flow, flow.store, flow.pages

    def enter(self, call: Call) -> Reply:
        """The consent page. Query parameters of the platform are handed on, not stored.

        Raises:
            Refused: they are none that a platform sends.
        """
        platform = checked("entry", {name: call.query[name] for name in PLATFORM if name in call.query})
        token = call.token or secrets.token_urlsafe(32)
        returning = bool(call.token) and self.store.person(call.token) is not None
        page = self.pages.consent(self.flow.csrf(token), platform, returning)
        return Reply(page, cookies={SESSION: (token, TWO_WEEKS, "lax")})

    def consent(self, call: Call) -> Reply:
        """Somebody agreed: they become an annotator, or go on as the one that they are.

        Raises:
            Refused: the form is not the page's.
        """
        form = {name: values[0] for name, values in call.form().items()}
        if set(form) - {"csrf", "agree", "viewport", "device", "language", *PLATFORM}:
            raise Refused("a field that the page has not")
        if self.store.person(call.token) is not None:
            return to("/study")
        platform = checked("entry", {name: form.get(name, "") for name in PLATFORM})
        device = checked("device", {name: form.get(name, "") for name in ("viewport", "device", "language")})
        if form.get("agree") != "yes":
            return replace(self.enter(replace(call, query=platform)), status=422)
        person, visit = self._seal(platform)
        annotator = self.store.enter(person, visit, device, "consent", call.now)
        if annotator is None:
            known = self.store.at_the_door(person)
            if known is None or not visit or known.visit != visit:
                self.store.note("refused", known.annotator if known else "", call.now, why="took part already")
                return Reply(self.pages.end("again"), 409)
            annotator = str(known.annotator)
        token = secrets.token_urlsafe(32)  # a new one: nobody can have planted it
        self.store.remember(token, annotator, call.now)
        entered = self.store.person(token)
        if entered is not None and entered.stage == "consent":
            self.flow.begin(entered, "consent", call.now)
        return to("/study", **{SESSION: (token, TWO_WEEKS, "lax")})

    def decline(self, call: Call) -> Reply:
        """Somebody did not agree: that is counted, and nothing else."""
        self.store.note("declined", "", call.now)
        return Reply(self.pages.end("declined"))

    def _seal(self, platform: dict[str, str]) -> tuple[str, str]:
        """Salted hashes of the person and of the platform's session; empty where there is none."""
        salt, pid = str(self.store.study().salt), platform["PROLIFIC_PID"]
        if not pid:
            return "", ""
        session = platform["SESSION_ID"]
        return sealed(salt, "person", platform["STUDY_ID"], pid), sealed(salt, "visit", session) if session else ""
