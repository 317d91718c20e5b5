"""Numbers that others published for the eight held-out assays of Metalic's split, and what differs from ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fledge.data.protein_splits import PAPER_SINGLES, current_name

MEAN = "mean of the 8"
OURS = "Fledge"


@dataclass(frozen=True)
class PublishedRow:
    """A Spearman correlation on held-out assays."""

    method: str
    assay: str
    """`MEAN`, or one of them."""
    labels: int
    spearman: float
    differs: str
    """What is not as in our measurement."""


_OTHER_TEST = "all variants ranked, no meta-training"
_FSFP = "other draws of labels, {}"
_ZERO_SHOT = (
    ("Metalic (ESM-2 8M)", 0.48, "about, as a summary tells it; learns from assays of four of the same proteins; "
     "language model"),
    ("ProSST", 0.527, f"{_OTHER_TEST}; structures and a language model"),
    ("ESM-1v (5 models)", 0.438, f"{_OTHER_TEST}; language models of 650 M parameters"),
    ("PoET", 0.437, f"{_OTHER_TEST}; homologues and a language model"),
    ("TranceptEVE L", 0.426, f"{_OTHER_TEST}; alignment and a language model"),
    ("GEMME", 0.412, f"{_OTHER_TEST}; alignment"),
    ("ESM-2 650M", 0.399, f"{_OTHER_TEST}; language model"),
    ("site-independent", 0.345, f"{_OTHER_TEST}; alignment"),
    ("ESM-2 8M", 0.116, f"{_OTHER_TEST}; language model"),
)  # fmt: skip
_FEW_SHOT = (
    ("FSFP, SaProt", (0.482, 0.507, 0.523, 0.541, 0.543), "meta-learns on similar assays; structure language model"),
    ("FSFP, ESM-1v", (0.475, 0.494, 0.511, 0.535, 0.542), "meta-learns on similar assays; language model"),
    ("FSFP, ESM-2", (0.459, 0.489, 0.503, 0.518, 0.532), "meta-learns on similar assays; language model"),
    ("ridge on ESM-1v", (0.419, 0.438, 0.457, 0.465, 0.475), "no meta-learning; language model"),
    ("ridge on GEMME", (0.418, 0.441, 0.461, 0.469, 0.477), "no meta-learning; alignment"),
)
_FEW_LABELS = (20, 40, 60, 80, 100)
_EACH = {
    "ESM-2 8M": (0.362, 0.161, 0.055, 0.411, 0.046, -0.034, 0.122, -0.194),
    "ESM-1v": (0.684, 0.264, 0.436, 0.588, 0.267, 0.342, 0.367, 0.554),
    "VESPA": (0.719, 0.210, 0.451, 0.556, 0.350, 0.405, 0.523, 0.493),
    "TranceptEVE L": (0.734, 0.246, 0.481, 0.540, 0.235, 0.268, 0.467, 0.438),
}
"""Without labels, in the order of `PAPER_SINGLES` (ProteinGym's table)."""


def beside(ours: Mapping[int, Mapping[str, float]]) -> list[PublishedRow]:
    """Our numbers and the published ones; nothing if none of the eight was measured.

    Args:
        ours: labels → assay → Spearman.
    """
    rows: list[PublishedRow] = []
    for labels, by in ours.items():
        eight = {current_name(name): value for name, value in by.items() if current_name(name) in PAPER_SINGLES}
        if eight:
            told = "" if len(eight) == len(PAPER_SINGLES) else f"only {len(eight)} of the 8 were measured"
            rows.append(PublishedRow(OURS, MEAN, labels, float(np.mean(list(eight.values()))), told))
            if labels == 0:
                rows += [PublishedRow(OURS, name, 0, value, "") for name, value in eight.items()]
    if not rows:
        return []
    rows += [PublishedRow(name, MEAN, 0, value, differs) for name, value, differs in _ZERO_SHOT]
    for name, values, differs in _FEW_SHOT:
        rows += [
            PublishedRow(name, MEAN, n, value, _FSFP.format(differs))
            for n, value in zip(_FEW_LABELS, values, strict=True)
        ]
    for name, each in _EACH.items():
        rows += [PublishedRow(name, assay, 0, value, "") for assay, value in zip(PAPER_SINGLES, each, strict=True)]
    return rows
