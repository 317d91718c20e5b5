"""The table of families: every environment by name, and how to make one or load a user's own."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

from fledge.core.contracts import Env
from fledge.core.errors import ConfigError, ContractError, nearest, unknown
from fledge.envs.table import FAMILIES

"""Every family, grouped by the file that it lives in. A new one is one file and one row."""


def make(name: str, **settings: Any) -> Env:
    """The environment of a row, with `settings` in place of the row's own.

    Raises:
        ConfigError: there is no such family, or a setting is unknown or wrong (all of them are listed together).
    """
    if name not in FAMILIES:
        raise unknown("environment", name, FAMILIES)
    row = FAMILIES[name]
    return _build(_find(row.target), {**row.settings, **settings}, f"environment '{name}'")


def load(target: str, **settings: Any) -> Env:
    """A user's own environment: `module:Name`, where Name is a class (or a function that returns an environment).

    Raises:
        ConfigError: the module or the name is missing, or a setting is unknown or wrong.
        ContractError: what was found there is not an `Env`, or leaves some of its methods out.
    """
    maker = _find(target)
    if isinstance(maker, Env) and not settings:
        return maker
    if not callable(maker) or (isinstance(maker, type) and not issubclass(maker, Env)):
        raise ContractError(
            f"'{target}' is {_kind(maker)}; wanted a class that keeps fledge.core.contracts.Env. "
            "Derive it from Env, or point to a function that returns one."
        )
    missing = sorted(getattr(maker, "__abstractmethods__", ()))
    if missing:
        raise ContractError(f"'{target}' lacks {', '.join(missing)}, which every Env has. Write them and try again.")
    env = _build(maker, settings, f"'{target}'")
    if not isinstance(env, Env):
        raise ContractError(f"'{target}' returned {_kind(env)}; wanted a fledge.core.contracts.Env.")
    return env


def settings_of(name: str) -> dict[str, Any]:
    """Every setting of a family with the value that `make(name)` gives it, to show and to copy.

    Raises:
        ConfigError: there is no such family.
    """
    if name not in FAMILIES:
        raise unknown("environment", name, FAMILIES)
    row = FAMILIES[name]
    defaults = {p.name: p.default for p in inspect.signature(_find(row.target)).parameters.values()}
    return {**defaults, **row.settings}


def _kind(thing: object) -> str:
    return f"the class {thing.__name__}" if isinstance(thing, type) else f"a {type(thing).__name__}"


def _find(target: str) -> Any:
    module_name, colon, name = target.partition(":")
    if not (module_name and colon and name):
        raise ConfigError(f"'{target}' is not MODULE:NAME. Write, for example, my_envs.maze:Maze.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(
            f"There is no module '{error.name}' (for '{target}'). "
            "Run from the folder that holds it, or put that folder on PYTHONPATH."
        ) from error
    if not hasattr(module, name):
        known = [n for n, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module_name]
        raise ConfigError(f"The module '{module_name}' has no '{name}'. {nearest(name, known)}")
    return getattr(module, name)


def _build(maker: Callable[..., Any], settings: Mapping[str, Any], what: str) -> Any:
    parameters = inspect.signature(maker).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    hints = _hints(maker)
    problems, good = [], {}
    for name, value in settings.items():
        value = tuple(value) if isinstance(value, list) else value  # TOML has no tuples, static fields have no lists
        if name not in parameters and not open_ended:
            problems.append(f"There is no setting '{name}'. {nearest(name, parameters)}")
        elif not _fits(value, hints.get(name, Any)):
            problems.append(f"{name} is {_spell(hints[name])}, not {value!r}.")
        else:
            good[name] = value
    required = [p.name for p in parameters.values() if p.default is p.empty and p.kind in _NAMED]
    absent = [name for name in required if name not in settings]
    problems += [f"The setting '{name}' is missing and has no default." for name in absent]
    if absent:
        raise ConfigError(f"{what}: " + " ".join(problems))
    try:
        env = maker(**good)
    except ConfigError as error:
        problems.append(str(error))
    if problems:
        raise ConfigError(f"{what}: " + " ".join(problems))
    return env


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _hints(maker: Callable[..., Any]) -> dict[str, Any]:
    owner: Any = maker
    if isinstance(maker, type) and not dataclasses.is_dataclass(maker):
        owner = inspect.getattr_static(maker, "__init__")
    try:
        return typing.get_type_hints(owner)
    except Exception:  # a hint of a user's class that cannot be resolved only costs the check of that class's types
        return {}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value (as it comes from a file or a command line) suits a type hint; True where we cannot say."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in inside)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, choice) for choice in inside)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(inside) == 2 and inside[1] is ...:
            return all(_fits(entry, inside[0]) for entry in value)
        return len(value) == len(inside) and all(map(_fits, value, inside))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str, type(None)):
        return isinstance(value, hint)
    return True


def _spell(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in typing.get_args(hint))
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    return names.get(hint, f"of type {hint}")
