"""A request and a reply as plain values, and the strict shapes of what a browser may send."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from fledge.annotation.answers import Refused
from fledge.core.errors import need

SESSION, RESEARCHER = "fledge_session", "fledge_researcher"
LARGEST = 256 * 1024
"""Bytes of a post."""
MOST_FIELDS = 400
TWO_WEEKS = 14 * 24 * 3600


@dataclass(frozen=True)
class Call:
    """What came in."""

    method: str
    path: str
    query: Mapping[str, str]
    cookies: Mapping[str, str]
    headers: Mapping[str, str]
    address: str
    """Of the client."""
    secure: bool
    """Whether it came by https."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Parts of the path."""
    body: bytes = b""
    now: float = 0.0

    @property
    def token(self) -> str:
        """The session's, as the browser says."""
        return self.cookies.get(SESSION, "")[:128]

    def form(self) -> dict[str, list[str]]:
        """The fields of a posted form.

        Raises:
            Refused: it is no form, or damaged.
        """
        if not self.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            raise Refused("a form was wanted", 415)
        try:
            text = self.body.decode("ascii")
            pairs = parse_qsl(
                text, keep_blank_values=True, strict_parsing=bool(text), errors="strict", max_num_fields=MOST_FIELDS
            )
        except ValueError as error:
            raise Refused(f"a damaged form ({error})") from None
        fields: dict[str, list[str]] = {}
        for name, value in pairs:
            if "\x00" in value or any(0xD800 <= ord(mark) < 0xE000 for mark in value):
                raise Refused("a form with characters that are no text")
            fields.setdefault(name, []).append(value)
        return fields

    def json(self) -> Any:
        """The posted JSON.

        Raises:
            Refused: it is none.
        """
        if not self.headers.get("content-type", "").startswith("application/json"):
            raise Refused("JSON was wanted", 415)
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise Refused("damaged JSON") from None


@dataclass(frozen=True)
class Reply:
    """What goes out."""

    body: str | bytes = ""
    status: int = 200
    mime: str = "text/html; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    cookies: Mapping[str, tuple[str, int, str]] = field(default_factory=dict)
    """Name → (value, seconds, SameSite). All are HttpOnly, and Secure where the call was."""


def to(location: str, **cookies: tuple[str, int, str]) -> Reply:
    """A redirect after a post."""
    return Reply(status=303, headers={"location": location}, cookies=cookies)


@lru_cache(maxsize=1)
def shapes() -> dict[str, Any]:
    """The pydantic models of what a browser sends beside answers.

    Raises:
        MissingExtra: pydantic is not installed.
    """
    p = need("pydantic", "annotate")
    config = p.ConfigDict(extra="forbid", strict=True, frozen=True)

    def text(pattern: str) -> Any:
        return (str, p.Field(default="", pattern=pattern, max_length=64))

    def number(top: float | int, kind: Any = int) -> Any:
        return (kind | None, p.Field(default=None, ge=0, le=top))

    def model(name: str, **columns: Any) -> Any:
        return p.create_model(name, __config__=config, **columns)

    platform = text(r"^[A-Za-z0-9_\-]*$")
    day, size = 24 * 3600 * 1000, text(r"^(\d{1,5}x\d{1,5})?$")
    short, values = p.constr(max_length=20), p.conlist(p.constr(max_length=5_000), max_length=60)
    return {
        "entry": model("Entry", PROLIFIC_PID=platform, STUDY_ID=platform, SESSION_ID=platform),
        "device": model(
            "Device", viewport=size, device=text("^(phone|tablet|desktop)?$"), language=text(r"^[A-Za-z0-9\-]*$")
        ),
        "timing": model(
            "Timing",
            client_shown=number(1e14, float),
            client_submitted=number(1e14, float),
            first_click_ms=number(30 * day),
            revealed_ms=number(30 * day),
            changes=number(10**6),
            focus_losses=number(10**6),
            hidden_ms=number(30 * day),
            viewport=size,
            pointer=text("^(fine|coarse)?$"),
        ),
        "draft": model(
            "Draft",
            visit=(str, p.Field(pattern="^[0-9a-f]{24}$")),
            fields=(dict.__class_getitem__((short, values)), p.Field(max_length=MOST_FIELDS)),
        ),
    }


def checked(shape: str, value: Any) -> dict[str, Any]:
    """The value, if it is of a shape.

    Raises:
        Refused: it is not.
    """
    pydantic = need("pydantic", "annotate")
    try:
        return dict(shapes()[shape].model_validate(value).model_dump())
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise Refused(f"{shape}: {'.'.join(map(str, first['loc']))} {first['msg']}"[:200]) from None


Handler = Callable[[Call], Reply]
