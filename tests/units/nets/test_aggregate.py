"""Aggregators: values and gradients by hand, order, segments."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.core.errors import ConfigError
from fledge.nets import segments
from fledge.nets.aggregate import (
    AGGREGATORS,
    GaussianAggregator,
    HalvesAggregator,
    MaxAggregator,
    MeanAggregator,
    SoftmaxAggregator,
    SumAggregator,
    WeightedMeanAggregator,
    mean_and_max,
)

WIDTH, LENGTH = 4, 9
# One unit: −1, then 3, then 2. And what d(out_0 + 10 out_1 + 100 out_2) is by hand.
VALUES, WEIGHTS = (-1.0, 3.0, 2.0), (1.0, 10.0, 100.0)


def outputs(aggregator, values, resets=None):
    values = jnp.asarray(values, jnp.float32)
    values = values if values.ndim > 1 else values[:, None]
    resets = jnp.zeros(len(values), bool) if resets is None else jnp.asarray(resets)
    return aggregator.scan(aggregator.begin(), values, resets)[1]


def by_hand(aggregator, values=VALUES, weights=WEIGHTS):
    """Outputs, and the gradient of their weighted sum, of an aggregator with one output."""

    def loss(values):
        out = outputs(aggregator, values)[:, 0]
        return jnp.dot(jnp.asarray(weights), out), out

    gradient, out = jax.grad(loss, has_aux=True)(jnp.asarray(values))
    return out, gradient


@pytest.mark.parametrize(
    ("aggregator", "wanted", "gradient"),
    [
        (SumAggregator(1), (-1, 2, 4), (111, 110, 100)),
        (MeanAggregator(1), (-1, 1, 4 / 3), (1 + 5 + 100 / 3, 5 + 100 / 3, 100 / 3)),
        (MeanAggregator(1, straight_through=True), (-1, 1, 4 / 3), (111, 110, 100)),
        (MaxAggregator(1), (0, 3, 3), (0, 110, 0)),
        (MaxAggregator(1, straight_through=True), (0, 3, 3), (111, 110, 100)),
        (MaxAggregator(1, low_init=True), (-1, 3, 3), (1, 110, 0)),
        (MaxAggregator(1, straight_through=True, low_init=True), (-1, 3, 3), (111, 110, 100)),
        (MaxAggregator(1, normalised=True), (0, 1, 1), (0, 110 / 3, 0)),
    ],
    ids=["sum", "avg", "avg-st", "max", "max-st", "max-low", "max-st-low", "max-norm"],
)
def test__aggregator__one_unit__value_and_gradient_by_hand(aggregator, wanted, gradient):
    out, found = by_hand(aggregator)
    np.testing.assert_allclose(out, wanted, rtol=1e-6)
    np.testing.assert_allclose(found, gradient, rtol=1e-6)


def test__max_norm__small_maxima__are_divided_by_a_tenth_at_most():
    np.testing.assert_allclose(outputs(MaxAggregator(1, normalised=True), (0.02,)), [[0.2]], rtol=1e-6)


def test__max__ties__the_first_gets_the_whole_gradient():
    np.testing.assert_allclose(by_hand(MaxAggregator(1), (2.0, 2.0, 1.0))[1], (111, 0, 0))


def test__avgmax__two_units__mean_of_the_first_and_maximum_of_the_second():
    np.testing.assert_allclose(outputs(mean_and_max(2), ((1, 1), (3, -1))), ((1, 1), (2, 1)))


def test__weighted_mean__by_hand__weights_are_softplus_of_the_second_half():
    w = np.log1p(np.exp([1.0, -2.0]))  # 1.3133, 0.1269
    out = outputs(WeightedMeanAggregator(1), ((4.0, 1.0), (-1.0, -2.0)))
    np.testing.assert_allclose(out[:, 0], (4.0, (4 * w[0] - w[1]) / w.sum()), rtol=1e-5)


def test__weighted_mean__little_weight__is_drawn_to_zero():
    w = np.log1p(np.exp(-4.0))  # 0.018 < 0.1
    np.testing.assert_allclose(outputs(WeightedMeanAggregator(1), ((5.0, -4.0),)), [[5 * w / 0.1]], rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test__softmax__by_hand__values_are_their_own_weights(temperature):
    v = np.array([0.9, -0.5, 0.7])
    w = np.exp((v - 2) / temperature)
    wanted = np.cumsum(w * v) / np.maximum(np.cumsum(w), np.exp(-3 / temperature))
    np.testing.assert_allclose(outputs(SoftmaxAggregator.init(1, temperature=temperature), v)[:, 0], wanted, rtol=1e-4)


def test__softmax__below_the_floor__is_drawn_to_zero():
    out = outputs(SoftmaxAggregator.init(1, temperature=1.0), (-3.0,))  # ω = e⁻⁵, the floor e⁻³
    np.testing.assert_allclose(out, [[-3.0 * np.exp(-2.0)]], rtol=1e-5)


def test__separate_softmax__by_hand__the_second_half_weighs():
    out = outputs(SoftmaxAggregator.init(1, temperature=1.0, separate=True), ((4.0, 1.0), (-2.0, 0.0)))
    np.testing.assert_allclose(out[:, 0], (4.0, (4 * np.e - 2) / (np.e + 1)), rtol=1e-5)


def test__softmax__temperature_near_zero__is_the_maximum_and_its_gradient_is_finite():
    aggregator = SoftmaxAggregator.init(1, temperature=1e-3)

    def last(aggregator, values):
        return outputs(aggregator, values)[-1, 0]

    value, gradients = jax.value_and_grad(last, argnums=(0, 1))(aggregator, jnp.array([0.9, -50.0, 0.7, 40.0, 39.0]))
    np.testing.assert_allclose(value, 40.0, rtol=1e-6)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(gradients))


def test__softmax__learning__reaches_the_temperature():
    def last(aggregator):
        return outputs(aggregator, (0.9, -0.5, 0.7))[-1, 0]

    aggregator = SoftmaxAggregator.init(1, temperature=1.0)
    moved = [last(SoftmaxAggregator(aggregator.log_temperature + h, 1)) for h in (1e-2, -1e-2)]
    np.testing.assert_allclose(jax.grad(last)(aggregator).log_temperature, (moved[0] - moved[1]) / 2e-2, rtol=1e-3)


def test__aggregators_without_a_temperature__have_no_parameters():
    with_parameters = {name for name, make in AGGREGATORS.items() if jax.tree.leaves(make(WIDTH))}
    assert with_parameters == {"softmax", "wsoftmax"}


def test__gaussian__by_hand__is_the_product_of_its_factors():
    means, raw = np.array([1.0, -2.0]), np.array([0.5, 2.0])
    precisions = np.log1p(np.exp(raw))
    out = outputs(GaussianAggregator(1), np.stack([means, raw], axis=1))
    total = precisions.sum()
    np.testing.assert_allclose(out[1], ((means * precisions).sum() / total, -np.log(total)), rtol=1e-5)


def test__gaussian__nothing_known__has_the_variance_of_the_floor():
    np.testing.assert_allclose(outputs(GaussianAggregator(1), ((3.0, -30.0),)), [[0.0, np.log(10.0)]], atol=1e-5)


@pytest.mark.parametrize("name", sorted(AGGREGATORS))
def test__every_aggregator__tokens_in_another_order__the_same_output(name):
    values = jax.random.normal(jax.random.key(0), (LENGTH, WIDTH))
    shuffled = jax.random.permutation(jax.random.key(1), values)
    a, b = (outputs(AGGREGATORS[name](WIDTH), v)[-1] for v in (values, shuffled))
    np.testing.assert_allclose(a, b, atol=1e-6)
    assert float(jnp.max(jnp.abs(a))) > 0.1


@cache
def compiled(name):
    """Scan, and the same by steps from `begin()` at every reset."""
    aggregator = AGGREGATORS[name](WIDTH)

    def by_steps(values, resets):
        def step(state, x):
            value, reset = x
            state = jax.tree.map(lambda new, old: jnp.where(reset, new, old), aggregator.begin(), state)
            return aggregator.step(state, value)

        return jax.lax.scan(step, aggregator.begin(), (values, resets))

    def story(tell):
        def loss(values, resets):
            out = tell(values, resets)[1]
            return jnp.sum(jnp.sin(out)), out

        return jax.jit(jax.value_and_grad(loss, has_aux=True))

    return story(lambda v, r: aggregator.scan(aggregator.begin(), v, r)), story(by_steps)


@pytest.mark.parametrize("name", sorted(AGGREGATORS))
@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.booleans(), min_size=LENGTH, max_size=LENGTH),
    st.integers(0, 2**31 - 1),
    st.sampled_from((0.1, 1.0, 30.0)),
)
def test__every_aggregator__resets_anywhere__scan_is_step_with_its_gradient(name, resets, seed, scale):
    values = scale * jax.random.normal(jax.random.key(seed), (LENGTH, WIDTH))
    (_, a), grad_a = compiled(name)[0](values, jnp.array(resets))
    (_, b), grad_b = compiled(name)[1](values, jnp.array(resets))
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * scale)
    np.testing.assert_allclose(grad_a, grad_b, rtol=1e-3, atol=1e-4)
    assert bool(jnp.all(jnp.isfinite(grad_a)))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.booleans(), min_size=LENGTH, max_size=LENGTH), st.integers(0, 2**31 - 1))
def test__segment_max__in_parallel__is_the_one_in_sequence_with_its_gradient(resets, seed):
    # Whole numbers: there are ties.
    values = jnp.round(jax.random.normal(jax.random.key(seed), (LENGTH, WIDTH)))
    one, other = (told(values, jnp.array(resets)[:, None]) for told in MAXIMA)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def _maximum(how):
    def loss(values, begun):
        out = how(jnp.full(WIDTH, 0.5), values, begun, start=0.0)
        return jnp.sum(out * jnp.arange(1.0, LENGTH + 1)[:, None]), out

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


MAXIMA = (_maximum(segments.max_in_parallel), _maximum(segments.max_in_sequence))


def test__segment_max__not_a_number__is_not_lost():
    out = outputs(MaxAggregator(1), (1.0, jnp.nan, 2.0))
    np.testing.assert_array_equal(out[:, 0], (1.0, jnp.nan, jnp.nan))


def test__odd_width__is_refused_with_the_cure():
    with pytest.raises(ConfigError, match=r"cuts 5 values into two equal halves, and 5 is odd\. Use a size"):
        mean_and_max(5)


def test__halves_of_unequal_aggregators__are_refused():
    with pytest.raises(ConfigError, match="read 2 and 3 values"):
        HalvesAggregator(SumAggregator(2), SumAggregator(3))


def test__temperature__not_positive__is_refused():
    with pytest.raises(ConfigError, match="A temperature is positive; got 0"):
        SoftmaxAggregator.init(2, temperature=0.0)
