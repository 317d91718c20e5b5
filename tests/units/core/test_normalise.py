import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.core.normalise import RewardScaler, RunningStats


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_statistics_of_two_batches_are_those_of_all_examples(seed):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(3.0, 2.0, (7, 2)), rng.normal(-1.0, 0.5, (4, 2))
    running = RunningStats.init((2,))
    for batch in (first, second):
        running = running.update(jnp.asarray(batch, jnp.float32))
    everything = np.concatenate([first, second])
    np.testing.assert_allclose(running.mean, everything.mean(0), atol=1e-3)
    np.testing.assert_allclose(running.var, everything.var(0), rtol=2e-3, atol=1e-3)


def test_rewards_are_divided_by_the_deviation_of_the_discounted_return_which_restarts_with_the_trial():
    rewards = jnp.asarray([[1.0], [2.0], [4.0]])
    ends = jnp.asarray([[False], [True], [False]])
    scaler, scaled = RewardScaler.init(1).update(rewards, ends, discount=0.5)
    seen = np.array([1.0, 2.5, 4.0])  # G: 1; 0.5 + 2; restart: 4
    np.testing.assert_allclose(scaled[:, 0], np.array([1.0, 2.0, 4.0]) / seen.std(), rtol=1e-3)
    np.testing.assert_allclose(scaler.running, [4.0])


def test_scaled_rewards_are_clipped():
    rewards = jnp.concatenate([jnp.zeros((999, 1)), jnp.full((1, 1), 100.0)])
    _, scaled = RewardScaler.init(1).update(rewards, jnp.zeros((1000, 1), bool), discount=0.0, clip=10.0)
    assert scaled[-1, 0] == 10.0
