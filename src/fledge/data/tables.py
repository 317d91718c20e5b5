"""Tables and sequences in files: CSV, TSV, XLSX and FASTA, packed or not, as columns of text."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fledge.core.errors import DataError, nearest, need

_FASTA = (".fasta", ".fa", ".faa", ".fas")


@dataclass(frozen=True)
class Table:
    """Columns of text, all of one length."""

    columns: Mapping[str, list[str]]
    path: Path

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def column(self, name: str) -> list[str]:
        """A column by its name, in any case.

        Raises:
            DataError: there is none; names the nearest.
        """
        for known, cells in self.columns.items():
            if known.lower() == name.lower():
                return cells
        raise DataError(f"{self.path} has no column '{name}'. {nearest(name, self.columns)}")

    def first_of(self, names: tuple[str, ...]) -> str | None:
        """The first of these column names that the table has, as the table spells it."""
        lower = {known.lower(): known for known in self.columns}
        return next((lower[name] for name in names if name in lower), None)


def read_table(path: Path | str) -> Table:
    """A table with a header line: CSV, TSV (also packed with gzip) or the first sheet of an XLSX file.

    Raises:
        DataError: the file is missing, empty, not such a table, or names the line with another number of cells.
        MissingExtra: it is XLSX and openpyxl is not installed.
    """
    path = Path(path)
    rows = _xlsx_rows(path) if path.suffix.lower() in (".xlsx", ".xlsm") else _text_rows(path)
    if not rows or not any(cell.strip() for cell in rows[0]):
        raise DataError(f"{path} is empty. A table has a header line, such as 'mutant,score', and a line per variant.")
    header = [cell.strip().lstrip("\ufeff") for cell in rows[0]]
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise DataError(f"{path} has two columns called '{twice[0]}'. Rename one.")
    kept = [row for row in rows[1:] if any(cell.strip() for cell in row)]
    for i, row in enumerate(kept, 2):
        if len(row) != len(header):
            raise DataError(
                f"{path}, line {i}: {len(row)} cells came where the header has {len(header)} "
                f"({', '.join(header)}). Mend or delete that line; a comma inside a cell needs quotes."
            )
    return Table({name: [row[j].strip() for row in kept] for j, name in enumerate(header) if name}, path)


def _text_rows(path: Path) -> list[list[str]]:
    text = read_packed(path)
    first = text.split("\n", 1)[0]
    delimiter = max("\t,;", key=first.count) if any(mark in first for mark in "\t,;") else ","
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DataError(f"{path} is not a table of text ({error}). Save it as CSV.") from None


def read_packed(path: Path) -> str:
    """Text of a file, unpacked where its name ends in .gz.

    Raises:
        DataError: it is missing or is not such text.
    """
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"There is no file {path}. Check its name.") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}. Save it as CSV in UTF-8.") from None


def _xlsx_rows(path: Path) -> list[list[str]]:
    openpyxl = need("openpyxl", "protein")
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except FileNotFoundError:
        raise DataError(f"There is no file {path}. Check its name.") from None
    except Exception as error:  # openpyxl raises what its parsers raise
        raise DataError(f"{path} cannot be read as XLSX: {error}. Save it again, or as CSV.") from None
    rows = [
        ["" if cell is None else str(cell) for cell in row] for row in book.worksheets[0].iter_rows(values_only=True)
    ]
    book.close()
    used = [j for j, cell in enumerate(rows[0]) if cell.strip()] if rows else []
    return [[row[j] if j < len(row) else "" for j in used] for row in rows]


def is_fasta(path: Path | str) -> bool:
    """Whether a file's name says FASTA."""
    return Path(str(path).removesuffix(".gz")).suffix.lower() in _FASTA


def read_fasta(path: Path | str) -> dict[str, str]:
    """Name → sequence in capitals, in the file's order.

    Raises:
        DataError: the file is missing, or is no FASTA.
    """
    path = Path(path)
    found: dict[str, str] = {}
    name = None
    for line in read_packed(path).splitlines():
        line = line.strip()
        if line.startswith(">"):
            name = line[1:].split()[0] if line[1:].split() else f"sequence {len(found) + 1}"
            if name in found:
                raise DataError(f"{path} has two sequences called '{name}'. Rename one.")
            found[name] = ""
        elif line and name is None:
            raise DataError(f"{path} is no FASTA file: its first line does not begin with '>'.")
        elif line and name is not None:
            found[name] += line.upper()
    if not found:
        raise DataError(f"{path} has no sequence. A FASTA file has a line '>name' and the sequence below it.")
    return found
