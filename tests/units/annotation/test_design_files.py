"""Study files: everything wrong is listed, batches and media are read, the snapshot is the study."""

from __future__ import annotations

import json

import pytest

from fledge.annotation.design import course
from fledge.annotation.design_files import design_of, read_design
from fledge.cli.main import main
from fledge.core.errors import ConfigError

pytest.importorskip("yaml", reason="needs the extra 'annotate'")
GOOD = "name: s\ninstrument: kern-2023\nconsent: Agree.\nitems: [one, two, three]\n"


def design(folder, text: str):
    (folder / "study.yaml").write_text(text)
    return read_design(folder / "study.yaml")


def test_everything_wrong_with_a_study_is_listed_with_the_nearest_key(tmp_path):
    text = """
titel: A study
instrument: kern-2023
items:
  - {id: a, text: one}
  - {id: a, text: two}
  - {id: b, imge: x.png}
assignment: {methd: blocked, labels: 0, conditions: [A, Z], strata: [sex]}
attributes:
  - {name: age, label: Age, kind: choice}
comprehension: {questions: [{question: Which, options: [right, wrong], answer: rihgt}]}
practice: [{text: hello, answers: {HX: 1}}]
completion: {url: "http://x"}
"""
    with pytest.raises(ConfigError) as caught:
        design(tmp_path, text)
    said = str(caught.value)
    for part in (
        "titel: there is no such key. Did you mean 'title'?",
        "items: the id 'a' comes twice.",
        "items.3: it shows nothing",
        "assignment.methd: there is no such key. Did you mean 'method'?",
        "assignment.labels: a number of at least 1",
        "assignment.conditions: there is no condition 'Z'.",
        "assignment.strata: there is no attribute 'sex'.",
        "attributes.1: a 'choice' has options.",
        "comprehension.questions.1.answer: 'rihgt' is none of the options. Did you mean 'right'?",
        "practice.1.answers: there is no construct 'HX'. Did you mean 'HS'?",
        "completion.url: an address that begins with https://",
        "consent: this text is missing",
    ):
        assert part in said


def test_items_are_cut_into_batches(tmp_path):
    found = design(tmp_path, GOOD + "assignment: {batch_size: 2}\n")
    assert dict(found.batches) == {"1": (0, 1), "2": (2,)}


def test_items_can_name_their_batch_in_a_file(tmp_path):
    (tmp_path / "items.csv").write_text('id,text,batch,source\n1,"a, b",x,old\n2,c,y,new\n3,d,x,old\n')
    found = design(tmp_path, GOOD.replace("[one, two, three]", "items.csv"))
    assert dict(found.batches) == {"x": (0, 2), "y": (1,)}
    assert found.items[0].text == "a, b"
    assert found.items[0].meta["source"] == "old"


def test_the_snapshot_is_the_study(tmp_path):
    found = design(tmp_path, GOOD + "assignment: {seed: 4}\n")
    again = design_of(json.loads(json.dumps(found.snapshot)))
    assert again == found
    assert again.version == found.version


def test_another_wording_is_another_version(tmp_path):
    assert design(tmp_path, GOOD).version != design(tmp_path, GOOD.replace("Agree.", "I agree.")).version


def test_within_subjects_screens_are_numbered_through(tmp_path):
    found = design(tmp_path, GOOD + "assignment: {within_subject: true, conditions: [A, B, C]}\n")
    steps = course(found, found.plan.arms[0], "1", "seed")
    assert [step.screen.index for step in steps] == list(range(len(steps)))
    assert [step.condition for step in steps] == ["A", "B", "B", "C", "C"]
    assert sorted({step.screen.positions[0] for step in steps}) == [0, 1, 2]


def test_the_command_line_says_whether_a_study_is_fine(tmp_path, capsys):
    (tmp_path / "study.yaml").write_text(GOOD)
    assert main(["annotate", "check", str(tmp_path / "study.yaml")]) == 0
    assert "15 annotators" in capsys.readouterr().out
    (tmp_path / "study.yaml").write_text(GOOD.replace("consent", "consnt"))
    assert main(["annotate", "check", str(tmp_path / "study.yaml")]) == 2
    assert "Did you mean 'consent'?" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["export", "audit"])
def test_a_folder_without_a_study_is_refused(tmp_path, capsys, command):
    assert main(["annotate", command, str(tmp_path)]) == 2
    assert "There is no study" in capsys.readouterr().err
