"""What an agent that is told the task can earn: closed forms against dynamic programming, and published facts."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact_dp import KEY, best_returns

from fledge.envs import cells as grid
from fledge.envs.darkroom import DarkRoom, DarkRoomState
from fledge.envs.families import make
from fledge.envs.gridnav import GridNav, GridNavState
from fledge.envs.hall import Hall, HallState
from fledge.envs.keydoor import KeyToDoor, KeyToDoorState
from fledge.envs.trial import Trial


def told(env, tasks):
    return np.asarray(jax.jit(jax.vmap(lambda task: env.optimal_return(task)[0]))(tasks))


def start_row(env, width, height):
    x, y = env.start_cell
    return x * height + y


@pytest.mark.parametrize(
    "env",
    [
        GridNav(),
        GridNav(reward="dense"),
        GridNav(horizon=5),
        GridNav(horizon=5, reward="dense"),
        GridNav(size=7, start="centre", goals="ring"),
        GridNav(size=4, start="random"),
        GridNav(size=4, start="random", reward="dense", horizon=4),
    ],
    ids=str,
)
def test_gridnav_optimal_return_is_what_dynamic_programming_finds(env):
    cells, tasks = grid.cells(env.size, env.size), env.enumerate("train")
    n = len(cells)
    states = jax.vmap(GridNavState)(jnp.asarray(cells), jnp.zeros(n, jnp.int32), jnp.zeros((n, 0), bool))
    values = best_returns(env, states, lambda s: s.position[0] * env.size + s.position[1], tasks)
    exact = values.mean(1) if env.start == "random" else values[:, start_row(env, env.size, env.size)]
    np.testing.assert_allclose(told(env, tasks), exact, atol=1e-4)


ROOMS = [
    DarkRoom(),
    DarkRoom(width=5, height=4, horizon=4, ends_at_goal=True),
    DarkRoom(width=5, height=3, start="corner", goal_at_start=False, moves="dpt"),
    DarkRoom(width=4, height=4, start="random", horizon=5),
    DarkRoom(width=4, height=4, start="random", goal_at_start=False, observation="cell"),
    DarkRoom(width=4, height=3, permuted=True, start="corner", moves="dpt", horizon=9),
    DarkRoom(width=5, height=5, macro=2, horizon=4, start="corner"),
    DarkRoom(width=5, height=5, macro=3, horizon=3, start="random", ends_at_goal=True),
]


@pytest.mark.parametrize("env", ROOMS, ids=str)
def test_darkroom_optimal_return_is_what_dynamic_programming_finds(env):
    cells, tasks = grid.cells(env.width, env.height), env.enumerate("train")
    states = jax.vmap(DarkRoomState)(jnp.asarray(cells), jnp.zeros(len(cells), jnp.int32))
    values = best_returns(env, states, lambda s: s.position[0] * env.height + s.position[1], tasks)
    exact = values[:, start_row(env, env.width, env.height)]
    if env.start == "random":
        counts = np.ones_like(values)
        if not env.goal_at_start:
            goals = np.asarray(tasks)
            counts[np.arange(len(tasks)), goals[:, 0] * env.height + goals[:, 1]] = 0
        exact = (values * counts).sum(1) / counts.sum(1)
    np.testing.assert_allclose(told(env, tasks), exact, atol=1e-4)


DOORS = [
    KeyToDoor(size=3, horizon=6),
    KeyToDoor(size=3, horizon=4, door_repeats=True, start="corner"),
    KeyToDoor(size=3, horizon=4, terminate_on_door=True, start_on_key=False),
    KeyToDoor(size=4, horizon=3, start="centre"),
    KeyToDoor(size=4, horizon=8, start="corner", door_repeats=True, moves="dpt"),
]


@pytest.mark.parametrize("env", DOORS, ids=str)
def test_key_to_door_optimal_return_is_what_dynamic_programming_finds(env):
    n, tasks = env.size**2, env.enumerate("train")
    rows = np.array(list(itertools.product(range(n), (0, 1), (0, 1))))
    positions = grid.cells(env.size, env.size)[rows[:, 0]]
    states = jax.vmap(KeyToDoorState)(
        jnp.asarray(positions),
        jnp.zeros(len(rows), jnp.int32),
        jnp.asarray(rows[:, 1] > 0),
        jnp.asarray(rows[:, 2] > 0),
    )

    def number(s):
        return (s.position[0] * env.size + s.position[1]) * 4 + s.has_key * 2 + s.opened

    values = best_returns(env, states, number, tasks)[:, ::4]
    exact = values[:, start_row(env, env.size, env.size)]
    if env.start == "random":
        counts = np.ones_like(values)
        if not env.start_on_key:
            keys = np.asarray(tasks)[:, 0]
            counts[np.arange(len(tasks)), keys[:, 0] * env.size + keys[:, 1]] = 0
        exact = (values * counts).sum(1) / counts.sum(1)
    np.testing.assert_allclose(told(env, tasks), exact, atol=1e-4)


@pytest.mark.parametrize(
    "env",
    [
        Hall(size=4, horizon=7),
        Hall(size=4, horizon=4, success_reward=5.0),
        Hall(size=4, horizon=9, visit_bonus=0.9, observe_checked=True),
    ],
    ids=str,
)
def test_hall_optimal_return_is_what_dynamic_programming_finds(env):
    rows = np.array(list(itertools.product(range(4), (0, 1), range(16))))
    checked = (rows[:, 2:] >> np.arange(4)) & 1 > 0
    states = jax.vmap(HallState)(
        jnp.asarray(rows[:, :2], jnp.int32), jnp.zeros(len(rows), jnp.int32), jnp.asarray(checked)
    )

    def number(s):
        return (s.position[0] * 2 + s.position[1]) * 16 + jnp.sum(s.checked * 2 ** jnp.arange(4))

    tasks = env.enumerate("train")
    np.testing.assert_allclose(told(env, tasks), best_returns(env, states, number, tasks)[:, 0], atol=1e-4)


def test_gridnav__told_the_goal__four_episodes_are_worth_44_29():
    env = make("gridnav")
    best = jax.vmap(lambda task: env.optimal_return(task, 4).sum())(env.enumerate("test"))
    assert len(best) == 21
    assert float(best.mean()) == pytest.approx(44.2857, abs=1e-4)


def test_darkroom__told_the_goal__mean_over_all_81_goals_is_16_54():
    env = make("darkroom", held_out=0.0)
    assert told(env, env.enumerate("test")).mean() == pytest.approx(16.54, abs=0.005)


def test_darkroom__goal_at_distance_d_of_the_centre__pays_20_minus_d_plus_1():
    env = make("darkroom", held_out=0.0)
    goals = env.enumerate("test")
    distance = np.abs(np.asarray(goals) - 4).sum(1)
    np.testing.assert_allclose(told(env, goals), np.where(distance == 0, 20, 21 - distance))


def test_the_mean_distance_from_the_centre_of_the_9x9_room_is_4_44():
    assert float(grid.manhattan(jnp.asarray(grid.cells(9, 9)), jnp.array([4, 4])).mean()) == pytest.approx(
        4.44, abs=0.005
    )


@pytest.mark.parametrize(
    "env",
    [
        DarkRoom(),
        DarkRoom(permuted=True, horizon=30),
        DarkRoom(macro=3, ends_at_goal=True),
        DarkRoom(moves="dpt", start="corner"),
        KeyToDoor(start="corner", horizon=30),
        KeyToDoor(start="centre", door_repeats=True, horizon=40, moves="dpt"),
    ],
    ids=str,
)
def test_the_demonstrator_earns_the_optimal_return(env):
    tasks = jax.tree.map(lambda leaf: leaf[:32], env.enumerate("train"))

    def earn(task):
        def one(carry, _):
            state, alive = carry
            state, timestep = env.step(KEY, state, env.optimal_action(state, task), task)
            return (state, alive & ~timestep.done), timestep.reward * alive

        state, _ = env.reset(KEY, task)
        return jax.lax.scan(one, (state, jnp.asarray(True)), length=env.horizon)[1].sum()

    np.testing.assert_allclose(jax.jit(jax.vmap(earn))(tasks), told(env, tasks))


def test_restricted_macro_actions__demonstrator__takes_the_one_that_lands_nearest():
    env = DarkRoom(macro=2, actions=(0, 18, 6), start="corner", moves="compass", width=5, height=5)
    state, _ = env.reset(KEY, jnp.array([4, 4]))
    # Codes in base 5: 0 = stay stay, 18 = down down (clipped), 6 = up up.
    assert int(env.optimal_action(state, jnp.array([4, 4]))) == 2


def test_a_trial_of_told_play_is_worth_the_sum_of_its_episodes():
    env, task = make("darkroom"), jnp.array([0, 0], jnp.int32)
    trial = Trial(env, 3)
    np.testing.assert_allclose(trial.optimal_return(task, 3), [13.0, 13.0, 13.0])
