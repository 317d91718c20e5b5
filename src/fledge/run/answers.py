"""Answers as JSON lines: what is recorded once can be used, shared and replayed without a network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path

from fledge.core.annotations import Annotation
from fledge.core.errors import DataError, FledgeError, nearest
from fledge.core.files import parse_json, read_text, to_json, write_text

_KNOWN = tuple(f.name for f in fields(Annotation))


def write_answers(path: Path, answers: Iterable[Annotation]) -> Path:
    """Write one answer per line, whole or not at all."""
    return write_text(path, "".join(to_json(asdict(answer)) + "\n" for answer in answers))


def read_answers(path: Path) -> list[Annotation]:
    """The answers of a file.

    Raises:
        DataError: the file is missing, or names the line that is no answer.
    """
    path, found = Path(path), []
    for line, text in enumerate(read_text(path, "answers (JSONL)").splitlines(), 1):
        if not text.strip():
            continue
        tree = parse_json(text, path, "file of answers", line=line)
        for key in tree if isinstance(tree, dict) else ():
            if key not in _KNOWN:
                raise DataError(f"{path}, line {line}: an answer has no '{key}'. {nearest(key, _KNOWN)}")
        try:
            found.append(Annotation(**tree))
        except (TypeError, FledgeError) as error:
            raise DataError(f"{path}, line {line}: this is no answer ({error}). Mend or delete that line.") from None
    return found
