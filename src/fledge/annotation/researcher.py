"""The researchers' pages: live progress, export, deleting platform ids. All behind a token."""

from __future__ import annotations

import hmac
import json
import secrets
from collections import Counter
from datetime import UTC, datetime

from fledge.annotation.answers import Refused
from fledge.annotation.calls import RESEARCHER, SESSION, TWO_WEEKS, Call, Reply, to
from fledge.annotation.export import audit_of, files_of, zipped
from fledge.annotation.flow import Flow
from fledge.annotation.guard import Buckets, Limits
from fledge.annotation.store import sealed

DAY = 24 * 3600


class Researcher:
    """Pages for whoever has the token."""

    def __init__(self, flow: Flow, token: str, limits: Limits) -> None:
        self.flow, self.store, self._token = flow, flow.store, token
        self._wrong = Buckets(limits.login_burst, limits.login_rate)

    def allowed(self, call: Call) -> bool:
        """Whether a call carries the token (`Authorization: Bearer …`) or the cookie of a login."""
        kind, _, bearer = call.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self._right(bearer.strip(), call)
        until, _, seal = call.cookies.get(RESEARCHER, "").partition(".")
        if not until.isascii() or not until.isdigit() or len(until) > 12 or int(until) < call.now:
            return False
        return hmac.compare_digest(seal.encode(), self._seal(until).encode())

    def page(self, call: Call, failed: bool = False) -> Reply:
        """Progress, or the login."""
        token = call.token or secrets.token_urlsafe(32)
        cookies = {SESSION: (token, TWO_WEEKS, "lax")}
        csrf = self.flow.csrf(token)
        if failed or not self.allowed(call):
            page = self.flow.pages.render("login", csrf=csrf, failed=failed, stage="researcher")
            return Reply(page, 403 if failed else 200, cookies=cookies)
        return Reply(
            self.flow.pages.render("researcher", csrf=csrf, stage="researcher", **self._progress(call)), cookies=cookies
        )

    def login(self, call: Call) -> Reply:
        """The token typed in."""
        given = (call.form().get("token") or [""])[0]
        if not self._right(given, call):
            self.store.note("refused", "", call.now, why="wrong researcher token")
            return self.page(call, failed=True)
        until = str(int(call.now) + DAY)
        return to("/researcher", **{RESEARCHER: (f"{until}.{self._seal(until)}", DAY, "strict")})

    def export(self, call: Call) -> Reply:
        """Everything as a ZIP file.

        Raises:
            Refused: without the token.
        """
        self._need(call)
        self.store.note("export", "", call.now)
        body = zipped(files_of(self.store, self.flow.design, call.now))
        name = "".join(mark if mark.isalnum() and mark.isascii() else "-" for mark in self.flow.design.name)
        headers = {"content-disposition": f'attachment; filename="{name}.zip"'}
        return Reply(body, mime="application/zip", headers=headers)

    def progress(self, call: Call) -> Reply:
        """The audit as JSON.

        Raises:
            Refused: without the token.
        """
        self._need(call)
        return Reply(audit_of(self.store, self.flow.design, call.now).to_json(), mime="application/json")

    def forget(self, call: Call) -> Reply:
        """Delete the platform's ids.

        Raises:
            Refused: without the token.
        """
        self._need(call)
        self.store.note("forgot", "", call.now, hashes=self.store.forget())
        return to("/researcher")

    def _need(self, call: Call) -> None:
        if not self.allowed(call):
            raise Refused("the researchers' pages need the token", 403)

    def _right(self, given: str, call: Call) -> bool:
        if hmac.compare_digest(given.encode(), self._token.encode()):
            return True
        if not self._wrong.take(call.address, call.now):
            raise Refused("too many wrong tokens", 429)
        return False

    def _seal(self, until: str) -> str:
        return sealed(self.flow.secret, "researcher", self._token, until)

    def _progress(self, call: Call) -> dict[str, object]:
        t, sa = self.store.t, self.store.sa
        found = audit_of(self.store, self.flow.design, call.now)
        stages = Counter(row.stage for row in self.store.rows(sa.select(t.annotators.c.stage)))
        refused = self.store.rows(sa.select(sa.func.count()).where(t.events.c.kind == "refused"))[0][0]
        events = self.store.rows(sa.select(t.events).order_by(t.events.c.n.desc()).limit(12))
        return {
            "audit": found,
            "completed": sum(arm.completed for arm in found.arms),
            "active": sum(arm.active for arm in found.arms),
            "places": self.flow.design.plan.places,
            "people": sum(stages.values()),
            "stages": sorted(stages.items()),
            "refused": refused,
            "events": [(_time(e.time), _event(e), e.annotator) for e in events],
            "known": self.store.rows(sa.select(sa.func.count()).select_from(t.door))[0][0],
        }


def _event(row: object) -> str:
    why = json.loads(row.detail).get("why", "")  # type: ignore[attr-defined]
    return f"{row.kind}: {why}" if why else str(row.kind)  # type: ignore[attr-defined]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
