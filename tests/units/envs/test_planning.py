"""The Memory & Planning Game: moves by hand, and its ceilings against agents that play it."""

from __future__ import annotations

from collections import deque
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact_dp import KEY

from fledge.core.errors import ConfigError
from fledge.envs.planning import COLLECT, MOVES, Planning, PlanningState
from fledge.envs.trial import Trial

GAME = Planning()
SYMBOLS = jnp.array([4, 0, 7, 1, 8, 2, 6, 3, 5], jnp.int32)


def first_moves(size):
    """The first action of a shortest way between any two cells, by breadth-first search; collect where they agree."""
    table = np.full((size,) * 4, COLLECT)
    for goal in product(range(size), repeat=2):
        queue, seen = deque([goal]), {goal}
        while queue:
            here = queue.popleft()
            for action, move in enumerate(MOVES[:COLLECT]):
                before = tuple((np.array(here) - move) % size)
                if before not in seen:
                    seen.add(before)
                    queue.append(before)
                    table[(*before, *goal)] = action
    return table


def play(env, choose, n, key=KEY):
    """Returns of `n` episodes in which `choose(key, state, t)` acts."""

    task = env.sample(KEY)

    def episode(key):
        key_reset, key_steps = jax.random.split(key)
        state, _ = env.reset(key_reset, task)

        def step(state, x):
            key, t = x
            return env.step(key, state, choose(jax.random.fold_in(key, 1), state, t), task)

        keys = jax.random.split(key_steps, env.horizon)
        return jnp.sum(jax.lax.scan(step, state, (keys, jnp.arange(env.horizon)))[1].reward)

    return np.asarray(jax.jit(jax.vmap(episode))(jax.random.split(key, n)))


def agrees(returns, expected):
    """Whether the mean lies within three standard errors."""
    return abs(returns.mean() - expected) < 3 * returns.std() / len(returns) ** 0.5


@pytest.mark.parametrize("size", [3, 4])
def test_an_agent_that_knows_the_map_earns_the_optimum(size):
    env, table = Planning(size=size), jnp.asarray(first_moves(size))
    returns = play(env, lambda key, s, t: table[s.position[0], s.position[1], s.goal[0], s.goal[1]], 4000)
    assert agrees(returns, float(env.optimal_return(env.sample(KEY))[0]))


def test_knowing_the_map_is_worth_39_point_7_and_chance_1_point_7():
    assert float(GAME.optimal_return(SYMBOLS)[0]) == pytest.approx(39.72, abs=0.01)
    returns = play(GAME, lambda key, s, t: jax.random.randint(key, (), 0, 5), 4000)
    assert returns.mean() == pytest.approx(1.7, abs=0.1)


def test_without_seeing_the_goal_a_tour_of_all_cells_earns_the_optimum():
    env = Planning(observation="just-goal")
    tour = jnp.array([0, 0, 3, 0, 0, 3, 0, 0, 3])  # three rows, one after the other, and back to the start

    # A tour that starts at the last goal: where it is in it follows from the cell, since every cell has one way on.
    def choose(key, state, t):
        on_goal = jnp.all(state.position == state.goal)
        row = state.position[0]
        along = (state.position[1] - 2 * row) % 3  # each row is entered one cell before where the last was left
        return jnp.where(on_goal, COLLECT, tour[3 * row + along])

    assert agrees(play(env, choose, 4000), float(env.optimal_return(SYMBOLS)[0]))
    assert float(env.optimal_return(SYMBOLS)[0]) == pytest.approx(17.86, abs=0.01)


@pytest.mark.parametrize(("action", "after"), [(0, (2, 0)), (1, (2, 1)), (2, (1, 2)), (3, (0, 2))])
def test_moves_wrap_around(action, after):
    state, _ = GAME.step(KEY, place((2, 2), (0, 1)), jnp.asarray(action), SYMBOLS)
    assert tuple(state.position.tolist()) == after


def place(position, goal, time=0):
    return PlanningState(*(jnp.array(x, jnp.int32) for x in (position, goal, time)))


def test_collecting_on_the_goal_pays_one_and_moves_the_goal_only():
    goals = set()
    for i in range(40):
        state, timestep = GAME.step(jax.random.key(i), place((1, 1), (1, 1)), jnp.asarray(COLLECT), SYMBOLS)
        assert (float(timestep.reward), tuple(state.position.tolist())) == (1.0, (1, 1))
        goals.add(tuple(state.goal.tolist()))
    assert goals == set(product(range(3), repeat=2)) - {(1, 1)}


def test_collecting_elsewhere_does_nothing():
    state, timestep = GAME.step(KEY, place((1, 1), (0, 1)), jnp.asarray(COLLECT), SYMBOLS)
    assert (float(timestep.reward), tuple(state.goal.tolist())) == (0.0, (0, 1))


def test_the_observation_is_the_symbol_of_the_agent_and_of_the_goal():
    _, timestep = GAME.step(KEY, place((1, 0), (2, 2)), jnp.asarray(0), SYMBOLS)  # to (1, 1), whose symbol is 8
    assert timestep.observation.nonzero()[0].tolist() == [8, 9 + 5]


def test_just_goal_shows_whether_the_agent_stands_on_it():
    env = Planning(observation="just-goal")
    seen = [
        env.step(KEY, place((1, 0), goal), jnp.asarray(0), SYMBOLS)[1].observation.tolist() for goal in ((1, 1), (1, 2))
    ]
    assert seen == [[1.0], [0.0]]


def test_coordinates_are_appended_on_request():
    env = Planning(coordinates=True)
    seen = env.step(KEY, place((1, 0), (2, 0)), jnp.asarray(0), SYMBOLS)[1].observation
    assert seen[18:].tolist() == [0.5, 0.5, 1.0, 0.0]


def test_the_map_outlives_an_episode_of_the_trial():
    trial = Trial(Planning(horizon=1), 2)
    state, _ = trial.reset(KEY, SYMBOLS)
    state, timestep = trial.step(KEY, state, jnp.asarray(0), SYMBOLS)
    x, y = state.inner.position
    assert int(timestep.observation[:9].argmax()) == int(SYMBOLS[3 * x + y])


def test_an_episode_takes_the_horizon():
    _, timestep = GAME.step(KEY, place((0, 0), (1, 1), time=99), jnp.asarray(0), SYMBOLS)
    assert bool(timestep.truncated)


def test_the_description_is_the_map_with_y_upwards():
    assert GAME.describe(SYMBOLS) == "symbols 7 2 5 / 0 8 3 / 4 1 6"


@pytest.mark.parametrize(("bad", "word"), [({"size": 1}, "size is 2"), ({"horizon": 0}, "horizon is 1")])
def test_settings_that_clash_are_named(bad, word):
    with pytest.raises(ConfigError, match=word):
        Planning(**bad)
