"""The trial, on cases small enough to write down; and what may outlive an episode inside it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.envs.darkroom import DarkRoom
from fledge.envs.gridnav import GridNav
from fledge.envs.hall import Hall
from fledge.envs.trial import Trial

KEY = jax.random.key(0)
STAY, UP, RIGHT, DOWN, LEFT = range(5)


def play(env, task, actions):
    """The time steps of a scripted walk, stacked."""

    def one(state, action):
        return env.step(KEY, state, action, task)

    state, start = env.reset(KEY, task)
    return start, jax.jit(lambda s, a: jax.lax.scan(one, s, a))(state, jnp.array(actions))[1]


@pytest.fixture(scope="module")
def early():
    """Goal two steps away, episodes of at most four steps, two episodes: the first is solved, the second is not."""
    env = DarkRoom(width=3, height=3, horizon=4, start="corner", ends_at_goal=True, moves="compass")
    return play(Trial(env, 2), jnp.array([2, 0], jnp.int32), [RIGHT, RIGHT, UP, STAY, STAY, STAY])[1]


def test_at_an_inner_end_the_agent_sees_the_start_of_the_next_episode(early):
    assert early.observation[1].tolist() == [0, 0]


def test_at_an_inner_end_the_terminal_observation_is_kept(early):
    assert early.final_observation[1].tolist() == [2, 0]


def test_away_from_inner_ends_both_observations_are_one(early):
    same = np.all(early.observation == early.final_observation, axis=-1)
    assert same.tolist() == [True, False, True, True, True, True]


def test_an_early_end_is_terminated_and_a_late_one_truncated(early):
    assert early.terminated.tolist() == [False, True, False, False, False, False]
    assert early.truncated.tolist() == [False] * 5 + [True]


def test_the_trial_ends_once_with_its_last_episode(early):
    assert early.trial_end.tolist() == [False] * 5 + [True]


def test_the_step_after_an_inner_reset_moves_from_the_start(early):
    assert early.observation[2].tolist() == [0, 1]


def test_at_the_end_of_the_trial_the_observation_is_the_terminal_one(early):
    assert early.observation[5].tolist() == [0, 1]


def test_the_goal_stays_where_it_was_over_all_episodes_of_a_trial():
    env = DarkRoom(width=3, height=3, horizon=2, start="corner", moves="compass")
    _, steps = play(Trial(env, 3), jnp.array([1, 1], jnp.int32), [UP, RIGHT] * 3)
    assert steps.reward.tolist() == [0, 1, 0, 1, 0, 1]
    assert steps.trial_end.tolist() == [False] * 5 + [True]


def test_gridnav_visit_bonus_is_paid_once_per_cell_and_trial():
    env = GridNav(size=3, horizon=2, start_block=1, visit_bonus=0.1)
    _, steps = play(Trial(env, 2), jnp.array([2, 2], jnp.int32), [UP, STAY, UP, UP])
    np.testing.assert_allclose(steps.reward, [0.1, -0.1, -0.1, 0.1], atol=1e-6)


def test_gridnav_visit_bonus_is_not_paid_for_cells_that_cannot_be_goals():
    env = GridNav(size=3, horizon=3, start_block=2, visit_bonus=0.1)
    _, steps = play(env, jnp.array([2, 2], jnp.int32), [UP, STAY, UP])
    np.testing.assert_allclose(steps.reward, [-0.1, -0.1, 0.1], atol=1e-6)


def test_hall_remembers_checked_doors_over_the_episodes_of_a_trial():
    env = Hall(size=3, horizon=3, observe_checked=True)
    _, steps = play(Trial(env, 2), jnp.asarray(2), [RIGHT, UP, STAY, RIGHT, STAY, RIGHT])
    assert steps.final_observation[:, 2].tolist() == [1, 0, 0, 0, 0, 1]


def test_hall_pays_its_bonus_once_per_door_and_its_goal_every_step():
    env = Hall(size=3, horizon=8, visit_bonus=0.1, success_reward=5.0)
    _, steps = play(env, jnp.asarray(2), [RIGHT, UP, DOWN, UP, DOWN, RIGHT, UP, STAY])
    np.testing.assert_allclose(steps.reward, [-0.1, 0.1, -0.1, -0.1, -0.1, -0.1, 5, 5], atol=1e-6)


def test_hall_behind_a_door_only_down_moves():
    env = Hall(size=3, horizon=8)
    _, steps = play(env, jnp.asarray(2), [RIGHT, UP, RIGHT, LEFT, UP, DOWN])
    assert steps.observation.tolist() == [[1, 0], [1, 1], [1, 1], [1, 1], [1, 1], [1, 0]]


def test_hall_has_no_door_above_the_start():
    _, steps = play(Hall(size=3, horizon=3), jnp.asarray(1), [UP])
    assert steps.observation.tolist() == [[0, 0]]


def test_gridnav_show_replaces_the_observation_after_a_step_onto_the_start_only():
    start, steps = play(GridNav(show=True), jnp.array([4, 3], jnp.int32), [STAY, UP, DOWN])
    assert start.tolist() == [0, 0]
    assert steps.observation.tolist() == [[4, 3], [0, 1], [4, 3]]
