"""A PEARL recipe, from the file to an agent in use, and beside another agent in a study."""

from __future__ import annotations

import json
import shutil
import zipfile

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import fledge
from fledge.agents.adapt import AdaptSettings
from fledge.core.errors import ConfigError
from fledge.core.records import read_curves, read_metrics
from fledge.run import recipe
from fledge.run.arms import faults_of as study_faults
from fledge.run.build import faults_of
from fledge.run.export import export_agent
from fledge.run.settings import StudySettings


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "pearl"
    return fledge.run("pearl-point-nav", scale="smoke", out=folder, quiet=True).dir


def last_state(folder):
    newest = max((folder / "checkpoints").glob("step-*"))
    return {name: array.tobytes() for name, array in load_file(newest).items()}


def test_a_run_has_a_curve_over_the_episodes_of_a_trial(whole):
    rows = read_curves(whole / "curves.csv").where(recipe="pearl-point-nav", metric="return")
    assert rows.cube().scores.shape == (2, 5, 3)


def test_a_run_reports_its_losses(whole):
    values = read_metrics(whole / "metrics.jsonl").values
    assert {"loss/critic", "loss/actor", "loss/latent_kl", "return/trial", "return/episode_1"} <= set(values)


def test_a_run_that_goes_on_from_its_middle_is_the_run_that_was_never_stopped(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    before = last_state(folder)
    max((folder / "checkpoints").glob("step-*")).unlink()
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | {"finished": False}))
    fledge.resume(folder, quiet=True)
    assert last_state(folder) == before


def test_its_agent_acts_in_the_environments_box(whole):
    agent = fledge.load(whole)
    memory = agent.begin()
    action, memory = agent.act(memory, np.zeros(2))
    again, _ = agent.act(memory, np.zeros(2), reward=-1.0, done=True)
    assert np.all(np.abs([action, again]) <= 1.0)


def test_its_agent_is_measured_on_longer_trials(whole):
    curve = fledge.evaluate(whole, episodes=4, greedy=True, references=False)
    assert curve.cube("return_greedy").scores.shape == (2, 5, 4)


def test_its_agent_is_exported_with_its_posterior(whole, tmp_path):
    path = export_agent(whole, tmp_path / "agent.zip")
    with zipfile.ZipFile(path) as file:
        about = json.loads(file.read("agent.json"))
        begun = jax.export.deserialize(bytearray(file.read("begin.stablehlo"))).call()
    assert about["action"] == {"shape": [2], "dtype": "float32"}
    assert len(begun) == 5  # weighted means, precisions, latent, episode; and the last observation


def test_its_agent_learns_on_where_it_is_handed_a_task(whole):
    settings = AdaptSettings(budget=120, n_points=2, n_repeats=1, n_old_tasks=1)
    found = fledge.adapt(whole, jnp.array([0.0, 1.0]), mode="all", settings=settings)
    moved = {name: x[0, 0] for name, x in found.log.items() if name.startswith("distance/")}
    assert (found.env_steps.tolist(), found.trials.shape) == ([0, 60, 120], (2, 1, 3))
    assert all(x[0] == 0 < x[1] < x[2] for x in moved.values()) and {"distance/encoder", "distance/actor"} <= set(moved)
    assert np.isfinite(found.log["loss/critic"][..., 1:]).all()


def test_discrete_actions_are_found_before_training():
    (fault,) = faults_of(
        recipe.load("pearl-point-nav").config("smoke", {"env": {"family": "gridnav", "settings": {"horizon": 20}}})
    )
    assert "PEARL needs continuous actions" in fault


def test_all_that_is_wrong_with_the_learner_is_told_together():
    with pytest.raises(ConfigError, match=r"n_steps_prior is at least 1, not 0.*\n?.*meta_batch is at least 1"):
        recipe.load("pearl-point-nav").config("smoke", {"learner": {"n_steps_prior": 0, "meta_batch": 0}})


def test_a_study_takes_pearl_beside_rl2():
    arms = {
        "PEARL": {"recipe": "pearl-point-nav"},
        "RL2": {"recipe": "rl2-point-nav", "env.settings.horizon": 20, "env.n_episodes": 3},
    }
    settings = StudySettings(arms=arms, claims=("RL2 > PEARL",), learning_rates=(1e-3, 3e-4))
    assert study_faults(settings) == []
