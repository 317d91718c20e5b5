"""Errors that carry their cure: what came, what was wanted, what to do."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class FledgeError(Exception):
    """The parent of every error that Fledge raises on purpose. The command line prints its text and exits with 2."""


class ConfigError(FledgeError):
    """A recipe, a setting or a name on the command line is wrong."""


class ShapeError(FledgeError):
    """An array has another shape or dtype than the one that was promised."""


class ContractError(FledgeError):
    """A class does not keep a contract of :mod:`fledge.core.contracts`."""


class MissingExtra(FledgeError):
    """An optional dependency is not installed."""


class DataError(FledgeError):
    """A file is missing, damaged, or not in the format that was promised."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The sentence that names the nearest known spelling, or lists what there is."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"Did you mean '{close[0]}'?"
    return f"There is: {', '.join(known)}." if known else "There is nothing to choose from."


def unknown(what: str, name: str, known: Iterable[str]) -> ConfigError:
    """The error for a name that nobody registered, with the nearest real one."""
    return ConfigError(f"There is no {what} '{name}'. {nearest(name, known)}")


def need(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say which extra installs it.

    Raises:
        MissingExtra: `module` is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = (getattr(error, "name", None) or module).split(".")[0]  # it may be one that `module` needs in turn
        raise MissingExtra(
            f"This needs the package '{missing}', which is not installed. "
            f"Install it with: pip install 'fledge[{extra}]'"
        ) from error
