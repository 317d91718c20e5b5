"""The room of two goals: what a step pays and where goals go."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.envs.goalmaze import GoalMaze, GoalMazeState

ENV = GoalMaze()
UP = 2
"""Its number among left, down, up, right: three cells on."""


def stepped(player, goals, task=1.0):
    state = GoalMazeState(jnp.asarray(player), jnp.array(goals), jnp.asarray(0))
    return ENV.step(jax.random.key(0), state, jnp.asarray(UP), jnp.asarray(task))


@pytest.mark.parametrize(
    ("goals", "task", "reward"),
    [([3, 8], 1.0, 1.0), ([3, 8], -1.0, -1.0), ([8, 3], 1.0, -1.0), ([8, 3], -1.0, 1.0), ([7, 8], 1.0, -0.04)],
)
def test_a_goal_pays_one_or_minus_one_and_any_other_step_costs(goals, task, reward):
    _, timestep = stepped(0, goals, task)
    assert float(timestep.reward) == pytest.approx(reward)


def test_a_goal_that_was_reached_moves_to_a_free_cell_and_the_other_stays():
    state, _ = stepped(0, [3, 8])
    assert int(state.goals[1]) == 8
    assert int(state.goals[0]) not in (3, 8)


def test_a_wall_holds_the_player():
    state, _ = stepped(7, [0, 1])
    np.testing.assert_array_equal(ENV.position(state), [1, 2])
