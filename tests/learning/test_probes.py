"""The learner on environments whose values and best actions are known."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "units" / "learn"))

from worlds import Probe

from fledge.agents.build import MemoryAgentSettings, memory_agent
from fledge.envs.trial import Trial
from fledge.learn.evaluate import evaluate
from fledge.learn.loop import Loop
from fledge.learn.ppo import PPO, PPOSettings
from fledge.learn.rollout import begin, rollout


def train(env, n_episodes=1, kind="memoryless", n_updates=100, **settings):
    trial = Trial(env, n_episodes)
    agent = MemoryAgentSettings(kind=kind, memory_size=16, joint_embedding=16)
    ppo = PPO(
        trial,
        memory_agent(agent, trial),
        PPOSettings(
            **{
                "n_envs": 64,
                "n_minibatches": 1,
                "n_epochs": 4,
                "learning_rate": 2e-2,
                "learning_rate_end": 0.0,
                "entropy_coef": 0.0,
            }
            | {"normalise_rewards": False, "clip_ratio": 0.2, "value_clip": False, "value_coef": 1.0, "discount": 0.5}
            | settings
        ),
        n_updates,
    )
    loop = Loop(ppo, n_updates)
    (chunk,) = loop.run(loop.init(jax.random.split(jax.random.key(0), 1)), n_chunks=1)
    return trial, jax.tree.map(lambda x: x[0], chunk.state.agent)


def values(trial, agent, n_steps):
    state = begin(agent, trial, jax.random.key(1), jnp.asarray([1.0, -1.0]))
    return rollout(agent, trial, state, jax.random.key(2), n_steps=n_steps, greedy=True)[1].decision.value


def test_the_value_of_a_reward_that_always_comes_is_one():
    np.testing.assert_allclose(values(*train(Probe("constant", 1)), 1), 1.0, atol=0.05)


def test_the_value_one_step_before_is_the_discount():
    np.testing.assert_allclose(values(*train(Probe("constant", 2)), 2)[:, 0], [0.5, 1.0], atol=0.05)


def test_the_value_follows_what_the_observation_shows():
    np.testing.assert_allclose(values(*train(Probe("sign", 1)), 1)[0], [1.0, -1.0], atol=0.1)


def test_the_best_action_is_found_where_the_task_is_shown():
    trial, agent = train(Probe("action", 1))
    outcome = evaluate(agent, trial, jnp.asarray([1.0, -1.0]), jax.random.key(0), greedy=True)
    np.testing.assert_array_equal(outcome.returns, [[1.0], [1.0]])


def test_values_bootstrap_through_an_inner_episode_end():
    # Two episodes of one step, reward 1 each: V_0 = 1 + γ, although the first episode terminated.
    np.testing.assert_allclose(
        values(*train(Probe("constant", 1), n_episodes=2, kind="rl2"), 2)[:, 0], [1.5, 1.0], atol=0.08
    )


def test_a_time_limit_is_bootstrapped_through_only_when_asked():
    # Reward −1 or +1 in every step for ever, cut after one step: V = 1 / (1 − γ) = 2 with bootstrapping, else 1.
    env = Probe("sign", 1, terminates=False)
    np.testing.assert_allclose(values(*train(env), 1)[0], [1.0, -1.0], atol=0.1)
    bootstrapped = values(*train(env, bootstrap_time_limit=True, n_updates=200), 1)[0]
    np.testing.assert_allclose(bootstrapped, [2.0, -2.0], atol=0.4)


@pytest.mark.parametrize(("kind", "second_episode"), [("rl2", 1.0), ("memoryless", 0.0), ("oracle", 1.0)])
def test_only_memory_or_being_told_solves_a_hidden_task(kind, second_episode):
    trial, agent = train(Probe("hidden", 1), n_episodes=2, kind=kind, discount=0.9, n_updates=150)
    returns = evaluate(agent, trial, jnp.asarray([1.0, -1.0]), jax.random.key(0), greedy=True).returns
    np.testing.assert_allclose(np.mean(returns, axis=0)[1], second_episode, atol=0.05)
    assert np.mean(returns[:, 0]) == (1.0 if kind == "oracle" else 0.0)
