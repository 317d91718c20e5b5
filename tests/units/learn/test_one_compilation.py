"""A learner's second update is not compiled again."""

from __future__ import annotations

import jax
from jaxtyping import Array, Key

from fledge.agents.recurrent import MemoryAgent
from fledge.envs.gridnav import GridNav
from fledge.envs.trial import Trial
from fledge.learn.ppo import PPO, PPOSettings
from fledge.nets.policy import ActorCritic
from fledge.nets.recurrent import GRUMemory
from fledge.nets.tokens import TokenEncoder

TRIAL = Trial(GridNav(horizon=2), 2)


def make_agent(key: Key[Array, ""]) -> MemoryAgent:
    keys = jax.random.split(key, 3)
    encoder = TokenEncoder.init(keys[0], TRIAL.observation_space, TRIAL.action_space, joint=4)
    policy = ActorCritic.init(keys[2], 4, TRIAL.observation_space, TRIAL.action_space)
    return MemoryAgent(encoder, GRUMemory.init(keys[1], 4, 4), policy, None)


def test__ppo__state_of_an_update__has_the_types_of_the_first_state() -> None:
    learner = PPO(TRIAL, make_agent, PPOSettings(n_envs=4), 10)
    before = jax.eval_shape(learner.init, jax.random.key(0))
    after, _ = jax.eval_shape(learner.update, before)
    kinds = [[(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(state)] for state in (before, after)]
    assert kinds[0] == kinds[1]
