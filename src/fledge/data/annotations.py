"""The long table of annotations as a value and as files: one row per answer, all revisions and missing codes kept.

Columns of `.csv` and `.parquet`, and keys of `.jsonl`, are `COLUMNS`. `position` counts from 1 in files (0: there is
none) and from 0 in `Annotation`. `missing_code` says why there is no `value`; `probability` and `attributes` (the
annotator's) are JSON. What is read back equals what was written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fledge.core.annotations import Annotation
from fledge.core.errors import ConfigError, DataError, FledgeError, nearest, need
from fledge.core.files import csv_rows, parse_json, read_text, to_csv, write_text

COLUMNS = (
    "item",
    "annotator",
    "condition",
    "construct",
    "value",
    "missing_code",
    "position",
    "text",
    "probability",
    "mode",
    "instrument",
    "screen",
    "sweep",
    "asked_order",
    "replicate",
    "revision",
    "source",
    "shown",
    "submitted",
    "raw",
    "attributes",
)
_WHOLE = ("position", "screen", "sweep", "asked_order", "replicate", "revision")
_TIMES = ("shown", "submitted")
_OBJECTS = ("probability", "attributes")
_OPTIONAL = dict.fromkeys(COLUMNS[4:], "") | {"source": "human"} | dict.fromkeys(_WHOLE, 0) | {"screen": -1}
Row = dict[str, Any]
"""A row as it stands in a file: `COLUMNS` → value, objects still objects."""


@dataclass(frozen=True)
class AnnotationTable:
    """Annotations, the texts of their items, and the attributes of their annotators."""

    rows: tuple[Annotation, ...]
    texts: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        items, people = {row.item for row in self.rows}, {row.annotator for row in self.rows}
        texts = {item: text for item, text in self.texts.items() if text and item in items}
        known = {name: dict(answers) for name, answers in self.attributes.items() if answers and name in people}
        object.__setattr__(self, "texts", texts)
        object.__setattr__(self, "attributes", known)

    def last(self) -> AnnotationTable:
        """Only the last revision of each answer."""
        kept: dict[tuple[Any, ...], Annotation] = {}
        for row in self.rows:
            key = (row.item, row.annotator, row.condition, row.construct, row.replicate)
            if key not in kept or row.revision >= kept[key].revision:
                kept[key] = row
        return replace(self, rows=tuple(kept.values()))

    def records(self) -> list[Row]:
        """Every row with the names of `COLUMNS`."""
        return [self._record(row) for row in self.rows]

    def frame(self) -> Any:
        """A pandas DataFrame: `COLUMNS`, with each attribute of annotators as a column `attribute.<name>`.

        `value` is text; missing ones are None and `missing_code` says why.

        Raises:
            MissingExtra: pandas is not installed.
        """
        pandas = need("pandas", "annotate")
        names = sorted({name for answers in self.attributes.values() for name in answers})
        rows = []
        for record in self.records():
            answers = record.pop("attributes") or {}
            rows.append(record | {f"attribute.{name}": answers.get(name) for name in names})
        columns = [*COLUMNS[:-1], *(f"attribute.{name}" for name in names)]
        return pandas.DataFrame(rows, columns=columns)

    def _record(self, row: Annotation) -> Row:
        values = {name: getattr(row, name) for name in COLUMNS if hasattr(row, name)}
        return (
            dict.fromkeys(COLUMNS)
            | values
            | {
                "missing_code": row.missing,
                "position": row.position + 1,
                "text": self.texts.get(row.item, ""),
                "probability": dict(row.probability) if row.probability is not None else None,
                "attributes": self.attributes.get(row.annotator) or None,
            }
        )


def table_of(records: Iterable[Mapping[str, Any]], path: Path, first_line: int = 1) -> AnnotationTable:
    """The table of records as `AnnotationTable.records` gives them; what may be left out has a default.

    Raises:
        DataError: names the file and the line of the first record that is wrong.
    """
    rows: list[Annotation] = []
    texts: dict[str, str] = {}
    attributes: dict[str, dict[str, str]] = {}
    for line, record in enumerate(records, first_line):
        try:
            row = annotation_of(record)
        except (FledgeError, ValueError, TypeError) as error:
            raise DataError(f"{path}, line {line}: {error} Mend or delete that row.") from None
        rows.append(row)
        texts.setdefault(row.item, str(record.get("text") or ""))
        if record.get("attributes"):
            attributes.setdefault(row.annotator, {k: str(v) for k, v in dict(record["attributes"]).items()})
    return AnnotationTable(tuple(rows), texts, attributes)


def annotation_of(record: Mapping[str, Any]) -> Annotation:
    """One annotation of a record.

    Raises:
        ConfigError: a column is unknown or missing, or a value is none of its kind.
    """
    for name in record:
        if name not in COLUMNS:
            raise ConfigError(f"There is no column '{name}'. {nearest(str(name), COLUMNS)}")
    for name in ("item", "annotator", "construct"):
        if record.get(name) in (None, ""):
            raise ConfigError(f"'{name}' is empty.")
    known = {name: value for name, value in record.items() if value is not None}
    given = _OPTIONAL | known
    probability = given["probability"] or None
    if probability is not None:
        probability = {str(k): float(v) for k, v in dict(probability).items()}
    return Annotation(
        item=str(given["item"]),
        construct=str(given["construct"]),
        annotator=str(given["annotator"]),
        value=None if given["missing_code"] else str(given["value"]),
        missing=str(given["missing_code"]),
        probability=probability,
        mode=str(given["mode"]),
        instrument=str(given["instrument"]),
        condition=str(given.get("condition", "")),
        screen=_whole(given["screen"]),
        position=_whole(given["position"]) - 1,
        sweep=_whole(given["sweep"]),
        asked_order=_whole(given["asked_order"]),
        replicate=_whole(given["replicate"]),
        revision=_whole(given["revision"]),
        source=str(given["source"]),
        shown=_time(given["shown"]),
        submitted=_time(given["submitted"]),
        raw=str(given["raw"]),
    )


def write_table(path: Path | str, table: AnnotationTable) -> Path:
    """Write a `.csv`, `.parquet` or `.jsonl` file.

    Raises:
        DataError: the ending is none of these.
        MissingExtra: pyarrow is not installed (`.parquet`).
    """
    path = Path(path)
    if path.suffix == ".csv":
        return write_text(path, csv_text(table))
    if path.suffix == ".jsonl":
        return write_text(path, jsonl_text(table))
    if path.suffix == ".parquet":
        return _write_parquet(path, table)
    raise DataError(f"{path} ends in '{path.suffix}'. Tables are .csv, .parquet or .jsonl.")


def write_answers(path: Path | str, answers: Iterable[Annotation]) -> Path:
    """Write answers alone, as `write_table` does: what is recorded once can be shared and replayed."""
    return write_table(path, AnnotationTable(tuple(answers)))


def read_answers(path: Path | str) -> list[Annotation]:
    """The last revision of each answer of a table: of `write_answers`, or of an export of the annotation page.

    Raises:
        DataError: as `read_table`.
    """
    return list(read_table(path).last().rows)


def read_table(path: Path | str) -> AnnotationTable:
    """Read what `write_table` wrote. A CSV or JSONL file may leave out columns after `construct`, except `value`.

    Raises:
        DataError: names the file and the line where it is wrong.
        MissingExtra: pyarrow is not installed (`.parquet`).
    """
    path = Path(path)
    if path.suffix == ".csv":
        text = read_text(path, "table of annotations")
        columns = _header(text, path)
        return table_of((_parsed(dict(zip(columns, cells, strict=True)), path, line)
                         for line, cells in csv_rows(text, columns, path)), path, 2)  # fmt: skip
    if path.suffix == ".jsonl":
        lines = [line for line in read_text(path, "table of annotations").split("\n") if line.strip()]
        return table_of(
            (_object(parse_json(line, path, "row", line=i), path, i) for i, line in enumerate(lines, 1)), path
        )
    if path.suffix == ".parquet":
        return _read_parquet(path)
    raise DataError(f"{path} ends in '{path.suffix}'. Tables are .csv, .parquet or .jsonl.")


def csv_text(table: AnnotationTable) -> str:
    """The table as CSV."""
    return to_csv(COLUMNS, ([_flat(name, row[name]) for name in COLUMNS] for row in table.records()))


def jsonl_text(table: AnnotationTable) -> str:
    """The table as one JSON object per line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table.records())


def _flat(name: str, value: Any) -> Any:
    if name in _OBJECTS and value is not None:
        return json.dumps(value, ensure_ascii=False)
    return value


def _header(text: str, path: Path) -> Sequence[str]:
    columns = tuple(text.split("\n", 1)[0].strip("\r\ufeff").split(","))
    for name in ("item", "annotator", "construct", "value"):
        if name not in columns:
            raise DataError(f"{path}, line 1: the column '{name}' is missing. {nearest(name, columns)}")
    return columns


def _parsed(row: Row, path: Path, line: int) -> Row:
    """Cells of a CSV row → values; an empty cell is None, but an empty answer is an answer."""
    value, code = row.get("value", ""), row.get("missing_code", "")
    found: Row = {name: cell or None for name, cell in row.items()}
    found["value"] = None if code else value
    for name in _OBJECTS:
        if found.get(name):
            found[name] = _object(parse_json(str(found[name]), path, name, line=line), path, line)
    return found


def _object(value: Any, path: Path, line: int) -> Row:
    if not isinstance(value, dict):
        raise DataError(f"{path}, line {line}: a JSON object was wanted, not {type(value).__name__}.")
    return value


def _whole(value: Any) -> int:
    number = float(value)
    if number != int(number):
        raise ValueError(f"a whole number was wanted, not {value!r}.")
    return int(number)


def _time(value: Any) -> float | None:
    return None if value in (None, "") else float(value)


def _write_parquet(path: Path, table: AnnotationTable) -> Path:
    arrow, parquet = need("pyarrow", "annotate"), need("pyarrow.parquet", "annotate")
    kinds = dict.fromkeys(COLUMNS, arrow.string()) | dict.fromkeys(_WHOLE, arrow.int64())
    kinds |= dict.fromkeys(_TIMES, arrow.float64())
    records = [{name: _flat(name, row[name]) for name in COLUMNS} for row in table.records()]
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    parquet.write_table(arrow.Table.from_pylist(records, schema=arrow.schema(list(kinds.items()))), beside)
    beside.replace(path)
    return path


def _read_parquet(path: Path) -> AnnotationTable:
    arrow, parquet = need("pyarrow", "annotate"), need("pyarrow.parquet", "annotate")
    try:
        records = parquet.read_table(path).to_pylist()
    except (OSError, arrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}. Export it again.") from None
    for line, record in enumerate(records, 1):
        for name in _OBJECTS:
            if isinstance(record.get(name), str):
                record[name] = parse_json(record[name], path, name, line=line)
    return table_of(records, path)
