"""Files of a labelling job: items, instruments, and annotations as JSON lines."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from fledge.core.annotations import Annotation, Item, Media
from fledge.core.errors import ConfigError, DataError, FledgeError, need, unknown
from fledge.core.files import parse_json, read_text, to_json, write_text
from fledge.core.instruments import PAIR, YES_NO, Ask, Block, Condition, Construct, Instrument, Option
from fledge.data.pictures import frames_item

_MIME = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp"}
_ITEM = ("id", "text", "images", "pair", "meta")
_CONDITION = ("per_item", "blocked", "blocks", "dont_know", "shuffle", "batch", "confidence")


# --- items ---


def read_items(path: Path | str) -> list[Item]:
    """Items of a JSON-lines file, or of frames in an .npz file.

    A line is {"id", "text", "images": [files], "pair": [two such objects], "meta": {}}; files are looked for beside the
    table. An .npz has `frames` (item, time, height, width, 3) of uint8, and `ids` (item) if they have names.

    Raises:
        DataError: names the file and the line that is wrong.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return _frames(path)
    items = []
    for number, line in enumerate(read_text(path, "table of items").split("\n"), start=1):
        if line.strip():
            items.append(_item(parse_json(line, path, "table of items", line=number), path, number))
    if not items:
        raise DataError(f"{path} has no items. Write one JSON object per line, with at least an id.")
    return items


def _item(row: Any, path: Path, number: int, *, half: bool = False) -> Item:
    where = f"{path}, line {number}"
    if not isinstance(row, Mapping) or (not half and not row.get("id")):
        raise DataError(f"{where}: an item is an object with an id. Got {str(row)[:80]}.")
    for name in row:
        if name not in _ITEM:
            raise DataError(f"{where}: {unknown('field of an item', str(name), _ITEM)}")
    media = tuple(_picture(path.parent / name, where) for name in row.get("images", ()))
    pair = tuple(_item(part, path, number, half=True) for part in row.get("pair", ()))
    try:
        return Item(str(row.get("id", "")), str(row.get("text", "")), media, pair, dict(row.get("meta", {})))
    except (FledgeError, TypeError, ValueError) as error:
        raise DataError(f"{where}: {error}") from None


def _picture(path: Path, where: str) -> Media:
    mime = _MIME.get(path.suffix.lower())
    if mime is None:
        raise DataError(f"{where}: {path.name} is no picture that endpoints take. Use {', '.join(_MIME)}.")
    try:
        return Media("image", path.read_bytes(), mime)
    except OSError as error:
        raise DataError(
            f"{where}: {path} cannot be read ({error.strerror}). Files are looked for beside the table."
        ) from None


def _frames(path: Path) -> list[Item]:
    try:
        with np.load(path, allow_pickle=False) as file:
            frames, ids = file["frames"], file.get("ids")
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is no .npz file with an array 'frames': {error}.") from None
    if frames.ndim != 5 or (ids is not None and len(ids) != len(frames)):
        raise DataError(
            f"{path}: 'frames' is (item, time, height, width, 3), with as many 'ids'; got {frames.shape}"
            f"{'' if ids is None else f' and {len(ids)} ids'}."
        )
    return [frames_item(str(i if ids is None else ids[i]), frames[i]) for i in range(len(frames))]


# --- instruments ---


def read_instrument(path: Path | str) -> Instrument:
    """The instrument of a TOML or YAML file.

    `constructs.NAME` has a question (or is one), and options: `yesno` (default), `pair`, `text`, or a table of
    value = "label". `conditions.NAME` has `per_item`, `blocked` or `blocks`, and if wanted `dont_know`, `shuffle`,
    `batch`, `confidence`. Without conditions there is one, which asks all constructs about each item in turn.

    Raises:
        DataError: the file is missing or broken.
        ConfigError: it is no instrument; says what is wrong.
    """
    path = Path(path)
    text = read_text(path, "instrument")
    if path.suffix in (".yaml", ".yml"):
        yaml = need("yaml", "feedback")
        try:
            table = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise DataError(f"{path} is not YAML: {error}") from None
    else:
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise DataError(f"{path} is not TOML: {error}") from None
    try:
        return _instrument(table)
    except (TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path} is no instrument: {error!r}. See the guide to labelling with a model.") from None


def _instrument(table: Mapping[str, Any]) -> Instrument:
    for name in table:
        if name not in ("name", "constructs", "conditions", "instructions", "pages"):
            raise unknown("field of an instrument", name, ("name", "constructs", "conditions", "instructions", "pages"))
    constructs = tuple(_construct(name, value) for name, value in table["constructs"].items())
    programs = table.get("conditions") or {"A": {"per_item": [construct.name for construct in constructs]}}
    conditions = tuple(_condition(str(name), value) for name, value in programs.items())
    pages = dict(table.get("pages", {}))
    return Instrument(
        str(table.get("name", "instrument")), constructs, conditions, table.get("instructions", ""), pages
    )


def _construct(name: str, value: Any) -> Construct:
    row = {"question": value} if isinstance(value, str) else dict(value)
    given = row.pop("options", "yesno")
    named: dict[str, tuple[Option, ...]] = {"yesno": YES_NO, "pair": PAIR, "text": ()}
    if isinstance(given, str):
        if given not in named:
            raise unknown("kind of options", given, named)
        options = named[given]
    else:
        options = tuple(Option(str(v), str(label)) for v, label in given.items())
    return Construct(name, row.pop("question"), options, **row)


def _condition(name: str, value: Mapping[str, Any]) -> Condition:
    for key in value:
        if key not in _CONDITION:
            raise unknown("field of a condition", key, _CONDITION)
    screens = value.get("per_item")
    blocks = [screens] if screens else value.get("blocks") or [[screen] for screen in value["blocked"]]
    dont_know = str(value.get("dont_know", ""))
    return Condition(
        name,
        tuple(Block(tuple(_ask(screen, dont_know) for screen in block)) for block in blocks),
        tuple(value.get("shuffle", ())),
        int(value.get("batch", 1)),
        bool(value.get("confidence", False)),
    )


def _ask(screen: Any, dont_know: str) -> Ask:
    if isinstance(screen, str):
        return Ask((screen,), dont_know=dont_know)
    if isinstance(screen, Mapping):
        row = dict(screen)
        return Ask(tuple(row.pop("multi")), "multi", dont_know=dont_know, **row)
    return Ask(tuple(screen), dont_know=dont_know)


# --- annotations ---


def write_annotations(path: Path | str, annotations: Sequence[Annotation]) -> Path:
    """One JSON object per annotation and line; the whole file or nothing."""
    return write_text(Path(path), "".join(to_json(asdict(annotation)) + "\n" for annotation in annotations))


def read_annotations(path: Path | str) -> list[Annotation]:
    """What `write_annotations` wrote.

    Raises:
        DataError: names the line that is wrong.
    """
    path, names = Path(path), [field.name for field in fields(Annotation)]
    found = []
    for number, line in enumerate(read_text(path, "table of annotations").split("\n"), start=1):
        if not line:
            continue
        row = parse_json(line, path, "table of annotations", line=number)
        try:
            found.append(Annotation(**row))
        except (TypeError, ConfigError) as error:
            wanted = ", ".join(names)
            raise DataError(
                f"{path}, line {number}: this is no annotation ({error}). Its fields are {wanted}."
            ) from None
    return found
