import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fledge.core.distributions import Categorical, DiagonalNormal

LOGITS = jnp.asarray([0.3, -1.0, 2.0])
P = np.exp(LOGITS) / np.exp(LOGITS).sum()


def test_categorical_log_probabilities_and_entropy_are_those_of_the_softmax():
    d = Categorical(LOGITS)
    np.testing.assert_allclose([d.log_prob(jnp.asarray(i)) for i in range(3)], np.log(P), atol=1e-6)
    np.testing.assert_allclose(d.entropy(), stats.entropy(P), atol=1e-6)


def test_categorical_samples_have_the_softmax_frequencies():
    noise = Categorical.noise(jax.random.key(0), (20_000, 3))
    drawn = Categorical(jnp.broadcast_to(LOGITS, noise.shape)).sample(noise)
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 20_000, P, atol=0.015)  # 4 standard errors


def test_categorical_kl_is_the_sum_by_hand():
    q = Categorical(jnp.asarray([1.0, 0.0, 0.0]))
    q_p = np.exp([1.0, 0, 0]) / np.exp([1.0, 0, 0]).sum()
    np.testing.assert_allclose(Categorical(LOGITS).kl(q), np.sum(P * np.log(P / q_p)), atol=1e-6)


def test_normal_log_probability_and_entropy_are_scipys():
    mean, std = np.array([0.5, -1.0]), np.array([0.3, 2.0])
    d = DiagonalNormal(jnp.asarray(mean, jnp.float32), jnp.log(jnp.asarray(std, jnp.float32)))
    x = np.array([0.1, 0.2])
    np.testing.assert_allclose(
        d.log_prob(jnp.asarray(x, jnp.float32)), stats.norm(mean, std).logpdf(x).sum(), rtol=1e-5
    )
    np.testing.assert_allclose(d.entropy(), stats.norm(mean, std).entropy().sum(), rtol=1e-5)


def test_normal_kl_is_zero_to_itself_and_the_closed_form_to_another():
    p = DiagonalNormal(jnp.asarray([0.0]), jnp.log(jnp.asarray([1.0])))
    q = DiagonalNormal(jnp.asarray([1.0]), jnp.log(jnp.asarray([2.0])))
    assert p.kl(p) == 0
    np.testing.assert_allclose(p.kl(q), np.log(2) + (1 + 1) / 8 - 0.5, rtol=1e-6)


@pytest.mark.parametrize("d", [Categorical(LOGITS), DiagonalNormal(jnp.asarray([0.2, 0.1]), jnp.zeros(2))])
def test_the_mode_is_the_most_likely_action(d):
    best = d.log_prob(d.mode())
    noise = type(d).noise(jax.random.key(1), (50, d.mode().size if isinstance(d, DiagonalNormal) else 3))
    assert all(float(d.log_prob(d.sample(n))) <= float(best) + 1e-6 for n in noise)
