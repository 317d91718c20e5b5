"""Soft actor-critic where the answer is known: one step, −(a − c)², with c in the context."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.learn import sac
from fledge.learn.sac import SACSettings, Transition

KEY = jax.random.key(0)
SETTINGS = SACSettings(hidden=(32, 32), learning_rate=5e-3, temperature=0.02, target_rate=0.05)
N = 128
UPDATE = jax.jit(sac.update, static_argnames="settings")


def rows(key, terminated, reward):
    """Uniform actions and contexts ±0.5; `reward` of both."""
    key_action, key_context = jax.random.split(key)
    action = jax.random.uniform(key_action, (N, 1), minval=-1.0, maxval=1.0)
    context = jnp.where(jax.random.bernoulli(key_context, shape=(N, 1)), 0.5, -0.5)
    seen = jnp.ones((N, 1))
    return Transition(seen, action, reward(action, context)[:, 0], seen, jnp.full(N, terminated)), context


def train(settings, terminated=True, reward=lambda a, c: -((a - c) ** 2), n_updates=1000):
    state = sac.init(KEY, settings, observation_size=1, action_size=1, context_size=1)

    @jax.jit
    def run(state):
        def one(state, key):
            key_rows, key_update = jax.random.split(key)
            batch, context = rows(key_rows, terminated, reward)
            state, _, metrics = sac.update(key_update, state, batch, context, settings)
            return state, metrics

        return jax.lax.scan(one, state, jax.random.split(KEY, n_updates))

    state, metrics = run(state)
    return state, jax.tree.map(lambda x: float(x[-100:].mean()), metrics)


@pytest.fixture(scope="module")
def one_step():
    return train(SETTINGS)


CONTEXTS = jnp.array([[0.5], [-0.5]])
SEEN = jnp.ones((2, 1))


def test_one_step__the_value_of_an_action_is_its_reward(one_step):
    action = jnp.array([[0.0], [-0.4]])
    values = one_step[0].critics(SEEN, action, CONTEXTS)
    np.testing.assert_allclose(values, np.broadcast_to([-0.25, -0.01], (2, 2)), atol=0.03)


def test_one_step__the_best_action_is_the_one_that_the_context_asks_for(one_step):
    action, _ = sac.act(one_step[0].actor, SEEN, CONTEXTS)
    np.testing.assert_allclose(action[:, 0], [0.5, -0.5], atol=0.08)


def test_one_step__actions_spread_as_the_temperature_says(one_step):
    # The soft optimum has density ∝ exp(−(a − c)²/α): a normal of standard deviation √(α/2) = 0.1.
    noise = jax.random.normal(KEY, (2000, 1))
    action, _ = sac.act(one_step[0].actor, jnp.ones((2000, 1)), jnp.full((2000, 1), 0.5), noise)
    assert float(jnp.std(action)) == pytest.approx(0.1, rel=0.25)


def test_a_reward_that_always_comes_is_worth_one_over_one_minus_the_discount():
    settings = SACSettings(hidden=(16,), learning_rate=5e-3, temperature=0.0, discount=0.5, target_rate=0.2)
    _, metrics = train(settings, terminated=False, reward=lambda a, c: jnp.ones_like(a), n_updates=600)
    assert metrics["value"] == pytest.approx(2.0, abs=0.02)


def test_the_temperature_is_tuned_until_the_entropy_is_the_wanted_one():
    settings = SACSettings(hidden=(32, 32), learning_rate=5e-3, target_entropy=-0.8, target_rate=0.05)
    assert train(settings, n_updates=2000)[1]["entropy"] == pytest.approx(-0.8, abs=0.1)


def test_the_density_of_squashed_actions_integrates_to_one():
    actor = sac.init(KEY, SETTINGS, observation_size=1, action_size=1).actor
    noise = jnp.linspace(-6, 6, 4001)[:, None]
    action, log_prob = sac.act(actor, jnp.ones((4001, 1)), jnp.zeros((4001, 0)), noise)
    assert float(jnp.trapezoid(jnp.exp(log_prob), action[:, 0])) == pytest.approx(1.0, abs=1e-3)


@pytest.fixture(scope="module")
def gradients():
    """The context's gradient from `update`, and the critics' loss as a function of a shift of all contexts."""
    state = sac.init(KEY, SETTINGS, observation_size=1, action_size=1, context_size=1)
    batch, context = rows(KEY, True, lambda a, c: -((a - c) ** 2))
    gradient = UPDATE(KEY, state, batch, context, settings=SETTINGS)[1]
    noise = jax.random.normal(jax.random.split(KEY)[0], batch.action.shape)
    loss = partial(sac.critic_loss, state.critics, state=state, batch=batch, noise=noise, settings=SETTINGS)
    return gradient, jax.jit(lambda shift: loss(context + shift)[0])


def test_the_contexts_gradient_is_that_of_the_critics_loss(gradients):
    gradient, loss = gradients
    assert float(gradient.sum()) == pytest.approx(float(loss(1e-2) - loss(-1e-2)) / 2e-2, rel=0.02)


def test_the_actor_teaches_the_context_nothing():
    state = sac.init(KEY, SETTINGS, observation_size=1, action_size=1, context_size=1)
    batch, context = rows(KEY, True, lambda a, c: a)
    noise = jnp.zeros_like(batch.action)
    taught = jax.grad(lambda c: sac.actor_loss(state.actor, c, state, batch, noise, SETTINGS)[0])(context)
    assert not taught.any()


def test_targets_follow_the_critics_slowly():
    state = sac.init(KEY, SETTINGS, observation_size=1, action_size=1, context_size=1)
    batch, context = rows(KEY, True, lambda a, c: a)
    after, _, _ = UPDATE(KEY, state, batch, context, settings=SETTINGS)
    old, new, target = (s.first.layers[0].weight for s in (state.critics, after.critics, after.targets))
    np.testing.assert_allclose(target, 0.95 * old + 0.05 * new, atol=1e-6)
    assert not np.allclose(old, new)
