"""A study file from its power to its page: simulated, answered by people and by a model, analysed together."""

from __future__ import annotations

import json

import pytest

from fledge.annotation.collected import codes_of, read_collected
from fledge.annotation.design_files import read_design
from fledge.annotation.planned import asked_of, plan_of
from fledge.cli.main import main
from fledge.core.annotations import Annotation
from fledge.core.errors import ConfigError, DataError
from fledge.core.instruments import PAIR, Construct, Option, likert
from fledge.core.records import read_results
from fledge.data.annotations import AnnotationTable, read_table, write_table
from fledge.data.instrument_files import read_instrument
from fledge.report.instrument import read_analysis
from fledge.run.annotate import power
from fledge.run.local_endpoint import LocalEndpoint

pytest.importorskip("pandas", reason="needs the extra 'annotation'")
WORDS = ("sun", "rain", "hail", "fog")
ITEMS = "".join(f"  - {{id: t{i}, text: 'it is {WORDS[i % 4]} number {i}'}}\n" for i in range(12))
STUDY = f"""
name: weather
title: Judging the weather
instrument: kern-2023
consent: Please take part.
assignment: {{labels: 2, batch_size: 6, seed: 3, conditions: [A, B, D]}}
planted: {{HS: {{share: 0.4, split: 0.1}}}}
items:
{ITEMS}"""


def forecaster(request):
    """Says yes to whatever is about rain or hail; in JSON, where it is asked so."""
    asked = request["messages"][-1]["content"]
    words = asked if isinstance(asked, str) else " ".join(part.get("text", "") for part in asked)
    bad = "rain" in words or "hail" in words
    if "Answer with JSON" in words:
        return json.dumps({"item_1": {"choices": ["hate speech", "offensive language"] if bad else []}})
    return {"Yes": 0.9, "No": 0.1} if bad else {"No": 0.9, "Yes": 0.1}


def ask(study, server, *words):
    command = ["annotate", "ask", str(study), "--model", "gpt-4o", "--base-url", server.url, "--api-key-env", ""]
    return main([*command, "--mode", "hard", *words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The study, a model's answers to it, and people's, made by hand where the page would have written them."""
    out = tmp_path_factory.mktemp("models")
    (out / "study.yaml").write_text(STUDY)
    with LocalEndpoint(forecaster) as server:
        assert ask(out / "study.yaml", server, "--out", str(out / "model")) == 0
        sent = len(server.arrived)
        assert ask(out / "study.yaml", server, "--out", str(out / "model")) == 0
        assert len(server.arrived) == sent
    _people(out)
    return out


def _people(out):
    design = read_design(out / "study.yaml")
    rows = []
    for arm in "ABD":
        for batch, indices in design.batches.items():
            for n in range(2):
                for place, i in enumerate(indices):
                    for construct in ("HS", "OL"):
                        value = str(int((i + n * (arm == "A") + (construct == "OL")) % 3 == 0))
                        row = Annotation(f"t{i}", construct, f"p{arm}{batch}{n}", value, condition=arm, position=place)
                        rows.append(row)
    rows[-1] = Annotation("t11", "OL", rows[-1].annotator, missing="dropped_out", condition="D", position=5)
    write_table(out / "people" / "annotations.jsonl", AnnotationTable(tuple(rows), design.texts()))
    (out / "people" / "study.json").write_text(json.dumps(dict(design.snapshot)))
    arm = {"arm": "A", "target": 4, "assigned": 5, "completed": 4, "active": 0, "lost": 1, "attrition": 0.2}
    audit = {"arms": [arm], "balance": [], "attrition_p": 0.5, "shares_p": 0.9, "exact": True, "turned_away": 3}
    (out / "people" / "audit.json").write_text(json.dumps(audit))


@pytest.fixture(scope="module")
def model_rows(folder):
    return read_table(folder / "model" / "annotations.jsonl").rows


def test_a_model_answers_every_question_of_every_condition_as_often_as_people(model_rows):
    assert len(model_rows) == 3 * 12 * 2 * 2
    assert {row.source for row in model_rows} == {"llm"}


def test_each_conversation_is_an_annotator_who_sees_one_batch_under_one_condition(model_rows):
    seen = {}
    for row in model_rows:
        seen.setdefault(row.annotator, set()).add((row.condition, int(row.item[1:]) // 6))
    assert len(seen) == 3 * 2 * 2 and all(len(cells) == 1 for cells in seen.values())


@pytest.mark.parametrize("condition", "ABD")
def test_a_models_labels_are_what_it_was_shown(model_rows, condition):
    said = {row.item: row.value for row in model_rows if (row.condition, row.construct) == (condition, "HS")}
    assert said == {f"t{i}": str(int(i % 4 in (1, 2))) for i in range(12)}


def test_a_dry_run_tells_the_cost_and_sends_nothing(folder, capsys):
    with LocalEndpoint(forecaster) as server:
        assert ask(folder / "study.yaml", server, "--out", str(folder / "dry"), "--dry-run") == 0
        assert server.arrived == []
    assert "requests  120 " in capsys.readouterr().out


def test_the_budget_covers_all_conditions_together(folder):
    with LocalEndpoint(forecaster) as server:
        assert ask(folder / "study.yaml", server, "--out", str(folder / "poor"), "--max-requests", "50") == 3
        assert len(server.arrived) == 50


def test_answers_of_people_are_not_written_over(folder, tmp_path, capsys):
    (tmp_path / "assignments.csv").write_text("annotator\n")
    with LocalEndpoint(forecaster) as server:
        assert ask(folder / "study.yaml", server, "--out", str(tmp_path)) == 2
    assert "holds answers of people" in capsys.readouterr().err


@pytest.fixture(scope="module")
def analysed(folder):
    shots = folder / "shots"
    shots.mkdir()
    from PIL import Image

    Image.new("RGB", (4, 4)).save(shots / "condition_A.png")
    quick = ["model.n_resamples=20", "labels.n_resamples=20", "labels.mixed=false", "workers=1"]
    quick += ["curves.fractions=[]", "--also", str(folder / "model"), "--screenshots", str(shots)]
    assert main(["annotate", "analyse", str(folder / "people"), "--out", str(folder / "run"), *quick]) == 0
    return folder / "run"


def test_people_and_a_model_are_conditions_side_by_side(analysed):
    arms = [row.arm for row in read_results(analysed / "results.csv") if row.metric == "share_HS"]
    assert arms == ["A, gpt-4o", "A, people", "B, gpt-4o", "B, people", "D, gpt-4o", "D, people"]


def test_the_page_has_the_audit_the_attrition_and_the_screens(analysed):
    page = (analysed / "report.html").read_text()
    assert "3 people were turned away" in page and 'alt="Screen: condition A"' in page
    attrition = read_analysis(analysed / "analysis.json")["attrition"]
    lost = [row["dropped_out"] for row in attrition if (row["condition"], row["construct"]) == ("D, people", "OL")]
    assert lost == [1]


def test_models_are_trained_on_the_texts_and_no_text_is_on_the_page(analysed):
    assert read_analysis(analysed / "analysis.json")["matrix"]
    assert "it is rain" not in (analysed / "report.html").read_text()


def test_the_page_says_how_each_condition_asks(analysed):
    said = read_analysis(analysed / "analysis.json")["conditions_told"]
    assert said["D, people"].startswith("pass 1, each item: ") and "one choice of" in said["A, gpt-4o"]


def test_a_folder_that_is_no_export_is_named(tmp_path):
    with pytest.raises(DataError, match="fledge annotate export"):
        read_collected(tmp_path)


@pytest.mark.parametrize(
    ("options", "codes"),
    [
        (likert(3), {"1": 1.0, "2": 2.0, "3": 3.0}),
        (PAIR, {"first": 1.0, "second": 0.0}),
        ((*PAIR, Option("tie", "alike")), {"first": 1.0, "second": 0.0, "tie": 0.5}),
        ((Option("r", "red"), Option("g", "green"), Option("b", "blue")), None),
        ((), None),
    ],
)
def test_answers_are_numbers_where_they_can_be(options, codes):
    assert codes_of(Construct("c", "?", options)) == codes


def test_conditions_of_an_instrument_are_what_effects_act_through():
    kern = read_instrument("kern-2023")
    found = {name: asked_of(kern.condition(name)) for name in "ACD"}
    assert [(a.split, a.first, a.blocked) for a in found.values()] == [
        (False, "", False),
        (True, "OL", False),
        (True, "HS", True),
    ]


def test_power_grows_with_annotators_and_with_the_planted_effect(folder):
    few, many = (power(folder / "study.yaml", labels=[n], n_studies=12) for n in (2, 12))

    def found(rows):
        return next(row.found for row in rows if (row.construct, row.condition) == ("HS", "B"))

    assert found(many) > found(few) and few[0].annotators == 12
    assert next(row.planted for row in few if row.condition == "D") == pytest.approx(0.1)


def test_power_on_the_command_line_takes_effects_for_all_constructs(folder, capsys):
    words = ["blocked=0.2", "share=0.4", "--studies", "4", "--labels", "2"]
    assert main(["annotate", "power", str(folder / "study.yaml"), *words]) == 0
    out = capsys.readouterr().out
    assert "+0.300" in out and "OL" in out


@pytest.mark.parametrize(
    ("change", "said"),
    [("planted: {HT: {share: 0.4}}", "Did you mean 'HS'"), ("planted: {HS: {shar: 0.4}}", "Did you mean 'share'")],
)
def test_a_wrong_planted_effect_is_named(change, said, tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY.replace("planted: {HS: {share: 0.4, split: 0.1}}", change))
    with pytest.raises(ConfigError, match=said):
        read_design(tmp_path / "study.yaml")


def test_a_study_within_subjects_has_no_simulation(tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY.replace("seed: 3,", "seed: 3, within_subject: true,"))
    with pytest.raises(ConfigError, match="between subjects"):
        plan_of(read_design(tmp_path / "study.yaml"))
