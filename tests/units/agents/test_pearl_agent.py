"""PEARL's agent: when a latent is drawn, from what, and how long it stays."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.agents.pearl import PEARLAgentSettings, pearl_agent
from fledge.core.errors import ConfigError
from fledge.core.types import TimeStep, Token
from fledge.envs.gridnav import GridNav
from fledge.envs.pointnav import PointNav
from fledge.envs.trial import Trial
from fledge.learn.rollout import begin, rollout
from fledge.nets.posterior import Evidence

HORIZON = 4
TRIAL = Trial(PointNav(horizon=HORIZON, action_limit=0.5), 3)
SETTINGS = PEARLAgentSettings(latent_size=2, encoder_hidden=(8,), next_observation=True)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def agent():
    return pearl_agent(SETTINGS, TRIAL, (8,))(KEY)


@pytest.fixture(scope="module")
def walked(agent):
    """A trial of three episodes: its memories after each decision, tokens and noise (time first)."""

    @jax.jit
    def walk(agent, key):
        task = TRIAL.sample(key)
        state, observation = TRIAL.reset(key, task)

        def step(carry, key):
            memory, state, token = carry
            noise = agent.sample_noise(key)
            decision, memory = agent.act(memory, token, noise)
            state, timestep = TRIAL.step(key, state, decision.action, task)
            return (memory, state, token.next(decision.action, timestep)), (memory, token, noise)

        first = (agent.begin(), state, Token.first(observation, TRIAL.action_space))
        return jax.lax.scan(step, first, jax.random.split(key, 3 * HORIZON))[1]

    return walk(agent, KEY)


def test_the_latent_stays_through_an_episode_and_is_drawn_anew_in_the_next(walked):
    latents = np.asarray(walked[0].latent).reshape(3, HORIZON, 2)
    np.testing.assert_array_equal(latents, np.repeat(latents[:, :1], HORIZON, axis=1))
    assert len({tuple(row) for row in latents[:, 0]}) == 3


def test_the_first_latent_is_drawn_from_the_prior(walked):
    memory, _, noise = walked
    np.testing.assert_array_equal(memory.latent[0], noise.latent[0])


def test_a_later_latent_is_drawn_from_the_posterior_of_all_transitions_so_far(agent, walked):
    memory, token, noise = walked
    # Token t holds transition t; the third episode begins at t = 2 · horizon.
    t = 2 * HORIZON
    seen = jax.tree.map(lambda leaf: leaf[1 : t + 1], token)
    belief = agent.encoder.posterior(agent.encoder(agent.context(seen)).together())
    np.testing.assert_allclose(memory.latent[t], belief.sample(noise.latent[t]), rtol=1e-4, atol=1e-5)


def test_a_new_trial_knows_nothing_of_the_old_one(agent):
    tasks = jax.vmap(TRIAL.sample)(jax.random.split(KEY, 2))
    state = begin(agent, TRIAL, KEY, tasks)
    after, _ = jax.jit(lambda s, k: rollout(agent, TRIAL, s, k, n_steps=TRIAL.horizon))(state, KEY)
    assert not np.any(after.memory.evidence.precision)


def test_episodes_of_exploration_draw_from_the_prior_whatever_was_seen(agent):
    patient = replace(agent, n_prior_episodes=2)
    token = Token.first(jnp.zeros(2), TRIAL.action_space).next(
        jnp.zeros(2), TimeStep.of(jnp.ones(2), 1.0, truncated=True)
    )
    noise = patient.sample_noise(KEY)
    _, once = patient.act(patient.begin(), token, noise)
    _, twice = patient.act(once, token, noise)
    np.testing.assert_array_equal(once.latent, noise.latent)
    assert not np.allclose(twice.latent, noise.latent)


def test_greedy__the_latent_is_the_mean_of_the_posterior(agent):
    token = Token.first(jnp.zeros(2), TRIAL.action_space).next(
        jnp.zeros(2), TimeStep.of(jnp.ones(2), 1.0, truncated=True)
    )
    _, memory = agent.act(agent.begin(), token)
    np.testing.assert_allclose(memory.latent, agent.encoder.posterior(memory.evidence).mean, rtol=1e-6)


def test_a_collector_draws_from_what_it_was_given_and_adds_nothing(agent):
    given = Evidence(jnp.full(2, 8.0), jnp.full(2, 4.0))
    collector = agent.collector()
    noise = agent.sample_noise(KEY)
    token = Token.first(jnp.zeros(2), TRIAL.action_space)
    _, memory = collector.act(collector.given(given), token, noise)
    _, memory = collector.act(memory, token.next(jnp.zeros(2), TimeStep.of(jnp.ones(2), 1.0)), noise)
    np.testing.assert_allclose(memory.latent, 2.0 + 0.5 * noise.latent, rtol=1e-6)
    np.testing.assert_array_equal(memory.evidence.precision, given.precision)


def test_actions_fill_the_environments_box(agent):
    action = jnp.array([-0.5, 0.25])
    np.testing.assert_allclose(agent.unit_action(action), [-1.0, 0.5])
    np.testing.assert_allclose(agent._stretched(agent.unit_action(action)), action)


def test_the_next_observation_is_read_only_where_asked():
    token = Token.first(jnp.zeros(2), TRIAL.action_space)
    sizes = [
        pearl_agent(replace(SETTINGS, next_observation=yes), TRIAL, (8,))(KEY).context(token).shape[-1]
        for yes in (False, True)
    ]
    assert sizes == [5, 7]


def test_discrete_actions_are_refused_with_a_way_out():
    with pytest.raises(ConfigError, match=r"needs continuous actions .* Choose a family such as point-nav"):
        pearl_agent(SETTINGS, GridNav(), (8,))
