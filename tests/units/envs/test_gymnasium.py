"""Gymnasium environments through the host: they keep the contract, and say what they cannot do."""

from __future__ import annotations

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.agents.references import make_reference
from fledge.core.errors import ConfigError
from fledge.envs.check import check_env
from fledge.envs.gymnasium import GymnasiumEnv
from fledge.envs.trial import Trial
from fledge.learn.rollout import begin, rollout, sample_tasks

KEY = jax.random.key(0)


class Cart(gymnasium.Env):
    """A point on a line: it starts near 0, its action moves it, and it ends where it reaches the task's mark."""

    observation_space = gymnasium.spaces.Box(-10.0, 10.0, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self):
        self.mark, self.n_steps = None, 0

    def set_task(self, mark):
        self.mark = float(mark)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.time = self.np_random.uniform(-0.1, 0.1), 0
        return self.seen(), {}

    def seen(self):
        return np.array([self.place, self.time / 10])

    def step(self, action):
        self.n_steps += 1
        self.time += 1
        self.place += float(action[0]) + self.np_random.uniform(-0.01, 0.01)
        there = self.place >= self.mark
        return self.seen(), -abs(self.mark - self.place), there, False, {"success": there}


MARKS = {"train": np.array([1.0, 2.0, 3.0], np.float32), "test": np.array([1.5], np.float32)}
MADE: list[Cart] = []


def make():
    MADE.append(Cart())
    return MADE[-1]


def cart(**settings):
    return GymnasiumEnv(make, MARKS, horizon=8, info=("success",), splits_disjoint=True, **settings)


def by_hand(env, mark, seed, actions):
    """Observations, rewards and ends of the plain Gymnasium environment, up to its end."""
    env.set_task(mark)
    rows = [(env.reset(seed=seed)[0], 0.0, False)]
    for action in actions:
        seen, reward, terminated, _, _ = env.step(np.clip(action, -1, 1))
        rows.append((seen, reward, terminated))
        if terminated:
            break
    return [np.array(column, np.float32) for column in zip(*rows, strict=True)]


def seed_of(key):
    return int(jax.random.bits(key, (), jnp.uint32) >> 1)


def walk(env, key, task, actions):
    """Start observation and time steps, in one scan."""
    state, first = env.reset(key, task)
    _, timesteps = jax.lax.scan(lambda s, a: env.step(key, s, a, task), state, actions)
    return first, timesteps


@pytest.fixture(scope="module")
def env():
    return cart()


@pytest.fixture(scope="module")
def batch(env):
    """Six walks under `vmap`, compiled; and what they were made from."""
    keys = jax.random.split(KEY, 6)
    tasks = jnp.asarray([1.0, 2.0, 3.0, 1.5, 2.5, 0.5])
    actions = jax.random.uniform(KEY, (6, 8, 1), minval=-0.5, maxval=1.5)
    return keys, tasks, actions, jax.jit(jax.vmap(lambda *args: walk(env, *args)))(keys, tasks, actions)


def test_it_keeps_every_promise_of_an_environment(env):
    assert [str(finding) for finding in check_env(env)] == []


def test_a_batch_of_walks_is_what_stepping_by_hand_gives(batch):
    keys, tasks, actions, (first, timesteps) = batch
    for i in range(6):
        seen, rewards, ends = by_hand(Cart(), float(tasks[i]), seed_of(keys[i]), np.asarray(actions[i]))
        n = len(rewards) - 1
        np.testing.assert_allclose(first[i], seen[0], rtol=1e-6)
        np.testing.assert_allclose(timesteps.observation[i, :n], seen[1:], rtol=1e-6)
        np.testing.assert_allclose(timesteps.reward[i, :n], rewards[1:], rtol=1e-6)
        np.testing.assert_array_equal(timesteps.terminated[i, :n], ends[1:])


def test_two_levels_of_vmap_give_the_same(env, batch):
    keys, tasks, actions, (_, timesteps) = batch
    two = jax.vmap(jax.vmap(lambda *args: walk(env, *args)))(
        keys.reshape(2, 3), tasks.reshape(2, 3), actions.reshape(2, 3, 8, 1)
    )[1]
    np.testing.assert_array_equal(two.reward.reshape(6, 8), timesteps.reward)


def test_after_its_end_an_episode_stays_where_it_is_and_pays_nothing(batch):
    *_, (_, timesteps) = batch
    i = int(np.argmax(timesteps.done[:, 2]))  # the first that ended within three steps
    end = int(np.argmax(timesteps.done[i]))
    assert timesteps.done[i, end:].all()
    assert not timesteps.reward[i, end + 1 :].any()


def test_the_horizon_cuts(env):
    _, timesteps = walk(env, KEY, jnp.asarray(3.0), -jnp.ones((8, 1)))
    assert timesteps.truncated.tolist() == [False] * 7 + [True]


def test_a_state_can_be_stepped_twice_with_different_actions(env):
    task = jnp.asarray(3.0)
    start, _ = env.reset(KEY, task)
    middle, _ = env.step(KEY, start, jnp.array([0.5]), task)
    ahead, _ = env.step(KEY, middle, jnp.array([0.5]), task)
    _, branched = env.step(KEY, middle, jnp.array([-0.5]), task)
    _, onward = env.step(KEY, ahead, jnp.array([0.25]), task)
    seed = seed_of(KEY)
    for got, actions in ((branched, [0.5, -0.5]), (onward, [0.5, 0.5, 0.25])):
        np.testing.assert_allclose(got.observation, by_hand(Cart(), 3.0, seed, np.array(actions)[:, None])[0][-1])


def test_a_rollout_steps_an_environment_once_for_every_step():
    # Two seeds side by side: then a rollout begins new trials everywhere at every step, and throws most of them away.
    trial = Trial(cart(), 2)
    agent = make_reference("random", trial)

    @jax.jit
    @jax.vmap
    def run(key):
        key_task, key_begin, key_rollout = jax.random.split(key, 3)
        state = begin(agent, trial, key_begin, sample_tasks(trial, key_task, "train", 4))
        return rollout(agent, trial, state, key_rollout, n_steps=50)[1].timestep

    before = sum(one.n_steps for one in MADE)
    timestep = jax.block_until_ready(run(jax.random.split(KEY, 2)))
    assert timestep.trial_end.sum() > 8
    assert sum(one.n_steps for one in MADE) - before == 2 * 4 * 50


def test_fresh_starts_that_are_thrown_away_do_not_disturb_the_running_episode(env):
    task, action = jnp.asarray(3.0), jnp.array([0.25])
    state, _ = env.reset(KEY, task)
    for i in range(4):
        env.reset(jax.random.key(i), task)
        state, timestep = env.step(KEY, state, action, task)
    expected = by_hand(Cart(), 3.0, seed_of(KEY), [np.array([0.25])] * 4)[0][-1]
    np.testing.assert_allclose(timestep.observation, expected, rtol=1e-6)


def test_a_restart_of_an_episode_that_goes_on_hands_it_back(env):
    state, _ = env.step(KEY, env.reset(KEY, jnp.asarray(3.0))[0], jnp.array([0.5]), jnp.asarray(3.0))
    again, _ = env.restart(jax.random.key(1), state, jnp.asarray(3.0))
    assert (int(again.run), int(again.time)) == (int(state.run), 1)


@pytest.fixture(scope="module")
def foreign():
    """States at the start of an episode and inside it, of another environment object; and what came of it there."""
    env, task = cart(), jnp.asarray(3.0)
    start, _ = env.reset(KEY, task)
    inside, timestep = env.step(KEY, start, jnp.array([0.5]), task)
    return start, inside, timestep


def test_a_state_of_another_process_goes_on_from_the_start_of_an_episode(env, foreign):
    start, _, there = foreign
    _, here = env.step(KEY, start, jnp.array([0.5]), jnp.asarray(3.0))
    np.testing.assert_array_equal(here.observation, there.observation)


def test_a_state_of_another_process_is_refused_inside_an_episode(env, foreign):
    with pytest.raises(Exception, match=r"of another process .*, in the middle of an episode"):
        env.step(KEY, foreign[1], jnp.array([0.0]), jnp.asarray(3.0))


def test_a_forgotten_episode_is_refused():
    env = cart(n_kept=2)
    state, _ = env.reset(KEY, jnp.asarray(3.0))
    state, _ = env.step(KEY, state, jnp.array([0.0]), jnp.asarray(3.0))
    for i in range(2):
        env.reset(jax.random.key(i), jnp.asarray(3.0))
    with pytest.raises(Exception, match="was forgotten: 2 others"):
        env.step(KEY, state, jnp.array([0.0]), jnp.asarray(3.0))


def test_an_environment_without_a_task_setter_is_refused_in_one_sentence():
    with pytest.raises(ConfigError, match=r"CartPoleEnv has no method set_task.*set_task\(env, task\)"):
        GymnasiumEnv(lambda: gymnasium.make("CartPole-v1"), MARKS)


def test_an_environment_without_a_time_limit_asks_for_one():
    with pytest.raises(ConfigError, match="Cart has no time limit of its own"):
        GymnasiumEnv(Cart, MARKS)


def test_actions_that_are_neither_box_nor_whole_numbers_are_refused():
    class Switches(Cart):
        action_space = gymnasium.spaces.MultiBinary(3)

    with pytest.raises(ConfigError, match=r"Switches acts by MultiBinary\(3\)"):
        GymnasiumEnv(Switches, MARKS, horizon=8)


def test_tasks_without_a_test_split_are_refused():
    with pytest.raises(ConfigError, match="no tasks for test"):
        GymnasiumEnv(Cart, {"train": MARKS["train"]}, horizon=8)


def test_whole_numbers_start_where_they_do_in_gymnasium():
    class Dial(Cart):
        observation_space = gymnasium.spaces.Discrete(5, start=10)
        action_space = gymnasium.spaces.Discrete(3, start=-1)

        def seen(self):
            return 12

        def step(self, action):
            assert -1 <= action <= 1
            return 12, float(action), False, False, {}

    env = GymnasiumEnv(Dial, lambda key, split: jax.random.uniform(key, ()), horizon=8)
    state, first = env.reset(KEY, jnp.asarray(1.0))
    rewards = [float(env.step(KEY, state, jnp.asarray(a), jnp.asarray(1.0))[1].reward) for a in range(3)]
    assert (int(first), rewards) == (2, [-1.0, 0.0, 1.0])


def test_a_registered_environment_brings_its_time_limit_and_a_setter_may_be_given():
    def set_gravity(env, task):
        env.unwrapped.gravity = float(task)

    env = GymnasiumEnv(lambda: gymnasium.make("CartPole-v1"), {"train": [9.8], "test": [2.0]}, set_gravity)

    def falls(gravity):
        _, timesteps = walk(env, KEY, jnp.asarray(gravity), jnp.ones(3, jnp.int32))
        return timesteps.observation[-1]

    assert env.horizon == 500
    np.testing.assert_array_equal(falls(9.8), falls(9.8))
    assert not np.allclose(falls(9.8), falls(2.0))
