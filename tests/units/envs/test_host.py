"""Calls to the host from compiled programs, and one answer to a question that is asked twice."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.envs.host import N_KEPT, Once, call_host

SHAPES = (jax.ShapeDtypeStruct((3,), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32))


def double_and_sum(x):
    return 2 * x, x.sum(-1)


@pytest.mark.parametrize("lead", [(), (2,), (2, 4)])
def test_a_batch_of_any_depth_is_one_call(lead):
    shapes = []

    def function(x):
        shapes.append(x.shape)
        return double_and_sum(x)

    def one(x):
        return call_host(function, SHAPES, x)

    for _ in lead:
        one = jax.vmap(one)
    x = jnp.arange(3.0 * np.prod(lead, dtype=int)).reshape(*lead, 3)
    twice, total = jax.jit(one)(x)
    np.testing.assert_array_equal(twice, 2 * x)
    np.testing.assert_array_equal(total, x.sum(-1))
    assert shapes == [(*lead, 3)]


def test_what_the_host_raises_stops_the_program():
    def function(x):
        raise ValueError("the engine stopped")

    with pytest.raises(Exception, match="the engine stopped"):
        jax.block_until_ready(jax.jit(lambda x: call_host(function, SHAPES, x))(jnp.zeros(3)))


class Counted:
    """Counts its calls, and takes until two threads have asked."""

    def __init__(self):
        self.calls, self.both = [], threading.Event()

    def __call__(self, x):
        self.calls.append(x.copy())
        self.both.wait(0.2)
        return double_and_sum(x)


def test_two_who_ask_the_same_at_the_same_time_are_answered_once():
    assert jax.local_device_count() == 2
    counted, x = Counted(), np.ones((4, 3), np.float32)
    once = Once(counted)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(once, [x, x.copy()]))
    assert len(counted.calls) == 1
    np.testing.assert_array_equal(answers[0][0], answers[1][0])


def test_two_who_ask_different_questions_get_their_own_answers():
    counted = Counted()
    counted.both.set()
    once = Once(counted)
    one, two = once(np.ones((2, 3))), once(np.full((2, 3), 5.0))
    assert (one[1][0], two[1][0], len(counted.calls)) == (3.0, 15.0, 2)


def test_old_answers_are_forgotten():
    counted = Counted()
    counted.both.set()
    once = Once(counted)
    for i in range(N_KEPT + 1):
        once(np.full((1, 3), float(i)))
    once(np.zeros((1, 3)))
    assert len(counted.calls) == N_KEPT + 2


def test_an_error_reaches_everyone_who_asked():
    def fails(x):
        raise ValueError("the engine stopped")

    once = Once(fails)
    for _ in range(2):
        with pytest.raises(ValueError, match="the engine stopped"):
            once(np.zeros(3))
