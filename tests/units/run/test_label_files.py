"""Files of a labelling job, and the command that reads and writes them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fledge.cli.main import main
from fledge.core.errors import FledgeError
from fledge.data.annotations import read_answers
from fledge.data.pictures import png
from fledge.run.label_files import read_items
from fledge.run.local_endpoint import LocalEndpoint, Misbehaviour


def test_items_are_read_with_their_pictures_in_order(tmp_path):
    pictures = [png(np.full((2, 2, 3), i, np.uint8)) for i in range(2)]
    for i, content in enumerate(pictures):
        (tmp_path / f"{i}.png").write_bytes(content)
    row = {"id": "a", "text": "look", "images": ["0.png", "1.png"], "meta": {"episode": 3}}
    (tmp_path / "items.jsonl").write_text(json.dumps(row) + "\n\n")
    (item,) = read_items(tmp_path / "items.jsonl")
    assert [media.content for media in item.media] == pictures
    assert (item.id, item.text, item.meta["episode"]) == ("a", "look", 3)


def test_frames_of_an_npz_are_items(tmp_path):
    frames = np.arange(2 * 3 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 4, 3)
    np.savez(tmp_path / "f.npz", frames=frames, ids=["a", "b"])
    items = read_items(tmp_path / "f.npz")
    assert [item.id for item in items] == ["a", "b"] and items[1].media[2].content == png(frames[1, 2])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1: this is not whole JSON"),
        ('{"text": "no id"}', "line 1.*id"),
        ('{"id": "a", "image": []}', "images"),
        ('{"id": "a", "images": ["gone.png"]}', "gone.png"),
        ('{"id": "a", "images": ["film.mp4"]}', "film.mp4"),
        ('{"id": "a", "pair": [{"text": "one"}]}', "two items"),
        ("", "no items"),
    ],
)
def test_a_broken_table_of_items_is_refused(line, message, tmp_path):
    (tmp_path / "items.jsonl").write_text(line)
    with pytest.raises(FledgeError, match=message):
        read_items(tmp_path / "items.jsonl")


# --- the command ---


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A folder with four items and an instrument."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "items.jsonl").write_text(
        "".join(json.dumps({"id": str(i), "text": f"t {i}"}) + "\n" for i in range(4))
    )
    (tmp_path / "up.toml").write_text('constructs.up = "Is it up?"')
    return tmp_path


def label(server, *words):
    command = ["feedback", "label", "items.jsonl", "up.toml", "--base-url", server.url, "--model", "gpt-4o"]
    return main([*command, "--api-key-env", "", "--mode", "normalised", *words])


def test_a_dry_run_says_what_it_would_cost_and_sends_nothing(job, capsys):
    with LocalEndpoint() as server:
        assert label(server, "--dry-run", "--replicates", "2") == 0
        assert server.arrived == []
    out = capsys.readouterr().out
    assert "requests  8 " in out and "tokens" in out and "money     $0.00" in out
    assert not (job / "labels.sqlite").exists()


def test_labels_are_written_and_asked_for_once(job):
    with LocalEndpoint() as server:
        assert label(server) == label(server) == 0
        assert len(server.arrived) == 4
    assert [a.value for a in read_answers(job / "items.labels.jsonl")] == ["1"] * 4


def test_what_there_is_is_written_where_the_budget_ends(job, capsys):
    with LocalEndpoint() as server:
        assert label(server, "--max-requests", "3") == 3
    assert len(read_answers(job / "items.labels.jsonl")) == 3
    assert "1 items not asked: The budget of 3 requests is spent." in capsys.readouterr().out


def test_failures_are_told_and_are_no_labels(job, capsys):
    with LocalEndpoint(misbehaviour=Misbehaviour(error_every=1)) as server:
        assert label(server, "--max-tries", "1") == 3
    assert read_answers(job / "items.labels.jsonl") == []
    assert "4 without a reply, for example: status 500" in capsys.readouterr().out


def test_a_pack_goes_out_and_comes_in(job):
    with LocalEndpoint() as server:
        label(server)
        assert main(["feedback", "pack", "labels.sqlite", "pack.jsonl"]) == 0
        assert main(["feedback", "unpack", "pack.jsonl", "other.sqlite"]) == 0
        assert label(server, "--cache", "other.sqlite", "--cache-mode", "cache_only", "--out", "again.jsonl") == 0
        assert len(server.arrived) == 4
    assert read_answers(job / "again.jsonl") == read_answers(job / "items.labels.jsonl")


def test_a_wrong_mode_is_refused_with_the_nearest(job, capsys):
    with LocalEndpoint() as server:
        assert label(server, "--mode", "normalized") == 2
    assert "Did you mean 'normalised'?" in capsys.readouterr().err


def test_frames_that_are_not_there_are_said_to_be_missing(tmp_path):
    with pytest.raises(FledgeError, match=r"There is no file .*nothere\.npz"):
        read_items(tmp_path / "nothere.npz")
