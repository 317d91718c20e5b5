"""Feedback recipes from settings to page, at a size that proves nothing but that it runs."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import fledge
from fledge.core.errors import ConfigError
from fledge.core.records import read_curves, read_results
from fledge.data.annotations import read_answers
from fledge.data.pictures import pixels
from fledge.feedback.arms import ArmSettings
from fledge.feedback.evaluate import Rollouts
from fledge.run.api import report
from fledge.run.feedback_judge import as_published, judge
from fledge.run.feedback_settings import FeedbackSettings
from fledge.run.local_endpoint import LocalEndpoint, pictures

TINY = {"learner.n_steps": 4, "learner.hidden": [8, 8]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("feedback") / "run"
    return fledge.run("sfbc-pendulum", scale="smoke", out=out, quiet=True, **TINY)


def test_a_run_has_a_row_for_success_return_and_share_kept(finished):
    assert [row.metric for row in read_results(finished.dir / "results.csv")] == ["success", "return", "kept"]


def test_curves_have_a_point_for_every_seed_and_start(finished):
    assert len(read_curves(finished.dir / "curves.csv").where(metric="success_greedy")) == 2 * 2


def test_the_page_carries_its_pictures_and_the_film(finished):
    page = (finished.dir / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 5
    assert page.count("data:image/gif;base64,") == 1


def test_a_run_that_was_stopped_trains_only_what_is_missing(finished, tmp_path):
    folder = tmp_path / "stopped"
    shutil.copytree(finished.dir, folder)
    record = json.loads((folder / "record.json").read_text()) | {"finished": False}
    (folder / "record.json").write_text(json.dumps(record))
    (done,) = (folder / "arms").iterdir()
    tree = json.loads(done.read_text())
    done.write_text(json.dumps(tree | {"returns": [[-7.0, -7.0], [-7.0, -7.0]]}))
    again = fledge.resume(folder, quiet=True)
    assert next(row.value for row in again.results if row.metric == "return") == -7.0


def test_recorded_answers_replace_the_oracle(finished, tmp_path):
    out = tmp_path / "replayed"
    replay = {"annotator.kind": "answers", "annotator.answers": str(finished.dir / "answers.jsonl")}
    again = fledge.run("sfbc-pendulum", scale="smoke", out=out, quiet=True, **replay, **TINY)
    assert [row.value for row in again.results] == [row.value for row in finished.results]


def looks_up(request):
    """A model that sees whether the red stick stands up in the last picture, and says yes to nothing else."""
    frame = pixels(pictures(request)[-1]).astype(int)
    red = (frame[..., 0] - frame[..., 1]) > 60
    up = red[: len(red) // 2].sum() > red[len(red) // 2 :].sum()
    asks = "black dot" in str(request["messages"][-1])
    return {"Y": 0.9, "N": 0.1} if up and asks else {"N": 0.95, "Y": 0.05}


MODEL = {
    "annotator.kind": "endpoint",
    "annotator.model": "gpt-4o",
    "annotator.mode": "normalised",
    "annotator.resolution": 32,
}


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A run whose labels come from a model, and the requests that reached it; the first run ends with the budget."""
    folder = tmp_path_factory.mktemp("endpoint")
    own = {**MODEL, "annotator.cache": str(folder / "labels.sqlite")}
    with LocalEndpoint(looks_up) as server:
        own["annotator.base_url"] = server.url
        spent = fledge.run(
            "sfbc-pendulum",
            scale="smoke",
            out=folder / "poor",
            quiet=True,
            **own,
            **TINY,
            **{"annotator.max_requests": 40},
        )
        before = len(server.arrived)
        done = fledge.run("sfbc-pendulum", scale="smoke", out=folder / "run", quiet=True, **own, **TINY)
        return done, spent, before, [request["key"] for request in server.arrived]


def test_a_model_behind_an_endpoint_takes_the_oracles_place(judged):
    done = judged[0]
    answers = read_answers(done.dir / "answers.jsonl")
    assert {(a.annotator, a.source) for a in answers} == {("gpt-4o", "vlm")} and len(answers) == 12 * 6 * 2


def test_a_models_labels_are_of_what_it_saw(judged):
    found = json.loads((judged[0].dir / "diagnosis.json").read_text())
    assert found["correlation"]["spearman"] > 0.3


def test_the_budget_of_a_run_holds_to_the_request_and_the_next_run_pays_only_the_rest(judged):
    _, spent, before, arrived = judged
    assert before == 40 < len(arrived) == len(set(arrived))
    assert json.loads((spent.dir / "cost.json").read_text())["stopped"] == "The budget of 40 requests is spent."


def test_the_page_says_what_the_labels_cost(judged):
    page = (judged[0].dir / "report.html").read_text()
    assert f"requests {len(judged[3])}" in page and "prompt tokens" in page and "money $0." in page


def test_fledge_report_writes_the_same_page_again(finished):
    before = (finished.dir / "report.html").read_text()
    assert report([finished.dir]).read_text() == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": ["SF-BD"]}, "SF-BC"),
        ({"data.domain": "pendulm"}, "pendulum"),
        ({"data.k": 7}, "divides an episode of 600 steps"),
        ({"claims": ["SF-BC > Nothing"]}, "Nothing"),
        ({"training_seeds": [1, 1]}, "twice"),
        ({"annotator.kind": "answers", "annotator.answers": "nowhere.jsonl"}, "no file nowhere.jsonl"),
        ({"annotator.kind": "endpoint", "annotator.model": "m"}, "annotator.base_url: name it"),
        ({"annotator.kind": "endpoint", "annotator.mode": "normalized"}, "normalised"),
    ],
)
def test_a_wrong_setting_is_named(changes, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        fledge.run("sfbc-pendulum", out=tmp_path / "x", quiet=True, **changes)


SEEDS = tuple(range(15))


def scores(success):
    values = np.repeat(np.array(success, float)[:, None], 2, axis=1)
    return Rollouts(-100 * values, values)


def verdict(success, bound="tanh1", **changes):
    config = FeedbackSettings(bounds=(bound,), training_seeds=SEEDS, **changes)
    rows = judge("s", "laptop", config, {(bound, "SF-BC"): scores(success)}, {(bound, "SF-BC"): 0.5})
    return next(row.verdict for row in rows if row.metric == "success")


def test_a_row_whose_interval_meets_the_published_one_is_reproduced():
    assert verdict([1] * 9 + [0] * 6) == "reproduced"


def test_a_row_far_from_the_published_one_is_not_reproduced():
    assert verdict([0] * 14 + [1]) == "not reproduced"


def test_another_action_bound_is_no_test_of_the_published_number():
    assert verdict([1] * 15, bound="env") == "not tested at this scale"


def test_smaller_networks_are_no_test_of_the_published_number():
    config = FeedbackSettings(bounds=("tanh1",), training_seeds=SEEDS)
    assert as_published("SF-BC", "tanh1", config)
    smaller = FeedbackSettings(bounds=("tanh1",), training_seeds=SEEDS, learner=ArmSettings(hidden=(64, 64)))
    assert not as_published("SF-BC", "tanh1", smaller)


def test_a_claim_is_reproduced_if_the_paired_difference_lies_above_zero():
    config = FeedbackSettings(arms=("SF-BC", "BC Naive"), training_seeds=SEEDS, claims=("SF-BC > BC Naive",))
    found = {("env", "SF-BC"): scores([1] * 15), ("env", "BC Naive"): scores([0] * 15)}
    rows = judge("s", "laptop", config, found, dict.fromkeys(found, 1.0))
    assert [(row.value, row.verdict) for row in rows if ">" in row.arm] == [(1.0, "reproduced")]


@pytest.fixture(scope="module")
def instruments(tmp_path_factory):
    out = tmp_path_factory.mktemp("instruments") / "run"
    return fledge.run("study-vlm-instrument", scale="smoke", out=out, quiet=True)


def test_an_instrument_study_compares_every_version_with_the_first(instruments):
    contrasts = [row for row in instruments.results if row.metric == "difference of success"]
    assert len(contrasts) == 10
    assert all(row.arm.endswith("− paper") for row in contrasts)


def test_an_instrument_study_says_that_its_annotator_is_simulated(instruments):
    assert "simulated" in (instruments.dir / "report.html").read_text()


def test_a_leading_question_gets_more_yes(instruments):
    versions = json.loads((instruments.dir / "diagnosis.json").read_text())["versions"]
    assert versions["leading"]["passes"] > versions["paper"]["passes"]


def test_an_unknown_layout_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(ConfigError, match=r"instruments\.grid.*pile"):
        fledge.run("study-vlm-instrument", out=tmp_path / "x", quiet=True, **{"instruments.grid.layout": "pile"})
