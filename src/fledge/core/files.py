"""Reading and writing small files so that a kill never leaves half of one, and damage is named by file and line."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fledge.core.errors import DataError, nearest


def write_text(path: Path, text: str) -> Path:
    """Write a whole file or nothing: into a temporary file beside it, flushed to disk, then renamed over `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def read_text(path: Path, what: str) -> str:
    """The text of a file.

    Raises:
        DataError: it is missing, a folder, or not UTF-8 text.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            return file.read()
    except FileNotFoundError:
        raise DataError(f"There is no {what} at {path}. Check the folder's name, or make the file by a run.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as {what}: {error}. Restore it from a copy, or run again.") from None


def parse_json(text: str, path: Path, what: str, *, line: int = 1) -> Any:
    """The value of JSON text; `line` is where the text starts in its file.

    Raises:
        DataError: names the file and the line where it breaks.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        at = line + getattr(error, "lineno", 1) - 1
        why = getattr(error, "msg", "it is nested too deeply")
        raise DataError(
            f"{path}, line {at}: this is not whole JSON ({why}). The {what} was cut short or edited by hand; "
            "mend or delete that line, or make the file again."
        ) from None


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON: numbers that JSON has no word for (NaN, infinities) become null."""
    return json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV text with a header; floats keep every digit that matters, None becomes an empty cell."""
    return "".join(",".join(map(_cell, row)) + "\n" for row in (columns, *rows))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):  # numpy's float64 too
        number = float(value)
        whole = number.is_integer() and abs(number) < 2**53 and math.copysign(1, number) > 0
        return str(int(number)) if whole else repr(number)
    text = str(value)
    # Written by hand: the csv module of Python 3.11 leaves a lone carriage return unquoted and then cannot read it.
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text


def csv_rows(text: str, columns: Sequence[str], path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of CSV text as (line, cells), in the order of `columns`.

    Raises:
        DataError: the header lacks or invents a column, or a row has another number of cells.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        order = _order(next(reader, []), columns, path)
        for cells in reader:
            if len(cells) != len(columns):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells came where {len(columns)} were wanted "
                    f"({','.join(columns)}). The file was cut short or a comma is not quoted; mend or delete that line."
                )
            yield reader.line_num, [cells[i] for i in order]
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: this is not CSV ({error}). Mend or delete that line."
        ) from None


def _order(header: list[str], columns: Sequence[str], path: Path) -> list[int]:
    for name in header:
        if name not in columns:
            raise DataError(f"{path}, line 1: there is no column '{name}'. {nearest(name, columns)}")
    missing = [name for name in columns if name not in header]
    if missing or len(header) != len(columns):
        raise DataError(
            f"{path}, line 1: the header is '{','.join(header)}', but exactly '{','.join(columns)}' was wanted"
            + (f"; missing: {', '.join(missing)}." if missing else ".")
        )
    return [header.index(name) for name in columns]


def number(text: str, column: str, path: Path, line: int) -> float:
    """A cell as a number.

    Raises:
        DataError: it is not one.
    """
    try:
        return float(text)
    except ValueError:
        raise DataError(
            f"{path}, line {line}: '{text}' in column '{column}' is not a number. Write nan for a missing measurement."
        ) from None


def one_of(name: str, known: Iterable[str], what: str, path: Path, line: int) -> str:
    """The name, if it is known.

    Raises:
        DataError: names the nearest that is.
    """
    known = tuple(known)
    if name not in known:
        raise DataError(f"{path}, line {line}: there is no {what} '{name}'. {nearest(name, known)}")
    return name
