"""Recipes that learn η along lives: what a run writes, how lives are compared, and what is refused."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
from rich.console import Console

import fledge
from fledge.core.errors import ConfigError
from fledge.core.records import read_curves, read_metrics, read_results
from fledge.run import recipe
from fledge.run.build import faults_of
from fledge.run.lives import HAND_SET, START, WHOLE_LIFE, compare

TINY = {"learner.life_len": 3, "learner.n_lives": 2, "train.env_steps": 480, "train.n_chunks": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lives") / "run"
    return fledge.run("mgrl-mdp", scale="smoke", out=folder, quiet=True, **TINY)


def test_a_run_has_a_curve_over_inner_updates_beside_its_controls(run):
    rows = read_curves(run.dir / "curves.csv")
    shapes = {name: rows.where(recipe=name, metric="return").cube().scores.shape for name in set(rows.recipe)}
    assert shapes == dict.fromkeys(("mgrl-mdp", START, HAND_SET, "optimum"), (2, 2, 4))
    assert set(rows.x_unit) == {"gradient_step"}


def test_lives_of_all_kinds_begin_alike(run):
    first = {name: x[..., 0] for name in ("mgrl-mdp", START, HAND_SET) for x in [run.curve.cube("return", name).scores]}
    np.testing.assert_array_equal(first["mgrl-mdp"], first[HAND_SET])
    np.testing.assert_array_equal(first[START], first[HAND_SET])


def test_a_run_says_what_became_of_its_controls(run):
    rows = read_results(run.dir / "results.csv")
    claims = {row.arm: row.verdict for row in rows if " > " in row.arm}
    assert claims == {f"mgrl-mdp > {name}": "not tested at this scale" for name in (START, HAND_SET)}
    assert "meta/dropped" in read_metrics(run.dir / "metrics.jsonl").values


def test_a_run_shows_its_table_and_has_a_page(run):
    console = Console(file=io.StringIO(), width=120)
    run.show(console)
    assert "chance of improvement" in console.file.getvalue()
    assert HAND_SET in (run.dir / "report.html").read_text()


def test_a_run_that_was_stopped_while_measuring_measures_the_same_again(run, tmp_path):
    folder = shutil.copytree(run.dir, tmp_path / "run")
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | {"finished": False}))
    fledge.resume(folder, quiet=True)
    assert (folder / "curves.csv").read_bytes() == (run.dir / "curves.csv").read_bytes()


def test_lives_that_earn_more_reproduce_the_claim():
    lives = {"mine": np.ones((3, 2, 4)), START: np.zeros((3, 2, 4)), HAND_SET: np.full((3, 2, 4), 2.0)}
    rows = compare("mine", lives, "laptop")
    assert {row.arm: (row.value, row.verdict) for row in rows if ">" in row.arm} == {
        f"mine > {START}": (1.0, "reproduced"),
        f"mine > {HAND_SET}": (0.0, "not reproduced"),
    }
    assert [row.value for row in rows if row.metric == WHOLE_LIFE] == [1.0, 0.0, 2.0]


@pytest.mark.parametrize(
    ("name", "changes", "wrong"),
    [
        ("mgrl-mdp", {"eta": {"start": {"discout": 0.9}}}, "Did you mean 'discount'"),
        ("mgrl-mdp", {"eta": {"hand_set": {"entropy": 0.9}}}, "Did you mean 'entropy_coef'"),
        ("mgrl-mdp", {"env": {"n_episodes": 4}}, "env.n_episodes is 1 for lives"),
        ("lpg-mdp", {"env": {"family": "point-nav"}}, "discrete actions"),
    ],
)
def test_settings_that_make_no_sense_are_told(name, changes, wrong):
    (fault,) = faults_of(recipe.load(name).config("smoke", changes))
    assert wrong in fault


def test_a_window_longer_than_a_life_is_told_before_training():
    with pytest.raises(ConfigError, match="A window of 9 updates is longer than a life of 4"):
        recipe.load("mgrl-mdp").config("smoke", {"learner": {"window": 9}})
