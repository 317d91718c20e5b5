"""Fresh memories have the statistics that were measured of the published code (means of 10 initialisations)."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.agents.analyse import latent_memory, memory_statistics, norm

AT = np.array([0, 1, 10, 25])


@cache
def measured(name):
    """The published widths, a quarter of the length, a third of the initialisations; means over these."""
    statistics = memory_statistics(latent_memory(name, 80, 256, 12), jax.random.key(0), 26, 80, 3)
    return jax.tree.map(lambda x: np.asarray(x).mean(axis=0), statistics)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("rnn", (0.45, 0.23, 2.3e-3, 2.3e-6)),
        ("splagger", (0.40, 0.27, 0.12, 0.065)),
        ("amrl", (0.45, 0.50, 0.66, 0.66)),
        ("cnp", (1.5, 0.77, 0.14, 0.059)),
        ("inv-init", (0.39, 0.38, 0.33, 0.29)),
    ],
)
def test_the_gradient_of_the_first_token_fades_as_published(name, published):
    # 30 % above 1e-3; what has all but vanished varies by orders of magnitude between initialisations.
    found = measured(name).first_input[AT]
    large = np.array(published) > 1e-3
    np.testing.assert_allclose(found[large], np.array(published)[large], rtol=0.3)
    np.testing.assert_allclose(np.log10(found[~large]), np.log10(np.array(published)[~large]), atol=1.0)


@pytest.mark.parametrize(
    ("name", "published"),
    [("rnn", (11, 12, 13, 13)), ("splagger", (10, 12, 15, 16)), ("amrl", (11, 14, 41, 79)), ("cnp", (28, 20, 11, 9))],
)
def test_the_gradient_of_the_parameters_grows_as_published(name, published):
    np.testing.assert_allclose(measured(name).parameters[AT], published, rtol=0.3)


def test_straight_through_gradients_grow_and_others_do_not():
    growth = {
        name: measured(name).parameters[25] / measured(name).parameters[0] for name in ("rnn", "splagger", "amrl")
    }
    assert growth["rnn"] < growth["splagger"] < 2.0 < 5.0 < growth["amrl"]


def test_the_split_keeps_part_of_the_order_and_a_set_nothing():
    order = {name: measured(name).order[10:].mean() for name in ("rnn", "splagger", "inv-init", "cnp")}
    assert order["rnn"] > order["splagger"] > order["inv-init"] > 0.03
    assert order["cnp"] < 1e-5


def test_what_all_tokens_leave_at_the_end_begins_with_what_the_first_one_leaves():
    found = measured("splagger")
    np.testing.assert_allclose(found.each_input[0], found.first_input[-1], rtol=1e-5)


def test_a_norm_whose_squares_vanish_in_single_precision_is_not_zero():
    np.testing.assert_allclose(norm(jnp.array([3e-25, 4e-25])), 5e-25, rtol=1e-5)
    assert norm(jnp.zeros(2)) == 0
