"""What lets the room `fledge.run` be called like the verb it is named after."""

from __future__ import annotations

from types import ModuleType
from typing import Any


class CallableRoom(ModuleType):
    """A module that can be called. (A function of the room's name would be hidden by the room itself on import.)"""

    def __call__(self, name: Any, **settings: Any) -> Any:
        from fledge.run.api import run

        return run(name, **settings)
