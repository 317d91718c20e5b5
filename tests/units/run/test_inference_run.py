"""A recipe with an inference loss, from the file to an agent in use."""

from __future__ import annotations

import numpy as np
import pytest

import fledge
from fledge.core.errors import ConfigError
from fledge.core.records import read_curves, read_metrics
from fledge.run import recipe
from fledge.run.build import faults_of


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
