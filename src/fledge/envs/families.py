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
from fledge.envs.rows_rest import ROWS


@dataclasses.dataclass(frozen=True)
class FamilyRow:
    """One named family: where its class lives, the settings that make the variant, and what it is."""

    target: str
    """`module:Class`, imported only when it is made."""
    about: str
    paper: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


_GRIDNAV = "fledge.envs.gridnav:GridNav"
_DARKROOM = "fledge.envs.darkroom:DarkRoom"
_KEYDOOR = "fledge.envs.keydoor:KeyToDoor"
_HALL = "fledge.envs.hall:Hall"

_VARIBAD = "Zintgraf et al. 2020 (VariBAD)"
_HYPER = "Beck et al. 2023 (Recurrent hypernetworks)"
_AD = "Laskin et al. 2022 (Algorithm Distillation)"
_AD_EPS = "Zisman et al. 2024 (AD-eps)"
_DPT = "Lee et al. 2023 (Decision-Pretrained Transformer)"
_DICP = "Son et al. 2025 (DICP)"
_RADT = "Schmied et al. 2024 (RA-DT)"

_RADT_ROOM = {"start": "corner", "moves": "dpt", "held_out": 0.2}
_PERMUTED = {"permuted": True, "moves": "dpt", "held_out": 0.1}

FAMILIES: dict[str, FamilyRow] = {
    # gridnav.py
    "gridnav": FamilyRow(_GRIDNAV, "5×5 grid, hidden goal, 15 steps", _VARIBAD),
    "gridnav-heldout": FamilyRow(_GRIDNAV, "GridNavi with a fifth of the goals held out", _VARIBAD, {"held_out": 0.2}),
    "gridnav-dense": FamilyRow(_GRIDNAV, "GridNavi, paid by the distance to the goal", _HYPER, {"reward": "dense"}),
    "gridnav-show": FamilyRow(_GRIDNAV, "GridNavi, the goal is shown on the start cell", _HYPER, {"show": True}),
    "gridnav-bonus": FamilyRow(_GRIDNAV, "GridNavi with a bonus for new cells", _HYPER, {"visit_bonus": 0.1}),
    "gridnav-ring": FamilyRow(
        _GRIDNAV, "7×7 grid, centre start, goals on the border", _HYPER, {"size": 7, "start": "centre", "goals": "ring"}
    ),
    "gridnav-random": FamilyRow(_GRIDNAV, "GridNavi with a random start, any goal", _HYPER, {"start": "random"}),
    "gridnav-large": FamilyRow(_GRIDNAV, "25×25 grid, 50 steps", _HYPER, {"size": 25, "horizon": 50}),
    # hall.py
    "hall": FamilyRow(_HALL, "corridor of 60 cells, one of 59 doors hides the goal", _HYPER),
    "hall-observed": FamilyRow(_HALL, "Hall, unchecked doors can be seen", _HYPER, {"observe_checked": True}),
    "hall-shaped": FamilyRow(
        _HALL, "Hall, bonus for new doors, the goal pays 5", _HYPER, {"visit_bonus": 0.1, "success_reward": 5.0}
    ),
    # darkroom.py
    "darkroom": FamilyRow(_DARKROOM, "9×9 dark room, centre start, 20 steps", _AD),
    "darkroom-hard": FamilyRow(
        _DARKROOM, "17×17 dark room, the goal pays once", _AD, {"width": 17, "height": 17, "ends_at_goal": True}
    ),
    "darkroom-cell": FamilyRow(_DARKROOM, "9×9 dark room, observed as a cell number", _AD_EPS, {"observation": "cell"}),
    "darkroom-tiny": FamilyRow(
        _DARKROOM, "3×3 dark room, 5 steps", _AD_EPS, {"width": 3, "height": 3, "horizon": 5, "observation": "cell"}
    ),
    "darkroom-dpt": FamilyRow(
        _DARKROOM,
        "10×10 dark room, corner start, 100 steps",
        _DPT,
        {"width": 10, "height": 10, "horizon": 100} | _RADT_ROOM,
    ),
    "darkroom-dicp": FamilyRow(_DARKROOM, "9×9 dark room, a tenth of the goals held out", _DICP, {"held_out": 0.1}),
    "darkroom-radt-20x20": FamilyRow(
        _DARKROOM, "20×20 dark room, 200 steps", _RADT, {"width": 20, "height": 20, "horizon": 200} | _RADT_ROOM
    ),
    "darkroom-radt-40x20": FamilyRow(
        _DARKROOM, "40×20 dark room, 800 steps", _RADT, {"width": 40, "height": 20, "horizon": 800} | _RADT_ROOM
    ),
    "darkroom-permuted": FamilyRow(
        _DARKROOM,
        "10×10 dark room, what the actions mean is hidden",
        _DPT,
        {"width": 10, "height": 10, "horizon": 100, "start": "corner"} | _PERMUTED,
    ),
    "darkroom-permuted-dicp": FamilyRow(
        _DARKROOM, "9×9 dark room, 50 steps, hidden meaning of actions", _DICP, {"horizon": 50} | _PERMUTED
    ),
    "darkroom-macro": FamilyRow(
        _DARKROOM,
        "9×9 dark room, 125 actions of three moves each",
        "Sinii et al. 2024 (Headless-AD)",
        {"macro": 3, "ends_at_goal": True},
    ),
    # keydoor.py
    "key-to-door": FamilyRow(_KEYDOOR, "9×9 grid, an unseen key, then an unseen door", _AD),
    "key-to-door-cell": FamilyRow(
        _KEYDOOR,
        "Key-to-Door, 40 steps, ends at the door, observed as a cell number",
        _AD_EPS,
        {"horizon": 40, "terminate_on_door": True, "start_on_key": False, "observation": "cell"},
    ),
    "key-to-door-amago": FamilyRow(
        _KEYDOOR, "Key-to-Door, ends at the door", "Grigsby et al. 2024 (AMAGO)", {"terminate_on_door": True}
    ),
    "key-to-door-radt": FamilyRow(
        _KEYDOOR,
        "10×10 Key-to-Door, corner start, the door keeps paying",
        _RADT,
        {"size": 10, "horizon": 100, "door_repeats": True} | _RADT_ROOM,
    ),
}
"""Every family, grouped by the file that it lives in. A new one is one file and one row."""

FAMILIES |= {
    name: FamilyRow(f"fledge.envs.{target}", about, paper, settings) for name, target, settings, about, paper in ROWS
}


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
