"""Every shipped recipe: it builds at every scale, says where it comes from, and some of them run."""

from __future__ import annotations

import tomllib

import jax
import pytest

import fledge
from fledge.core.records import read_curves, read_results
from fledge.run import build, program, recipe
from fledge.run.recipe import KINDS, SCALES

NAMES = recipe.names()
TRAINED = [name for name in NAMES if recipe.load(name).header.kind in ("meta-rl", "pearl", "maml")]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_wrong_with_a_shipped_recipe_at_any_scale(name):
    found = recipe.load(name)
    runner = recipe.find(KINDS[found.header.kind].program)
    assert [fault for scale in SCALES for fault in runner.faults(found.config(scale))] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_has_the_name_of_its_file(name):
    assert recipe.load(name).name == name


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_what_it_is_whose_it_is_and_how_long_it_takes(name):
    header = recipe.load(name).header
    assert 10 < len(header.about) <= 110
    assert header.paper
    assert 0 < header.minutes <= (60 if name.startswith("study-") else 15)  # a study is many runs


@pytest.mark.parametrize("name", TRAINED)
def test_the_environment_agent_and_learner_of_a_recipe_have_a_source(name):
    found = recipe.load(name)
    assert all(found.source_of(table) for table in ("env", "agent", "learner"))


@pytest.mark.parametrize("name", TRAINED)
def test_one_update_of_a_recipe_keeps_the_shapes_of_its_state(name):
    config = recipe.load(name).config("smoke")
    loop = build.make_loop(config, build.make_trial(config.env))
    before = program.state_like(loop, (0,))
    after, _ = jax.eval_shape(jax.vmap(loop.learner.update), before)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), before
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_written_down_again_is_the_same_recipe(name):
    found = recipe.load(name)
    config = found.config("laptop")
    faults: list[str] = []
    again = recipe.examine(recipe.dump(found, config), name, faults)
    assert (again.config(), faults) == (config, [])


def test_the_wheel_carries_the_recipes():
    text = recipe.text_of("rl2-gridnav")
    assert tomllib.loads(text)["name"] == "rl2-gridnav"


def test_a_bandit_is_measured_beside_its_references(tmp_path):
    done = fledge.run("rl2-bandit", scale="smoke", out=tmp_path / "run", quiet=True)
    assert done.curve.references == ("optimum", "thompson", "ucb1", "random")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return fledge.run("study-gridnav", scale="smoke", out=tmp_path_factory.mktemp("study") / "run", quiet=True)


def test_a_study_has_a_run_folder_for_each_arm(study):
    curves = [
        read_curves(study.dir / arm / "curves.csv") for arm in ("rl2-gridnav", "memoryless-gridnav", "oracle-gridnav")
    ]
    assert all(len(rows) for rows in curves)


def test_a_study_has_a_row_for_each_arm_and_claim(study):
    rows = read_results(study.dir / "results.csv")
    arms = {row.arm for row in rows}
    assert {
        "rl2-gridnav",
        "memoryless-gridnav",
        "oracle-gridnav",
        "optimum",
        "rl2-gridnav > memoryless-gridnav",
    } <= arms


def test_a_smoke_scale_proves_nothing(study):
    verdicts = {row.verdict for row in read_results(study.dir / "results.csv") if ">" in row.arm}
    assert verdicts == {"not tested at this scale"}


def test_a_study_has_one_report(study):
    assert (study.dir / "report.html").stat().st_size > 10_000
