"""From several answers to one per item: the rule is always named, because it changes every number after it."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from fledge.annotation.frame import Frame, answered, codes, conditions_of, pandas
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


def dawid_skene(
    item: Int[np.ndarray, " row"],
    annotator: Int[np.ndarray, " row"],
    category: Int[np.ndarray, " row"],
    *,
    smoothing: float = 1.0,
    n_steps: int = 100,
    tolerance: float = 1e-6,
) -> Float[np.ndarray, "item category"]:
    """How likely each category is the truth of each item, by expectation maximisation.

    Args:
        item: which item an answer is about, from 0.
        annotator: whose it is, from 0.
        category: what it says, from 0.
        smoothing: added to the diagonal of each annotator's table of errors (a tenth of it elsewhere), so that
            somebody with few answers counts as fairly reliable; it also keeps categories from trading places.
        n_steps: at most.
        tolerance: stop when no probability moves more.

    Reference: Dawid & Skene, Applied Statistics 28, 1979.
    """
    n_items, n_raters, q = item.max() + 1, annotator.max() + 1, category.max() + 1
    truth = np.zeros((n_items, q))
    np.add.at(truth, (item, category), 1.0)
    truth /= truth.sum(axis=1, keepdims=True)
    prior_table = smoothing * (0.1 + 0.9 * np.eye(q))
    place = annotator * q + category
    for _ in range(n_steps):
        table = np.stack([np.bincount(place, truth[item, c], n_raters * q) for c in range(q)], axis=1)
        errors = table.reshape(n_raters, q, q).transpose(0, 2, 1) + prior_table  # (annotator, truth, answer)
        errors /= errors.sum(axis=2, keepdims=True)
        log_truth = np.tile(np.log(truth.mean(axis=0) + 1e-12), (n_items, 1))
        for c in range(q):
            log_truth[:, c] += np.bincount(item, np.log(errors[annotator, c, category]), n_items)
        new = np.exp(log_truth - log_truth.max(axis=1, keepdims=True))
        new /= new.sum(axis=1, keepdims=True)
        moved, truth = np.abs(new - truth).max(), new
        if moved < tolerance:
            break
    return truth


def wide(aggregated: Frame) -> Float[np.ndarray, "item condition"]:
    """Aggregated rows as a table of items by conditions: what agreement *between* conditions is measured on."""
    from fledge.annotation.frame import ratings

    return ratings(aggregated, by="condition")
