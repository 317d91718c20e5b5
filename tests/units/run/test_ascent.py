"""Estimators that train η, side by side."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fledge
from fledge.core.contracts import EstimatorCard, GradientEstimator
from fledge.core.metrics import read_metrics
from fledge.core.records import read_results
from fledge.learn.lifetime_bandit import golden_bandit
from fledge.learn.metagrad_truth import Enumerated
from fledge.run.ascent import PROGRAM, AscentSettings, compare

START = (0.0, 0.0, 0.0, 0.0)
SMALL = {"problem": "golden", "start": START, "learning_rate": 0.5, "n_updates": 4, "n_points": 2, "n_lives": 3_000}


class Broken(GradientEstimator):
    """Never a number."""

    lifetime: object

    @property
    def card(self):
        return EstimatorCard("lifetime")

    def estimate(self, key, eta, task):
        return jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), eta), {}


@pytest.fixture(scope="module")
def climbed(tmp_path_factory):
    arms = {"exact": {"estimator": "enumerated"}, "broken": {"estimator": f"{__name__}:Broken"}}
    folder = tmp_path_factory.mktemp("ascent") / "run"
    small = {**SMALL, "arms": arms, "problem_settings": {}, "claims": ["exact > broken"], "published": {}}
    return fledge.run("study-meta-gradient-learning", scale="smoke", out=folder, quiet=True, **small)


def test_an_exact_gradient_climbs_to_where_gradient_ascent_leads(climbed):
    lifetime, eta, task = golden_bandit()
    exact, eta = Enumerated(lifetime), jax.tree.map(jnp.zeros_like, eta)
    for _ in range(4):
        gradient, _ = exact.estimate(jax.random.key(0), eta, task)
        eta = jax.tree.map(lambda x, g: x + 0.5 * g, eta, gradient)
    with np.load(climbed.dir / "exact" / "climbed.npz") as kept:
        end = kept["etas"][-1, 0]
    np.testing.assert_allclose(end, np.concatenate([[eta["log_step"]], eta["logits"]]), atol=1e-4)


def test_what_lives_earn_rises_as_eta_climbs(climbed):
    assert np.all(np.diff(climbed.returns["exact"], axis=1) > 0)


def test_estimates_that_are_no_numbers_are_dropped_and_counted(climbed):
    said = read_metrics(climbed.dir / "broken" / "metrics.jsonl")
    assert set(said.values["meta/dropped"]) == {4.0}
    assert set(said.values["meta/eta_1"]) == {0.0}


def test_a_run_that_was_cut_off_goes_on_to_the_same_numbers(climbed, tmp_path):
    before = [row.value for row in read_results(climbed.dir / "results.csv")]
    archive = climbed.dir / "exact" / "climbed.npz"
    with np.load(archive) as kept:
        np.savez(archive, etas=kept["etas"][:2], dropped=kept["dropped"])
    again = fledge.resume(climbed.dir, quiet=True)
    assert [row.value for row in again.results] == before


def test_the_best_point_on_the_way_is_told_from_the_end():
    returns = {"naive": np.array([[0.1, 0.3, 0.2], [0.1, 0.4, 0.2]])}
    rows = compare("x", "laptop", AscentSettings(claims=("naive @ best > naive",)), returns)
    assert {row.arm: round(row.value, 9) for row in rows} == {
        "naive": 0.2,
        "naive @ best": 0.35,
        "naive @ best > naive": 1.0,
    }


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"start": (1.0,)}, "start has 1 numbers, and η of 'golden' has 4"),
        ({"n_points": 3}, "n_points = 3 does not divide n_updates = 4"),
        ({"seeds": 0}, "seeds is at least 1, not 0"),
        ({"objective": "sum"}, "objective is auc or final"),
        ({"claims": ("sc < es",)}, 'is not of the form "A > B"'),
        ({"published": {"sk": 0.2}}, "There is no arm 'sk'. Did you mean 'sc'?"),
        ({"arms": {"sc": {"estimator": "es", "shaping": "rank"}}}, "shapes its fitness"),
    ],
)
def test_wrong_settings_are_refused(changes, wrong):
    config = AscentSettings(**{**SMALL, "arms": {"sc": {"estimator": "sc"}}, **changes})
    (fault,) = PROGRAM.faults(config)
    assert wrong in fault
