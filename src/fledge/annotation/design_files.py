"""Study files: `study.yaml`, with the instrument and the items inside it or in files beside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fledge.annotation.assign import METHODS, Plan, arms_of
from fledge.annotation.design import SUFFIXES, Check, Field, Practice, StudyDesign
from fledge.annotation.simulate import EFFECTS
from fledge.core.annotations import Item, Media
from fledge.core.errors import ConfigError, FledgeError, nearest
from fledge.core.files import parse_json, read_text
from fledge.core.instruments import Instrument, Option
from fledge.data.instrument_files import instrument_of, shipped
from fledge.data.reader import Faults, Reader, read_yaml

MAGIC = (
    (b"\x89PNG\r\n\x1a\n", 0, "image/png"),
    (b"\xff\xd8\xff", 0, "image/jpeg"),
    (b"GIF8", 0, "image/gif"),
    (b"WEBP", 8, "image/webp"),
    (b"ftyp", 4, "video/mp4"),
    (b"\x1a\x45\xdf\xa3", 0, "video/webm"),
)
"""Bytes, where they stand in the file, and what it is then. An SVG can hold a script and is none of them."""
_SHOWN = ("text", "image", "frames", "clip", "pair", "alt")


def read_design(path: Path) -> StudyDesign:
    """The study of a YAML file.

    Raises:
        ConfigError: lists everything that is wrong with it, unknown keys with the nearest one.
        DataError: a file that it names is missing or damaged.
    """
    path = Path(path)
    folder = path.resolve().parent
    mapping = read_yaml(path, "study file")
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{path}: a mapping of names to values was wanted. See the guide on the annotation page.")
    return design_of(_inlined(dict(mapping), folder), str(path), folder)


def design_of(mapping: Mapping[str, Any], source: str = "The study", folder: Path | None = None) -> StudyDesign:
    """The study of a mapping that refers to no other file but pictures.

    Args:
        mapping: what stands in the file, with the instrument and the items inside.
        source: what errors call it.
        folder: where pictures are; None leaves them out (enough to export and audit).

    Raises:
        ConfigError: lists everything that is wrong with it.
    """
    faults = Faults()
    reader = Reader(mapping, "", faults)
    name = reader.text("name", "study")
    instrument = instrument_of(reader.raw("instrument"), faults, "instrument")
    media = _folder(reader, folder)
    items, batch_of = _items(reader, media, faults)
    batches, plan = _plan(reader, instrument, items, batch_of, faults)
    completion = Reader(reader.raw("completion") or {}, "completion", faults)
    checking = Reader(reader.raw("comprehension") or {}, "comprehension", faults)
    texts = {key: reader.text(key, "") for key in ("consent", "contact", "warning", "thanks")}
    settings: dict[str, Any] = {
        "title": reader.text("title", name),
        "blur": reader.flag("blur", bool(texts["warning"])),
        "attributes": _fields(reader, "attributes", faults),
        "checks": tuple(_check(v, f"comprehension.questions.{i}", faults) for i, v in _numbered(checking, "questions")),
        "tries": checking.integer("tries", 2, 1, 10),
        "practice": tuple(_practice(v, i, instrument, media, faults) for i, v in _numbered(reader, "practice")),
        "exit": _fields(reader, "exit", faults),
        "back": reader.flag("back", True),
        "completion_code": completion.text("code", ""),
        "completion_url": _web(completion, "url"),
        "screened_out_code": completion.text("screened_out_code", ""),
        "planted": _planted(reader, instrument, faults),
    }
    for part in (reader, completion, checking):
        part.close()
    known = [one.name for one in settings["attributes"]]
    for stratum in plan.strata if plan else ():
        if stratum not in known:
            faults.add("assignment.strata", f"there is no attribute '{stratum}'. {nearest(stratum, known)}")
    if not texts["consent"]:
        faults.add("consent", "this text is missing: participants agree to it before anything is stored.")
    faults.refuse(source)
    if instrument is None or plan is None:
        raise ConfigError(f"{source} has no instrument or no items.")
    settings |= {"name": name, "instrument": instrument, "items": items, "batches": batches, "plan": plan, **texts}
    return StudyDesign(**settings, snapshot=dict(mapping))


def _inlined(mapping: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The mapping with the files that it names read in."""
    instrument, items = mapping.get("instrument"), mapping.get("items")
    if isinstance(instrument, str):
        path = shipped().get(instrument, folder / instrument)
        mapping["instrument"] = read_yaml(path, "instrument")
    if isinstance(items, str):
        mapping["items"] = _item_rows(folder / items)
    return mapping


def _item_rows(path: Path) -> list[dict[str, Any]]:
    text = read_text(path, "file of items")
    if path.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(text.lstrip("\ufeff"), newline=""))
        return [{key: cell for key, cell in row.items() if key and cell not in (None, "")} for row in rows]
    if path.suffix == ".jsonl":
        return [parse_json(line, path, "item", line=i) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    raise ConfigError(f"items: {path} ends in '{path.suffix}'. Items are a list, a .csv or a .jsonl file.")


def _folder(reader: Reader, folder: Path | None) -> Path | None:
    name = reader.text("media", ".")
    return None if folder is None else (folder / name).resolve()


def _numbered(reader: Reader, key: str) -> list[tuple[int, Any]]:
    return list(enumerate(reader.listing(key), 1))


def _items(reader: Reader, media: Path | None, faults: Faults) -> tuple[tuple[Item, ...], list[str]]:
    items, batches = [], []
    for i, value in _numbered(reader, "items"):
        row = Reader({"text": value} if isinstance(value, str) else value, f"items.{i}", faults)
        batches.append(row.text("batch", ""))
        items.append(_item(row, row.text("id", str(i)), media, faults))
    ids = [item.id for item in items]
    for name in sorted({name for name in ids if ids.count(name) > 1} if len(set(ids)) < len(ids) else ()):
        faults.add("items", f"the id '{name}' comes twice.")
    if not items:
        faults.add("items", "there is at least one: a list, or the name of a .csv or .jsonl file.")
    return tuple(items), batches


def _item(row: Reader, name: str, media: Path | None, faults: Faults) -> Item:
    alt = row.text("alt", "")
    frames = row.raw("frames")
    frames = [part.strip() for part in frames.split(";")] if isinstance(frames, str) else (frames or [])
    names = [("image", row.raw("image")), *(("image", frame) for frame in frames), ("clip", row.raw("clip"))]
    shown = tuple(_media(kind, str(file), alt, media, row, faults) for kind, file in names if file)
    sides = tuple(
        _item(Reader(side if isinstance(side, Mapping) else {"text": side}, f"{row.where}.pair.{i}", faults),
              f"{name}/{i}", media, faults)
        for i, side in enumerate(row.listing("pair"), 1)
    )  # fmt: skip
    meta = {key: value for key, value in row.mapping.items() if key not in (*_SHOWN, "id", "batch")}
    text = row.text("text", "")
    if not (text or shown or sides or any(kind for kind, file in names if file)):
        faults.add(row.where, "it shows nothing: text, image, frames, clip or pair is wanted.")
    try:
        return Item(name, text, tuple(m for m in shown if m), sides, {k: v for k, v in meta.items() if _plain(v)})
    except ConfigError as error:
        faults.add(row.where, str(error))
        return Item(name)


def _plain(value: Any) -> bool:
    return isinstance(value, (str, int, float, bool))


def _media(kind: Any, file: str, alt: str, folder: Path | None, row: Reader, faults: Faults) -> Media | None:
    if folder is None:
        return None
    path = (folder / file).resolve()
    if not path.is_relative_to(folder):
        faults.add(row.where, f"'{file}' leads out of the folder of media. Put it inside, or set 'media'.")
        return None
    try:
        content = path.read_bytes()
    except OSError:
        faults.add(row.where, f"there is no file '{file}' in the folder of media.")
        return None
    mime = next((mime for mark, at, mime in MAGIC if content[at : at + len(mark)] == mark), None)
    if mime is None:
        faults.add(row.where, f"'{file}' is none of {', '.join(sorted(SUFFIXES.values()))}.")
        return None
    return Media(kind, content, mime, alt)


def _plan(
    reader: Reader, instrument: Instrument | None, items: tuple[Item, ...], batch_of: list[str], faults: Faults
) -> tuple[dict[str, tuple[int, ...]], Plan | None]:
    part = Reader(reader.raw("assignment") or {}, "assignment", faults)
    size = part.integer("batch_size", len(items) or 1, 1)
    named = any(batch_of)
    batches: dict[str, tuple[int, ...]] = {}
    for i in range(len(items)):
        key = batch_of[i] if named else str(i // size + 1)
        batches[key] = (*batches.get(key, ()), i)
    if named and not all(batch_of):
        faults.add("items", "some have a batch and some have none.")
    names = [condition.name for condition in instrument.conditions] if instrument else []
    chosen = part.words("conditions") or tuple(names)
    weights = Reader(part.raw("weights") or {}, "assignment.weights", faults)
    for name in chosen if instrument else ():
        if name not in names:
            faults.add("assignment.conditions", f"there is no condition '{name}'. {nearest(name, names)}")
    settings: dict[str, Any] = {
        "arms": arms_of(chosen, part.flag("within_subject", False)),
        "batches": tuple(batches),
        "labels": part.integer("labels", 3, 1),
        "method": part.choice("method", "least_filled", METHODS),
        "seed": part.integer("seed", 0),
        "strata": part.words("strata"),
        "block": part.integer("block", 1, 1),
        "weights": {name: float(weights.number(name, 1.0, 1e-9)) for name in chosen if weights.has(name)},
        "timeout": 60.0 * part.number("timeout_minutes", 60, 1 / 60),
    }
    weights.close()
    part.close()
    try:
        return batches, Plan(**settings) if instrument and items else None
    except FledgeError as error:
        faults.add("assignment", str(error))
        return batches, None


def _choices(reader: Reader, key: str = "options") -> tuple[Option, ...]:
    value = reader.raw(key)
    if isinstance(value, Mapping):
        inner = Reader(value, reader.at(key), reader.faults)
        return tuple(Option(name, inner.text(name, name)) for name in inner.mapping)
    return tuple(Option(word, word) for word in reader.words(key))


def _fields(parent: Reader, key: str, faults: Faults) -> tuple[Field, ...]:
    found = []
    for i, value in _numbered(parent, key):
        reader = Reader(value, f"{key}.{i}", faults)
        options = _choices(reader)
        kind = reader.choice("kind", "choice" if options else "text", ("choice", "multi", "number", "text"))
        if bool(options) != (kind in ("choice", "multi")):
            faults.add(reader.where, f"a '{kind}' has {'no ' * bool(options)}options.")
        low, high = float(reader.number("low", 0, -1e9)), float(reader.number("high", 1e9, -1e9))
        label, hint = reader.text("label"), reader.text("hint", "")
        name: Any = reader.text("name")
        found.append(Field(name, label, kind, options, reader.flag("required", True), low, high, hint))  # type: ignore[arg-type]
        reader.close()
    names = [one.name for one in found]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        faults.add(key, f"the name '{name}' comes twice.")
    return tuple(found)


def _check(value: Any, where: str, faults: Faults) -> Check:
    reader = Reader(value, where, faults)
    options = _choices(reader)
    check = Check(reader.text("question"), options, reader.text("answer"), reader.text("explain", ""))
    values = [option.value for option in options]
    if check.answer not in values:
        faults.add(reader.at("answer"), f"'{check.answer}' is none of the options. {nearest(check.answer, values)}")
    reader.close()
    return check


def _practice(value: Any, i: int, instrument: Instrument | None, media: Path | None, faults: Faults) -> Practice:
    reader = Reader(value, f"practice.{i}", faults)
    answers = Reader(reader.raw("answers") or {}, reader.at("answers"), faults)
    explain = reader.text("explain", "")
    constructs = {construct.name: construct for construct in instrument.constructs} if instrument else {}
    for name in answers.mapping if instrument else ():
        if name not in constructs:
            faults.add(answers.where, f"there is no construct '{name}'. {nearest(name, constructs)}")
        elif (values := [o.value for o in constructs[name].options]) and answers.text(name) not in values:
            faults.add(
                answers.at(name), f"there is no answer '{answers.text(name)}'. {nearest(answers.text(name), values)}"
            )
    item = _item(reader, f"practice-{i}", media, faults)
    for key in reader.mapping:
        if key not in (*_SHOWN, "id", "answers", "explain"):
            faults.add(reader.at(key), f"there is no such key. {nearest(key, (*_SHOWN, 'answers', 'explain'))}")
    return Practice(item, {key: answers.text(key) for key in answers.mapping}, explain)


def _planted(reader: Reader, instrument: Instrument | None, faults: Faults) -> dict[str, dict[str, float]]:
    """Construct → effect → size, for simulations."""
    outer = Reader(reader.raw("planted") or {}, "planted", faults)
    known = [construct.name for construct in instrument.constructs] if instrument else list(outer.mapping)
    found = {}
    for name, value in outer.mapping.items():
        if name not in known:
            faults.add("planted", f"there is no construct '{name}'. {nearest(name, known)}")
        inner = Reader(value, f"planted.{name}", faults)
        given = [effect for effect in EFFECTS if inner.raw(effect) is not None]
        found[name] = {effect: float(inner.number(effect, 0.0, -1e9)) for effect in given}
        inner.close()
    return found


def _web(reader: Reader, key: str) -> str:
    address = reader.text(key, "")
    if address and not address.startswith("https://"):
        reader.faults.add(reader.at(key), f"an address that begins with https:// was wanted, not '{address}'.")
    return address
