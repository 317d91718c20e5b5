"""The replay buffer keeps the newest rows and draws from all that it has."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fledge.data.replay import Replay

KEY = jax.random.key(0)


def filled(n, capacity=4):
    buffer = Replay.init({"x": jnp.zeros(())}, capacity)
    for i in range(n):
        buffer = buffer.add({"x": jnp.asarray([float(i)])})
    return buffer


def drawn(buffer):
    return set(buffer.sample(KEY, 200)["x"].tolist())


def test_a_young_buffer_draws_only_what_was_added():
    assert drawn(filled(3)) == {0.0, 1.0, 2.0}


def test_a_full_buffer_forgets_the_oldest():
    assert drawn(filled(6)) == {2.0, 3.0, 4.0, 5.0}


def test_rows_added_together_wrap_around_the_end():
    assert drawn(filled(3).add({"x": jnp.array([7.0, 8.0])})) == {1.0, 2.0, 7.0, 8.0}


def test_one_buffer_per_task_under_vmap():
    buffers = jax.vmap(lambda x: Replay.init({"x": x}, 4).add({"x": x[None]}))(jnp.array([1.0, 2.0]))
    assert jax.vmap(lambda b, k: b.sample(k, 3))(buffers, jax.random.split(KEY, 2))["x"].tolist() == [
        [1.0] * 3,
        [2.0] * 3,
    ]
