"""Fixtures of the tests about proteins."""

from __future__ import annotations

from protein_cases import weights  # noqa: F401
