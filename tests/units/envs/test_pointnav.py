"""Points on a plane: goals per split, what a step pays, and the exact optimum."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.core.errors import ConfigError
from fledge.envs.pointnav import PointNav, Semicircle

SQUARE = PointNav("square", action_limit=0.1, step_size=1.0, stop_within=0.01)
SPARSE = PointNav("upper", reward="sparse", action_limit=0.05, step_size=1.0)


@jax.jit
def walk(env, task, gain, push, heading=0.0):
    """The time steps of an episode whose actions are gain · (task − position) + push, clipped by the environment."""
    state, first = env.reset(jax.random.key(0), task)
    if isinstance(env, Semicircle):
        state = eqx.tree_at(lambda s: s.pose, state, jnp.zeros(3).at[2].set(heading))

    def step(carry, key):
        state, observation = carry
        state, timestep = env.step(key, state, gain * (task - observation[:2]) + push, task)
        return (state, timestep.observation), timestep

    _, timesteps = jax.lax.scan(step, (state, first), jax.random.split(jax.random.key(1), env.horizon))
    return timesteps


def angles(env, split, n=500):
    goals = jax.vmap(lambda key: env.sample(key, split))(jax.random.split(jax.random.key(0), n))
    return np.degrees(np.arctan2(goals[:, 1], goals[:, 0]))


@pytest.mark.parametrize(("arc", "middle"), [("right", 0), ("up", 90), ("left", 180), ("bottom", -90)])
def test__arc__spreads_over_its_quarter_of_the_circle(arc, middle):
    off = (angles(PointNav(arc), "train") - middle + 180) % 360 - 180
    assert np.max(np.abs(off)) <= 45.001
    assert np.ptp(off) > 80


def test__arcs__ood_goals_lie_on_the_other_arc():
    assert np.min(np.abs(angles(PointNav("right", ood_goals="left"), "ood"))) > 134.9


def test__arcs__test_goals_lie_on_the_training_arc():
    assert np.max(np.abs(angles(PointNav("right", ood_goals="left"), "test"))) < 45.1


def test__goals__on_an_arc_have_distance_one():
    assert float(jnp.linalg.norm(PointNav("up").sample(jax.random.key(3)))) == pytest.approx(1.0, abs=1e-6)


def test__move__is_clipped_on_each_axis():
    env, task = PointNav(), jnp.array([1.0, 0.0])
    state, _ = env.reset(jax.random.key(0), task)
    _, timestep = env.step(jax.random.key(0), state, jnp.array([5.0, -0.5]), task)
    np.testing.assert_allclose(timestep.observation, [0.1, -0.05], atol=1e-7)


def test__dense_reward__is_minus_the_distance_after_the_move():
    env, task = PointNav(), jnp.array([0.6, 0.8])
    state, _ = env.reset(jax.random.key(0), task)
    _, timestep = env.step(jax.random.key(0), state, jnp.array([1.0, 0.0]), task)
    assert float(timestep.reward) == pytest.approx(-((0.5**2 + 0.8**2) ** 0.5), abs=1e-6)


@pytest.mark.parametrize(("x", "paid"), [(0.85, 0.85), (0.75, 0.0)])
def test__sparse_reward__is_one_minus_distance_inside_the_radius_and_zero_outside(x, paid):
    env, task = PointNav(reward="sparse"), jnp.array([1.0, 0.0])
    state, _ = env.reset(jax.random.key(0), task)
    state = type(state)(jnp.array([x, 0.0]), state.time)
    _, timestep = env.step(jax.random.key(0), state, jnp.zeros(2), task)
    assert float(timestep.reward) == pytest.approx(paid, abs=1e-6)


@pytest.mark.parametrize(
    "env", [PointNav(), PointNav(reward="sparse"), SPARSE], ids=["dense", "sparse", "sparse-hyper"]
)
def test__optimal_return__is_earned_by_going_straight_on_each_axis(env):
    task = env.sample(jax.random.key(7))
    earned = walk(env, task, 1.0 / env.step_size, jnp.zeros(2))
    assert float(jnp.sum(earned.reward)) == pytest.approx(float(env.optimal_return(task)[0]), abs=1e-4)


def test__optimal_return__of_an_episode_that_ends_on_the_goal__counts_until_then():
    task = jnp.array([0.43, -0.2])
    earned = walk(SQUARE, task, 1.0, jnp.zeros(2))
    end = int(jnp.argmax(earned.terminated))
    assert end == 4
    total = float(jnp.sum(earned.reward[: end + 1]))
    assert total == pytest.approx(float(SQUARE.optimal_return(task)[0]), abs=1e-5)


def test__optimal_return__of_a_goal_on_the_axis__is_the_sum_by_hand():
    # Gaps after steps 1 … 10: 0.9, 0.8 … 0.1, 0: together 4.5.
    assert float(PointNav().optimal_return(jnp.array([1.0, 0.0]))[0]) == pytest.approx(-4.5, abs=1e-5)


def test__horizon__truncates_and_does_not_terminate():
    timesteps = walk(PointNav(horizon=7), jnp.array([1.0, 0.0]), 0.0, jnp.zeros(2))
    np.testing.assert_array_equal(timesteps.truncated, [False] * 6 + [True])
    assert not jnp.any(timesteps.terminated)


def test__scene__draws_the_goal_inside_its_window():
    picture = PointNav().scene(jnp.array([0.6, 0.8]))
    assert picture["kind"] == "plane"
    assert picture["goals"][0]["x"] == pytest.approx(0.6)
    assert picture["x_range"][0] < 0.6 < picture["x_range"][1]


@pytest.mark.parametrize("bad", [{"goals": "rigth"}, {"reward": "sparse", "stop_within": 0.1}])
def test__point_nav__with_a_setting_that_makes_no_sense__is_refused(bad):
    with pytest.raises(ConfigError, match=r"right|stop_within"):
        PointNav(**bad)


# Semicircle


TOP = jnp.array([0.0, 0.2])


@pytest.fixture(scope="module")
def drive_up():
    """Ten steps straight up at full speed towards a goal at the top."""
    return walk(Semicircle(), TOP, 0.0, jnp.array([1.0, 0.0]), np.pi / 2)


def test__semicircle__drives_ten_small_moves_a_step(drive_up):
    np.testing.assert_allclose(drive_up.observation[0], [0.0, 0.1, np.pi / 2], atol=1e-5)


def test__semicircle__at_the_goal__pays_one_and_returns_to_the_centre(drive_up):
    assert float(drive_up.reward[1]) == 1.0
    np.testing.assert_array_equal(drive_up.observation[1, :2], 0.0)


def test__semicircle__counts_its_own_steps(drive_up):
    np.testing.assert_array_equal(drive_up.truncated, [False] * 9 + [True])


def test__semicircle__turning_at_full_rate__turns_a_fifth_of_pi_a_step():
    timesteps = walk(Semicircle(), TOP, 0.0, jnp.array([0.0, 1.0]), 0.0)
    assert float(timesteps.observation[0, 2]) == pytest.approx(2 * np.pi / 10, abs=1e-5)


def test__semicircle__stays_in_the_disc_and_its_heading_in_the_declared_space():
    env = Semicircle(horizon=60)
    timesteps = walk(env, TOP, 0.0, jnp.array([-1.0, 0.3]), 0.4)
    assert float(jnp.max(jnp.linalg.norm(timesteps.observation[:, :2], axis=1))) <= 0.2 + 1e-6
    assert bool(jnp.all(jax.vmap(env.observation_space.contains)(timesteps.observation)))
