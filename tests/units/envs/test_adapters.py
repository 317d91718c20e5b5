"""Adapters of other libraries: parameters as tasks, kinds as tasks, and what they say where the library is missing."""

from __future__ import annotations

import pickle
import sys
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.core.errors import ConfigError, MissingExtra
from fledge.envs import metaworld
from fledge.envs.check import check_env
from fledge.envs.gymnax import GymnaxEnv
from fledge.envs.xland import XLandEnv

KEY = jax.random.key(0)


class Params(eqx.Module):
    """The parameters of `Slope`, in gymnax's manner."""

    slope: float = 1.0
    friction: float = 0.5
    max_steps_in_episode: int = 6

    def replace(self, **changes):
        return Params(**{**vars(self), **changes})


class SlopeState(eqx.Module):
    place: jax.Array
    time: int


class Slope:
    """A ball on a slope, written as gymnax environments are (Python numbers in its first state included)."""

    default_params = Params()

    def observation_space(self, params):
        return SimpleNamespace(low=np.full((2, 1), -3.4e38), high=np.full((2, 1), 3.4e38), shape=(2, 1))

    def action_space(self, params):
        return SimpleNamespace(n=2, shape=())

    def observe(self, state):
        return jnp.stack([state.place, state.place])[:, None]

    def reset_env(self, key, params):
        state = SlopeState(jax.random.uniform(key), 0)
        return self.observe(state), state

    def step_env(self, key, state, action, params):
        state = SlopeState(state.place + params.slope - params.friction * action, state.time + 1)
        return self.observe(state), state, state.place, self.fell(state, params), {"pushed": action}

    def fell(self, state, params):
        return state.place > 10

    def is_truncated(self, state, params):
        return state.time >= params.max_steps_in_episode


SLOPES = {"train": {"slope": [1.0, 2.0]}, "test": {"slope": [3.0]}}


@pytest.fixture(scope="module")
def slope():
    return GymnaxEnv(Slope(), SLOPES, info=("pushed",), splits_disjoint=True)


def walk(env, task, n_steps, action=1):
    state, _ = env.reset(KEY, task)
    actions = jnp.full(n_steps, action)
    return jax.jit(lambda state: jax.lax.scan(lambda s, a: env.step(KEY, s, a, task), state, actions)[1])(state)


def test_gymnax__keeps_every_promise_of_an_environment(slope):
    assert [str(finding) for finding in check_env(slope)] == []


def test_gymnax__the_task_sets_its_parameters_and_the_others_stay(slope):
    timesteps = walk(slope, {"slope": jnp.asarray(2.0)}, 3)
    start = float(jax.random.uniform(KEY))
    np.testing.assert_allclose(timesteps.observation[:, 0], start + np.array([1.5, 3.0, 4.5]), rtol=1e-6)
    assert timesteps.info["pushed"].tolist() == [1.0, 1.0, 1.0]


def test_gymnax__the_end_of_time_is_truncation(slope):
    timesteps = walk(slope, {"slope": jnp.asarray(1.0)}, 6)
    assert (timesteps.truncated.tolist(), timesteps.terminated.any()) == ([False] * 5 + [True], False)


def test_gymnax__an_end_of_its_own_is_termination(slope):
    timesteps = walk(slope, {"slope": jnp.asarray(3.0)}, 4)  # 2.5 a step: past 10 at the latest in the fourth
    assert (bool(timesteps.terminated[3]), bool(timesteps.truncated[3])) == (True, False)


def test_gymnax__the_largest_float_is_no_bound(slope):
    assert (slope.observation_space.low, slope.observation_space.high) == (-np.inf, np.inf)


def test_gymnax__a_task_that_varies_no_parameter_is_refused():
    tasks = {"train": {"slop": [1.0]}, "test": {"slop": [1.0]}}
    with pytest.raises(ConfigError, match=r"A task varies slop; .*: slope, friction, max_steps_in_episode"):
        GymnaxEnv(Slope(), tasks)


class Arm:
    """Stands where it is; succeeds where its action is the goal."""

    def set_task(self, row):
        self.goal = pickle.loads(row.data)["rand_vec"][-1]

    def reset(self, *, seed=None, options=None):
        return np.full(39, self.goal), {}

    def step(self, action):
        success = float(abs(action[0] - self.goal) < 0.1)
        return np.full(39, self.goal), 1.0 + success, False, False, {"success": success}


class Leg(Arm):
    pass


def rows(name, goals):
    return [SimpleNamespace(env_name=name, data=pickle.dumps({"rand_vec": np.array([0, 0, 0, g])})) for g in goals]


@pytest.fixture(scope="module")
def kinds():
    benchmark = SimpleNamespace(
        train_classes={"arm": Arm, "leg": Leg},
        test_classes={"wing": Leg},
        train_tasks=rows("arm", [0.1, 0.2]) + rows("leg", [0.3, 0.4]),
        test_tasks=rows("wing", [0.5]),
    )
    return metaworld._env(benchmark, ends_on_success=True)


def test_metaworld__the_task_vector_is_the_kind_and_the_goal(kinds):
    vectors = jax.vmap(kinds.task_vector)(kinds.enumerate("train"))
    assert vectors[:, :2].tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    np.testing.assert_allclose(vectors[:, 4], [0.1, 0.2, 0.3, 0.4])


def test_metaworld__a_test_kind_has_no_place_in_the_task_vector(kinds):
    np.testing.assert_allclose(jax.vmap(kinds.task_vector)(kinds.enumerate("test")), [[0, 0, 0, 0, 0.5]])


def test_metaworld__a_batch_over_several_kinds_ends_where_it_succeeds(kinds):
    tasks = kinds.enumerate("train")
    actions = jnp.zeros((4, 4)).at[:, 0].set(jnp.array([0.1, 0.9, 0.3, 0.9]))
    states, seen = jax.vmap(kinds.reset)(jax.random.split(KEY, 4), tasks)
    _, timesteps = jax.vmap(kinds.step)(jax.random.split(KEY, 4), states, actions, tasks)
    np.testing.assert_allclose(seen[:, 0], [0.1, 0.2, 0.3, 0.4])
    assert timesteps.terminated.tolist() == [True, False, True, False]
    assert timesteps.info["success"].tolist() == [1.0, 0.0, 1.0, 0.0]


def test_metaworld__a_task_is_described_by_its_kind_and_goal(kinds):
    assert kinds.describe(jax.tree.map(lambda x: x[0], kinds.enumerate("test"))) == "wing, goal (0.00, 0.00, 0.50)"


@pytest.mark.parametrize(
    ("module", "extra", "call"),
    [
        ("gymnax", "gymnax", lambda: GymnaxEnv("CartPole-v1", SLOPES)),
        ("xminigrid", "xland", lambda: XLandEnv("XLand-MiniGrid-R1-9x9", None)),
        ("metaworld", "metaworld", metaworld.ml1),
        ("metaworld", "metaworld", metaworld.ml10),
    ],
    ids=["gymnax", "xland", "ml1", "ml10"],
)
def test_a_missing_library_is_named_with_the_extra_that_installs_it(module, extra, call, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"needs the package '{module}'.*pip install 'fledge\[{extra}\]'"):
        call()
