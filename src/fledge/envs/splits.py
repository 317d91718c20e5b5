"""Splits of families whose tasks can be listed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Shaped

from fledge.core.errors import ConfigError, unknown
from fledge.core.types import SPLITS, Task


def split_rows(
    rows: Shaped[np.ndarray, "task *shape"], split: str, held_out: float, *, n_ood: int = 0, seed: int = 0
) -> Shaped[np.ndarray, "kept *shape"]:
    """The rows (tasks) of one split, in an order shuffled by `seed`, so that the first n of them are a fair sample.

    With `held_out` = 0 every split is all of them: the published protocol of families that train and test on one
    distribution. Otherwise the *last* `n_ood` rows are `ood`, a fraction `held_out` of the rest is `test`, and what is
    left is `train`: three disjoint sets. With `n_ood` = 0 there is nothing further out, and `ood` is `test`.

    Raises:
        ConfigError: `split` is not one of train, test and ood.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    rng = np.random.default_rng(seed)
    if held_out == 0:
        return rows[rng.permutation(len(rows))]
    n_inside = len(rows) - n_ood
    order = rng.permutation(n_inside)
    n_test = max(1, round(held_out * n_inside))
    test = order[:n_test]
    ood = rng.permutation(n_ood) + n_inside if n_ood else test
    return rows[{"train": order[n_test:], "test": test, "ood": ood}[split]]


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


def listed_tasks(tasks: Mapping[str, Any]) -> dict[str, Task]:
    """Stacked tasks of every split, from what a user handed in; where there is no `ood`, it is `test`.

    Raises:
        ConfigError: `train` or `test` is missing, or there is a split of another name.
    """
    for split in tasks:
        known_split(split)
    if missing := [split for split in ("train", "test") if split not in tasks]:
        raise ConfigError(f"There are no tasks for {' and '.join(missing)}. Give them: {{'train': …, 'test': …}}.")
    return jax.tree.map(jnp.asarray, {"ood": tasks["test"], **tasks})


def draw_task(key: Key[Array, ""], tasks: Task) -> Task:
    """One of stacked tasks, uniformly."""
    row = jax.random.randint(key, (), 0, jax.tree.leaves(tasks)[0].shape[0])
    return jax.tree.map(lambda leaf: leaf[row], tasks)


def flat_task(task: Task) -> Float[Array, " task"]:
    """All numbers of a task as one vector."""
    return jnp.concatenate([jnp.ravel(leaf).astype(jnp.float32) for leaf in jax.tree.leaves(task)])
