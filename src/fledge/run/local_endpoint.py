"""A small OpenAI-compatible server on this machine: for trying things out, for tests, and for misbehaving on purpose.

It speaks HTTP/1.1 with keep-alive and answers `POST /v1/chat/completions` by a rule of yours. It is not a model.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Answer = str | Mapping[str, float]
"""A text, or tokens with their probabilities: the likeliest is written, all are told where they are asked for."""


@dataclass(frozen=True)
class Misbehaviour:
    """What goes wrong, counted over the requests that arrive: `every=10` is the 10th, 20th, 30th …; 0 never."""

    too_many_every: int = 0
    """429 with `Retry-After`."""
    retry_after: str = "0.01"
    error_every: int = 0
    """500."""
    slow_every: int = 0
    slow_seconds: float = 0.2
    no_logprobs_every: int = 0
    truncated_every: int = 0
    """The reply's text is cut in the middle."""
    broken_every: int = 0
    """The connection is closed in the middle of the reply."""
    garbage_every: int = 0
    """200 with something that is no chat completion."""
    no_logprobs: bool = False
    """Never any log probabilities, without a word (as some servers do)."""
    no_schema: bool = False
    """`response_format` is ignored."""
    no_images: bool = False
    """400 for pictures."""


def yes(request: Mapping[str, Any]) -> Answer:
    """Always the same answer."""
    return {"Y": 0.9, "N": 0.1}


class LocalEndpoint:
    """The server, as a context manager: `with LocalEndpoint(answer) as server: … server.url …`."""

    def __init__(
        self,
        answer: Callable[[Mapping[str, Any]], Answer] = yes,
        *,
        misbehaviour: Misbehaviour | None = None,
        latency: float = 0.0,
        requests_per_minute: float = math.inf,
        port: int = 0,
    ):
        """
        Args:
            answer: from a request (its JSON) to what is answered; `pictures` has the request's pictures.
            misbehaviour: what goes wrong.
            latency: seconds that every reply takes.
            requests_per_minute: above this rate of a sliding second the answer is 429.
            port: 0 for any that is free.
        """
        self.answer, self.misbehaviour = answer, misbehaviour or Misbehaviour()
        self.latency, self.requests_per_minute, self.port = latency, requests_per_minute, port
        self.arrived: list[dict[str, Any]] = []
        """Every request, in order: `key` (its idempotency key), `status` (0 until it is answered)."""
        self._recent: list[float] = []
        self._ready = threading.Event()

    @property
    def url(self) -> str:
        """The base address."""
        return f"http://127.0.0.1:{self.port}/v1"

    def answered(self, status: int = 200) -> list[dict[str, Any]]:
        """The requests that were answered with a status."""
        return [request for request in self.arrived if request["status"] == status]

    def __enter__(self) -> LocalEndpoint:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(5)

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", self.port, limit=2**26)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1")
        except asyncio.IncompleteReadError:
            return False
        first, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = first.split(" ", 2)
        if method != "POST" or path != "/v1/chat/completions":
            _send(writer, 404, {"error": {"message": f"there is no {method} {path}"}})
            return True
        record = {"key": headers.get("idempotency-key", ""), "status": 0}
        self.arrived.append(record)
        n = len(self.arrived)
        status, reply, more = self._reply(n, json.loads(body), headers)
        wait = self.latency + (self.misbehaviour.slow_seconds if _nth(n, self.misbehaviour.slow_every) else 0.0)
        if wait:
            await asyncio.sleep(wait)
        if status == 200 and _nth(n, self.misbehaviour.broken_every):
            _send(writer, 200, reply, cut=True)
            return False
        record["status"] = status
        _send(writer, status, reply, more)
        await writer.drain()
        return True

    def _reply(
        self, n: int, request: Mapping[str, Any], headers: Mapping[str, str]
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        bad = self.misbehaviour
        if self._too_fast() or _nth(n, bad.too_many_every):
            return 429, {"error": {"message": "too many requests"}}, {"Retry-After": bad.retry_after}
        if _nth(n, bad.error_every):
            return 500, {"error": {"message": "something broke"}}, {}
        if _nth(n, bad.garbage_every):
            return 200, {"detail": "<html>Welcome</html>"}, {}
        if bad.no_images and pictures(request):
            return 400, {"error": {"message": "this model does not see"}}, {}
        logprobs = bool(request.get("logprobs")) and not bad.no_logprobs and not _nth(n, bad.no_logprobs_every)
        try:
            answer = self.answer(request)
        except Exception as error:  # a rule of the user's: say what broke instead of hanging up
            return 500, {"error": {"message": f"the rule that answers raised {error!r}"}}, {}
        shape = None if bad.no_schema else request.get("response_format")
        text, tokens = _written(answer, shape)
        if _nth(n, bad.truncated_every):
            text = text[: len(text) // 2]
        choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}}
        choice |= {"finish_reason": "stop", "logprobs": _logprobs(tokens, request) if logprobs and tokens else None}
        prompt = 85 * len(pictures(request)) + len(_texts(request)) // 4
        usage = {"prompt_tokens": prompt, "completion_tokens": max(1, len(text) // 4)}
        model = request.get("model")
        return (
            200,
            {"id": f"local-{n}", "object": "chat.completion", "model": model, "choices": [choice], "usage": usage},
            {},
        )

    def _too_fast(self) -> bool:
        if math.isinf(self.requests_per_minute):
            return False
        now = time.monotonic()
        self._recent = [at for at in self._recent if at > now - 1]
        if len(self._recent) >= max(1.0, self.requests_per_minute / 60):
            return True
        self._recent.append(now)
        return False


def pictures(request: Mapping[str, Any]) -> list[bytes]:
    """The pictures of a request, in order."""
    contents = [message["content"] for message in request.get("messages", ())]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    urls = [part["image_url"]["url"] for part in parts if part.get("type") == "image_url"]
    return [base64.b64decode(url.partition(",")[2]) for url in urls]


def _texts(request: Mapping[str, Any]) -> str:
    found = []
    for message in request.get("messages", ()):
        content = message["content"]
        parts = [content] if isinstance(content, str) else [p.get("text", "") for p in content]
        found += parts
    return "\n".join(found)


def _nth(n: int, every: int) -> bool:
    return every > 0 and n % every == 0


def _written(answer: Answer, shape: Any) -> tuple[str, dict[str, float]]:
    if isinstance(answer, str):
        return answer, {answer: 1.0}
    best = max(answer, key=lambda token: answer[token])
    if isinstance(shape, Mapping) and shape.get("type") == "json_schema":
        schema = shape["json_schema"]["schema"]
        return json.dumps(_filled(schema, best, round(100 * answer[best]))), {}
    return best, dict(answer)


def _filled(schema: Mapping[str, Any], best: str, sure: int) -> Any:
    kind = schema.get("type")
    if kind == "object":
        return {name: _filled(part, best, sure) for name, part in schema["properties"].items()}
    if kind == "array":
        return [schema["items"]["enum"][0]] if best.strip().upper().startswith("Y") else []
    if kind == "integer":
        return sure
    choices = schema.get("enum", [best])
    return next((choice for choice in choices if choice.casefold().startswith(best.strip().casefold())), choices[0])


def _logprobs(tokens: Mapping[str, float], request: Mapping[str, Any]) -> dict[str, Any]:
    rows = [
        {"token": token, "logprob": math.log(p) if p > 0 else -9999.0, "bytes": list(token.encode())}
        for token, p in sorted(tokens.items(), key=lambda row: -row[1])
    ]
    top = rows[: int(request.get("top_logprobs") or 0)]
    return {"content": [{**rows[0], "top_logprobs": top}]}


def _send(
    writer: asyncio.StreamWriter,
    status: int,
    body: Mapping[str, Any],
    more: Mapping[str, str] | None = None,
    *,
    cut: bool = False,
) -> None:
    content = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} {'OK' if status == 200 else 'No'}", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(content)}", *(f"{name}: {value}" for name, value in (more or {}).items())]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (content[: len(content) // 2] if cut else content))
