"""One's own behaviour, from frames to a policy: by a model, and by people at the annotation page."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fledge.cli.main import main
from fledge.core.annotations import Annotation
from fledge.core.errors import DataError
from fledge.data.annotations import AnnotationTable, read_answers, write_table
from fledge.data.pictures import pixels
from fledge.run.feedback_own import read_policy
from fledge.run.label_files import read_items
from fledge.run.local_endpoint import LocalEndpoint, pictures

EPISODES, STEPS, K = 4, 20, 5


def white(position):
    frame = np.zeros((16, 16, 3), np.uint8)
    frame[:, int(15 * position)] = 255
    return frame


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four episodes of a line that goes to the right (action 1) or to the left (-1), without rewards."""
    to_right = np.repeat([1.0, -1.0, 1.0, -1.0], STEPS)
    position = np.concatenate([np.linspace(0, 1, STEPS)[:: int(a)] for a in to_right[::STEPS]])
    out = tmp_path_factory.mktemp("own")
    np.savez(
        out / "logged.npz",
        observations=np.stack([position, to_right], 1),
        actions=to_right[:, None],
        timeouts=np.arange(EPISODES * STEPS) % STEPS == STEPS - 1,
        frames=np.stack([white(x) for x in position]),
    )
    (out / "question.toml").write_text('constructs.right = "Does the white line move to the right?"')
    return out


@pytest.fixture(scope="module")
def labelled(folder):
    """The table of items, and a model's answers about them."""
    assert main(["feedback", "items", str(folder / "logged.npz"), "--out", str(folder / "items"), "--k", str(K)]) == 0

    def looks(request):
        first, *_, last = (pixels(picture)[0, :, 0].argmax() for picture in pictures(request))
        return {"Y": 0.9, "N": 0.1} if last > first else {"N": 0.95, "Y": 0.05}

    with LocalEndpoint(looks) as server:
        words = ["--base-url", server.url, "--model", "m", "--api-key-env", "", "--mode", "normalised"]
        words += ["--cache", str(folder / "labels.sqlite"), "--out", str(folder / "labels.jsonl")]
        items = str(folder / "items" / "items.jsonl")
        assert main(["feedback", "label", items, str(folder / "question.toml"), *words]) == 0
    return folder / "labels.jsonl"


def train(folder, answers, out, *words):
    command = ["feedback", "train", str(folder / "logged.npz"), str(answers), "--k", str(K), "--out", str(folder / out)]
    return main([*command, "learner.hidden=[8]", "learner.n_steps=300", "learner.learning_rate=0.02", *words])


def test_items_have_the_names_of_segments_and_their_frames(labelled, folder):
    items = read_items(folder / "items" / "items.jsonl")
    assert (items[1].id, len(items), len(items[0].media)) == ("0:5+5", EPISODES * STEPS // K, 5)


def test_a_model_says_which_segments_go_to_the_right(labelled):
    assert [a.value for a in read_answers(labelled)] == [*"1111", *"0000"] * 2


@pytest.fixture(scope="module")
def trained(labelled, folder):
    assert train(folder, labelled, "run") == 0
    return folder / "run"


def test_the_policy_does_what_was_judged_good(trained):
    action = read_policy(trained / "policy.npz").act(np.array([[0.5, 1.0], [0.5, -1.0]], np.float32))
    assert action.shape == (2, 1) and action[0, 0] > 0.7


def test_half_of_the_segments_are_kept(trained):
    assert json.loads((trained / "diagnosis.json").read_text())["kept"] == 0.5


def test_the_page_shows_the_labels_and_no_arms(trained):
    page = (trained / "report.html").read_text()
    assert 'id="histogram"' in page and "success-" not in page


def test_labels_of_people_reach_the_learner(labelled, folder, trained):
    rows = [Annotation(a.item, a.construct, f"ann{i}", a.value) for a in read_answers(labelled) for i in range(2)]
    rows.append(Annotation("0:0+5", "right", "ann2", missing="dropped_out"))
    answers = write_table(folder / "people.csv", AnnotationTable(tuple(rows), attributes={"ann0": {"age": "41"}}))
    assert train(folder, answers, "people", "filter.alpha=0.5") == 0
    found, before = (json.loads((path / "diagnosis.json").read_text()) for path in (folder / "people", trained))
    assert (found["annotators"], found["kept"]) == (["ann0", "ann1", "ann2"], before["kept"])


def test_answers_about_behaviour_that_was_cut_otherwise_are_refused(labelled, folder, capsys):
    command = ["feedback", "train", str(folder / "logged.npz"), str(labelled), "--k", "10"]
    assert main([*command, "--out", str(folder / "wrong")]) == 2
    assert "Labels belong to one data set cut in one way" in capsys.readouterr().err


def test_behaviour_without_pictures_makes_no_items(tmp_path, capsys):
    np.savez(tmp_path / "x.npz", observations=np.zeros((4, 1)), actions=np.zeros(4), terminals=np.arange(4) == 3)
    assert main(["feedback", "items", str(tmp_path / "x.npz"), "--k", "2"]) == 2
    assert "no pictures: an array 'frames'" in capsys.readouterr().err


def test_a_file_that_is_no_policy_is_named(tmp_path):
    np.savez(tmp_path / "x.npz", a=1)
    with pytest.raises(DataError, match=r"x\.npz has no policy"):
        read_policy(tmp_path / "x.npz")
