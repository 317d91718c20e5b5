"""What was collected, ready to be analysed: the export of an annotation page, beside labels of language models.

Statistics need numbers. Answers to questions whose options are numbers stay as they are; of two options the first is
1 and the second 0 (a tie of a pair is 0.5). Other questions (free texts, three and more words) are left out and named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fledge.annotation.design import StudyDesign
from fledge.annotation.design_files import design_of
from fledge.annotation.frame import KEYS, Study, pandas, split_items
from fledge.core.annotations import Annotation
from fledge.core.errors import DataError
from fledge.core.files import parse_json, read_text
from fledge.core.instruments import Ask, Condition, Construct
from fledge.data.annotations import read_table

TABLE, SNAPSHOT, AUDIT = "annotations.jsonl", "study.json", "audit.json"
PEOPLE = "people"


@dataclass(frozen=True)
class Collected:
    """Answers, and what is known of how they came about."""

    study: Study
    design: StudyDesign
    assignment: Mapping[str, Any]
    """The audit of the page's randomisation; empty where nobody was randomised."""
    remarks: tuple[str, ...]
    """What a reader should know: questions that are left out, who answered."""


def is_export(path: Path | str) -> bool:
    """Whether a folder was written by `fledge annotate export` or `fledge annotate ask`."""
    return (Path(path) / TABLE).is_file() and (Path(path) / SNAPSHOT).is_file()


def read_collected(
    folder: Path | str, also: Sequence[Path | str] = (), *, test_frac: float = 0.25, seed: int = 0
) -> Collected:
    """The answers of an export, and of further folders or tables of the same study.

    Where people and models answered, each condition becomes two (`A, people` and `A, gpt-4o`): nothing is mixed.

    Args:
        folder: of `fledge annotate export` or `fledge annotate ask`.
        also: more such folders, or tables of annotations.
        test_frac: share of items to test models on.
        seed: of that division.

    Raises:
        DataError: a folder is no export, or holds no answer that is a number.
    """
    folder = Path(folder)
    if not is_export(folder):
        raise DataError(f"{folder} has no {TABLE} and {SNAPSHOT}. Make it with: fledge annotate export DATA --out DIR")
    snapshot = folder / SNAPSHOT
    design = design_of(parse_json(read_text(snapshot, "study"), snapshot, "study"), str(snapshot))
    tables = [read_table(path / TABLE if path.is_dir() else path) for path in (folder, *map(Path, also))]
    texts = {item: text for table in reversed(tables) for item, text in table.texts.items()}
    rows = [row for table in tables for row in table.last().rows if row.missing != "not_asked"]
    remarks: list[str] = []
    frame = _frame(rows, design, remarks)
    audit = folder / AUDIT
    assignment = parse_json(read_text(audit, "audit"), audit, "audit") if audit.exists() else {}
    known = texts if all(texts.get(item) for item in frame["item"].unique()) else {}
    study = Study.of(frame, design.name)
    study = split_items(Study(study.frame, known, {}, design.name), test_frac, seed)
    return Collected(study, design, assignment, tuple(remarks))


def _frame(rows: Sequence[Annotation], design: StudyDesign, remarks: list[str]) -> Any:
    constructs = {construct.name: construct for construct in design.instrument.constructs}
    strange = sorted({row.construct for row in rows} - set(constructs))
    if strange:
        raise DataError(f"Answers to '{strange[0]}' came, which the study '{design.name}' does not ask.")
    codes = {name: codes_of(construct) for name, construct in constructs.items()}
    left = [name for name, code in codes.items() if code is None]
    remarks += [f"{name} is not analysed: its answers are neither numbers nor one of two." for name in left]
    kinds = {_who(row) for row in rows}
    records = []
    for row in rows:
        code = codes[row.construct]
        if code is None:
            continue
        if row.value is not None and row.value not in code:
            raise DataError(f"'{row.value}' about item '{row.item}' is no answer to '{row.construct}' of this study.")
        condition = row.condition or "all"
        records.append(
            {
                "item": row.item,
                "annotator": row.annotator + (f" #{row.replicate}" if row.replicate else ""),
                "condition": f"{condition}, {_who(row)}" if len(kinds) > 1 else condition,
                "construct": row.construct,
                "value": None if row.value is None else code[row.value],
                "missing_code": row.missing,
                "position": row.position + 1,
            }
        )
    if not any(record["value"] is not None for record in records):
        raise DataError(f"The study '{design.name}' has no answer that could be analysed. Export it again later.")
    if len(kinds) > 1:
        remarks.append(f"Answers came from {', '.join(sorted(kinds))}; each is a condition of its own.")
    return pandas().DataFrame(records, columns=[*KEYS, "value", "missing_code", "position"])


def _who(row: Annotation) -> str:
    """People, or the name of the model before its conversation's number."""
    return PEOPLE if row.source == "human" else row.annotator.partition(", ")[0]


def codes_of(construct: Construct) -> dict[str, float] | None:
    """Answer → number; None where answers are no numbers."""
    values = [option.value for option in construct.options]
    try:
        return {value: float(value) for value in values} if values else None
    except ValueError:
        pass
    if len(values) == 2 or (len(values) == 3 and values[-1] == "tie"):
        return dict(zip(values, (1.0, 0.0, 0.5), strict=False))
    return None


def told(design: StudyDesign, condition: Condition) -> str:
    """How a condition asks, in words."""
    names = {construct.name: construct.label or construct.name for construct in design.instrument.constructs}
    sweeps = []
    for block in condition.blocks:
        screens = ", then ".join(_screen(ask, names) for ask in block.screens)
        sweeps.append(f"{'each item' if condition.batch == 1 else f'{condition.batch} items at a time'}: {screens}")
    lines = ["; ".join(f"pass {i}, {sweep}" for i, sweep in enumerate(sweeps, 1)) if len(sweeps) > 1 else sweeps[0]]
    lines += ["with a confidence"] * condition.confidence
    lines += [f"shuffled: {', '.join(condition.shuffle).replace('_', ' ')}"] if condition.shuffle else []
    return "; ".join(lines)


def _screen(ask: Ask, names: Mapping[str, str]) -> str:
    asked = " and ".join(names[name] for name in ask.constructs)
    asked = f"one choice of {asked}" if ask.style == "multi" else asked
    return f"{asked} (“{ask.dont_know}” offered)" if ask.dont_know else asked


def datasheet(collected: Collected) -> dict[str, str]:
    """What a reader of the data should know, from the study file. No text of an item."""
    design, plan = collected.design, collected.design.plan
    sheet = {
        "study": design.title,
        "instrument": f"{design.instrument.name}, version {design.instrument.version}",
        "items": f"{len(design.items)} in {len(design.batches)} batches",
        "assignment": f"{plan.method}, {len(plan.arms)} arms, {plan.labels} annotators for each item and arm",
        "contact": design.contact,
        "consent": design.consent.strip(),
        "attributes asked": ", ".join(one.label for one in design.attributes),
        "labels": "each answer is kept as it was given; nothing is aggregated on saving",
        "missing": "a question that was not answered is missing, never a no",
    }
    return {name: text for name, text in sheet.items() if text}


def as_tables(collected: Collected) -> dict[str, Any]:
    """What the page says of the study before any number."""
    design = collected.design
    found: dict[str, str] = {}
    names = {str(name) for name in collected.study.conditions}
    for condition in design.instrument.conditions:
        mine = [name for name in sorted(names) if name == condition.name or name.startswith(f"{condition.name}, ")]
        found |= {name: told(design, condition) for name in mine}
    return {"conditions_told": found, "datasheet": datasheet(collected), "assignment": dict(collected.assignment)}
