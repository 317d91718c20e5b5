"""Annotations as other tools keep them: Label Studio's JSON, Argilla's records, Prodigy's JSONL.

What Fledge writes carries the rows' details (condition, position, times, …) beside the tool's own fields and reads back
to the same table; an answer that was changed in the tool meanwhile is read as changed. Files that the tools made
themselves are read too; what they do not say stays empty.

- Label Studio: a control is a construct; several chosen choices are joined by `|`; a cancelled annotation is `refused`.
- Argilla: a question is a construct; version 2 (`responses` by question) and version 1 (a list of users) are read.
- Prodigy: a task with a `label` is a construct answered 1 (accept) or 0 (reject); one with `options` is the construct
  `construct`, `question` or "choice" of the task, or, where several may be chosen, a construct for each option.
  `ignore` is `refused`.
"""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fledge.core.errors import DataError, unknown
from fledge.core.files import parse_json, read_text, write_text
from fledge.data.annotations import AnnotationTable, Row, read_table, table_of, write_table

FORMATS = ("csv", "parquet", "jsonl", "label-studio", "argilla", "prodigy")
OURS = "fledge"
_KEPT_ELSEWHERE = ("item", "text")


def write_as(path: Path | str, table: AnnotationTable, form: str) -> Path:
    """Write a table in one of `FORMATS`.

    Raises:
        ConfigError: there is no such format.
    """
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    if form in FORMATS[:3]:
        return write_table(Path(path).with_suffix(f".{form}"), table)
    if form == "prodigy":
        return write_text(Path(path), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in prodigy(table)))
    rows = label_studio(table) if form == "label-studio" else argilla(table)
    return write_text(Path(path), json.dumps(rows, ensure_ascii=False, indent=1))


def read_as(path: Path | str, form: str) -> AnnotationTable:
    """Read a table in one of `FORMATS`.

    Raises:
        ConfigError: there is no such format.
        DataError: the file is not in it.
    """
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    if form in FORMATS[:3]:
        return read_table(path)
    path = Path(path)
    text = read_text(path, f"{form} file")
    if form == "prodigy":
        entries = [parse_json(line, path, "task", line=i) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    else:
        entries = parse_json(text, path, "list of tasks")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{path}: a list of JSON objects was wanted. Export it from {form} again, as JSON.")
    parse = {"label-studio": _from_label_studio, "argilla": _from_argilla, "prodigy": _from_prodigy}[form]
    records: list[Row] = []
    for i, entry in enumerate(entries, 1):
        try:
            records += parse(entry)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"{path}, entry {i}: not as {form} writes it ({error!r}). Export it again.") from None
    return table_of(records, path)


def label_studio(table: AnnotationTable) -> list[dict[str, Any]]:
    """One task per item; one annotation per annotator and screen; one result per answer."""
    tasks: dict[str, dict[str, Any]] = {}
    people = {name: i for i, name in enumerate(dict.fromkeys(row.annotator for row in table.rows), 1)}
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in table.records():
        groups[
            row["item"], row["annotator"], row["condition"], row["screen"], row["replicate"], row["revision"]
        ].append(row)
    for number, (key, rows) in enumerate(groups.items(), 1):
        item, annotator = key[:2]
        data = {"item": item, "text": rows[0]["text"]}
        task = tasks.setdefault(item, {"id": len(tasks) + 1, "data": data, "annotations": [], "predictions": []})
        took = [row["submitted"] - row["shown"] for row in rows if None not in (row["submitted"], row["shown"])]
        task["annotations"].append(
            {
                "id": number,
                "completed_by": {"id": people[annotator], "username": annotator},
                "lead_time": max(took) if took else None,
                "was_cancelled": all(row["missing_code"] == "refused" for row in rows),
                "ground_truth": False,
                "result": [_result(row, f"{number}-{i}") for i, row in enumerate(rows)],
            }
        )
    return list(tasks.values())


def _result(row: Row, name: str) -> dict[str, Any]:
    value = {"choices": [] if row["value"] is None else [row["value"]]}
    control = {"id": name, "from_name": row["construct"], "to_name": "text", "type": "choices", "value": value}
    return control | {"meta": {OURS: _details(row)}}


def _from_label_studio(task: Mapping[str, Any]) -> Iterator[Row]:
    data = task["data"]
    item = str(data.get("item") or data.get("id") or task.get("id"))
    text = str(data.get("text") or "")
    controls = dict.fromkeys(r["from_name"] for a in task["annotations"] for r in a.get("result", []))
    for annotation in task["annotations"]:
        who = annotation.get("completed_by")
        if isinstance(who, dict):
            who = who.get("username") or who.get("email") or who.get("id")
        common = {"item": item, "text": text, "annotator": str(who if who is not None else annotation.get("id"))}
        results = annotation.get("result", [])
        if annotation.get("was_cancelled") and not results:
            yield from (common | {"construct": name, "missing_code": "refused"} for name in controls or ("task",))
        for result in results:
            ours = (result.get("meta") or {}).get(OURS) or {}
            chosen = _chosen(result["value"])
            yield ours | common | {"construct": result["from_name"]} | _answer(ours, chosen)


def _chosen(value: Mapping[str, Any]) -> str | None:
    for key in ("choices", "labels", "taxonomy", "text"):
        if key in value:
            parts = value[key] if isinstance(value[key], list) else [value[key]]
            return "|".join(p if isinstance(p, str) else json.dumps(p) for p in parts) if parts else None
    scalar = next((value[key] for key in ("rating", "number", "selected", "datetime") if key in value), None)
    return json.dumps(value, sort_keys=True) if scalar is None else str(scalar)


def _answer(ours: Mapping[str, Any], value: str | None, code: str = "refused") -> Row:
    """The value of the tool's own field; where it has none, the code that was there before, or `code`."""
    if value is not None:
        return {"value": value, "missing_code": ""}
    return {"value": None, "missing_code": ours.get("missing_code") or code}


def _details(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in _KEPT_ELSEWHERE and value is not None}


def argilla(table: AnnotationTable) -> list[dict[str, Any]]:
    """One record per item, as version 2 writes them; details as JSON text in the metadata."""
    records: dict[str, dict[str, Any]] = {}
    for row in table.records():
        empty: dict[str, Any] = {"responses": defaultdict(list), "metadata": {OURS: []}}
        shell = {"id": row["item"], "fields": {"text": row["text"]}, "suggestions": {}, "vectors": {}}
        record = records.setdefault(row["item"], shell | {"status": "completed"} | empty)
        record["metadata"][OURS].append(_details(row))
        if row["value"] is not None:
            response = {"value": row["value"], "user_id": row["annotator"], "status": "submitted"}
            record["responses"][row["construct"]].append(response)
    for record in records.values():
        record["metadata"][OURS] = json.dumps(record["metadata"][OURS], ensure_ascii=False)
    return list(records.values())


def _from_argilla(record: Mapping[str, Any]) -> Iterator[Row]:
    fields = record.get("fields") or {}
    text = str(fields.get("text") or next((v for v in fields.values() if isinstance(v, str)), ""))
    common = {"item": str(record.get("id") or record.get("external_id") or record.get("_server_id")), "text": text}
    details: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for detail in json.loads((record.get("metadata") or {}).get(OURS) or "[]"):
        if detail.get("missing_code"):
            yield detail | common
        else:
            details[detail["construct"], detail["annotator"]].append(detail)
    for construct, user, value in _responses(record.get("responses") or {}):
        known = details[construct, user]
        ours = known.pop(0) if known else {}
        yield ours | common | {"construct": construct, "annotator": user} | _answer(ours, value)


def _responses(responses: Any) -> Iterator[tuple[str, str, str | None]]:
    """(question, user, answer) of version 2 (a mapping) and of version 1 (a list)."""
    if isinstance(responses, Mapping):
        for question, answers in responses.items():
            for answer in answers:
                discarded = answer.get("status") == "discarded"
                yield question, str(answer.get("user_id")), None if discarded else _plain(answer["value"])
        return
    for answer in responses:
        for question, value in (answer.get("values") or {}).items():
            discarded = answer.get("status") == "discarded"
            yield question, str(answer.get("user_id")), None if discarded else _plain(value["value"])


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "|".join(value)
    return json.dumps(value, sort_keys=True)


def prodigy(table: AnnotationTable) -> list[dict[str, Any]]:
    """One task per answer, as the `choice` interface writes them."""
    seen: dict[str, dict[str, None]] = defaultdict(dict)
    for row in table.rows:
        if row.value is not None:
            seen[row.construct][row.value] = None
    tasks = []
    for record in table.records():
        task = {
            "text": record["text"],
            "construct": record["construct"],
            "options": [{"id": value, "text": value} for value in seen[record["construct"]]],
            "accept": [] if record["value"] is None else [record["value"]],
            "answer": "ignore" if record["value"] is None else "accept",
            "meta": {"item": record["item"]},
            "_view_id": "choice",
            "_annotator_id": record["annotator"],
            "_session_id": record["annotator"],
            "_input_hash": _hash(record["item"]),
            "_task_hash": _hash(record["item"] + "\0" + record["construct"]),
        }
        if record["submitted"] is not None:
            task["_timestamp"] = int(record["submitted"])
        tasks.append(task | {OURS: _details(record)})
    return tasks


def _from_prodigy(task: Mapping[str, Any]) -> Iterator[Row]:
    ours = task.get(OURS) or {}
    meta = task.get("meta") or {}
    item = meta.get("item") or meta.get("id") or task.get("id") or task["_input_hash"]
    who = task.get("_annotator_id") or task.get("_session_id") or ours.get("annotator") or "annotator"
    common = dict(ours) | {"item": str(item), "text": str(task.get("text") or ""), "annotator": str(who)}
    if "submitted" not in common and "_timestamp" in task:
        common["submitted"] = float(task["_timestamp"])
    if "options" not in task:
        name = task.get("label", "label")
        value = {"accept": "1", "reject": "0"}.get(str(task.get("answer")))
        yield common | {"construct": str(name)} | _answer(ours, value)
        return
    accepted = [str(value) for value in task.get("accept") or []]
    kept = task.get("answer") == "accept"
    if (task.get("config") or {}).get("choice_style") == "multiple":
        for option in task["options"]:
            value = str(int(str(option["id"]) in accepted)) if kept else None
            yield common | {"construct": str(option["id"])} | _answer(ours, value)
        return
    name = str(task.get("construct") or task.get("question") or "choice")
    yield common | {"construct": name} | _answer(ours, "|".join(accepted) if kept and accepted else None)


def _hash(text: str) -> int:
    """A signed 32-bit number, as Prodigy's are (by another hash)."""
    number = zlib.crc32(text.encode("utf-8", "surrogatepass"))
    return number - 2**32 if number >= 2**31 else number
