"""VariBAD's decoded belief against the exact one, where a random walk makes the two comparable."""

from __future__ import annotations

import jax
import pytest

from fledge.agents.build import MemoryAgentSettings
from fledge.agents.inference import inference_agent
from fledge.envs.gridnav import GridNav
from fledge.envs.trial import Trial
from fledge.learn.belief_gap import belief_gap
from fledge.learn.elbo import ELBOSettings
from fledge.learn.inference import InferenceLearner
from fledge.learn.ppo import PPO, PPOSettings
from fledge.learn.supervision import SupervisionSettings

TRIAL = Trial(GridNav(size=3, horizon=8), 2)
N_UPDATES = 800
BOUND = 0.1
"""Nats. Measured with four seeds: 0.02 to 0.06; whoever stays with the prior is 0.38 away, an untrained network 1.0."""


@pytest.fixture(scope="module")
def gaps():
    """Gaps before and after training on walks with (nearly) uniform actions, which do not depend on the goal.

    Only then is the decoded chance of a cell to pay its Bayes posterior: a policy that searches enters the last cell
    of its way only if the goal was in none before, so that cell pays more often *when entered* than it is believed to.
    """
    settings = MemoryAgentSettings(
        kind="varibad", memory_size=32, joint_embedding=32, latent_size=5, latent_embedding=4, state_embedding=4
    )
    ppo = PPOSettings(n_envs=32, n_epochs=1, n_minibatches=1, learning_rate=0.0)
    supervision = SupervisionSettings(
        kind="varibad",
        decoder_hidden=(32,),
        n_updates=8,
        n_trials=32,
        capacity=512,
        learning_rate=1e-2,
        learning_rate_end=0.0,
        elbo=ELBOSettings(kl_weight=0.01),
    )
    learner = InferenceLearner(PPO(TRIAL, inference_agent(settings, TRIAL), ppo, N_UPDATES), supervision)

    @jax.jit
    def trained(state):
        return jax.lax.scan(lambda state, _: (learner.update(state)[0], None), state, None, length=N_UPDATES)[0]

    def gap(state):
        found = belief_gap(learner.agent(state), state.decoders.reward, TRIAL, jax.random.key(1))
        return {name: float(x) for name, x in found.items()}

    fresh = jax.jit(learner.init)(jax.random.key(0))
    return gap(fresh), gap(trained(fresh))


def test_the_decoded_belief_is_near_the_exact_one_after_training(gaps):
    assert gaps[1]["gap"] < BOUND


@pytest.mark.parametrize("when", ["searching", "found", "prior"])
def test_it_is_near_whatever_is_known_so_far(gaps, when):
    assert gaps[1][when] < 1.5 * BOUND


def test_without_training_or_memory_it_would_be_far(gaps):
    assert gaps[0]["gap"] > 5 * BOUND
    assert gaps[1]["ignorant"] > 3 * BOUND
