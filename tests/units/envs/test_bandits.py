"""Bandits: what a pull pays, what it costs in regret, and which arms are good in which split."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.core.errors import ConfigError
from fledge.envs.bandits import Bandit
from fledge.envs.trial import Trial

MEANS = jnp.array([0.2, 0.9, 0.5])


def pulls(env, arm, n):
    """The time steps of `n` pulls of one arm of `MEANS`."""
    state, _ = env.reset(jax.random.key(0), MEANS)
    keys = jax.random.split(jax.random.key(1), n)
    return jax.vmap(lambda key: env.step(key, state, jnp.asarray(arm), MEANS)[1])(keys)


def test__bernoulli_arm__pays_its_mean_within_three_standard_errors():
    paid = pulls(Bandit(3), 1, 5_000).reward
    assert abs(float(jnp.mean(paid)) - 0.9) < 3 * (0.9 * 0.1 / 5_000) ** 0.5


def test__bernoulli_arm__pays_zero_or_one():
    assert set(np.unique(pulls(Bandit(3), 2, 100).reward)) == {0.0, 1.0}


def test__gaussian_arm__has_the_mean_and_spread_that_were_asked_for():
    paid = pulls(Bandit(3, "gaussian", 0.3), 2, 5_000).reward
    np.testing.assert_allclose([jnp.mean(paid), jnp.std(paid)], [0.5, 0.3], atol=3 * 0.3 / 5_000**0.5)


def test__regret__is_best_mean_minus_chosen_mean_whatever_was_paid():
    np.testing.assert_allclose(pulls(Bandit(3), 2, 10).info["regret"], 0.4, atol=1e-6)


def test__pull__ends_its_episode_by_itself():
    timestep = pulls(Bandit(3), 0, 1)
    assert bool(timestep.terminated[0])
    assert not bool(timestep.truncated[0])


def test__trial_of_hundred_pulls__ends_at_the_hundredth():
    trial = Trial(Bandit(3), 100)
    state, _ = trial.reset(jax.random.key(0), MEANS)

    def step(state, key):
        state, timestep = trial.step(key, state, jnp.asarray(0), MEANS)
        return state, timestep.trial_end

    _, ends = jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 100))
    np.testing.assert_array_equal(jnp.nonzero(ends)[0], [99])


def test__optimal_return__is_the_best_mean_for_every_pull():
    np.testing.assert_allclose(Bandit(3).optimal_return(MEANS, 4), [0.9] * 4)


@pytest.mark.parametrize(("split", "share"), [("train", 0.95), ("test", 0.95), ("ood", 0.05)])
def test__odd_even_bias__odd_arms_are_good_in_the_stated_share_of_tasks(split, share):
    env = Bandit(10, bias="odd-even")
    keys = jax.random.split(jax.random.key(2), 4_000)
    means = jax.vmap(lambda key: env.sample(key, split))(keys)
    odd_pays = np.mean(np.argmax(means, axis=1) % 2 == 1)
    assert abs(odd_pays - share) < 3 * (0.95 * 0.05 / 4_000) ** 0.5


def test__odd_even_bias__good_arms_lie_above_one_half_and_bad_ones_below():
    means = Bandit(6, bias="odd-even").sample(jax.random.key(0))
    good, bad = sorted([means[1::2], means[::2]], key=jnp.sum, reverse=True)
    assert float(jnp.min(good)) >= 0.5 >= float(jnp.max(bad))


def test__sample__of_an_unknown_split__names_the_nearest_one():
    with pytest.raises(ConfigError, match="Did you mean 'train'"):
        Bandit().sample(jax.random.key(0), "trian")


@pytest.mark.parametrize("bad", [{"n_arms": 1}, {"std": 0.0}])
def test__bandit__with_a_setting_that_makes_no_sense__is_refused_by_name(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Bandit(**bad)
