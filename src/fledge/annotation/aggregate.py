"""From several answers to one per item: the rule is always named, because it changes every number after it."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from fledge.annotation.frame import Frame, answered, codes, conditions_of, pandas, ratings
from fledge.core.consensus import dawid_skene
from fledge.core.errors import unknown

Rule = Literal["median", "majority_positive", "majority_negative", "majority_drop", "dawid_skene"]
RULES: dict[str, str] = {
    "median": "the median; two answers that split give the mean of the middle pair as a category of its own (0.5)",
    "majority_positive": "the most frequent answer; of equals, the highest",
    "majority_negative": "the most frequent answer; of equals, the lowest",
    "majority_drop": "the most frequent answer; items with a tie have none",
    "dawid_skene": "the likeliest truth under a model of each annotator's errors",
}


def aggregate(frame: Frame, construct: Any, rule: Rule) -> Frame:
    """One row per item and condition: `item`, `condition`, `construct`, `value` (NaN where the rule gives none).

    Raises:
        ConfigError: there is no such rule or construct.
    """
    if rule not in RULES:
        raise unknown("rule of aggregation", rule, RULES)
    rows, parts = answered(frame, construct), []
    for condition in conditions_of(rows):
        own = rows[rows["condition"] == condition]
        item, items = codes(own["item"])
        category, values = codes(own["value"])
        numbers = np.asarray(values, float)
        if rule == "median":
            label = own.groupby("item")["value"].median().to_numpy(float)
        elif rule == "dawid_skene":
            annotator, _ = codes(own["annotator"])
            label = numbers[dawid_skene(item, annotator, category).argmax(axis=1)]
        else:
            label = _majority(item, category, numbers, rule)
        parts.append(
            pandas().DataFrame({"item": items, "condition": condition, "construct": construct, "value": label})
        )
    return pandas().concat(parts, ignore_index=True)


def _majority(
    item: Int[np.ndarray, " row"], category: Int[np.ndarray, " row"], values: Float[np.ndarray, " category"], rule: str
) -> Float[np.ndarray, " item"]:
    votes = np.zeros((item.max() + 1, len(values)))
    np.add.at(votes, (item, category), 1)
    top = votes == votes.max(axis=1, keepdims=True)
    highest = len(values) - 1 - top[:, ::-1].argmax(axis=1)
    if rule == "majority_positive":
        return values[highest]
    if rule == "majority_negative":
        return values[top.argmax(axis=1)]
    return np.where(top.sum(axis=1) == 1, values[highest], np.nan)


def wide(aggregated: Frame) -> Float[np.ndarray, "item condition"]:
    """Aggregated rows as a table of items by conditions: what agreement *between* conditions is measured on."""
    return ratings(aggregated, by="condition")
