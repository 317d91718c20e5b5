from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.core.errors import ConfigError
from fledge.data.replay import Ring


def ring(capacity, *batches):
    found = Ring.init({"x": jnp.zeros(2)}, capacity)
    for batch in batches:
        found = found.insert({"x": jnp.stack([jnp.asarray(batch, jnp.float32)] * 2, axis=1)})
    return found


def kept(found):
    return sorted(np.asarray(found.rows["x"][: int(found.size), 0]).tolist())


def test_a_ring_keeps_what_it_was_given():
    assert kept(ring(5, [1, 2], [3])) == [1, 2, 3]


def test_the_newest_rows_push_out_the_oldest():
    assert kept(ring(4, [1, 2, 3], [4, 5, 6])) == [3, 4, 5, 6]


def test_of_more_rows_than_there_is_room_for_the_last_stay():
    assert kept(ring(3, [1], [2, 3, 4, 5, 6])) == [4, 5, 6]


def test_rows_keep_their_order_across_the_rim():
    assert np.asarray(ring(4, [1, 2, 3], [4, 5, 6]).rows["x"][:, 0]).tolist() == [5, 6, 3, 4]


def test_an_emptied_ring_draws_nothing():
    _, real = ring(4, [1, 2, 3]).emptied().sample(jax.random.key(0), 2)
    assert not bool(jnp.any(real))


@pytest.fixture(scope="module")
def draws():
    """4,000 draws of 3 out of 5 rows (of which a ring for 7 keeps 5)."""
    found = ring(7, [0, 1, 2, 3, 4])
    rows, real = jax.vmap(lambda key: found.sample(key, 3))(jax.random.split(jax.random.key(1), 4000))
    return np.asarray(rows["x"][..., 0]).astype(int), np.asarray(real)


def test_no_row_is_drawn_twice_in_a_sample(draws):
    assert all(len(set(sample)) == 3 for sample in draws[0])


def test_every_set_of_rows_is_equally_likely(draws):
    sets = [tuple(sorted(sample)) for sample in draws[0]]
    counts = np.array([sets.count(chosen) for chosen in set(sets)])
    assert len(counts) == 10
    assert np.all(np.abs(counts - 400) < 4 * np.sqrt(400 * 0.9))  # four standard deviations


def test_a_sample_of_a_ring_that_is_full_enough_is_all_real(draws):
    assert draws[1].all()


def test_a_ring_with_too_few_rows_gives_each_of_them_once():
    rows, real = ring(7, [4, 5]).sample(jax.random.key(0), 4)
    assert sorted(np.asarray(rows["x"][:, 0])[np.asarray(real)].tolist()) == [4, 5]


def test_a_ring_without_room_is_refused():
    with pytest.raises(ConfigError, match="at least one row"):
        Ring.init(jnp.zeros(2), 0)


def drawn(found):
    return set(np.asarray(found.draw(jax.random.key(0), 200)["x"][:, 0]).tolist())


def test_a_young_ring_draws_only_what_was_inserted():
    assert drawn(ring(4, [0, 1, 2])) == {0, 1, 2}


def test_a_full_ring_draws_nothing_that_was_pushed_out():
    assert drawn(ring(4, [0, 1, 2], [3, 4, 5])) == {2, 3, 4, 5}


def test_one_ring_per_task_under_vmap():
    rings = jax.vmap(lambda x: Ring.init({"x": x}, 4).insert({"x": x[None]}))(jnp.array([1.0, 2.0]))
    rows = jax.vmap(lambda found, key: found.draw(key, 3))(rings, jax.random.split(jax.random.key(0), 2))
    assert rows["x"].tolist() == [[1.0] * 3, [2.0] * 3]
