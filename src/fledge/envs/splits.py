"""Splits of families whose tasks can be listed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, Shaped

from fledge.core.errors import unknown
from fledge.core.types import SPLITS


def split_rows(
    rows: Shaped[np.ndarray, "task *shape"], split: str, held_out: float, *, n_ood: int = 0, seed: int = 0
) -> Shaped[np.ndarray, "kept *shape"]:
    """The rows (tasks) of one split.

    With `held_out` = 0 every split is all of them: the published protocol of families that train and test on one
    distribution. Otherwise the *last* `n_ood` rows are `ood`, a fraction `held_out` of the rest (shuffled by `seed`)
    is `test`, and what is left is `train`: three disjoint sets.

    Raises:
        ConfigError: `split` is not one of train, test and ood.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if held_out == 0:
        return rows
    n_inside = len(rows) - n_ood
    order = np.random.default_rng(seed).permutation(n_inside)
    n_test = max(1, round(held_out * n_inside))
    chosen = {"train": order[n_test:], "test": order[:n_test], "ood": np.arange(n_inside, len(rows))}[split]
    return rows[np.sort(chosen)]


def draw_row(key: Key[Array, ""], rows: Shaped[np.ndarray, "task *shape"]) -> Shaped[Array, "*shape"]:
    """One row, uniformly."""
    return jnp.asarray(rows)[jax.random.randint(key, (), 0, len(rows))]


def known_split(split: str) -> str:
    """The split itself, for families whose splits need no list of tasks.

    Raises:
        ConfigError: `split` is not one of train, test and ood.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    return split
