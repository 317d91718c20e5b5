"""What the adapters of other libraries share: listed tasks, tasks as vectors, boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from fledge.core.errors import ConfigError
from fledge.core.spaces import Box
from fledge.core.types import Task
from fledge.envs.splits import known_split

ENDLESS = 1e30
"""Bounds beyond this stand for no bound (libraries write the largest float)."""


def listed_tasks(tasks: Mapping[str, Any]) -> dict[str, Task]:
    """Stacked tasks of every split, from what a user handed in; where there is no `ood`, it is `test`.

    Raises:
        ConfigError: `train` or `test` is missing, or there is a split of another name.
    """
    for split in tasks:
        known_split(split)
    if missing := [split for split in ("train", "test") if split not in tasks]:
        raise ConfigError(f"There are no tasks for {' and '.join(missing)}. Give them: {{'train': …, 'test': …}}.")
    arrays = {split: jax.tree.map(jnp.asarray, of, is_leaf=_is_list) for split, of in tasks.items()}
    return {"ood": arrays["test"], **arrays}


def _is_list(x: Any) -> bool:
    return isinstance(x, list)


def draw_task(key: Key[Array, ""], tasks: Task) -> Task:
    """One of stacked tasks, uniformly."""
    row = jax.random.randint(key, (), 0, jax.tree.leaves(tasks)[0].shape[0])
    return jax.tree.map(lambda leaf: leaf[row], tasks)


def flat_task(task: Task) -> Float[Array, " task"]:
    """All numbers of a task as one vector."""
    return jnp.concatenate([jnp.ravel(leaf).astype(jnp.float32) for leaf in jax.tree.leaves(task)])


def flat_box(space: Any) -> Box:
    """Our box for one of another library (`shape`, `low`, `high`): flat, with its widest bounds for every entry."""
    low, high = float(np.min(space.low)), float(np.max(space.high))
    return Box(int(np.prod(space.shape)), low if low > -ENDLESS else -np.inf, high if high < ENDLESS else np.inf)
