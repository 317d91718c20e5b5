"""MAML and Reptile on a quadratic, where the answers are known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from fledge.learn.supervised_meta import descend, maml_loss, reptile_direction

KEY = jax.random.key(0)


def loss(x, key):
    return 0.5 * jnp.sum(3.0 * (x - 1.0) ** 2)


def test_steps_go_down_the_gradient():
    found = descend(loss, jnp.array(0.0), KEY, n_steps=2, learning_rate=0.1)
    assert float(found) == pytest.approx(1 - 0.7**2)  # each step shrinks the distance by 1 - 0.1 * 3


def test_mamls_gradient_has_its_second_order_part():
    def after(x):
        return maml_loss(loss, loss, x, KEY, n_steps=1, learning_rate=0.1)

    assert float(jax.grad(after)(jnp.array(0.0))) == pytest.approx(-3 * 0.7 * 0.7)  # first order alone: -3 * 0.7


def test_reptiles_direction_is_the_sum_of_the_gradients_on_the_way():
    found = reptile_direction(loss, jnp.array(0.0), KEY, n_steps=2, learning_rate=0.1)
    assert float(found) == pytest.approx(-3 - 3 * 0.7)
