from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.envs.beliefs import belief_gridnav, exact_beliefs, grid_of, prior
from fledge.envs.check import check_env
from fledge.envs.gridnav import GridNav
from fledge.envs.tmaze import TMaze
from fledge.envs.trial import Trial

GRID = GridNav(size=3)  # goals: the five cells two away from (0, 0) on an axis; cell (x, y) is 3x + y
GOALS = [2, 5, 6, 7, 8]


@pytest.fixture(scope="module")
def beliefs():
    """Walk to (0, 1), (0, 2), (1, 2), back to (0, 2), to (1, 2), and on to (2, 2), which pays; then off it."""
    positions = jnp.asarray([[0, 1], [0, 2], [1, 2], [0, 2], [1, 2], [2, 2], [2, 1]], jnp.float32)
    rewards = jnp.asarray([-0.1, -0.1, -0.1, -0.1, -0.1, 1.0, -0.1])
    return np.asarray(exact_beliefs(GRID, positions, rewards))


def uniform(*cells):
    return np.isin(np.arange(9), cells) / len(cells)


@pytest.mark.parametrize(
    ("term", "wanted"),
    [
        (0, uniform(*GOALS)),  # nothing seen
        (1, uniform(*GOALS)),  # a cell that is no goal rules nothing out
        (2, uniform(5, 6, 7, 8)),
        (3, uniform(6, 7, 8)),
        (5, uniform(6, 7, 8)),  # entered a second time
        (6, uniform(8)),  # found
        (7, uniform(8)),  # and never forgotten
    ],
)
def test_beliefs_along_a_walk_are_those_worked_out_by_hand(beliefs, term, wanted):
    np.testing.assert_allclose(beliefs[term], wanted, atol=1e-6)


def test_a_walk_of_trials_side_by_side_has_the_beliefs_of_each(beliefs):
    positions = jnp.asarray([[[0, 2], [2, 2]]], jnp.float32)
    found = exact_beliefs(GRID, positions, jnp.asarray([[-0.1, 1.0]]))
    np.testing.assert_allclose(found[1], [uniform(5, 6, 7, 8), uniform(8)], atol=1e-6)


def test_the_prior_of_held_out_goals_has_none_of_training():
    held = GridNav(held_out=0.3)
    assert not np.any((prior(held, "train") > 0) & (prior(held, "test") > 0))


@pytest.mark.parametrize("env", [GridNav(show=True), TMaze()])
def test_where_the_observation_is_not_the_cell_there_is_no_grid(env):
    assert grid_of(Trial(env, 2)) is None


ORACLE = Trial(belief_gridnav(size=3, horizon=4), 2)
UP, RIGHT = 1, 2


@pytest.fixture(scope="module")
def shown():
    """What the belief oracle sees after each of eight steps to a goal at (2, 2), which the last reaches."""
    step, task = jax.jit(ORACLE.step), jnp.asarray([2, 2])
    state, first = ORACLE.reset(jax.random.key(0), task)
    seen = [first]
    for action in (UP, UP, RIGHT, UP, UP, UP, RIGHT, RIGHT):
        state, timestep = step(jax.random.key(0), state, jnp.asarray(action), task)
        seen.append(timestep.observation)
    return np.asarray(seen)


def test_the_belief_oracle_is_shown_what_its_walk_rules_out(shown):
    np.testing.assert_allclose(shown[3, 2:], uniform(6, 7, 8), atol=1e-6)


def test_the_belief_outlives_an_episode(shown):
    np.testing.assert_allclose(shown[4], [0, 0, *uniform(6, 7, 8)], atol=1e-6)


def test_the_belief_oracle_knows_the_goal_once_it_was_there(shown):
    np.testing.assert_allclose(shown[8, 2:], uniform(8), atol=1e-6)


def test_the_belief_oracle_passes_the_exam_of_environments():
    assert check_env(belief_gridnav(size=3, horizon=4)) == ()
