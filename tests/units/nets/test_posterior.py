"""A product of Gaussian factors, where the answer can be worked out by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.core.errors import ConfigError
from fledge.nets.posterior import Evidence, PosteriorEncoder, standard

KEY = jax.random.key(0)


def encoder(**settings):
    return PosteriorEncoder.init(KEY, 3, 2, (8,), **settings)


def evidence(means, variances):
    """Of factors of one dimension."""
    mean, variance = jnp.asarray(means)[:, None], jnp.asarray(variances)[:, None]
    return Evidence(mean / variance, 1 / variance).together(axis=0)


def test_two_factors__their_product_has_the_mean_weighted_by_precision():
    # N(1, 1/2) · N(4, 1): precision 2 + 1, mean (2·1 + 1·4) / 3.
    belief = encoder().posterior(evidence([1.0, 4.0], [0.5, 1.0]))
    np.testing.assert_allclose([belief.mean[0], jnp.exp(2 * belief.log_std[0])], [2.0, 1 / 3], rtol=1e-6)


def test_the_prior_as_a_factor__is_one_more_observation_of_zero():
    belief = encoder(prior_factor=True).posterior(evidence([1.0, 4.0], [0.5, 1.0]))
    np.testing.assert_allclose([belief.mean[0], jnp.exp(2 * belief.log_std[0])], [6 / 4, 1 / 4], rtol=1e-6)


@pytest.mark.parametrize("prior_factor", [False, True])
def test_without_evidence_the_posterior_is_the_prior(prior_factor):
    belief = encoder(prior_factor=prior_factor).posterior(Evidence.none(2))
    np.testing.assert_array_equal([belief.mean, belief.log_std], np.zeros((2, 2)))


def test_one_transition_is_one_factor():
    made, context = encoder(), jnp.arange(3.0)
    mean, raw = jnp.split(made.mlp(context), 2)
    belief = made.posterior(made(context))
    np.testing.assert_allclose(belief.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(jnp.exp(2 * belief.log_std), jax.nn.softplus(raw), rtol=1e-6)


def test_the_order_of_transitions_does_not_matter():
    made = encoder()
    context = jax.random.normal(KEY, (10, 3))
    one, other = (made.posterior(made(c).together()) for c in (context, context[::-1]))
    np.testing.assert_allclose(one.mean, other.mean, atol=1e-6)
    np.testing.assert_allclose(one.log_std, other.log_std, atol=1e-6)


def test_more_transitions_make_it_narrower():
    made = encoder()
    context = jax.random.normal(KEY, (10, 3))
    few, many = (made.posterior(made(context[:n]).together()) for n in (5, 10))
    assert np.all(many.log_std < few.log_std)


def test_the_kl_to_the_prior_is_the_closed_form():
    # ½ (σ² + μ² − 1 − ln σ²) with μ = 2 and σ² = 1/3.
    belief = encoder().posterior(evidence([1.0, 4.0], [0.5, 1.0]))
    np.testing.assert_allclose(belief.kl(standard(belief.mean)), 0.5 * (1 / 3 + 4 - 1 + np.log(3)), rtol=1e-6)


def test_a_latent_without_dimensions_is_refused():
    with pytest.raises(ConfigError, match="latent_size is the number of latent dimensions, at least 1"):
        PosteriorEncoder.init(KEY, 3, 0, ())
