"""A recipe with an inference loss, from the file to an agent in use."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import fledge
from fledge.core.errors import ConfigError
from fledge.core.records import read_curves, read_metrics
from fledge.run import recipe
from fledge.run.build import faults_of, make_learner, make_trial
from fledge.run.measure import measure_beliefs
from fledge.run.program import seed_keys


@pytest.fixture(scope="module")
def ti_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "ti"
    return fledge.run("ti-gridnav", scale="smoke", out=folder, quiet=True).dir


def test_a_run_with_task_inference_has_a_curve(ti_run):
    assert read_curves(ti_run / "curves.csv").where(recipe="ti-gridnav", metric="return").cube().scores.shape == (
        2,
        5,
        4,
    )


def test_a_run_with_task_inference_reports_its_losses(ti_run):
    values = read_metrics(ti_run / "metrics.jsonl").values
    assert {"loss/elbo", "loss/latent_kl", "loss/task"} <= set(values)


def test_its_agent_acts_without_being_told_the_task(ti_run):
    agent = fledge.load(ti_run)
    memory = agent.begin()
    action, memory = agent.act(memory, np.zeros(2))
    action, _ = agent.act(memory, np.zeros(2), reward=-0.1)
    assert action in range(5)


@pytest.fixture(scope="module")
def fresh_varibad():
    """A learner of two seeds that has not learnt anything, and its state."""
    config = recipe.load("varibad-gridnav").config("smoke", {"learner": {"n_envs": 4}})
    trial = make_trial(config.env)
    learner = make_learner(config, trial)
    return config, trial, learner, jax.jit(jax.vmap(learner.init))(seed_keys((0, 1)))


def test_a_grid_world_is_measured_against_the_exact_belief_in_each_episode(fresh_varibad):
    config, trial, learner, state = fresh_varibad
    rows = measure_beliefs(learner, state, (0, 1), trial, config.evaluation, recipe="mine")
    gaps = rows.where(recipe="mine", metric="belief_gap").cube().scores
    assert gaps.shape == (2, 5, 4)  # seeds, tasks, episodes
    assert gaps.min() > 0.01


def test_what_decodes_no_cells_is_not_measured_against_a_belief(ti_run):
    assert "belief_gap" not in read_curves(ti_run / "curves.csv").metric


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "varibat"}, "Did you mean 'varibad'"),
        ({"elbo": {"kl_wieght": 1.0}}, "Did you mean 'kl_weight'"),
        ({"n_trials": 0}, "supervision.n_trials is at least 1, not 0"),
        ({"elbo": {"n_terms": -1}}, "supervision.elbo.n_terms and n_decoded are counts"),
    ],
)
def test_a_wrong_setting_of_the_supervision_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        recipe.load("varibad-gridnav").config("smoke", {"supervision": changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"supervision": {"kind": "bi++"}}, "ActorCritic generates none"),
        ({"agent": {"latent_size": 0}}, "latent_size of at least 1"),
        ({"agent": {"kind": "oracle"}}, "nothing to infer"),
        ({"env": {"settings": {"show": True}}}, "reward_decoder = 'cells' needs a grid world"),
    ],
)
def test_settings_that_do_not_go_together_are_found_before_training(changes, message):
    faults = faults_of(recipe.load("varibad-gridnav").config("smoke", changes))
    assert [fault for fault in faults if message in fault] == faults
    assert len(faults) == 1
