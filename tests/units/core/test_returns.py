import jax.numpy as jnp
import numpy as np

from fledge.core.returns import discounted_returns, gae


def column(*x):
    return jnp.asarray(x, jnp.float32)


def test_gae__two_episodes_inside_a_trial__bootstraps_through_the_inner_end():
    # K = 2 episodes of 2 steps. The inner end after step 1 changes nothing: the trial is one long episode.
    rewards, values = column(1.0, 0.0, 2.0, 1.0), column(0.5, 1.0, 0.0, 2.0)
    next_values = column(1.0, 0.0, 2.0, 0.0)  # the next token's value; 0 after the trial's end
    cuts = jnp.asarray([False, False, False, True])
    advantages, targets = gae(rewards, values, next_values, cuts, discount=0.5, gae_lambda=0.5)
    # δ = 1.0, -1.0, 3.0, -1.0; A_3 = -1; A_2 = 3 - .25 = 2.75; A_1 = -1 + .6875 = -.3125; A_0 = 1 - .078125
    np.testing.assert_allclose(advantages, [0.921875, -0.3125, 2.75, -1.0], atol=1e-6)
    np.testing.assert_allclose(targets, advantages + values, atol=1e-6)


def test_gae__a_trial_end_in_the_middle__cuts_the_chain():
    rewards, values = column(1.0, 1.0, 5.0), column(0.0, 0.0, 0.0)
    cuts = jnp.asarray([False, True, True])
    advantages, _ = gae(rewards, values, column(0.0, 0.0, 0.0), cuts, discount=1.0, gae_lambda=1.0)
    np.testing.assert_allclose(advantages, [2.0, 1.0, 5.0])


def test_gae__a_bootstrapped_time_limit__enters_as_the_next_value_and_still_cuts():
    advantages, _ = gae(
        column(1.0, 1.0),
        column(0.0, 0.0),
        column(10.0, 0.0),
        jnp.asarray([True, True]),
        discount=0.5,
        gae_lambda=1.0,
    )
    np.testing.assert_allclose(advantages, [6.0, 1.0])


def test_lambda_one_is_monte_carlo_and_lambda_zero_is_the_td_error():
    rng = np.random.default_rng(0)
    rewards, values = jnp.asarray(rng.normal(size=(2, 6)), jnp.float32)
    next_values = jnp.append(values[1:], 0.0)
    cuts = jnp.zeros(6, bool).at[-1].set(True)
    monte_carlo, _ = gae(rewards, values, next_values, cuts, discount=0.9, gae_lambda=1.0)
    td, _ = gae(rewards, values, next_values, cuts, discount=0.9, gae_lambda=0.0)
    returns = [sum(0.9**k * rewards[t + k] for k in range(6 - t)) for t in range(6)]
    np.testing.assert_allclose(monte_carlo, np.asarray(returns) - values, atol=1e-5)
    np.testing.assert_allclose(td, rewards + 0.9 * next_values - values, atol=1e-6)
    np.testing.assert_allclose(discounted_returns(rewards, cuts, discount=0.9), returns, atol=1e-5)
