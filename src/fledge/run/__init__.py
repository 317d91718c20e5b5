"""Runs of recipes. `fledge.run(name, …)` runs one: the room's name is a verb too."""

from __future__ import annotations

import sys

from fledge.run.room import CallableRoom

sys.modules[__name__].__class__ = CallableRoom
