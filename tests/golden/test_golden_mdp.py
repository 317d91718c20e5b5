"""The two-state process whose value, gradient and Hessian are known to six digits."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from fledge.envs.tabular import exact_gradient, exact_hessian, exact_value, finite_value, golden_mdp

GRADIENT = [[-0.411586, 0.411586], [0.135228, -0.135228]]
HESSIAN = np.array(
    [
        [0.065219, -0.065219, -0.014908, 0.014908],
        [-0.065219, 0.065219, 0.014908, -0.014908],
        [-0.014908, 0.014908, 0.028633, -0.028633],
        [0.014908, -0.014908, -0.028633, 0.028633],
    ]
)
# float32: the golden numbers have six digits, and sums of a few terms lose about one unit of the seventh.
TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def problem():
    return golden_mdp()


def test__golden_mdp__value_of_the_start__is_the_golden_number(problem):
    assert float(exact_value(*problem, discount=0.9, horizon=3)) == pytest.approx(0.742620, abs=TOLERANCE)


def test__golden_mdp__gradient__is_the_golden_one(problem):
    np.testing.assert_allclose(exact_gradient(*problem, discount=0.9, horizon=3), GRADIENT, atol=TOLERANCE)


def test__golden_mdp__hessian__is_the_golden_one(problem):
    np.testing.assert_allclose(exact_hessian(*problem, discount=0.9, horizon=3), HESSIAN, atol=TOLERANCE)


def test__golden_mdp__values_in_time__end_at_zero_and_begin_at_the_golden_number(problem):
    values = finite_value(*problem, horizon=3, discount=0.9)
    assert values.shape == (4, 2)
    np.testing.assert_allclose(jnp.stack([values[0, 0], *values[-1]]), [0.742620, 0.0, 0.0], atol=TOLERANCE)
