"""Minecraft-like mazes: the pictures, the way through, what each move pays, and the published ceilings."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact_dp import KEY

from fledge.core.errors import ConfigError
from fledge.envs import minemaze as maze
from fledge.envs.families import make
from fledge.envs.minemaze import FORWARD, GREEN, LEFT, RED, RIGHT, MineMaze, MineMazeState
from fledge.envs.textures import MEAN_RGB, SIGNAL_IMAGE, images
from fledge.envs.trial import Trial

MC_LS = MineMaze()
TURNS = {maze.WEST_3: RIGHT, maze.EAST_3: LEFT}


def way_through(state, end_turn, n_signals):
    """The action of the shortest way: the right side of every room, and `end_turn` at the end."""
    side = jnp.where(state.right_side, RIGHT, LEFT)
    table = np.full(maze.PLATFORM + n_signals + 1, FORWARD)
    table[maze.PLATFORM : -1] = RIGHT
    for cell, turn in TURNS.items():
        table[cell] = turn
    action = jnp.where(state.cell == maze.FORK, side, jnp.asarray(table)[state.cell])
    return jnp.where(state.cell == maze.PLATFORM + n_signals, end_turn, action)


@jax.jit
def walk(env, task, end_turn, key=0):
    """Start observation and time steps of `horizon` steps along the way; `end_turn` < 0 takes the turn that pays."""
    inner, task = getattr(env, "env", env), jnp.asarray(task)
    turn = jnp.where(end_turn < 0, inner.right_end(task), end_turn)
    key_reset, key_steps = jax.random.split(jax.random.key(key))
    state, first = env.reset(key_reset, task)

    def step(state, key):
        return env.step(key, state, way_through(getattr(state, "inner", state), turn, inner.n_signals), task)

    _, timesteps = jax.lax.scan(step, state, jax.random.split(key_steps, env.horizon))
    return first, timesteps


def first_episode(timesteps):
    """Return and length."""
    end = int(np.argmax(timesteps.done)) + 1
    return float(np.sum(timesteps.reward[:end])), end


@pytest.mark.parametrize("colour", [RED, GREEN])
def test__mc_ls__the_way_through_takes_98_steps_and_pays_13_point_7(colour):
    earned, steps = first_episode(walk(MC_LS, [colour], -1)[1])
    assert (earned, steps) == (pytest.approx(13.7, abs=1e-4), 98)
    assert float(MC_LS.optimal_return(jnp.array([colour]))[0]) == pytest.approx(13.7, abs=1e-5)


def test__mc_ls__two_episodes_of_a_trial_pay_27_point_4():
    assert float(jnp.sum(walk(Trial(MC_LS, 2), [GREEN], -1)[1].reward[: 2 * 98])) == pytest.approx(27.4, abs=1e-3)


def test__mc_ls__the_same_turn_for_every_colour_pays_10_point_2_on_average():
    earned = [first_episode(walk(MC_LS, [colour], RIGHT)[1])[0] for colour in (RED, GREEN)]
    assert np.mean(earned) == pytest.approx(10.2, abs=1e-4)


@pytest.mark.parametrize(("name", "best"), [("mc-lsn", 10.1), ("mc-lso", 10.2), ("mc-lsh", 13.7)])
def test__variants__the_way_through_pays_their_optimum(name, best):
    env = make(name)
    task = env.enumerate("test")[0]
    assert first_episode(walk(env, task, -1)[1])[0] == pytest.approx(best, abs=1e-4)
    assert float(env.optimal_return(task)[0]) == pytest.approx(best, abs=1e-4)


@pytest.fixture(scope="module")
def one_step():
    """Cell, room and reward after one action in a cell (of the first room by default), in which the right side pays."""

    @jax.jit
    def move(env, cell, action, room, time):
        state = MineMazeState(*(jnp.asarray(x, jnp.int32) for x in (cell, room)), jnp.asarray(True), jnp.asarray(time))
        return env.step(KEY, state, jnp.asarray(action), jnp.array([GREEN, RED][: env.n_signals]))

    def step(cell, action, *, room=0, time=0, env=MC_LS):
        state, timestep = move(env, cell, action, room, time)
        return int(state.cell), int(state.room), round(float(timestep.reward), 5), bool(timestep.done)

    return step


@pytest.mark.parametrize(("cell", "action", "following"), [way for way in maze.WAYS if way[0] != maze.EXIT])
def test__room__a_listed_move_leads_on_and_pays_unless_to_the_wrong_side(one_step, cell, action, following):
    pays = 0.0 if following == maze.WEST_1 else 0.1
    assert one_step(cell, action) == (following, 0, pytest.approx(pays), False)


def test__room__every_other_action_stays_and_pays_nothing(one_step):
    listed = {(cell, action) for cell, action, _ in maze.WAYS}
    others = [(c, a) for c in range(maze.PLATFORM) for a in range(3) if (c, a) not in listed]
    assert len(others) == 9 * 3 - len(maze.WAYS)
    assert {one_step(c, a) == (c, 0, 0.0, False) for c, a in others} == {True}


def test__exit__forward_leads_into_the_next_room_and_from_the_last_to_the_end(one_step):
    assert one_step(maze.EXIT, FORWARD) == (maze.ENTRY, 1, pytest.approx(0.1), False)
    assert one_step(maze.EXIT, FORWARD, room=15) == (maze.PLATFORM + 1, 16, pytest.approx(0.1), False)


def test__platform__only_right_moves(one_step):
    assert [one_step(maze.PLATFORM, a)[0] for a in (LEFT, FORWARD, RIGHT)] == [maze.PLATFORM] * 2 + [maze.ENTRY]


def test__end__green_means_right_and_forward_does_nothing(one_step):
    end = maze.PLATFORM + 1
    assert [one_step(end, a)[2:] for a in (LEFT, FORWARD, RIGHT)] == [(-3.0, True), (0.0, False), (4.0, True)]


def test__order__only_green_then_red_means_right():
    env = make("mc-lso")
    right = {tuple(task.tolist()): int(env.right_end(task)) for task in env.enumerate("train")}
    assert right == {(GREEN, RED): RIGHT, (RED, GREEN): LEFT, (GREEN, GREEN): LEFT, (RED, RED): LEFT}


def test__time_limit__the_last_step_does_and_pays_nothing(one_step):
    assert one_step(maze.ENTRY, FORWARD, time=198) == (maze.FORK, 0, pytest.approx(0.1), False)
    assert one_step(maze.ENTRY, FORWARD, time=199) == (maze.ENTRY, 0, 0.0, True)
    assert one_step(maze.PLATFORM + 1, RIGHT, time=199) == (maze.PLATFORM + 1, 0, 0.0, True)


def test__right_sides__are_fair_and_fresh_in_every_room():
    @jax.jit
    def sides(key):
        state, _ = MC_LS.reset(key, jnp.array([RED]))

        def room(state, key):
            at_exit = MineMazeState(jnp.asarray(maze.EXIT), state.room, state.right_side, state.time)
            return MC_LS.step(key, at_exit, jnp.asarray(FORWARD), jnp.array([RED]))[0], state.right_side

        return jax.lax.scan(room, state, jax.random.split(key, 15))[1]

    drawn = 2.0 * np.asarray(jax.vmap(sides)(jax.random.split(KEY, 400))) - 1
    assert abs(drawn.mean()) < 3 / drawn.size**0.5
    assert abs((drawn[:, 1:] * drawn[:, :-1]).mean()) < 3 / (drawn.size - 400) ** 0.5


@pytest.mark.parametrize(
    ("cell", "distance"),
    [(maze.ENTRY, 4.6), (maze.FORK, 6.1), (maze.WEST_1, 2.6), (maze.EAST_1, 2.6)]
    + [(cell, 0.0) for cell in range(maze.WEST_2, maze.EXIT + 1)],
)
def test__pictures__the_two_types_of_a_room_differ_as_published(cell, distance):
    apart = np.linalg.norm(images()[2 * cell] - images()[2 * cell + 1])
    assert apart == pytest.approx(distance, abs=1e-5)


def test__pictures__signals_and_end_have_the_published_mean_colours():
    pixels = images()[SIGNAL_IMAGE : SIGNAL_IMAGE + 3].reshape(3, 100, 3) * 128 + 128
    np.testing.assert_allclose(pixels.mean(1), [MEAN_RGB[name] for name in ("red", "green", "end")], atol=1e-3)


def test__pictures__of_different_cells_differ():
    apart = np.linalg.norm(images()[:, None] - images()[None], axis=-1)
    assert np.count_nonzero(apart < 1.0) == len(images()) + 2 * 5  # five cells look the same in both types


def test__first_observation__is_the_colour_of_the_task():
    seen = [np.asarray(walk(MC_LS, [colour], -1)[0]) for colour in (RED, GREEN)]
    np.testing.assert_array_equal(seen, images()[SIGNAL_IMAGE : SIGNAL_IMAGE + 2])


def test__hidden_colour__is_black_whatever_the_task():
    env = make("mc-lsh")
    assert {float(x) for colour in (RED, GREEN) for x in walk(env, [colour], -1)[0]} == {-1.0}


def test__noise__has_the_asked_standard_deviation():
    clean, noisy = images()[SIGNAL_IMAGE + GREEN], walk(make("mc-lsn"), [GREEN], -1)[0]
    assert float(np.std(noisy - clean)) == pytest.approx(0.05, rel=0.15)


@pytest.mark.parametrize(
    ("bad", "word"), [({"rooms": 0}, "rooms is 1"), ({"horizon": 98}, "shortest way of 98"), ({"noise": -1.0}, "noise")]
)
def test__minemaze__with_settings_that_clash__says_which(bad, word):
    with pytest.raises(ConfigError, match=word):
        MineMaze(**bad)
