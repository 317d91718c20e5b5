"""Instruments as YAML or TOML: constructs, and conditions written as short screen programs.

A condition is one of

- `per_item: [screen, …]`: one sweep; all screens of an item, then the next item;
- `blocked: [screen, …]`: one sweep over all items for each screen;
- `blocks: [[screen, …], …]`: the general form, a list of sweeps;
- a bare list of sweeps, for short: `[[HS, OL]]` is per item, `[[HS], [OL]]` is blocked.

A screen is the name of a construct, a list of names (one screen, a question each), or
`{multi: [names], question, none}` (one question, choose all that apply). Beside it a condition can have `dont_know`,
`shuffle`, `batch` and `confidence`.
`cross` multiplies factors: every combination of their levels is a condition named `level-level-…`.
Without conditions there is one, `A`, which asks all constructs about each item in turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from fledge.core.errors import ConfigError, nearest
from fledge.core.files import read_text
from fledge.core.instruments import PAIR, YES_NO, Ask, Block, Condition, Construct, Instrument, Option, likert
from fledge.data.reader import Faults, Reader, parse_toml, parse_yaml

SHIPPED = Path(__file__).parent / "instruments"
SHUFFLED = ("items", "options", "pair_sides")


def shipped() -> dict[str, Path]:
    """The instruments that come with Fledge, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def read_instrument(name: str | Path) -> Instrument:
    """The instrument of a YAML or TOML file, or one that comes with Fledge, by its name.

    Raises:
        ConfigError: lists everything that is wrong with it, unknown keys with the nearest one.
        DataError: there is no such file.
    """
    path = shipped().get(str(name), Path(name))
    return parse_instrument(read_text(path, "instrument"), str(path))


def parse_instrument(text: str, source: str = "The instrument") -> Instrument:
    """The instrument of YAML text, or of TOML where the source ends in `.toml`.

    Raises:
        ConfigError: lists everything that is wrong with it.
    """
    faults = Faults()
    mapping = parse_toml(text, source) if source.endswith(".toml") else parse_yaml(text, source)
    instrument = instrument_of(mapping, faults)
    faults.refuse(source)
    if instrument is None:
        raise ConfigError(f"{source} has no instrument.")
    return instrument


def instrument_of(mapping: Any, faults: Faults, where: str = "") -> Instrument | None:
    """The instrument of a mapping, or None where something is wrong; what is wrong is added to `faults`."""
    before = len(faults.found)
    reader = Reader(mapping, where, faults)
    name = reader.text("name", "instrument")
    constructs = [_construct(key, value, reader, faults) for key, value in _pairs(reader, "constructs")]
    known = [construct.name for construct in constructs]
    programs = _pairs(reader, "conditions") + _crossed(reader, faults)
    programs = programs or ([("A", {"per_item": known})] if known else [])
    conditions = [_condition(key, value, reader, known, faults) for key, value in programs]
    instructions = reader.text("instructions", "")
    pages = {key: str(value) for key, value in _pairs(reader, "pages")}
    reader.close()
    if not known:
        faults.add(reader.at("constructs"), "there is at least one: 'constructs: {name: {question: …}}'.")
    if len(faults.found) > before:
        return None
    try:
        return Instrument(name, tuple(constructs), tuple(c for c in conditions if c), instructions, pages)
    except ConfigError as error:
        faults.add(where, str(error))
        return None


def _pairs(reader: Reader, key: str) -> list[tuple[str, Any]]:
    value = reader.raw(key)
    if value is None:
        return []
    return list(Reader(value, reader.at(key), reader.faults).mapping.items())


def _construct(name: str, value: Any, parent: Reader, faults: Faults) -> Construct:
    reader = Reader({"question": value} if isinstance(value, str) else value, parent.at(f"constructs.{name}"), faults)
    question, label, definition = reader.text("question"), reader.text("label", ""), reader.text("definition", "")
    options = _options(reader, faults)
    reader.close()
    try:
        return Construct(name, question, options, label, definition)
    except ConfigError as error:
        faults.add(reader.where, str(error))
        return Construct(name, question)


def _options(reader: Reader, faults: Faults) -> tuple[Option, ...]:
    """`yesno` (default), `text`, `pair`, `{pair: tie}`, `{likert: 5, low, high}`, `{value: label, …}` or a list."""
    value, where = reader.raw("options", "yesno"), reader.at("options")
    if isinstance(value, str):
        named: dict[str, tuple[Option, ...]] = {"yesno": YES_NO, "pair": PAIR, "text": (), "likert": likert(5)}
        if value not in named:
            faults.add(where, f"there is no '{value}'. {nearest(value, named)}")
        return named.get(value, YES_NO)
    if isinstance(value, list):
        value = {Reader({"v": part}, where, faults).text("v"): None for part in value}
    if not isinstance(value, Mapping) or not value:
        faults.add(where, "yesno, likert, pair, text, a list, or 'value: label' pairs were wanted.")
        return YES_NO
    inner = Reader(value, where, faults)
    if inner.has("likert"):
        scale = likert(inner.integer("likert", 5, 2, 100), inner.text("low", ""), inner.text("high", ""))
        inner.close()
        return scale
    if inner.has("pair"):
        return (*PAIR, Option("tie", inner.text("pair")))
    return tuple(Option(key, inner.text(key, key) or key) for key in inner.mapping)


def _crossed(reader: Reader, faults: Faults) -> list[tuple[str, Any]]:
    """Factor → level → part of a condition; every combination of levels, merged."""
    factors: list[list[tuple[str, dict[str, Any]]]] = []
    for name, levels in _pairs(reader, "cross"):
        inner = Reader(levels, reader.at(f"cross.{name}"), faults)
        factors.append(
            [(key, Reader(v, inner.at(key), faults).mapping if v else {}) for key, v in inner.mapping.items()]
        )
    if not factors:
        return []
    combined = []
    for levels in product(*factors):
        merged: dict[str, Any] = {}
        for _, part in levels:
            merged |= part
        combined.append(("-".join(key for key, _ in levels), merged))
    return combined


def _condition(name: str, value: Any, parent: Reader, known: list[str], faults: Faults) -> Condition | None:
    where = parent.at(f"conditions.{name}")
    reader = Reader({"blocks": value} if isinstance(value, list) else value, where, faults)
    common = reader.text("dont_know", "")
    forms = [key for key in ("per_item", "blocked", "blocks") if reader.has(key)]
    if len(forms) != 1:
        faults.add(where, f"one of per_item, blocked and blocks was wanted, not {', '.join(forms) or 'none'}.")
    asks = {key: reader.listing(key) for key in ("per_item", "blocked", "blocks")}
    sweeps = [asks["per_item"]] if asks["per_item"] else [[screen] for screen in asks["blocked"]]
    sweeps += [sweep if isinstance(sweep, list) else [sweep] for sweep in asks["blocks"]]
    form = forms[0] if forms else "blocks"
    blocks = tuple(Block(tuple(_ask(s, reader.at(form), common, known, faults) for s in sweep)) for sweep in sweeps)
    shuffle, seed = _shuffle(reader, faults)
    batch, confidence = reader.integer("batch", 1, 1), reader.flag("confidence", False)
    reader.close()
    try:
        return Condition(name, blocks, shuffle, batch, confidence, seed)
    except ConfigError as error:
        faults.add(where, str(error))
        return None


def _shuffle(reader: Reader, faults: Faults) -> tuple[Any, int | None]:
    value, seed = reader.raw("shuffle"), None
    if isinstance(value, Mapping):
        inner = Reader(value, reader.at("shuffle"), faults)
        what = inner.words("what")
        if inner.choice("by", "annotator", ("annotator", "none")) == "none":
            seed = inner.integer("seed", 0)
        inner.close()
    else:
        what = reader.words("shuffle")
    for name in what:
        if name not in SHUFFLED:
            faults.add(reader.at("shuffle"), f"there is no '{name}' to shuffle. {nearest(name, SHUFFLED)}")
    return tuple(name for name in what if name in SHUFFLED), seed


def _ask(value: Any, where: str, dont_know: str, known: list[str], faults: Faults) -> Ask:
    if isinstance(value, Mapping):
        reader = Reader(value, where, faults)
        multi = reader.words("multi")
        names = multi or reader.words("ask")
        question, none = reader.text("question", ""), reader.text("none", "None of these")
        label = reader.text("dont_know", dont_know)
        reader.close()
    else:
        multi, question, none, label = (), "", "None of these", dont_know
        names = tuple(str(part) for part in (value if isinstance(value, list) else [value]))
    if not names:
        faults.add(where, "a screen asks at least one construct: a name, [names], {ask: [names]} or {multi: [names]}.")
    for name in names:
        if name not in known:
            faults.add(where, f"there is no construct '{name}'. {nearest(name, known)}")
    return Ask(names, "multi" if multi else "each", question, none, label)
