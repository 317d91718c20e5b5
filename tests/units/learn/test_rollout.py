from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from worlds import Probe

from fledge.core.contracts import Agent
from fledge.core.types import Decision, Token
from fledge.envs.trial import Trial
from fledge.learn.rollout import begin, rollout

N = 3


class Counter(Agent):
    """Counts its decisions since the trial began; acts 1 on every third. Adapts by adding 100 to its count."""

    adapts: ClassVar[bool] = True

    def begin(self) -> Array:
        return jnp.zeros(2)

    def act(self, memory: Array, token: Token, noise: Array | None = None) -> tuple[Decision, Array]:
        memory = memory.at[0].add(1.0)
        return Decision(jnp.asarray(memory[0] % 3 == 0, jnp.int32), memory[0], memory[1]), memory

    def adapt(self, key, memory, episode, mask):
        return memory.at[1].add(100.0 + jnp.sum(episode.timestep.reward * mask) + 10 * jnp.sum(mask))


def walk(kind, n_episodes, n_steps, horizon=2):
    trial = Trial(Probe(kind, horizon), n_episodes)
    tasks = jnp.asarray([1.0, -1.0, 1.0])
    state = begin(Counter(), trial, jax.random.key(0), tasks)
    return jax.jit(lambda s: rollout(Counter(), trial, s, jax.random.key(1), n_steps=n_steps))(state)


@pytest.fixture(scope="module")
def synchronous():
    return walk("clock", n_episodes=2, n_steps=8)


@pytest.fixture(scope="module")
def ragged():
    """Trials of two episodes of at most 4 steps that end early: at the third decision of a trial."""
    return walk("early", n_episodes=2, n_steps=12, horizon=4)


def test_memory_is_reset_at_trial_ends_only(synchronous):
    _, happened = synchronous
    np.testing.assert_array_equal(happened.decision.log_prob[:, 0], [1, 2, 3, 4, 1, 2, 3, 4])


def test_the_agent_sees_the_next_start_and_receives_the_last_transition(synchronous):
    _, happened = synchronous
    token = jax.tree.map(lambda x: x[2, 0], happened.token)  # first decision of the second episode
    assert token.observation[1] == 0 and token.final_observation[1] == 2 and token.last_observation[1] == 1
    assert bool(token.done) and not bool(token.start) and token.reward == 1.0


def test_a_new_trial_starts_with_nothing_of_the_old_one(synchronous):
    _, happened = synchronous
    token = jax.tree.map(lambda x: x[4, 0], happened.token)
    assert bool(token.start) and not bool(token.done)
    assert token.reward == 0 and token.action == 0
    assert float(jnp.abs(token.final_observation).sum() + jnp.abs(token.last_observation).sum()) == 0


def test_trial_ends_are_raised_once_a_trial(synchronous):
    _, happened = synchronous
    np.testing.assert_array_equal(happened.timestep.trial_end[:, 1], [0, 0, 0, 1, 0, 0, 0, 1])


def test_the_task_stays_inside_a_trial_and_is_drawn_anew_after_it():
    _, happened = walk("sign", n_episodes=2, n_steps=400)
    signs = np.asarray(happened.timestep.reward).reshape(100, 4, N)
    assert (signs == signs[:, :1]).all()
    assert 0.35 < (signs[1:, 0] == signs[:-1, 0]).mean() < 0.65


def test_ragged_trials__a_trial_that_ends__is_followed_by_a_fresh_one(ragged):
    _, happened = ragged
    count = np.asarray(happened.decision.log_prob)
    start, end = np.asarray(happened.token.start), np.asarray(happened.timestep.trial_end)
    assert end.any() and not happened.timestep.done.all()
    np.testing.assert_array_equal(start[1:], end[:-1])
    np.testing.assert_array_equal(count[start], 1)


def test_adapt_is_called_after_inner_episodes_with_the_whole_episode_and_its_mask(synchronous, ragged):
    _, happened = synchronous
    # After the first episode (2 real steps, return 1): 100 + 1 + 20, until the trial ends.
    np.testing.assert_array_equal(happened.decision.value[:, 0], [0, 0, 121, 121, 0, 0, 121, 121])
    _, happened = ragged
    # The first episode ends at decision 3 (action 1): three real steps, no reward.
    np.testing.assert_array_equal(happened.decision.value[:5, 0], [0, 0, 0, 130, 130])


def test_a_rollout_in_pieces_goes_on_where_it_stopped():
    trial = Trial(Probe("clock", 4), 1)
    state = begin(Counter(), trial, jax.random.key(0), jnp.ones(N))
    go = jax.jit(lambda s: rollout(Counter(), trial, s, jax.random.key(1), n_steps=3))
    state, first = go(state)
    _, second = go(state)
    np.testing.assert_array_equal(
        jnp.concatenate([first.decision.log_prob, second.decision.log_prob])[:, 0], [1, 2, 3, 4, 1, 2]
    )
