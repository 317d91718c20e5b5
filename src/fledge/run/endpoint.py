"""A client of OpenAI-compatible chat endpoints: patient where patience helps, and never asking what it was told not to.

Retried are 408, 409, 429, 5xx, time-outs and broken connections, with exponential back-off and full jitter, and never
before `Retry-After`. 401, 403 and 404 end the whole job: no further request would fare better. Everything else is the
failure of one request.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import math
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fledge.core.errors import ConfigError, need
from fledge.data.packs import Reply
from fledge.run.limits import BudgetSpent, Ledger, TokenBucket
from fledge.run.reply_cache import ReplyCache

RETRIED = (408, 409, 429)
FATAL = (401, 403, 404)
_SHORTEST_KEY = 6
"""Shorter "keys" are placeholders of local servers; striking them out of replies would spoil the replies."""


@dataclass(frozen=True)
class Pace:
    """How fast and how patiently an endpoint is asked."""

    workers: int = 8
    """Requests on their way at the same time, at most."""
    requests_per_minute: float = math.inf
    tokens_per_minute: float = math.inf
    """Estimated tokens, in and out."""
    timeout: float = 60.0
    """Seconds for one reply."""
    max_tries: int = 6
    """Of one request, the first included."""
    first_wait: float = 0.5
    """Seconds: the wait before try k + 1 is drawn evenly from 0 to first_wait * 2**(k - 1)."""
    longest_wait: float = 60.0
    """Seconds: of that draw. An endpoint that wants a longer `Retry-After` than twice this fails the request."""

    def __post_init__(self) -> None:
        if self.workers < 1 or self.max_tries < 1:
            raise ConfigError(f"workers and max_tries are at least 1, not {self.workers} and {self.max_tries}.")


class Failed(Exception):
    """One request got no reply; the others may."""

    def __init__(self, reason: str, tries: int, *, not_understood: bool = False):
        super().__init__(reason)
        self.tries = tries
        self.not_understood = not_understood
        """Whether the endpoint refused what the request asks for (400, 422 and the like)."""


class Refused(Exception):
    """The endpoint refuses every request."""


@dataclass(frozen=True)
class Call:
    """One request."""

    key: str
    """Of the cache."""
    request: Mapping[str, Any]
    """What the key was taken of; stored with the reply."""
    body: Mapping[str, Any]
    """What is sent."""
    prompt_tokens: int
    """Estimated."""
    completion_tokens: int
    """At most."""


def checked_url(base_url: str) -> str:
    """The address of an endpoint, without a slash at its end.

    Raises:
        ConfigError: it is no http address, or has a password or a query in it (it would be stored with each reply).
    """
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"'{base_url}' is no address of an endpoint. Write it like https://api.openai.com/v1.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "The address of an endpoint is stored with each reply and must hold no password or key. "
            "Put the key into an environment variable and name that."
        )
    return base_url.rstrip("/")


def secret(api_key_env: str) -> str:
    """The key in an environment variable; empty where none is named.

    Raises:
        ConfigError: the variable is not set.
    """
    if not api_key_env:
        return ""
    key = os.environ.get(api_key_env, "").strip()
    if not key:
        raise ConfigError(
            f"The environment variable {api_key_env} is not set. Put the endpoint's key into it, or name another "
            "(or none, for a server that wants no key)."
        )
    return key


class Endpoint:
    """Sends requests and brings back replies; one for each event loop, as an async context manager."""

    def __init__(self, base_url: str, key: str, pace: Pace, cache: ReplyCache, ledger: Ledger, job: str):
        self.base_url, self.pace, self.cache, self.ledger, self.job = base_url, pace, cache, ledger, job
        self._key = key
        self._httpx = need("httpx", "feedback")
        self._requests = TokenBucket(pace.requests_per_minute)
        self._tokens = TokenBucket(pace.tokens_per_minute)
        self._quiet_until = 0.0

    async def __aenter__(self) -> Endpoint:
        limits = self._httpx.Limits(max_connections=self.pace.workers, max_keepalive_connections=self.pace.workers)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        near = urlsplit(self.base_url).hostname in ("127.0.0.1", "localhost", "::1")
        self._http = self._httpx.AsyncClient(
            timeout=self.pace.timeout,
            limits=limits,
            headers=headers,
            trust_env=not near,  # a proxy has no business between a program and its own machine
            verify=self.base_url.startswith("https"),  # certificates take long to load, and http has none
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(self, call: Call) -> Reply:
        """The reply to a request, stored before it is handed out.

        Raises:
            Failed: it got none, for a reason of its own.
            Refused: the endpoint refuses this key, model or address.
            BudgetSpent: there is no room for another try.
        """
        reason = ""
        for tries in range(1, self.pace.max_tries + 1):
            reply, reason, wait = await self._try(call, tries)
            if reply is not None:
                return reply
            if wait > 2 * self.pace.longest_wait:
                raise Failed(f"{reason}; it wants a wait of {wait:.0f} seconds", tries)
            if tries < self.pace.max_tries:
                await asyncio.sleep(wait + self._jitter(tries))
        raise Failed(f"{reason}; gave up after {self.pace.max_tries} tries", self.pace.max_tries)

    async def _try(self, call: Call, tries: int) -> tuple[Reply | None, str, float]:
        await self._may_go(call)
        promised = await self._promise(call)
        attempt = self.cache.sending(call.key, self.job, *promised)
        self.ledger.sent(attempt, promised)
        begun = time.monotonic()
        try:
            response = await self._http.post(
                f"{self.base_url}/chat/completions", json=call.body, headers={"Idempotency-Key": call.key}
            )
        except self._httpx.TransportError as error:  # no telling whether it was paid for
            reason = f"no reply ({type(error).__name__})"
            self.cache.refused(attempt, reason, paid=True)
            self.ledger.settle(attempt, *promised)
            return None, reason, 0.0
        if response.status_code == 200:
            return self._answered(call, attempt, promised, response.text, time.monotonic() - begun, tries), "", 0.0
        reason = f"status {response.status_code}"
        self.cache.refused(attempt, reason, paid=False)
        self.ledger.settle(attempt)
        if response.status_code in FATAL:
            raise Refused(f"{self.base_url} answers {reason}: {self._said(response.text)}")
        if response.status_code not in RETRIED and response.status_code < 500:
            raise Failed(f"{reason}: {self._said(response.text)}", tries, not_understood=True)
        wait = retry_after(response.headers, time.time())
        self._quiet_until = max(self._quiet_until, time.monotonic() + min(wait, self.pace.longest_wait))
        return None, reason, wait

    def _answered(
        self, call: Call, attempt: int, promised: tuple[int, int], text: str, latency: float, tries: int
    ) -> Reply:
        try:
            body = _whole_characters(json.loads(self._clean(text)), text)
            if not isinstance(body, dict) or not isinstance(body.get("choices"), list) or not body["choices"]:
                raise ValueError
        except (ValueError, RecursionError):
            self.cache.refused(attempt, "no chat completion", paid=True)
            self.ledger.settle(attempt, *promised)
            raise Failed(f"status 200, but no chat completion: {self._said(text)}", tries) from None
        usage = body.get("usage")
        counts = [
            usage.get(name) if isinstance(usage, dict) else None for name in ("prompt_tokens", "completion_tokens")
        ]
        tokens = [n if isinstance(n, int) and n >= 0 else p for n, p in zip(counts, promised, strict=True)]
        reply = Reply(body, tokens[0], tokens[1], latency, time.time())
        self.cache.answered(attempt, call.key, call.request, reply)
        self.ledger.settle(attempt, tokens[0], tokens[1])
        return reply

    async def _may_go(self, call: Call) -> None:
        await self._requests.take()
        await self._tokens.take(call.prompt_tokens + call.completion_tokens)
        while (quiet := self._quiet_until - time.monotonic()) > 0:  # one worker's Retry-After holds for all
            await asyncio.sleep(quiet * random.uniform(1.0, 1.25))  # not all at the same moment

    async def _promise(self, call: Call) -> tuple[int, int]:
        while True:
            try:
                return self.ledger.promise(call.prompt_tokens, call.completion_tokens)
            except BudgetSpent:
                if not self.ledger.waiting:
                    raise
            await asyncio.sleep(0.005)  # what is on its way may settle for less

    def _jitter(self, tries: int) -> float:
        return random.uniform(0, min(self.pace.longest_wait, self.pace.first_wait * 2 ** (tries - 1)))

    def _clean(self, text: str) -> str:
        return text.replace(self._key, "[key]") if len(self._key) >= _SHORTEST_KEY else text

    def _said(self, text: str) -> str:
        return " ".join(self._clean(text).split())[:300]


def _whole_characters(body: Any, text: str) -> Any:
    """Without halves of characters (a reply cut in the middle of an emoji): no file could hold them."""
    if "\\ud" not in text.lower():
        return body
    return json.loads(json.dumps(body, ensure_ascii=False).encode("utf-8", "replace").decode())


def retry_after(headers: Mapping[str, str], now: float) -> float:
    """Seconds that an endpoint wants to be left alone: its `Retry-After` in seconds or as a date; 0 without one.

    Args:
        headers: of the response, names in lower case or without regard to case.
        now: Unix time in seconds.
    """
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - now
        except (ValueError, TypeError, IndexError):
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
