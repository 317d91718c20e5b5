"""What several unreliable annotators most likely agree on."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def dawid_skene(
    item: Int[np.ndarray, " row"],
    annotator: Int[np.ndarray, " row"],
    category: Int[np.ndarray, " row"],
    *,
    n_categories: int = 0,
    smoothing: float = 1.0,
    n_steps: int = 100,
    tolerance: float = 1e-6,
) -> Float[np.ndarray, "item category"]:
    """How likely each category is the truth of each item, by expectation maximisation.

    Args:
        item: which item an answer is about, from 0, none left out.
        annotator: whose it is, from 0.
        category: what it says, from 0.
        n_categories: how many there are; 0: as many as were said.
        smoothing: answers that agree with the truth which every annotator is credited with in advance (and a tenth of
            that for each wrong one): somebody with few answers counts as fairly reliable, and categories do not trade
            places.
        n_steps: at most.
        tolerance: stop when no probability moves more.

    Reference: Dawid & Skene, Applied Statistics 28, 1979.
    """
    n_items, n_annotators = int(item.max()) + 1, int(annotator.max()) + 1
    q = n_categories or int(category.max()) + 1
    truth = np.zeros((n_items, q))
    np.add.at(truth, (item, category), 1.0)
    truth /= truth.sum(axis=1, keepdims=True)
    credit = smoothing * (0.1 + 0.9 * np.eye(q))
    place = annotator * q + category
    for _ in range(n_steps):
        table = np.stack([np.bincount(place, truth[item, c], n_annotators * q) for c in range(q)], axis=1)
        errors = table.reshape(n_annotators, q, q).transpose(0, 2, 1) + credit  # (annotator, truth, answer)
        errors /= errors.sum(axis=2, keepdims=True)
        log_truth = np.tile(np.log(truth.mean(axis=0) + 1e-12), (n_items, 1))
        for c in range(q):
            log_truth[:, c] += np.bincount(item, np.log(errors[annotator, c, category]), n_items)
        new = np.exp(log_truth - log_truth.max(axis=1, keepdims=True))
        new /= new.sum(axis=1, keepdims=True)
        moved, truth = float(np.abs(new - truth).max()), new
        if moved < tolerance:
            break
    return truth
