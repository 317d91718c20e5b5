"""What the MuJoCo families pay, show and end, worked out by hand; what they need installed."""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.core.errors import ConfigError, MissingExtra
from fledge.envs.families import FAMILIES, make
from fledge.envs.mujoco_engine import View
from fledge.envs.trial import Trial

KEY = jax.random.key(0)
SIZES = {"cheetah": (9, 9), "ant": (15, 14), "humanoid": (24, 23), "walker": (9, 9), "hopper": (6, 6)}


def view(body, moved=(0.0, 0.0), extras=(), **qpos):
    """A state in which all but the named coordinates (q0, q1 …) are zero."""
    nq, nv = SIZES[body]
    positions = jnp.zeros(nq)
    for name, value in qpos.items():
        positions = positions.at[int(name[1:])].set(value)
    return View(positions, jnp.zeros(nv), jnp.asarray(moved), dict(extras))


def judged(name, seen, velocity, action, task, **settings):
    env = make(name, **settings)
    actions = jnp.full(env.action_space.shape, action)
    reward, end = env.judge(seen, jnp.asarray(velocity), actions, jnp.asarray(task))
    return pytest.approx(float(reward), abs=1e-5), bool(end)


CONTACTS = {"cfrc_ext": jnp.zeros(84).at[:2].set(jnp.array([0.5, -30.0]))}
CALM = {"cfrc_ext": jnp.zeros(84)}


@pytest.mark.parametrize(
    ("name", "settings", "task", "wanted"),
    [
        ("cheetah-dir", {}, [-1.0], -1.5 - 0.05 * 6 * 4),
        ("cheetah-dir", {"paid_beyond": 10.0}, [-1.0], -0.05 * 6 * 4),
        ("cheetah-vel", {}, [2.0], -0.5 - 0.05 * 6 * 4),
        ("hop", {}, [1.2], 10 * (-0.2 - 0.05 * 6 * 4)),
        ("hop-walk", {}, [0.0, -1.0], -1.5 - 0.05 * 6 * 4),
        ("hop-walk", {}, [1.0, 1.2], 10 * (-0.2 - 0.05 * 6 * 4)),
    ],
)
def test_the_cheetah_pays_for_speed_or_height_and_charges_the_action_that_was_asked_for(name, settings, task, wanted):
    assert judged(name, view("cheetah", q0=4.0, q1=0.3), (1.5, 0.0), 2.0, task, **settings) == (wanted, False)


def test_ant_dir_pays_the_speed_along_the_heading_and_charges_clipped_contacts():
    seen = view("ant", extras=CONTACTS, q2=0.5)
    wanted = -2.0 - 0.5 * 8 * 0.25 - 5e-4 * 1.25 + 1.0
    assert judged("ant-dir", seen, (2.0, 5.0), 0.5, [-1.0, 0.0]) == (wanted, False)


@pytest.mark.parametrize("height", [0.19, 1.01, np.nan])
def test_ant_dir_ends_where_the_torso_leaves_its_band(height):
    assert judged("ant-dir", view("ant", extras=CALM, q2=height), (0.0, 0.0), 0.0, [1.0, 0.0])[1]


@pytest.mark.parametrize(
    ("name", "settings", "wanted"),
    [
        ("ant-goal", {}, -0.7 - 0.1 * 8 - 5e-4 * 1.25),
        ("ant-goal-sparse", {}, -0.5 - 0.01 * 8 - 5e-4 * 1.25),
        ("ant-goal-sparse", {"level": 6}, -0.3 - 0.01 * 8 - 5e-4 * 1.25),
    ],
)
def test_ant_goal_pays_the_distance_and_never_ends(name, settings, wanted):
    seen = view("ant", extras=CONTACTS, q0=1.3, q1=0.4)
    assert judged(name, seen, (0.0, 0.0), 1.0, [1.0, 0.0], **settings) == (wanted, False)


def test_the_humanoid_pays_the_speed_of_its_centre_of_mass():
    seen = view("humanoid", extras={"cfrc_ext": jnp.full(84, 100.0)}, q2=1.4)
    wanted = 1.25 * 0.8 - 0.1 * 17 * 0.04 - 5e-7 * 84 * 1e4 + 5.0
    assert judged("humanoid-dir", seen, (0.0, 0.8), 0.2, [0.0, 1.0]) == (wanted, False)


@pytest.mark.parametrize(
    ("name", "body", "qpos", "end"),
    [
        ("walker-rand", "walker", {"q1": 1.2}, False),
        ("walker-rand", "walker", {"q1": 0.8}, True),
        ("walker-rand", "walker", {"q1": 1.2, "q2": -1.0}, True),
        ("hopper-rand", "hopper", {"q1": 1.2}, False),
        ("hopper-rand", "hopper", {"q1": 0.7}, True),
        ("hopper-rand", "hopper", {"q1": 1.2, "q2": 0.2}, True),
        ("hopper-rand", "hopper", {"q1": 1.2, "q5": 101.0}, True),
    ],
)
def test_a_random_body_is_paid_to_run_and_ends_where_it_falls(name, body, qpos, end):
    n_motors = make(name).action_space.size
    wanted = 1.5 + 1.0 - 1e-3 * n_motors * 0.25
    assert judged(name, view(body, **qpos), (1.5, 0.0), 0.5, 100) == (wanted, end)


def test_the_speed_is_the_way_of_the_root_over_the_control_step():
    env, task = make("cheetah-dir"), jnp.ones(1)
    state, _ = env.reset(KEY, task)
    after, timestep = env.step(KEY, state, jnp.zeros(6), task)
    assert float(timestep.reward) == pytest.approx(float(after.qpos[0] - state.qpos[0]) / 0.05, abs=1e-4)


def test_actions_are_clipped_only_where_asked():
    task, action = jnp.ones(1), jnp.full(6, 2.0)
    plain, clipped = make("cheetah-dir"), make("cheetah-dir", clip_actions=True)
    state, _ = plain.reset(KEY, task)
    rewards = [float(env.step(KEY, state, action, task)[1].reward) for env in (plain, clipped)]
    assert rewards[1] - rewards[0] == pytest.approx(0.05 * 6 * 3, abs=1e-5)


def test_cheetah_observations_are_joints_speeds_and_the_torso():
    env, task = make("cheetah-dir"), jnp.ones(1)
    state, seen = env.reset(KEY, task)
    torso = [float(state.qpos[0]), 0.0, float(state.qpos[1]) + 0.7]
    np.testing.assert_allclose(seen, [*state.qpos[1:], *state.qvel, *torso], rtol=1e-6)


def test_a_reset_of_the_humanoid_sees_inertias_but_no_contacts():
    env, task = make("humanoid-dir"), jnp.array([1.0, 0.0])
    state, _ = env.reset(KEY, task)
    env.step(KEY, state, jnp.zeros(17), task)
    _, seen = env.reset(KEY, task)
    assert np.abs(seen[45:185]).max() > 0.1
    assert np.abs(seen[292:]).max() == 0


def test_headings_of_ant_dir__axis__are_forward_and_backward():
    assert make("ant-dir").enumerate("test").tolist() == [[1.0, 0.0], [-1.0, 0.0]]


def test_headings_of_ant_dir__radian__are_57_degrees_to_both_sides():
    lines = [make("ant-dir-radian").describe(task) for task in make("ant-dir-radian").enumerate("test")]
    assert lines == ["run at 57 degrees", "run at -57 degrees"]


def test_ant_goals_fill_the_disc_and_those_out_of_distribution_the_ring():
    env, keys = make("ant-goal"), jax.random.split(KEY, 2000)
    inside = np.linalg.norm(jax.vmap(lambda k: env.sample(k, "train"))(keys), axis=1)
    outside = np.linalg.norm(jax.vmap(lambda k: env.sample(k, "ood"))(keys), axis=1)
    assert np.mean(inside < 3 / np.sqrt(2)) == pytest.approx(0.5, abs=0.04)  # half the area; 3.6 standard errors
    assert (inside.max() < 3, outside.min() > 3, outside.max() < 4) == (True, True, True)


def test_the_oracle_of_a_random_body_is_told_all_its_multipliers():
    assert make("walker-rand").task_vector(jnp.asarray(7)).shape == (65,)
    assert make("hopper-rand").task_vector(jnp.asarray(7)).shape == (41,)


def test_two_random_bodies_move_differently_from_one_start():
    env = make("walker-rand")
    tasks = jnp.arange(2, dtype=jnp.int32)
    states, _ = jax.vmap(lambda task: env.reset(KEY, task))(tasks)
    after, _ = jax.vmap(lambda state, task: env.step(KEY, state, jnp.full(6, 0.5), task))(states, tasks)
    assert np.array_equal(states.qpos[0], states.qpos[1])
    assert not np.array_equal(after.qpos[0], after.qpos[1])


def test_an_inner_episode_starts_from_rest_again():
    env, task = Trial(make("cheetah-dir", horizon=2), 2), jnp.ones(1)
    state, _ = env.reset(KEY, task)
    for _ in range(2):
        state, timestep = env.step(KEY, state, jnp.ones(6), task)
    assert abs(float(state.inner.qpos[0])) <= 0.1
    assert not np.array_equal(timestep.observation, timestep.final_observation)


@pytest.mark.parametrize("missing", ["mujoco", "gymnasium"])
def test_without_the_extra__one_error_says_what_to_install(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtra, match=rf"'{missing}'.*pip install 'fledge\[mujoco\]'"):
        make("cheetah-dir")


def test_without_the_extra__families_can_still_be_listed(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    assert {"cheetah-dir", "walker-rand"} <= set(FAMILIES)


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("ant-dir", {"headings": "axes"}, "one of 'axis', 'radian', 'any', not 'axes'"),
        ("ant-goal-sparse", {"level": 7}, "no level '7'"),
        ("walker-rand", {"n_bodies": 0}, "n_bodies is the number of bodies"),
        ("hop", {"horizon": 0}, "horizon is a number of steps"),
    ],
)
def test_a_wrong_setting_is_refused(name, settings, text):
    with pytest.raises(ConfigError, match=text):
        make(name, **settings)
