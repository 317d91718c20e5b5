"""Reads the pages of the documentation and runs their blocks."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fledge.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(?P<lang>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTS = "prints"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    lang: str
    title: str
    body: str
    line: int


def pages() -> list[Path]:
    """Every page, the README included."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(m["lang"], m["title"] or "", m["body"], text.count("\n", 0, m.start()) + 1) for m in BLOCK.finditer(text)
    ]


def run_page(page: Path) -> int:
    """Run a page's blocks in order, in the current folder; returns how many ran.

    `python` and `bash` blocks run. A block whose title is a file name is written to that file. A `text` block with the
    title "prints" is compared with what the block before it printed. Anything else is only read by people.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    printed, count = "", 0
    for block in blocks(page):
        where = f"{page.name}, line {block.line}"
        if "." in block.title:
            Path(block.title).write_text(block.body, encoding="utf-8")
        elif block.lang == "python":
            printed, count = _python(block, page, names), count + 1
        elif block.lang == "bash":
            for line in block.body.splitlines():
                assert _command(line) == 0, f"{where}: '{line}' failed"
            printed, count = "", count + 1
        elif block.title == PRINTS:
            assert printed == block.body, f"{where}: printed {printed!r}"
    return count


def _python(block: Block, page: Path, names: dict[str, Any]) -> str:
    out = io.StringIO()
    code = compile("\n" * block.line + block.body, str(page), "exec")
    with contextlib.redirect_stdout(out):
        exec(code, names)
    return out.getvalue()


def _command(line: str) -> int:
    words = shlex.split(line, comments=True)
    assert words[0] == "fledge", f"only `fledge` runs here, not '{words[0]}'"
    with contextlib.redirect_stdout(io.StringIO()):
        return main(words[1:])
