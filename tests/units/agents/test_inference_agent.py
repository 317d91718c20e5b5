"""What an inferring agent believes when it acts, when it is replayed, and in whole trials."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.agents.build import MEMORIES, MemoryAgentSettings
from fledge.agents.inference import inference_agent
from fledge.core.errors import ConfigError
from fledge.envs.gridnav import GridNav
from fledge.envs.trial import Trial
from fledge.learn.rollout import begin, rollout, sample_tasks

TRIAL = Trial(GridNav(size=3, horizon=3), 2)
SMALL = {"memory_size": 4, "joint_embedding": 4, "latent_size": 2, "latent_embedding": 3, "state_embedding": 3}
N_ENVS = 3


def agent_of(memory="gru", **settings):
    kinds = MemoryAgentSettings(**({"kind": "varibad", "memory": memory, "normalise_observations": True} | SMALL))
    return inference_agent(kinds, TRIAL, **settings)(jax.random.key(0))


def walk(agent, n_steps):
    tasks = sample_tasks(TRIAL, jax.random.key(1), "train", N_ENVS)
    state = begin(agent, TRIAL, jax.random.key(2), tasks)
    return state, *rollout(agent, TRIAL, state, jax.random.key(3), n_steps=n_steps)


@pytest.fixture(scope="module", params=sorted(MEMORIES))
def replayed(request):
    """A walk of ten steps (one trial and most of another), and what a replay makes of it."""
    agent = agent_of(request.param)
    stats = agent.with_statistics(
        jnp.asarray([[1.0, 2.0, 0.0, 1.0], [0.0, 1.0, 3.0, 0.0]]),
        walk(agent, 6)[2].token,
        move_task=jnp.asarray(True),
        move_belief=jnp.asarray(True),
    )

    @jax.jit
    def run(agent):
        state, rolled, trajectory = walk(agent, 10)
        distribution, values, memory = agent.replay(state.memory, trajectory.token)
        beliefs, _ = agent.beliefs(state.memory, trajectory.token)
        steps = jax.tree.map(lambda x: x[:6], trajectory.token.next(trajectory.decision.action, trajectory.timestep))
        return rolled, trajectory, distribution, values, memory, beliefs, agent.trial_beliefs(steps)

    return run(stats)


def test_replay_gives_the_log_probabilities_of_acting(replayed):
    _, trajectory, distribution, *_ = replayed
    found = distribution.log_prob(trajectory.decision.action)
    np.testing.assert_allclose(found, trajectory.decision.log_prob, atol=1e-5)


def test_replay_gives_the_values_of_acting(replayed):
    np.testing.assert_allclose(replayed[3], replayed[1].decision.value, atol=1e-5)


def test_replay_ends_with_the_memory_of_acting(replayed):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), replayed[4], replayed[0].memory)


def test_beliefs_of_a_stored_trial_are_those_it_was_acted_on(replayed):
    np.testing.assert_allclose(replayed[6][:6], replayed[5][:6], atol=1e-5)


def test_every_trial_begins_with_the_same_belief_whatever_is_seen_first(replayed):
    beliefs = replayed[5]
    np.testing.assert_allclose(beliefs[6], beliefs[0], atol=1e-6)  # the second trial starts at step 6
    np.testing.assert_allclose(beliefs[0], 0.0, atol=1e-6)  # the head's bias: N(0, I) before training


def test_later_beliefs_depend_on_what_happened(replayed):
    assert float(jnp.max(jnp.std(replayed[5][3], axis=0))) > 1e-5


def test_an_agent_that_embeds_the_task_acts_on_it_while_told():
    agent = agent_of(embeds_task=True)
    tokens = walk(agent, 6)[2].token
    before, after = (
        agent.policy.latent(agent.conditioned(jnp.full((6, N_ENVS, 4), x), tokens).task) for x in (0.0, 9.0)
    )
    np.testing.assert_array_equal(before, after)


def test_an_untold_agent_needs_no_task():
    agent = agent_of(embeds_task=True).untold()
    assert (agent.told, walk(agent, 2)[2].token.task) == (False, None)


def test_an_encoder_that_is_told_the_task_is_refused():
    with pytest.raises(ConfigError, match="nothing to infer"):
        inference_agent(MemoryAgentSettings(kind="oracle", **SMALL), TRIAL)


@pytest.mark.parametrize("size", ["latent_size", "latent_embedding"])
def test_a_missing_size_is_refused_with_the_published_one(size):
    with pytest.raises(ConfigError, match=f"{size} of at least 1; the paper's is"):
        inference_agent(MemoryAgentSettings(kind="varibad", **(SMALL | {size: 0})), TRIAL)
