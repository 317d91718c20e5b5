"""Tabular MDPs: the exact functions against sums by hand and against the environment itself."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.core.errors import ConfigError
from fledge.envs.tabular import (
    TabularMDP,
    draw_index,
    exact_gradient,
    exact_hessian,
    exact_value,
    finite_value,
    golden_mdp,
    optimal_value,
    stationary_value,
)

DICE = TabularMDP(5, 4, 50, rewards="state", reward_noise=0.0, start="uniform", discount=0.95)
TANG = TabularMDP(20, 5, 20, concentration=0.001, rewards="uniform", reward_noise=0.0, discount=0.8)


def sampled_returns(env, task, logits, discount, n):
    """Discounted returns of `n` episodes of the softmax policy, by the environment's own steps."""

    def episode(key):
        key_reset, key_steps = jax.random.split(key)
        state, _ = env.reset(key_reset, task)

        def step(carry, key):
            state, weight = carry
            key_act, key_step = jax.random.split(key)
            action = jax.random.categorical(key_act, logits[state.state])
            state, timestep = env.step(key_step, state, action, task)
            return (state, weight * discount), weight * timestep.reward

        return jnp.sum(jax.lax.scan(step, (state, 1.0), jax.random.split(key_steps, env.horizon))[1])

    return jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(3), n))


def test__exact_value__against_sampled_episodes__agrees_within_three_standard_errors():
    task, logits = golden_mdp()
    returns = sampled_returns(TabularMDP(2, 2, 3, reward_noise=0.5), task, logits, 0.9, 20_000)
    error = float(jnp.std(returns)) / len(returns) ** 0.5
    assert abs(float(jnp.mean(returns)) - float(exact_value(task, logits, discount=0.9, horizon=3))) < 3 * error


def test__exact_value__of_a_random_start__agrees_with_sampled_episodes():
    task = DICE.sample(jax.random.key(0))
    logits = jax.random.normal(jax.random.key(1), (5, 4))
    returns = sampled_returns(DICE, task, logits, 0.95, 4_000)
    error = float(jnp.std(returns)) / len(returns) ** 0.5
    assert abs(float(jnp.mean(returns)) - float(exact_value(task, logits, discount=0.95, horizon=50))) < 3 * error


def test__stationary_value__is_the_limit_of_long_horizons():
    task, logits = golden_mdp()
    long = finite_value(task, logits, horizon=200, discount=0.9)[0]
    np.testing.assert_allclose(stationary_value(task, logits, discount=0.9), long, rtol=1e-5)


def test__stationary_hessian__agrees_with_that_of_a_long_horizon():
    task, logits = golden_mdp()
    long = exact_hessian(task, logits, discount=0.5, horizon=60)
    np.testing.assert_allclose(exact_hessian(task, logits, discount=0.5), long, atol=1e-5)


def test__exact_gradient__agrees_with_finite_differences():
    task, logits = golden_mdp()
    bump = 1e-2  # central differences: the error is of order bump², float32 noise about 1e-5
    up, down = (exact_value(task, logits.at[0, 1].add(sign * bump), discount=0.9, horizon=3) for sign in (1.0, -1.0))
    slope = float(up - down) / (2 * bump)
    assert slope == pytest.approx(float(exact_gradient(task, logits, discount=0.9, horizon=3)[0, 1]), abs=1e-4)


def test__stationary_value__without_discount__is_refused_with_a_cure():
    with pytest.raises(ConfigError, match=r"discount in \[0, 1\)"):
        exact_value(*golden_mdp())


def test__optimal_value__is_the_best_over_all_deterministic_plans():
    task, _ = golden_mdp()
    best = -np.inf
    for plan in itertools.product((0, 1), repeat=6):  # an action for each of 2 states at each of 3 steps
        value = np.zeros(2)
        for actions in np.array(plan).reshape(3, 2):
            value = np.array([task.rewards[s, a] + task.transitions[s, a] @ value for s, a in enumerate(actions)])
        best = max(best, value[0])
    assert float(optimal_value(task, 3)[0, 0]) == pytest.approx(best, abs=1e-6)


def test__optimal_return__is_the_optimal_value_of_the_start_for_each_episode():
    env = TabularMDP()
    task = env.sample(jax.random.key(0))
    np.testing.assert_allclose(env.optimal_return(task, 3), np.full(3, optimal_value(task, 10)[0, 0]), rtol=1e-6)


@pytest.mark.parametrize("env", [TabularMDP(), TANG, DICE], ids=["rl2", "tang", "dice"])
def test__sampled_process__has_finite_probabilities_that_sum_to_one(env):
    task = env.sample(jax.random.key(5))
    np.testing.assert_allclose(jnp.sum(task.transitions, axis=-1), 1.0, atol=1e-5)


def test__tang_family__is_nearly_deterministic():
    assert float(jnp.mean(jnp.max(TANG.sample(jax.random.key(0)).transitions, axis=-1))) > 0.95


def test__dice_family__pays_by_state_whatever_the_action():
    rewards = DICE.sample(jax.random.key(0)).rewards
    assert jnp.all(rewards == rewards[:, :1])


def test__draw_index__follows_the_probabilities_and_skips_impossible_categories():
    shares = jnp.array([0.0, 0.25, 0.0, 0.75, 0.0])
    u = (jnp.arange(1000) + 0.5) / 1000
    counts = jnp.bincount(jax.vmap(draw_index, (0, None))(u, shares), length=5)
    np.testing.assert_array_equal(counts, [0, 250, 0, 750, 0])


@pytest.mark.parametrize("u", [0.0, 1.0 - 2.0**-24])
def test__draw_index__at_both_ends_of_the_unit_interval__stays_in_the_support(u):
    assert int(draw_index(jnp.asarray(u, jnp.float32), jnp.array([0.0, 0.1, 0.9, 0.0]))) in (1, 2)
