"""An agent that takes gradient steps inside a trial."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from fledge.agents.maml import MAMLAgent, MAMLAgentSettings, adaptive_policy
from fledge.core.errors import ConfigError
from fledge.envs.pointnav import PointNav
from fledge.envs.trial import Trial
from fledge.learn.inner import InnerSettings, Meta, inner_step
from fledge.learn.rollout import begin, rollout

ENV = PointNav(horizon=5)
INNER = InnerSettings(batch_size=2, learning_rate=0.3)


@pytest.fixture(scope="module")
def agent():
    policy = jax.jit(adaptive_policy(MAMLAgentSettings(hidden=(4,)), ENV))(jax.random.key(0))
    return MAMLAgent(Meta(policy), INNER, ENV.horizon)


@pytest.fixture(scope="module")
def walked(agent):
    """Three episodes of a trial of four, in two environments: one step behind them."""
    trial = Trial(ENV, 4)
    tasks = jnp.array([[1.0, 0.0], [-1.0, 0.0]])

    @jax.jit
    def walk(key):
        state = begin(agent, trial, key, tasks)
        return rollout(agent, trial, state, jax.random.key(2), n_steps=3 * ENV.horizon)

    return walk(jax.random.key(1))


def test_it_counts_the_episodes_of_a_trial(walked):
    np.testing.assert_array_equal(walked[0].memory.n_episodes, [3, 3])


def test_after_a_batch_of_episodes_its_weights_are_those_of_the_inner_step(agent, walked):
    state, trajectory = walked
    first = jax.tree.map(lambda x: x[: 2 * ENV.horizon, 0].reshape(2, ENV.horizon, *x.shape[2:]), trajectory)
    batch = jax.tree.map(lambda x: x[0], state.memory.episodes)
    features = jnp.swapaxes(first.token.observation, 0, 1)
    rewards = jnp.swapaxes(first.timestep.reward, 0, 1)
    batch = type(batch)(
        features,
        jnp.swapaxes(first.decision.action, 0, 1),
        rewards,
        jnp.swapaxes(first.decision.log_prob, 0, 1),
        jnp.ones(rewards.shape, bool),
    )
    expected = jax.jit(lambda b: inner_step(agent.meta, agent.meta.policy, b, INNER))(batch)
    found = jax.tree.map(lambda x: x[0], state.memory.policy)
    np.testing.assert_allclose(ravel_pytree(found)[0], ravel_pytree(expected)[0], atol=1e-4)
    assert np.isfinite(ravel_pytree(expected)[0]).all()


def test_two_tasks_have_weights_of_their_own(walked):
    weight = walked[0].memory.policy.net.layers[0].weight
    assert not np.allclose(weight[0], weight[1])


def test_a_new_trial_starts_from_the_meta_trained_weights(agent):
    np.testing.assert_array_equal(ravel_pytree(agent.begin().policy)[0], ravel_pytree(agent.meta.policy)[0])


@pytest.mark.parametrize("wrong", [{"hidden": (0,)}, {"context_size": -1}, {"init_std": 0.0}])
def test_sizes_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match="at least"):
        adaptive_policy(MAMLAgentSettings(**wrong), ENV)
