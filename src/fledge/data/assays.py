"""Assays: the measured variants of one protein, from a file of one's own or from a folder of many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from fledge.core.errors import DataError, nearest
from fledge.data.measurements import Normalise, normalise_rounds, read_scores
from fledge.data.mutations import Offset, Variants, derive_wild_type, parse
from fledge.data.residues import check_sequence
from fledge.data.tables import Table, is_fasta, read_fasta, read_table

MUTANT_COLUMNS = ("mutant", "mutation", "mutations", "mutants", "variant", "variants", "mutant_id", "hgvs", "hgvs_pro")
SEQUENCE_COLUMNS = ("mutated_sequence", "sequence", "seq", "aa_sequence", "protein_sequence")
SCORE_COLUMNS = ("dms_score", "score", "fitness", "activity", "y", "value", "measurement", "label")


@dataclass(frozen=True, eq=False)
class Assay:
    """One landscape: a wild type and its variants with their scores; higher is fitter."""

    name: str
    wild_type: str
    variants: Variants
    scores: Float[np.ndarray, " variant"]
    """NaN where nothing was measured, −inf below detection."""
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What else the file has, row by row."""
    set: str = ""
    """Where it belongs in a library: "assay" or "domain"."""

    def __len__(self) -> int:
        return len(self.variants)


def read_wild_type(source: str | Path) -> str:
    """A wild-type sequence: the sequence itself, or a FASTA file that holds just one.

    Raises:
        DataError: neither of the two.
    """
    text = str(source)
    if is_fasta(text) or _is_file(text):
        found = read_fasta(text)
        if len(found) > 1:
            raise DataError(f"{text} has {len(found)} sequences; the wild type is one. Leave only it in the file.")
        text = next(iter(found.values()))
    return check_sequence(text)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # a sequence that is too long for a file's name
        return False


def read_assay(
    path: Path | str,
    wild_type: str | None = None,
    *,
    name: str = "",
    variant: str = "",
    score: str = "",
    offset: Offset = 0,
    scored: bool = True,
) -> Assay:
    """The variants of a CSV, TSV, XLSX or FASTA file.

    Args:
        path: of the file; .gz is unpacked. Sequences of a FASTA file are variants without scores.
        wild_type: its sequence; None derives it from the mutation strings where they cover every position.
        name: what to call it; by default the file's name.
        variant: the column of mutation strings or full sequences; by default the first known name.
        score: the column of scores; by default the first known name.
        offset: see `fledge.data.mutations.parse`.
        scored: whether there have to be scores.

    Raises:
        DataError: the file, a column or rows of it are not as promised; bad rows are listed together.
    """
    path = Path(path)
    name = name or path.name.removesuffix(".gz").rsplit(".", 1)[0]
    table = _fasta_table(path) if is_fasta(path) else read_table(path)
    if not len(table):
        raise DataError(f"{path} has a header, but no variant below it. Add a line per variant.")
    texts = table.column(variant) if variant else _column(table, (*MUTANT_COLUMNS, *SEQUENCE_COLUMNS), "variant")
    rows = [f"line {i + 2}" for i in range(len(table))]
    found = score or table.first_of(SCORE_COLUMNS)
    if found:
        scores = read_scores(table.column(found), rows)
    elif scored:
        _column(table, SCORE_COLUMNS, "score")
    scores = scores if found else np.full(len(table), np.nan)
    if wild_type is None:
        wild_type = derive_wild_type(texts, offset=offset)
    wild_type = check_sequence(wild_type)
    try:
        variants = parse(texts, wild_type, offset=offset, rows=rows)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    used = {id(texts), id(table.column(found)) if found else 0}
    extra = {key: cells for key, cells in table.columns.items() if id(cells) not in used}
    return Assay(name, wild_type, variants, scores, extra)


def normalised(assay: Assay, rounds: str = "", *, how: Normalise = "standardise") -> Assay:
    """The assay with the scores of its rounds or plates on one scale (`measurements.normalise_rounds`).

    Args:
        assay: read from a file.
        rounds: its column that says which round a row belongs to; all are of one if it is empty.
        how: "standardise", "wild_type" (divide by the round's wild-type rows) or "none".

    Raises:
        ConfigError: `how` is none of these.
        DataError: there is no such column, or a round cannot be normalised.
    """
    if rounds and rounds not in assay.columns:
        raise DataError(f"There is no column '{rounds}' of rounds. {nearest(rounds, assay.columns)}")
    column = assay.columns[rounds] if rounds else None
    scores = normalise_rounds(assay.scores, column, how=how, is_wild_type=assay.variants.counts == 0)
    return replace(assay, scores=scores)


def _fasta_table(path: Path) -> Table:
    sequences = read_fasta(path)
    return Table({"name": list(sequences), "sequence": list(sequences.values())}, path)


def _column(table: Table, names: tuple[str, ...], what: str) -> list[str]:
    found = table.first_of(names)
    if found is None:
        raise DataError(
            f"{table.path} has no {what} column. It has: {', '.join(table.columns)}. Looked for: "
            f"{', '.join(names)}. Rename the column, or name it ({what}=…, --{what})."
        )
    return table.columns[found]


class Library:
    """A folder of assays: `index.csv` (name, set, length, variants, target_seq), `assays/` and `domains/`.

    Files are read when they are asked for.
    """

    def __init__(self, folder: Path | str) -> None:
        """Read the index.

        Raises:
            DataError: there is no such folder, or its index lacks a column.
        """
        self.folder = Path(folder)
        if not (self.folder / "index.csv").is_file():
            raise DataError(
                f"{self.folder} is no folder of assays: there is no index.csv in it (columns name, set, length, "
                "variants, target_seq; the files are <set>s/<name>.csv.gz)."
            )
        index = read_table(self.folder / "index.csv")
        columns = [index.column(name) for name in ("name", "set", "target_seq")]
        self.sets: dict[str, str] = dict(zip(columns[0], columns[1], strict=True))
        self.wild_types: dict[str, str] = dict(zip(columns[0], columns[2], strict=True))

    def names(self, which: str | None = None) -> list[str]:
        """Of all assays, or of those of a set."""
        return [name for name, kind in self.sets.items() if which in (None, kind)]

    def read(self, name: str) -> Assay:
        """One of them.

        Raises:
            DataError: there is none of that name, or its file is damaged.
        """
        if name not in self.sets:
            raise DataError(f"{self.folder} has no assay '{name}'. {nearest(name, self.sets)}")
        kind = self.sets[name]
        for ending in (".csv.gz", ".csv"):
            path = self.folder / f"{kind}s" / f"{name}{ending}"
            if path.exists():
                assay = read_assay(path, self.wild_types[name], name=name)
                return Assay(name, assay.wild_type, assay.variants, assay.scores, assay.columns, kind)
        raise DataError(f"{self.folder / f'{kind}s'} has no file {name}.csv.gz, though index.csv names it.")
