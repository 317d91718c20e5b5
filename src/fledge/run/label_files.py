"""Items of a labelling job, from files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fledge.core.annotations import Item, Media
from fledge.core.errors import DataError, FledgeError, unknown
from fledge.core.files import parse_json, read_text
from fledge.data.pictures import frames_item

_MIME = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp"}
_ITEM = ("id", "text", "images", "frames", "pair", "meta")


def read_items(path: Path | str) -> list[Item]:
    """Items of a JSON-lines file, or of frames in an .npz file.

    A line is {"id", "text", "images": [files], "pair": [two such objects], "meta": {}}; files are looked for beside the
    table. `frames` is another name of `images`: the annotation page reads the same table. An .npz has `frames` (item,
    time, height, width, 3) of uint8, and `ids` (item) if they have names.

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
    media = tuple(_picture(path.parent / name, where) for name in (*row.get("images", ()), *row.get("frames", ())))
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
    if not path.exists():
        raise DataError(
            f"There is no file {path}. Name an .npz with an array 'frames', or a table of items (JSON lines)."
        )
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
