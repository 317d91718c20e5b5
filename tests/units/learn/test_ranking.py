"""Ranking losses: the numbers of the paper's two forms, ties, and what must not matter."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.core.errors import ConfigError
from fledge.learn.ranking import bradley_terry, bradley_terry_code, bradley_terry_sum, masked_mse, ranking_loss
from fledge.learn.schedules import warmup_cosine

V = jnp.array([0.3, -1.2, 0.5, 0.0])
TIED = jnp.array([1.0, 0.2, 0.2, -0.5])
FREE = jnp.array([1.0, 0.2, 0.1, -0.5])


@pytest.mark.parametrize(
    ("found", "golden"),
    [
        (lambda: bradley_terry_code(V, TIED), 0.281815804546),
        (lambda: bradley_terry_sum(V, TIED), 3.491266843351),
        (lambda: bradley_terry(V, TIED), 0.698253368670),
        (lambda: bradley_terry_code(V, TIED, smoothing=0.1), 0.287440804546),
        (lambda: bradley_terry_code(V, TIED, beta=1.0), 0.295909071558),
        (lambda: bradley_terry_code(V, FREE), 0.334940804546),
        (lambda: bradley_terry_sum(V, FREE), 5.359052872737),
    ],
)
def test_the_losses_have_their_known_values(found, golden):
    assert float(found()) == pytest.approx(golden, rel=2e-6)


def test_without_ties_the_code_form_is_the_sum_over_the_squared_size():
    assert float(bradley_terry_sum(V, FREE) / bradley_terry_code(V, FREE)) == pytest.approx(16, rel=1e-6)


def test_nothing_ordered_is_no_loss_and_no_gradient():
    value, gradient = jax.value_and_grad(bradley_terry)(V, jnp.ones(4))
    assert (float(value), np.abs(gradient).max()) == (0.0, 0.0)


def test_ties_say_nothing():
    moved = V.at[2].set(V[1])  # between the two tied rows only
    pair = jnp.array([False, True, True, False])
    assert float(bradley_terry(V, TIED, pair)) == float(bradley_terry(moved, TIED, pair)) == 0.0


def test_rows_that_do_not_count_do_not_matter():
    counts = jnp.array([True, True, True, False])
    assert float(bradley_terry(V, FREE, counts)) == pytest.approx(float(bradley_terry(V[:3], FREE[:3])), rel=1e-6)


def test_only_the_order_of_the_measurements_matters():
    assert float(bradley_terry(V, FREE)) == pytest.approx(float(bradley_terry(V, 3 * FREE + 5)), rel=1e-6)


def test_squared_error_over_what_counts():
    assert float(masked_mse(V, jnp.zeros(4), jnp.array([True, False, True, False]))) == pytest.approx(0.17)


def test_an_unknown_loss_is_refused():
    with pytest.raises(ConfigError, match="Did you mean 'pairs'"):
        ranking_loss("pair", V, TIED, jnp.ones(4, bool))


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 0.0), (1, 0.0002), (2_500, 0.5), (5_000, 1.0), (20_000, 0.939737), (50_000, 0.541290), (100_000, 1e-5)],
)
def test_the_published_schedule(step, factor):
    assert float(warmup_cosine(5_000, 100_000, 1e-5)(step)) == pytest.approx(factor, abs=2e-6)
