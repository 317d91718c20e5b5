"""Estimator cards: a run, what it writes, and what it refuses."""

from __future__ import annotations

import json

import pytest

import fledge
from fledge.cli.main import main
from fledge.core.errors import ConfigError
from fledge.core.records import Result, read_results
from fledge.report.page import templates
from fledge.run.estimator_arms import arms_of
from fledge.run.estimator_card import PROGRAM
from fledge.run.estimator_settings import EstimatorCardSettings, TruthSettings


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards") / "run"
    return fledge.run("estimator-card", scale="smoke", out=folder, quiet=True, only=["naive", "sampling correction"])


def test_a_card_has_a_row_for_each_arm_and_metric(card):
    rows = {(row.arm, row.metric) for row in read_results(card.dir / "results.csv")}
    arms = ["naive", *(f"sampling correction λ={x}" for x in ("0", "0.25", "0.5", "0.75", "1"))]
    assert {(arm, metric) for arm in arms for metric in ("squared bias", "variance", "cosine")} <= rows


def test_the_naive_gradient_is_the_correction_with_nothing_of_it(card):
    bias = {row.arm: row.value for row in card.results if row.metric == "bias (norm)"}
    assert bias["naive"] == pytest.approx(bias["sampling correction λ=0"], rel=0.3)


def test_the_page_of_a_card_stands_alone(card):
    page = (card.dir / "report.html").read_text()
    assert "<svg" in page and "truncation" not in page.split("Cards")[0]
    assert (card.dir / "report_files" / "plane.csv").exists()


def test_numbers_far_below_one_keep_their_digits_on_the_page():
    row = Result("s", "critic > 0", "difference of squared bias", 4.591e-6, -2.7e-7, 1.1e-5)
    assert templates().get_template("macros.html.j2").module.cell(row) == "4.59e−06 [−2.7e−07, 1.1e−05]"


def test_a_finished_card_is_judged_again_without_being_measured_again(card):
    before = (card.dir / "moments.json").read_bytes()
    again = fledge.resume(card.dir, quiet=True)
    assert (card.dir / "moments.json").read_bytes() == before
    assert [row.value for row in again.results] == [row.value for row in card.results]


@pytest.fixture(scope="module")
def paired(tmp_path_factory):
    """The naive gradient of the golden bandit on the lives of the corrected one, which is the truth."""
    changes = {
        "problem": "golden",
        "arms": {"naive": {"estimator": "sc", "sc_coef": 0.0, "paired.sc_coef": 1.0, "twin.n_estimates": 4_000}},
        "objective": "auc",
        "truth": {"arm": "naive"},
        "claims": ["bias2: naive > 0"],
        "n_estimates": 500,
        "most_estimates": 0,
    }
    folder = tmp_path_factory.mktemp("paired") / "run"
    kept = {"estimators": [], "only": ["naive"], "problem_settings": {}}
    return fledge.run("estimator-card", scale="laptop", out=folder, quiet=True, **kept, **changes)


def test_a_bias_on_the_same_lives_is_the_known_one(paired):
    """Biases of the golden table, objective `auc`."""
    bias2 = {row.arm: row for row in paired.results if row.metric == "squared bias"}["naive"]
    known = (0.08649**2 + 0.00691**2) / 4
    assert bias2.lo < known < bias2.hi
    assert bias2.hi < 2 * known


def test_an_arm_is_judged_against_nought(paired):
    assert {row.arm: row.verdict for row in paired.results if row.verdict} == {"naive > 0": "reproduced"}


def test_the_reference_of_a_pair_is_the_truth_and_no_other_is_drawn(paired):
    assert set(json.loads((paired.dir / "moments.json").read_text())) == {"naive @ 0", "naive (twin) @ 0"}


def settings(**changes):
    return EstimatorCardSettings(**{"estimators": ("sc",), **changes})


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"problem": "maize"}, "There is no problem 'maize'. Did you mean 'maze'?"),
        ({"problem_settings": {"n_update": 2}}, "has no setting 'n_update'. Did you mean 'n_updates'?"),
        ({"arms": {"long": {"estimator": "sc", "window": 9}}}, "A window of 9 updates was asked for"),
        ({"arms": {"ranked": {"estimator": "es", "shaping": "rank"}}}, "ranked shapes its fitness"),
        ({"arms": {"x": {"window": 1}}}, "an arm names its estimator"),
        (
            {"arms": {"x": {"estimator": "sc", "paired.sc_coef": 0.5}}},
            "correction weighed by 0.5 instead of 1",
        ),
        ({"arms": {"x": {"estimator": "sc", "paired.sc_coef": 1.0, "sweep": True}}, "sc_coefs": (0.5,)}, "do not go"),
        ({"truth": TruthSettings(arm="sc")}, "truth: no arm 'sc' is measured that has paired settings"),
        ({"claims": ("0 > sc",)}, "is not of the form"),
        ({"claims": ("bias: sc > es",)}, "is not of the form"),
        ({"published": {"sk: cosine": 1.0}}, "published: There is no arm 'sk'. Did you mean 'sc'?"),
        ({"estimators": ()}, "name at least one estimator"),
        ({"objective": "sum"}, "objective is auc or final"),
    ],
)
def test_wrong_settings_are_refused(changes, wrong):
    (fault,) = PROGRAM.faults(settings(**changes))
    assert wrong in fault


def test_an_estimator_whose_card_is_missing_is_found_before_anything_is_measured(tmp_path, monkeypatch):
    (tmp_path / "cardless.py").write_text(
        OWN.replace('EstimatorCard("lifetime", ("it knows nothing",), "O(1)", "none")', "None")
    )
    monkeypatch.syspath_prepend(tmp_path)
    (fault,) = PROGRAM.faults(settings(estimators=("cardless:Zeros",)))
    assert "The card of cardless:Zeros is missing: it is None. Return EstimatorCard(" in fault


def test_an_eta_that_gets_no_gradient_is_named_while_the_card_is_made(tmp_path, monkeypatch, capsys):
    (tmp_path / "zeros_on_cards.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    words = [
        "problem=golden",
        "estimators=['zeros_on_cards:Zeros']",
        "only=['zeros_on_cards:Zeros']",
        "claims=[]",
        "n_estimates=2",
        "batch=2",
    ]
    assert main(["run", "estimator-card", "--scale", "smoke", "--out", str(tmp_path / "run"), *words]) == 0
    assert "zeros_on_cards:Zeros gives eta['log_step'] a gradient of exactly zero" in capsys.readouterr().err


def test_an_arm_that_is_not_there_cannot_be_chosen():
    with pytest.raises(ConfigError, match="There is no arm 'es'"):
        arms_of(settings(only=("es",)))


OWN = """
import jax, jax.numpy as jnp
from fledge.core.contracts import EstimatorCard, GradientEstimator

class Zeros(GradientEstimator):
    def __init__(self, lifetime):
        pass

    @property
    def card(self):
        return EstimatorCard("lifetime", ("it knows nothing",), "O(1)", "none")

    def estimate(self, key, eta, task):
        return jax.tree.map(jnp.zeros_like, eta), {}
"""


def test_an_estimator_of_ones_own_is_examined_by_the_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "zeros_of_mine.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["check", "estimator", "zeros_of_mine:Zeros"]) == 0
    said = capsys.readouterr().out
    assert "keeps all 7 promises" in said and "biased by it knows nothing" in said
    assert "Warning: eta['log_step'], eta['logits'] got a gradient of exactly zero" in said


def test_checking_no_estimator_is_refused(capsys):
    assert main(["check", "estimator"]) == 2
    assert "Which estimator?" in capsys.readouterr().err
