"""Gradients by the latent as a metric of training: off by default, asked for by a setting, told by a study."""

from __future__ import annotations

import numpy as np
import pytest

import fledge
from fledge.core.errors import ConfigError
from fledge.core.metrics import Metrics
from fledge.core.records import read_metrics, read_results
from fledge.run.judge import diagnoses

TINY = {"train.env_steps": 1920, "train.n_chunks": 2, "learner.n_envs": 8, "learner.n_minibatches": 2}
TINY |= {"agent.memory_size": 4, "agent.hidden": (4,), "evaluation.n_repeats": 1, "train.seeds": 2}
STUDY = """
name = "study-two-inits"
kind = "study"
about = "what hangs on the latent?"

[arms.bias]
recipe = "rl2-hyper-gridnav"

[arms.kaiming]
recipe = "rl2-hyper-kaiming-gridnav"

[overrides]
"learner.latent_gradients" = true
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "mine.toml").write_text(STUDY)
    return fledge.run(folder / "mine.toml", scale="smoke", out=folder / "run", quiet=True, **TINY)


def test_training_tells_the_gradient_by_the_latent_where_it_was_asked_to(done):
    values = read_metrics(done.dir / "kaiming" / "metrics.jsonl").values["grad/value_by_latent"]
    assert values.shape == (4,)
    assert np.all(values > 0)


def test_nobody_is_asked_by_default(gridnav_run):
    assert "grad/value_by_latent" not in read_metrics(gridnav_run / "metrics.jsonl").values


def test_a_study_tells_the_first_and_the_last_gradient_of_each_arm(done):
    rows = [row for row in read_results(done.dir / "results.csv") if row.metric.startswith("grad/value_by_latent")]
    assert [(row.arm, row.metric.rpartition(", ")[2]) for row in rows] == [
        (arm, when) for arm in ("bias", "kaiming") for when in ("first", "last tenth")
    ]


def test_the_page_shows_the_gradients(done):
    assert 'id="gradient-1"' in (done.dir / "report.html").read_text()


def test_the_last_tenth_is_the_mean_over_its_rows():
    steps = np.repeat(np.arange(1, 11) * 10, 2)
    values = {"grad/value_by_latent": np.where(steps == 100, 5.0, 1.0) + np.tile([0.0, 2.0], 10)}
    said = Metrics(steps, steps, np.tile([0, 1], 10), values)
    assert [row.value for row in diagnoses("s", {"arm": said})] == [2.0, 6.0]


def test_an_agent_that_infers_the_task_has_no_such_gradient():
    with pytest.raises(ConfigError, match=r"learner\.latent_gradients: it is measured where .* not 'varibad'\. Set it"):
        fledge.run("varibad-gridnav", scale="smoke", quiet=True, **{"learner.latent_gradients": True})
