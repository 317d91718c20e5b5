"""Fledge: agents and models that learn to adapt, and pictures of how fast they do."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

__all__ = ["__version__", "adapt", "evaluate", "load", "resume", "run"]

_FUNCTIONS = {"adapt": "adapt", "load": "load", "evaluate": "evaluate", "resume": "resume"}


def __getattr__(name: str) -> Any:
    """Names that need JAX are looked up when they are used: `import fledge` itself is quick."""
    if name in _FUNCTIONS:
        return getattr(import_module("fledge.run.api"), _FUNCTIONS[name])
    if name == "run":
        return import_module("fledge.run")
    raise AttributeError(f"module 'fledge' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
