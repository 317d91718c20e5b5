"""Rings of rows, one per task."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.core.errors import ConfigError
from fledge.data.task_rings import TaskRings

KEY = jax.random.key(0)


def rings(capacity=3):
    return TaskRings.init(jnp.zeros(()), 3, capacity)


def rows(*values):
    return jnp.asarray(values, jnp.float32)


def test_rows_of_a_task_are_drawn_for_that_task_alone():
    filled = rings().insert(jnp.array([2, 0]), rows([1, 2], [3, 4]))
    drawn = filled.draw(KEY, jnp.array([0, 2]), 50)
    assert [set(np.asarray(row).tolist()) for row in drawn] == [{3.0, 4.0}, {1.0, 2.0}]


def test_the_newest_rows_push_out_the_oldest():
    filled = rings().insert(jnp.array([1]), rows([1, 2])).insert(jnp.array([1]), rows([3, 4]))
    assert set(np.asarray(filled.draw(KEY, jnp.array([1]), 50)[0]).tolist()) == {2.0, 3.0, 4.0}


def test_of_more_rows_than_fit_the_last_stay():
    filled = rings().insert(jnp.array([1]), rows([1, 2, 3, 4, 5]))
    assert set(np.asarray(filled.draw(KEY, jnp.array([1]), 50)[0]).tolist()) == {3.0, 4.0, 5.0}


def test_an_emptied_ring_draws_only_what_came_after():
    filled = rings().insert(jnp.array([0, 1]), rows([1, 2], [3, 4])).emptied(jnp.array([0]))
    filled = filled.insert(jnp.array([0]), rows([9]))
    drawn = filled.draw(KEY, jnp.array([0, 1]), 50)
    assert [set(np.asarray(row).tolist()) for row in drawn] == [{9.0}, {3.0, 4.0}]


def test_every_row_is_drawn_equally_often():
    filled = rings().insert(jnp.array([0]), rows([0, 1, 2]))
    counts = np.bincount(np.asarray(filled.draw(KEY, jnp.array([0]), 9000)[0]).astype(int))
    np.testing.assert_allclose(counts, 3000, atol=200)  # four standard errors are 180


def test_rings_without_room_are_refused():
    with pytest.raises(ConfigError, match="got 3 tasks of 0 rows"):
        rings(capacity=0)
