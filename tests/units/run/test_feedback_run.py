"""Feedback recipes from settings to page, at a size that proves nothing but that it runs."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import fledge
from fledge.core.annotations import Annotation
from fledge.core.errors import ConfigError, DataError
from fledge.core.records import read_curves, read_results
from fledge.feedback.arms import ArmSettings
from fledge.feedback.evaluate import Rollouts
from fledge.run.answers import read_answers, write_answers
from fledge.run.api import report
from fledge.run.feedback_judge import as_published, judge
from fledge.run.feedback_settings import FeedbackSettings

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
    answers = str(finished.dir / "answers.jsonl")
    again = fledge.run("sfbc-pendulum", scale="smoke", out=out, quiet=True, answers=answers, **TINY)
    assert [row.value for row in again.results] == [row.value for row in finished.results]


def test_fledge_report_writes_the_same_page_again(finished):
    before = (finished.dir / "report.html").read_text()
    assert report([finished.dir]).read_text() == before


def test_answers_are_read_as_they_were_written(tmp_path):
    given = [
        Annotation("0:0+2", "q", "me", "1", probability={"0": 0.25, "1": 0.75}),
        Annotation("a", "q", "me", None, "refused"),
    ]
    assert read_answers(write_answers(tmp_path / "a.jsonl", given)) == given


def test_a_line_that_is_no_answer_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"item": "a", "construct": "q", "annotator": "me", "valeu": "1"}\n')
    with pytest.raises(DataError, match=r"line 1.*'value'"):
        read_answers(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": ["SF-BD"]}, "SF-BC"),
        ({"data.domain": "pendulm"}, "pendulum"),
        ({"data.k": 7}, "divides an episode of 600 steps"),
        ({"claims": ["SF-BC > Nothing"]}, "Nothing"),
        ({"training_seeds": [1, 1]}, "twice"),
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
