"""Reading mappings that people wrote: every fault is collected, and an unknown key is told the nearest one."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fledge.core.errors import ConfigError, nearest, need
from fledge.core.files import read_text


class Faults:
    """What is wrong, in the order in which it was found."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, where: str, what: str) -> None:
        """Note a fault at a dotted place."""
        self.found.append(f"{where}: {what}" if where else what)

    def refuse(self, source: str) -> None:
        """Raise everything that was found.

        Raises:
            ConfigError: there was something.
        """
        if self.found:
            count = f"{len(self.found)} fault{'s' * (len(self.found) > 1)}"
            raise ConfigError("\n  ".join([f"{source} has {count}:", *dict.fromkeys(self.found)]))


class Reader:
    """A mapping that is asked for its keys one after the other; `close` names the keys that nobody asked for."""

    def __init__(self, mapping: Any, where: str, faults: Faults) -> None:
        self.where, self.faults = where, faults
        self.asked: list[str] = []
        if not isinstance(mapping, Mapping):
            faults.add(where, f"a mapping of names to values was wanted, not {_kind(mapping)}.")
            mapping = {}
        self.mapping: dict[str, Any] = {_word(key): value for key, value in mapping.items()}

    def at(self, key: str) -> str:
        """The dotted place of a key."""
        return f"{self.where}.{key}" if self.where else key

    def raw(self, key: str, default: Any = None) -> Any:
        """Whatever stands there."""
        self.asked.append(key)
        return self.mapping.get(key, default)

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return self.mapping.get(key) is not None

    def text(self, key: str, default: str | None = None) -> str:
        """A text; without a default it must be there. Numbers become text."""
        value = self.raw(key)
        value = default if value is None else value
        if value is None:
            self.faults.add(self.at(key), f"this text is missing. Add '{key}: …'.")
            return ""
        if isinstance(value, (Mapping, list)):
            self.faults.add(self.at(key), f"a text was wanted, not {_kind(value)}.")
            return ""
        return _word(value).strip()

    def number(self, key: str, default: float | int, low: float | int, high: float | int = float("inf")) -> float | int:
        """A number within bounds."""
        value = self.raw(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            top = "" if high == float("inf") else f" and at most {high:g}"
            self.faults.add(self.at(key), f"a number of at least {low:g}{top} was wanted, not {value!r}.")
            return default
        return value

    def integer(self, key: str, default: int, low: int = 0, high: int = 10**9) -> int:
        """A whole number within bounds."""
        value = self.number(key, default, low, high)
        if value != int(value):
            self.faults.add(self.at(key), f"a whole number was wanted, not {value!r}.")
        return int(value)

    def flag(self, key: str, default: bool) -> bool:
        """Yes or no."""
        value = self.raw(key, default)
        if not isinstance(value, bool):
            self.faults.add(self.at(key), f"true or false was wanted, not {value!r}.")
            return default
        return value

    def choice(self, key: str, default: str, known: Sequence[str]) -> str:
        """One of several words."""
        value = self.text(key, default)
        if value not in known:
            self.faults.add(self.at(key), f"there is no '{value}'. {nearest(value, known)}")
            return default
        return value

    def listing(self, key: str) -> list[Any]:
        """A list; empty where there is none. One value alone is a list of one."""
        value = self.raw(key)
        if value is None:
            return []
        return list(value) if isinstance(value, list) else [value]

    def words(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(_word(value) for value in self.listing(key))

    def close(self) -> None:
        """Note the keys that nobody asked for."""
        for key in self.mapping:
            if key not in self.asked:
                self.faults.add(self.at(key), f"there is no such key. {nearest(key, self.asked)}")


def read_yaml(path: Path, what: str) -> Any:
    """The value of a YAML file.

    Raises:
        ConfigError: it is not YAML; names the line.
        DataError: it cannot be read.
        MissingExtra: PyYAML is not installed.
    """
    return parse_yaml(read_text(path, what), str(path))


def parse_yaml(text: str, source: str) -> Any:
    """The value of YAML text (plain values only: no tags, no objects).

    Raises:
        ConfigError: it is not YAML, or a key comes twice in one mapping.
        MissingExtra: PyYAML is not installed.
    """
    yaml = need("yaml", "annotate")

    class Strict(yaml.SafeLoader):
        """Refuses a key that comes twice: YAML's own loader silently keeps the last."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != _MERGE]
            for i, key in enumerate(keys):
                if key in keys[:i]:
                    line = node.value[i][0].start_mark.line + 1
                    raise ConfigError(f"{source}, line {line}: the key '{key}' comes twice. Keep one of them.")
            return super().construct_mapping(node, deep)

    try:
        return _named(yaml.load(text, Loader=Strict))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark is not None else ""
        why = getattr(error, "problem", None) or error
        raise ConfigError(
            f"{source}{at}: this is not YAML ({why}). Mend that line; inside {{…}} and […], put texts with ? : or , "
            "into quotes."
        ) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: this is not YAML that can be read ({error}).") from None


def parse_toml(text: str, source: str) -> Any:
    """The value of TOML text.

    Raises:
        ConfigError: it is not TOML; names the line.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source} is not TOML: {error}. Mend that line.") from None


_MERGE = "tag:yaml.org,2002:merge"


def _named(value: Any) -> Any:
    """The same with every key a text, and dates as text: what JSON can hold."""
    if isinstance(value, dict):
        return {_word(key): _named(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_named(part) for part in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _word(value: Any) -> str:
    """A scalar as it was most likely meant: YAML reads an unquoted Yes as true."""
    if isinstance(value, bool):
        return "Yes" if value else "No"
    return "" if value is None else str(value)


def _kind(value: Any) -> str:
    names = {
        dict: "a mapping",
        list: "a list",
        str: "a text",
        int: "a number",
        float: "a number",
        type(None): "nothing",
    }
    return names.get(type(value), type(value).__name__)
