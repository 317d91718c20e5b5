"""The web application of a study: a value that a server runs. It opens no socket itself."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable
from typing import Any

from fledge.annotation.answers import Refused
from fledge.annotation.calls import LARGEST, Call, Handler, Reply
from fledge.annotation.design import StudyDesign
from fledge.annotation.door import Door
from fledge.annotation.flow import Flow
from fledge.annotation.guard import HEADERS, Buckets, Limits, Refusals
from fledge.annotation.pages import STATIC, Pages, static
from fledge.annotation.researcher import Researcher
from fledge.annotation.store import Person, Store, sealed
from fledge.core.errors import need

LOG = logging.getLogger("fledge.annotation")
SAID = {
    403: (
        "This page cannot be opened",
        "It belongs to another session, or the session is over. Open the study's link again.",
    ),
    404: ("There is no such page", "Open the study's link again."),
    405: ("There is no such page", "Open the study's link again."),
    409: ("That does not fit", "Open the study's link again; your answers so far are kept."),
    413: ("That is too much at once", "Your answers so far are kept. Go back and send less."),
    429: (
        "A little slower, please",
        "Too many requests came at once. Wait a minute and reload the page; nothing is lost.",
    ),
    500: ("Something went wrong here", "Your answers so far are kept. Reload the page in a minute."),
}
_ELSE = ("That could not be read", "Your answers so far are kept. Open the study's link again.")


class Site:
    """Everything between a request and a handler: session, CSRF, limits, errors."""

    def __init__(
        self, design: StudyDesign, store: Store, token: str, limits: Limits, clock: Callable[[], float]
    ) -> None:
        self.store, self.clock, self.limits = store, clock, limits
        self.pages = Pages(design)
        self.flow = Flow(design, store, self.pages)
        self.door, self.researcher = Door(self.flow), Researcher(self.flow, token, limits)
        self.media = design.media()
        self.addresses = Buckets(limits.address_burst, limits.address_rate)
        self.sessions = Buckets(limits.session_burst, limits.session_rate)
        self.refusals = Refusals(lambda detail, now: store.note("refused", "", now, **detail))

    def answer(self, handler: Handler, call: Call) -> Reply:
        """The handler's reply; what is refused is logged, and nothing of it is kept."""
        try:
            if not self.addresses.take(call.address, call.now):
                raise Refused("too many requests from one address", 429)
            if (
                call.token
                and not call.path.startswith(("/static/", "/media/"))
                and not self.sessions.take(call.token, call.now)
            ):
                raise Refused("too many requests of one session", 429)
            if call.method == "POST":
                self._check_csrf(call)
            return handler(call)
        except Refused as refused:
            return self.refused(call, str(refused), refused.status)
        except Exception:
            LOG.exception("a request failed: %s %s", call.method, call.path)
            return Reply(self.pages.message(*SAID[500]), 500)

    def refused(self, call: Call, why: str, status: int) -> Reply:
        """The page that says so, and a line in the log. An address is kept only as a hash."""
        who = sealed(self.flow.secret, "address", call.address)[:12]
        LOG.warning("refused: %s (%s %s, %d)", why, call.method, call.path[:200], status)
        self.refusals.note(call.now, why=why, path=call.path, method=call.method, status=str(status), address=who)
        return Reply(self.pages.message(*SAID.get(status, _ELSE)), status)

    def _check_csrf(self, call: Call) -> None:
        given = call.headers.get("x-csrf", "")
        if not given and not call.headers.get("content-type", "").startswith("application/json"):
            given = (call.form().get("csrf") or [""])[0]
        if not call.token or not hmac.compare_digest(given.encode(), self.flow.csrf(call.token).encode()):
            raise Refused("a form that is not from this session's page", 403)

    def person(self, handle: Callable[[Call, Person], Reply]) -> Handler:
        """A handler for annotators only."""

        def inner(call: Call) -> Reply:
            person = self.store.person(call.token) if call.token else None
            if person is None:
                raise Refused("no session", 403)
            return handle(call, person)

        return inner

    def show_media(self, call: Call, person: Person | None = None) -> Reply:
        """A picture or film, by the hash of its content."""
        found = self.media.get(call.names["name"])
        if found is None:
            raise Refused("no such picture", 404)
        return _ranged(call, found.content, found.mime)

    def show_static(self, call: Call) -> Reply:
        """The style sheet and the script."""
        name = call.names["name"]
        if name not in STATIC:
            raise Refused("no such file", 404)
        return Reply(static(name), mime=STATIC[name], headers={"cache-control": "no-cache"})

    def routes(self) -> list[tuple[str, str, Handler]]:
        """(method, path, handler)."""
        flow, person = self.flow, self.person
        return [
            ("GET", "/", self.door.enter),
            ("POST", "/consent", self.door.consent),
            ("POST", "/decline", self.door.decline),
            ("GET", "/study", person(flow.study)),
            ("POST", "/study/{stage}", person(flow.submit)),
            ("POST", "/back", person(flow.back)),
            ("POST", "/draft", person(flow.draft)),
            ("POST", "/withdraw", person(flow.withdraw)),
            ("GET", "/media/{name}", person(self.show_media)),
            ("GET", "/static/{name}", self.show_static),
            ("GET", "/researcher", self.researcher.page),
            ("POST", "/researcher", self.researcher.login),
            ("GET", "/researcher/export.zip", self.researcher.export),
            ("GET", "/researcher/progress.json", self.researcher.progress),
            ("POST", "/researcher/forget", self.researcher.forget),
            ("GET", "/healthz", lambda call: Reply("ok", mime="text/plain")),
        ]


def make_app(
    design: StudyDesign,
    store: Store,
    *,
    token: str,
    limits: Limits | None = None,
    clock: Callable[[], float] = time.time,
) -> Any:
    """The ASGI application of a study.

    Args:
        design: the study.
        store: its database; opened here.
        token: of the researchers' pages.
        limits: of requests.
        clock: Unix time in seconds.

    Raises:
        ConfigError: the database holds another study.
        MissingExtra: FastAPI is not installed.
    """
    fastapi = need("fastapi", "annotate")
    store.open(design, clock())
    site = Site(design, store, token, limits or Limits(), clock)
    app = fastapi.FastAPI(title=design.title, docs_url=None, redoc_url=None, openapi_url=None)
    for method, path, handler in site.routes():
        app.add_route(path, _endpoint(site, handler), methods=[method])

    async def lost(request: Any, error: Any) -> Any:
        call = await _call(request, site.clock(), body=False)
        return await _run(lambda: site.refused(call, "no such page", error.status_code), call)

    app.add_exception_handler(404, lost)
    app.add_exception_handler(405, lost)
    app.state.site = site
    return app


def _endpoint(site: Site, handler: Handler) -> Any:
    async def endpoint(request: Any) -> Any:
        now = site.clock()
        try:
            call = await _call(request, now)
        except Refused as refused:
            call, why, status = await _call(request, now, body=False), str(refused), refused.status
            return await _run(lambda: site.refused(call, why, status), call)
        return await _run(lambda: site.answer(handler, call), call)

    return endpoint


async def _call(request: Any, now: float, body: bool = True) -> Call:
    content = b""
    if body and request.method == "POST":
        length = request.headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length[:12]) > LARGEST:
            raise Refused("a post that is too large", 413)
        async for chunk in request.stream():
            content += chunk
            if len(content) > LARGEST:
                raise Refused("a post that is too large", 413)
    return Call(
        method=request.method,
        path=request.url.path,
        query=dict(request.query_params),
        cookies=dict(request.cookies),
        headers=dict(request.headers),
        address=request.client.host if request.client else "",
        secure=request.url.scheme == "https",
        names=dict(request.path_params),
        body=content,
        now=now,
    )


async def _run(make: Callable[[], Reply], call: Call) -> Any:
    """Handlers wait for the database: they run beside the event loop."""
    responses, pool = need("starlette.responses", "annotate"), need("starlette.concurrency", "annotate")
    reply = await pool.run_in_threadpool(make)
    response = responses.Response(
        reply.body, reply.status, headers=HEADERS | dict(reply.headers), media_type=reply.mime
    )
    for name, (value, seconds, same_site) in reply.cookies.items():
        response.set_cookie(
            name, value, max_age=seconds, httponly=True, samesite=same_site, secure=call.secure, path="/"
        )
    return response


def _ranged(call: Call, content: bytes, mime: str) -> Reply:
    """Browsers ask for films in parts."""
    keep = {"cache-control": "private, max-age=86400", "accept-ranges": "bytes"}
    unit, _, span = call.headers.get("range", "").partition("=")
    first, _, last = span.partition("-")
    if (
        unit != "bytes"
        or not (first.isascii() and first.isdigit())
        or not (last == "" or (last.isascii() and last.isdigit()))
    ):
        return Reply(content, mime=mime, headers=keep)
    a, b = int(first[:15]), min(int(last[:15] or len(content) - 1), len(content) - 1)
    if a > b:
        return Reply(b"", 416, mime, keep | {"content-range": f"bytes */{len(content)}"})
    return Reply(content[a : b + 1], 206, mime, keep | {"content-range": f"bytes {a}-{b}/{len(content)}"})
