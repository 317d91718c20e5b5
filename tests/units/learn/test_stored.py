"""Trials that differ in length, or that rollouts cut: what is stored of them, and what is learnt from them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import Probe

from fledge.agents.build import MemoryAgentSettings
from fledge.agents.inference import inference_agent
from fledge.core.errors import ConfigError
from fledge.core.spaces import Discrete
from fledge.core.types import Decision, TimeStep, Token, Trajectory
from fledge.data.replay import Ring
from fledge.envs.trial import Trial
from fledge.learn.elbo import Decoders, ELBOSettings, Trials, inference_loss
from fledge.learn.inference import InferenceLearner
from fledge.learn.ppo import PPO, PPOSettings
from fledge.learn.rollout import rollout
from fledge.learn.stored import Window
from fledge.learn.supervision import SupervisionSettings
from fledge.nets.decoders import CellRewardDecoder, TaskDecoder

HORIZON = 3
LENGTHS = ((2, 1, 3, 3), (3, 3, 2, 1))
"""Steps of the trials of two environments, one after the other."""


def walked():
    """Nine steps of both environments; the reward of a step is its number, from 1, the second's negative."""
    ends = np.zeros((9, 2), bool)
    for env, lengths in enumerate(LENGTHS):
        ends[np.cumsum(lengths) - 1, env] = True
    n = jnp.arange(1.0, 10.0)
    token = Token.first(jnp.zeros(2), Discrete(2))
    token = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (9, 2, *leaf.shape)), token)
    no, zero, seen = jnp.zeros((9, 2), bool), jnp.zeros((9, 2)), jnp.zeros((9, 2, 2))
    step = TimeStep(seen, seen, jnp.stack([n, -n], axis=1), no, no, jnp.asarray(ends), {})
    return Trajectory(token, Decision(zero.astype(jnp.int32), zero, zero), step)


def stored(cuts, n_rows=8):
    """The rewards of the stored trials when the nine steps come in rollouts of these lengths, and the last window."""
    trajectory, found, at = walked(), [], 0
    window = Window.init(jax.tree.map(lambda leaf: leaf[0], trajectory.token), HORIZON)
    for length in cuts:
        part = jax.tree.map(lambda leaf: leaf[at : at + length], trajectory)  # noqa: B023
        window, rows, n = window.after(part, jax.random.key(at), n_rows)
        found += [tuple(np.asarray(rows.steps.reward[i])[np.asarray(rows.real[i])].tolist()) for i in range(int(n))]
        at += length
    return found, window


WHOLE = {(1, 2), (3,), (4, 5, 6), (7, 8, 9), (-1, -2, -3), (-4, -5, -6), (-7, -8), (-9,)}


@pytest.mark.parametrize("cuts", [(9,), (4, 5), (2, 2, 2, 3), (1, 1, 7), (5, 4)])
def test_trials_are_stored_once_and_whole_wherever_rollouts_cut_them(cuts):
    found, _ = stored(cuts)
    assert sorted(found) == sorted(WHOLE)


def test_the_window_knows_how_long_the_running_trials_are():
    _, window = stored((4, 3))
    assert window.length.tolist() == [1, 1]
    assert stored((4, 1))[1].length.tolist() == [2, 2]


def test_no_more_trials_are_handed_on_than_there_is_room_for():
    found, _ = stored((9,), n_rows=3)
    assert len(found) == 3
    assert set(found) <= WHOLE


def test_the_loss_of_trials_of_two_and_four_steps_is_what_it_is_by_hand():
    """Zero weights: every decoded step costs log 2, every decoded task 1; beliefs are N(0, 1), so no KL."""
    zeros = jnp.zeros((4, 2))
    steps = Token(
        jnp.zeros((4, 2, 2)),
        jnp.zeros((4, 2, 2)),
        zeros.astype(jnp.int32),
        zeros,
        zeros > 0,
        jnp.zeros((4, 2, 2)),
        zeros > 0,
    )
    key = jax.random.key(0)
    decoders = Decoders(reward=CellRewardDecoder.init(key, 1, 2, 2, (2,)), task=TaskDecoder.init(key, 1, (2,), 3))
    trials = Trials(steps, jnp.asarray([[True, True], [True, True], [False, True], [False, True]]))
    # What a memory makes of padding is anything.
    beliefs = jnp.zeros((5, 2, 2)).at[3:, 0].set(7.0)
    blank = jax.tree.map(jnp.zeros_like, decoders)
    loss, _ = inference_loss(key, beliefs, blank, trials, ELBOSettings(), target=jnp.ones((2, 3)))
    by_hand = ((3 * 2 + 5 * 4) * np.log(2) + (3 + 5) * 1.0) / 2
    assert float(loss) == pytest.approx(by_hand, rel=1e-5)


RAGGED = Trial(Probe("early", 3), 2)
"""Two episodes of one to three steps."""
AGENT = MemoryAgentSettings(
    kind="varibad", memory_size=4, joint_embedding=4, latent_size=2, latent_embedding=3, state_embedding=3
)


def learner_of(kind, unroll_len):
    supervision = SupervisionSettings(kind=kind, n_trials=4, capacity=64, decoder_hidden=(4,), multi_task_updates=1)
    make = inference_agent(AGENT, RAGGED, embeds_task=supervision.embeds_task, reads_task=supervision.decodes_task)
    settings = PPOSettings(n_envs=4, n_minibatches=2, learning_rate=1e-2, unroll_len=unroll_len)
    return InferenceLearner(PPO(RAGGED, make, settings, 10), supervision)


@pytest.fixture(scope="module")
def course():
    """Four updates of TI++ on rollouts that cut trials of unequal length."""
    learner = learner_of("ti++", 5)
    update = jax.jit(learner.update)
    states, metrics = [jax.jit(learner.init)(jax.random.key(0))], []
    for _ in range(4):
        state, found = update(states[-1])
        states.append(state)
        metrics.append({name: float(x) for name, x in found.items()})
    return learner, states, metrics, update._cache_size()


def test_replay_is_acting_where_trials_are_cut(course):
    assert max(found["ppo/ratio_error"] for found in course[2]) < 1e-5


def test_every_number_of_training_is_finite_whatever_ended_in_the_rollout(course):
    assert all(np.isfinite(x) for found in course[2] for name, x in found.items() if name != "return/trial")


def test_all_updates_are_one_program(course):
    assert course[3] == 1


def test_encoder_and_decoders_learn_from_trials_of_unequal_length(course):
    before, after = ((s.agent.inference_part(), s.decoders) for s in course[1][2:4])
    assert max(float(jnp.max(jnp.abs(a - b))) for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True)) > 0


def test_stored_trials_end_with_the_end_of_their_last_episode(course):
    trials = course[1][-1].trials
    n = int(trials.size)
    real = np.asarray(trials.rows.real[:n])
    ends = np.asarray(trials.rows.steps.done[:n])
    assert n > 4
    assert set(real.sum(1).tolist()) > {2}  # of several lengths
    assert [row[mask].sum() for row, mask in zip(ends, real, strict=True)] == [RAGGED.n_episodes] * n
    assert all(row[mask][-1] for row, mask in zip(ends, real, strict=True))


def test_a_memory_that_is_encoded_anew_is_the_one_that_acted(course):
    learner, states, *_ = course
    # The agent of the last state walks on from its own, resumed, memory.
    state = learner._resume(states[-1])
    rolled, trajectory = jax.jit(lambda s: rollout(s.agent, RAGGED, s.rollout, jax.random.key(3), n_steps=5))(state)
    window, *_ = state.window.after(trajectory, jax.random.key(0), 4)
    again = state.agent.resumed(window.steps, window.length)
    assert window.length.max() > 1
    np.testing.assert_allclose(again, rolled.memory, atol=1e-5)


def test_a_ring_too_small_for_an_iteration_is_refused():
    ring = Ring.init(jnp.zeros(2), 3)
    with pytest.raises(ConfigError, match="keeps 3 rows was handed 4"):
        ring.insert_first(jnp.ones((4, 2)), jnp.asarray(1))
