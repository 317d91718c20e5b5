"""How much two proteins have in common: identity in an alignment with free ends, and clusters by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from fledge.data.residues import BLOSUM62, encode

GAP = 6
"""Cost of a gapped position, in the half bits of BLOSUM62."""
_SHIFT = 1 << 20
"""Scores are kept times this, with the count of identical residues below it: both are added up in one number."""


def identities(query: str, others: Sequence[str]) -> Float[np.ndarray, " other"]:
    """Share of the shorter sequence's residues that stand beside an equal one in the best alignment.

    Needleman and Wunsch (1970) with BLOSUM62, a linear gap cost and free gaps at both ends; among alignments of one
    score, the one with most identities. All of `others` are aligned at once.
    """
    found = np.zeros(len(others))
    groups: dict[int, list[int]] = {}
    for i, other in enumerate(others):
        groups.setdefault(len(other).bit_length(), []).append(i)  # so that short ones are not filled up to long ones
    for rows in groups.values():
        found[rows] = _aligned(query, [others[i] for i in rows])
    return found


def _aligned(query: str, others: Sequence[str]) -> Float[np.ndarray, " other"]:
    width = max(map(len, others))
    codes = np.full((len(others), width), 20, np.int64)
    for i, other in enumerate(others):
        codes[i, : len(other)] = encode(other)
    table = np.full((20, 21), -(10**6), np.int64) * _SHIFT
    table[:, :20] = BLOSUM62.astype(np.int64) * _SHIFT + np.eye(20, dtype=np.int64)
    gap = GAP * _SHIFT
    ramp = gap * np.arange(width + 1)
    lengths = np.array([len(other) for other in others])
    before = np.zeros((len(others), width + 1), np.int64)
    best = np.zeros(len(others), np.int64)
    rows = np.arange(len(others))
    for code in encode(query):
        here = np.zeros_like(before)
        here[:, 1:] = np.maximum(before[:, :-1] + table[code][codes], before[:, 1:] - gap)
        here = np.maximum.accumulate(here + ramp, axis=1) - ramp
        best = np.maximum(best, here[rows, lengths])  # the query may hang over the end
        before = here
    inside = np.arange(width + 1) <= lengths[:, None]
    best = np.maximum(best, np.where(inside, before, 0).max(axis=1))
    same = np.mod(best, _SHIFT)
    return same / np.minimum(len(query), lengths)


def clusters(sequences: Mapping[str, str], threshold: float = 0.4) -> list[list[str]]:
    """Names in groups: whoever shares more than `threshold` with a member of a group is in it. Largest group first."""
    names = list(sequences)
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for i, name in enumerate(names[:-1]):
        shares = identities(sequences[name], [sequences[other] for other in names[i + 1 :]])
        for other, share in zip(names[i + 1 :], shares.tolist(), strict=True):
            if share >= threshold:
                parent[root(other)] = root(name)
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(root(name), []).append(name)
    return sorted(groups.values(), key=lambda group: (-len(group), names.index(group[0])))
