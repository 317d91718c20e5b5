"""Label packs: the replies of a labelling run as JSON lines, to be shared and replayed without a network.

The first line says which format this is and how the labeller was set; every other line is one reply under the key of
its request. Pictures are not in it, only their hashes: whoever has the same pictures can replay the pack.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fledge.core.errors import DataError
from fledge.core.files import parse_json, to_json

FORMAT = {"format": "fledge-label-pack", "version": 1}


@dataclass(frozen=True)
class Reply:
    """What came back for a request."""

    body: Mapping[str, Any]
    """The chat completion as it came."""
    prompt_tokens: int
    completion_tokens: int
    latency: float
    """Seconds."""
    time: float
    """Unix time in seconds."""


@dataclass(frozen=True)
class Recorded:
    """A reply with its request."""

    key: str
    request: Mapping[str, Any]
    """What `data.prompts.cache_key` was taken of."""
    reply: Reply


def to_pack(labellers: Iterable[Mapping[str, Any]], rows: Iterable[Recorded]) -> str:
    """The text of a pack."""
    head = {**FORMAT, "labellers": list(labellers)}
    lines = [head, *({"key": row.key, "request": dict(row.request), **asdict(row.reply)} for row in rows)]
    return "".join(to_json(line) + "\n" for line in lines)


def from_pack(text: str, path: Path) -> tuple[list[dict[str, Any]], Iterator[Recorded]]:
    """The labellers' settings and the replies of a pack.

    Raises:
        DataError: it is no pack, or a line is damaged; names the line.
    """
    head, *lines = text.split("\n") or [""]
    about = parse_json(head, path, "label pack")
    if not isinstance(about, dict) or {name: about.get(name) for name in FORMAT} != FORMAT:
        raise DataError(f"{path}, line 1: this is no label pack of version 1. Make one with: fledge feedback pack.")
    return list(about.get("labellers", ())), _rows(lines, path)


def _rows(lines: Iterable[str], path: Path) -> Iterator[Recorded]:
    for number, line in enumerate(lines, start=2):
        if not line:
            continue
        row = parse_json(line, path, "label pack", line=number)
        try:
            reply = Reply(
                dict(row["body"]),
                int(row["prompt_tokens"]),
                int(row["completion_tokens"]),
                float(row["latency"]),
                float(row["time"]),
            )
            yield Recorded(str(row["key"]), dict(row["request"]), reply)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}, line {number}: this is no reply of a label pack ({error!r}). Delete it."
            ) from None
