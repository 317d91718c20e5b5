"""A study to serve, a server to kill, and an annotator without a browser: shared by the tests of the page."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

TOKEN = "a-token-of-the-tests-0123"
HIDDEN = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)"')
FIELD = re.compile(
    r'<(?:input type="(radio|checkbox)"|textarea|input)[^>]*? name="([amcdf]\.[^"]+)"(?: value="([^"]*)")?'
)


def study_text(labels: int = 1, batch_size: int = 2, n_items: int = 2, more: str = "") -> str:
    """A study with the five conditions and nothing around the task but what `more` adds."""
    items = "\n".join(f"  - {{id: t{i}, text: Message number {i}}}" for i in range(1, n_items + 1))
    return (
        "name: tests\ntitle: A study for tests\ninstrument: kern-2023\nconsent: Please take part.\n"
        f"assignment: {{labels: {labels}, batch_size: {batch_size}, seed: 3}}\nitems:\n{items}\n{more}"
    )


@dataclass
class Server:
    """`fledge annotate serve` in a process of its own."""

    study: Path
    data: Path
    port: int = 0
    process: subprocess.Popen[str] | None = None
    lines: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Server:
        """Start, or start again at the same port, and wait until it answers."""
        if not self.port:
            with socket.socket() as one:
                one.bind(("127.0.0.1", 0))
                self.port = one.getsockname()[1]
        command = [sys.executable, "-m", "fledge.cli", "annotate", "serve", str(self.study), "--port", str(self.port)]
        environment = os.environ | {"FLEDGE_ANNOTATE_TOKEN": TOKEN}
        self.process = subprocess.Popen(
            [*command, "--data", str(self.data)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith("data"):
                break
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            except OSError:
                time.sleep(0.05)
        raise AssertionError("".join(self.lines) or "the server did not start")

    def kill(self, how: int = signal.SIGKILL) -> None:
        """Stop it without a word."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None


def hidden(page: str) -> dict[str, str]:
    """The hidden fields of a page's main form."""
    start = page.find('id="page"')
    return {name: unescape(value) for name, value in HIDDEN.findall(page[start:])} if start >= 0 else {}


def stage_of(page: str) -> str:
    """Which page it is."""
    found = re.search(r'data-stage="(\w+)"', page)
    return found[1] if found else ""


def first_answers(page: str) -> list[tuple[str, str]]:
    """The first choice of every question of a page, and a text for every text field."""
    answers: dict[str, str] = {}
    for kind, name, value in FIELD.findall(page):
        if not name.startswith("d."):
            answers.setdefault(name, unescape(value) if kind else "40")
    return list(answers.items())


def form(fields: Any) -> dict[str, Any]:
    """Keyword arguments of a request that posts these fields."""
    body = urlencode(list(fields.items()) if isinstance(fields, dict) else fields)
    return {"content": body, "headers": {"content-type": "application/x-www-form-urlencoded"}}


class Walker:
    """An annotator that speaks HTTP through an `httpx` client, synchronously."""

    def __init__(self, client: Any, platform: str = "") -> None:
        self.client, self.platform = client, platform
        self.page = ""

    def open(self) -> Walker:
        """The consent page."""
        self.page = self.client.get("/" + (f"?{self.platform}" if self.platform else "")).text
        return self

    def agree(self) -> Walker:
        """Consent."""
        self.page = self.client.post(
            "/consent", **form(hidden(self.page) | {"agree": "yes"}), follow_redirects=True
        ).text
        return self

    def send(self, answers: Any = None, **changes: str) -> Any:
        """Post the page, with its first choices where no answers are given; returns the reply."""
        own = list((hidden(self.page) | changes).items())
        answers = first_answers(self.page) if answers is None else answers
        reply = self.client.post(f"/study/{stage_of(self.page)}", **form([*own, *answers]), follow_redirects=True)
        self.page = reply.text
        return reply

    def walk_to(self, stage: str) -> Walker:
        """Answer until a stage is reached."""
        for _ in range(60):
            if stage_of(self.page) == stage:
                return self
            assert self.send().status_code == 200, self.page
        raise AssertionError(f"never came to {stage}: {self.page}")
