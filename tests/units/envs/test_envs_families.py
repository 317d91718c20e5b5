"""The table, its errors, the splits, and what single steps of the grid families do."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.core.errors import ConfigError, ContractError
from fledge.envs.darkroom import DarkRoom
from fledge.envs.families import FAMILIES, load, make, settings_of
from fledge.envs.gridnav import GridNav
from fledge.envs.keydoor import KeyToDoor

KEY = jax.random.key(0)


def sizes(env):
    return tuple(len(env.enumerate(split)) for split in ("train", "test"))


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("gridnav", (21, 21)),
        ("gridnav-heldout", (17, 4)),
        ("gridnav-ring", (24, 24)),
        ("gridnav-random", (25, 25)),
        ("hall", (59, 59)),
        ("darkroom", (65, 16)),
        ("darkroom-cell", (65, 16)),
        ("darkroom-dpt", (80, 20)),
        ("darkroom-permuted", (108, 12)),
        ("darkroom-radt-40x20", (640, 160)),
        ("key-to-door", (6233, 328)),
    ],
)
def test_the_splits_have_the_published_sizes(name, counts):
    assert sizes(make(name)) == counts


def test_key_to_door_has_6561_tasks_all_different():
    tasks = np.asarray(make("key-to-door", held_out=0.0).enumerate("test")).reshape(-1, 4)
    assert len(np.unique(tasks, axis=0)) == len(tasks) == 6561


def test_gridnav__out_of_distribution__is_the_block_around_the_start_without_the_start():
    assert sorted(map(tuple, make("gridnav").enumerate("ood").tolist())) == [(0, 1), (1, 0), (1, 1)]


def test_hall__held_out__the_end_of_the_corridor_is_out_of_distribution():
    env = make("hall", held_out=0.2)
    assert sorted(env.enumerate("ood").tolist()) == [55, 56, 57, 58, 59]


def test_darkroom__goal_at_start_excluded__no_task_is_trivial():
    env = make("darkroom", goal_at_start=False, held_out=0.0)
    assert [4, 4] not in env.enumerate("train").tolist()
    assert sizes(env) == (80, 80)


def test_random_starts_avoid_the_key_where_asked():
    env, task = KeyToDoor(size=2, start_on_key=False), jnp.array([[1, 0], [0, 0]])
    starts = jax.vmap(lambda key: env.reset(key, task)[1])(jax.random.split(KEY, 64))
    assert np.unique(starts, axis=0).tolist() == [[0, 0], [0, 1], [1, 1]]


def test_key_to_door__key_and_door_in_one_cell__pays_both_in_one_step():
    env, task = KeyToDoor(start="corner", moves="compass"), jnp.array([[0, 1], [0, 1]])
    state, _ = env.reset(KEY, task)
    assert float(env.step(KEY, state, jnp.asarray(1), task)[1].reward) == 2


def test_key_to_door__door_before_the_key__pays_nothing():
    env, task = KeyToDoor(start="corner", moves="compass"), jnp.array([[5, 5], [0, 1]])
    state, _ = env.reset(KEY, task)
    assert float(env.step(KEY, state, jnp.asarray(1), task)[1].reward) == 0


def test_cell_observations_are_x_times_height_plus_y():
    env = DarkRoom(width=3, height=4, observation="cell", start="corner", moves="compass")
    task = jnp.array([2, 3])
    state, _ = env.reset(KEY, task)
    state, _ = env.step(KEY, state, jnp.asarray(2), task)
    assert int(env.step(KEY, state, jnp.asarray(1), task)[1].observation) == 5


def test_permuted_actions_do_what_the_task_says():
    env = DarkRoom(permuted=True, start="corner", moves="compass")
    task = jnp.array([2, 0, 1, 3, 4])
    state, _ = env.reset(KEY, task)
    assert env.step(KEY, state, jnp.asarray(0), task)[1].observation.tolist() == [1, 0]


def test_a_macro_action_that_passes_the_goal_is_paid_and_ends_the_episode():
    env = DarkRoom(macro=2, start="corner", moves="compass", ends_at_goal=True)
    task = jnp.array([0, 1])
    state, _ = env.reset(KEY, task)
    timestep = env.step(KEY, state, jnp.asarray(1 * 5 + 1), task)[1]
    assert (timestep.observation.tolist(), float(timestep.reward), bool(timestep.terminated)) == ([0, 2], 1.0, True)


def test_make__unknown_name__names_the_nearest():
    with pytest.raises(ConfigError, match=r"no environment 'gridnev'\. Did you mean 'gridnav'"):
        make("gridnev")


def test_make__several_wrong_settings__all_are_listed_together():
    with pytest.raises(ConfigError) as error:
        make("gridnav", sise=4, horizon="a", reward="spars", held_out=2.0)
    for part in ("'sise'. Did you mean 'size'", "horizon is a whole number, not 'a'", "not 'spars'", "not 2.0"):
        assert part in str(error.value)


def test_make__true_for_a_number__is_refused():
    with pytest.raises(ConfigError, match="size is a whole number, not True"):
        make("gridnav", size=True)


def test_make__a_list_from_a_file__becomes_the_tuple_that_a_setting_is():
    assert make("darkroom-macro", actions=[0, 3]).actions == (0, 3)


def test_make__given_settings__override_those_of_the_row():
    assert make("gridnav-dense", reward="sparse", size=6) == GridNav(size=6)


def test_settings_of__shows_defaults_and_the_settings_of_the_row():
    settings = settings_of("gridnav-dense")
    assert (settings["reward"], settings["horizon"]) == ("dense", 15)


@pytest.mark.parametrize(
    ("family", "settings", "text"),
    [
        ("gridnav", {"start_block": 9}, "leaves no goal"),
        ("gridnav-show", {"start": "random"}, "show needs a start that stays in place"),
        ("darkroom-macro", {"actions": (125,)}, r"not \[125\]"),
        ("key-to-door-amago", {"door_repeats": True}, "choose one of the two"),
        ("hall", {"horizon": 30}, "some doors are too far"),
        ("hall", {"visit_bonus": 2.0}, "not worth finding"),
    ],
)
def test_make__settings_that_contradict_each_other__say_so(family, settings, text):
    with pytest.raises(ConfigError, match=text):
        make(family, **settings)


def test_an_unknown_split_is_refused():
    with pytest.raises(ConfigError, match=r"no split 'tests'\. Did you mean 'test'"):
        make("gridnav").sample(KEY, "tests")


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A user's module on the path."""
    text = "from fledge.envs.gridnav import GridNav\nclass Plain: pass\ndef small(size=3): return GridNav(size=size)\n"
    (tmp_path / "users_grids.py").write_text(text + "def nothing(): return 3\nimport_me = 1\n")
    (tmp_path / "users_broken.py").write_text("import a_package_that_is_missing\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "users_grids"


def test_load__a_function_that_returns_an_environment__is_called_with_the_settings(module):
    assert load(f"{module}:small", size=4) == GridNav(size=4)


def test_load__a_class__is_made():
    assert load("fledge.envs.gridnav:GridNav", size=6) == GridNav(size=6)


@pytest.mark.parametrize(
    ("target", "error", "text"),
    [
        ("users_grids", ConfigError, "is not MODULE:NAME"),
        ("users_gridz:small", ConfigError, "There is no module 'users_gridz'"),
        ("users_grids:Plane", ConfigError, "has no 'Plane'. Did you mean 'Plain'"),
        ("users_grids:Plain", ContractError, "is the class Plain; wanted a class that keeps"),
        ("users_grids:import_me", ContractError, "is a int; wanted"),
        ("users_grids:nothing", ContractError, "returned a int"),
        ("fledge.core.contracts:Env", ContractError, "lacks action_space, describe"),
        ("fledge.envs.trial:Trial", ConfigError, "The setting 'env' is missing"),
    ],
)
def test_load__what_cannot_be_loaded__says_what_came_and_what_was_wanted(module, target, error, text):
    with pytest.raises(error, match=text):
        load(target)


def test_load__a_module_whose_own_import_fails__shows_that_import(module):
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_missing"):
        load("users_broken:Any")


def test_every_row_of_the_table_is_its_own_environment():
    made = [str(make(name)) for name in FAMILIES]
    assert len(set(made)) == len(made)
