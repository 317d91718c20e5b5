"""Settings as frozen dataclasses, and TOML as their spelling: strict, generic, and every fault named at once.

Fields may be bool, int, float, str, `Literal`, optional, tuples, nested dataclasses and `dict[str, …]`. TOML has no
word for nothing: None is left out where it is the default, and otherwise written (and read) as the word "none".
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import tomli_w

from fledge.core.errors import ConfigError, FledgeError, nearest

T = TypeVar("T")
Tree = dict[str, Any]
"""What `tomllib` reads: nested dicts of plain values."""

NOTHING = "none"
_PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "a word in quotes"}


def refuse(faults: Sequence[str], what: str) -> None:
    """Nothing, if there are no faults.

    Raises:
        ConfigError: lists all of them together.
    """
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise ConfigError(f"{what} has {count}:\n" + "\n".join(f"  {fault}" for fault in faults))


def parse(cls: type[T], text: str, what: str = "The configuration") -> T:
    """The settings that TOML text spells.

    Args:
        cls: a frozen dataclass.
        text: TOML.
        what: how errors call it (a file's name).

    Raises:
        ConfigError: the text is not TOML, or the faults, all of them.
    """
    faults: list[str] = []
    config = read(cls, tree_of(text, what), faults)
    refuse(faults, what)
    return typing.cast(T, config)  # without faults there is one


def tree_of(text: str, what: str) -> Tree:
    """TOML text as nested dicts.

    Raises:
        ConfigError: says where the text stops being TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{what} is not TOML: {error}. Mend that place; strings need quotes.") from None


def dump(config: Any) -> str:
    """The TOML text of settings; `parse` gives them back."""
    return tomli_w.dumps(to_tree(config))


def to_tree(config: Any) -> Tree:
    """Settings as nested dicts of plain values, as TOML can write them."""
    tree: Tree = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is None and field.default is None:
            continue
        tree[field.name] = _to_plain(value)
    return tree


def _to_plain(value: Any) -> Any:
    if value is None:
        return NOTHING
    if dataclasses.is_dataclass(value):
        return to_tree(value)
    if isinstance(value, Mapping):
        return {key: _to_plain(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [_to_plain(part) for part in value]
    return value


def read(cls: type[T], tree: Mapping[str, Any], faults: list[str], where: str = "") -> T | None:
    """The settings in nested dicts; what is wrong with them is added to `faults`.

    Where a value is wrong its default stands in, so that the rest can be examined too.

    Returns:
        The settings; None where a wrong or missing value has no default.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, cls))}
    strange = [key for key in tree if key not in fields]
    faults += [f"{where}{key}: there is no such setting. {nearest(str(key), fields)}" for key in strange]
    values: Tree = {}
    lost = False
    for name, field in fields.items():
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in tree:
            if not optional:
                faults.append(f"{where}{name}: is missing and has no default. It is {spell(hints[name])}.")
                lost = True
            continue
        before = len(faults)
        value = _convert(tree[name], hints[name], faults, f"{where}{name}")
        if len(faults) == before or (value is not None and dataclasses.is_dataclass(value)):
            values[name] = value
        else:
            lost |= not optional
    if lost:
        return None
    try:
        return cls(**values)
    except FledgeError as error:
        faults.append(f"{where}{error}" if where else str(error))
        return None


def _convert(value: Any, hint: Any, faults: list[str], where: str) -> Any:
    """The value as its type hint wants it. Mistakes are added to `faults`."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, Mapping):
            return read(hint, value, faults, f"{where}.")
    elif origin in (typing.Union, types.UnionType):
        return _convert_union(value, hint, faults, where)
    elif origin is tuple:
        if isinstance(value, (list, tuple)) and (inside[-1] is ... or len(inside) == len(value)):
            each = [inside[0]] * len(value) if inside[-1] is ... else inside
            parts = zip(value, each, strict=True)
            return tuple(_convert(part, kind, faults, f"{where}[{i}]") for i, (part, kind) in enumerate(parts))
    elif origin is dict:
        if isinstance(value, Mapping):
            return {str(key): _convert(part, inside[1], faults, f"{where}.{key}") for key, part in value.items()}
    elif _fits(value, hint):
        return float(value) if hint is float else value
    suggestion = ""
    if origin is Literal and isinstance(value, str):
        suggestion = " " + nearest(value, [choice for choice in inside if isinstance(choice, str)])
    faults.append(f"{where} is {spell(hint)}, not {_show(value)}.{suggestion}")
    return None


def _convert_union(value: Any, hint: Any, faults: list[str], where: str) -> Any:
    kinds = typing.get_args(hint)
    if type(None) in kinds and (value is None or value == NOTHING):
        return None
    exact = [kind for kind in kinds if isinstance(kind, type) and type(value) is kind]
    for kind in [*exact, *kinds]:
        trial: list[str] = []
        converted = _convert(value, kind, trial, where)
        if not trial:
            return converted
    faults.append(f"{where} is {spell(hint)}, not {_show(value)}.")
    return None


def _fits(value: Any, hint: Any) -> bool:
    if typing.get_origin(hint) is Literal:
        return any(value == choice and type(value) is type(choice) for choice in typing.get_args(hint))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return hint in (bool, str) and isinstance(value, hint)


def spell(hint: Any) -> str:
    """A type hint in a person's words."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(repr(choice) for choice in inside)
    if origin in (typing.Union, types.UnionType):
        names = [spell(kind) for kind in inside if kind is not type(None)]
        return " or ".join(dict.fromkeys(names + ([f'"{NOTHING}"'] if type(None) in inside else [])))
    if origin is tuple:
        if inside[-1] is ...:
            return f"a list (each entry {spell(inside[0])})"
        return f"a list of {len(inside)} ({', '.join(map(spell, inside))})"
    if dataclasses.is_dataclass(hint) or origin is dict:
        return "a table of settings"
    return _PLAIN.get(hint, str(hint))


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a table"
    return repr(list(value) if isinstance(value, tuple) else value)


def override(config: T, changes: Mapping[str, Any], faults: list[str], where: str = "") -> T:
    """The settings with `changes` (nested dicts) laid over them; the same checks as in `read`."""
    return read(type(config), merge(to_tree(config), changes), faults, where) or config


def merge(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> Tree:
    """`tree` with `changes` in place of its own values, table by table. Neither is touched."""
    merged = dict(tree)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def flatten(tree: Mapping[str, Any], where: str = "") -> Tree:
    """Nested dicts as one dict with dotted keys."""
    flat: Tree = {}
    for key, value in tree.items():
        name = f"{where}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return flat


def nest(flat: Mapping[str, Any]) -> Tree:
    """Dotted keys as nested dicts; values that are dicts already stay what they are."""
    tree: Tree = {}
    for key, value in flat.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        tree = merge(tree, value)
    return tree


def changes_of(pairs: Iterable[str], faults: list[str]) -> Tree:
    """`key.sub=value` words as nested dicts. Values are TOML; what is not TOML is a word without its quotes."""
    flat: Tree = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
            faults.append(f"'{pair}' is not key.sub=value. Write, for example, learner.learning_rate=3e-4.")
            continue
        flat[key] = value_of(text)
    return nest(flat)


def value_of(text: str) -> Any:
    """The value that a command line means: 3, 3e-4, 1e6 (a whole number), true, [32, 32], "word" or word."""
    try:
        value = tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text
    if isinstance(value, float) and "e" in text.lower() and value.is_integer():
        return int(value)
    return value if isinstance(value, (bool, int, float, str, list)) else text
