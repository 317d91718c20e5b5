"""Runs of recipes. `fledge.run(name, …)` runs one: the room's name is a verb too."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """This module, which can be called. (A function of this name would be hidden by its own package on import.)"""

    def __call__(self, name: Any, **settings: Any) -> Any:
        from fledge.run.api import run

        return run(name, **settings)


sys.modules[__name__].__class__ = _Room
