"""A study of protein rankings: its files, its page, and that it goes on where it was stopped."""

from __future__ import annotations

from dataclasses import replace

import pytest

import fledge
from fledge.core.errors import ConfigError, FledgeError
from fledge.core.records import read_curves, read_results
from fledge.run import recipe
from fledge.run.protein_study import PROGRAM, assays_of


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return fledge.run("metalic-potts", scale="smoke", out=tmp_path_factory.mktemp("study") / "run", quiet=True)


def test_every_arm_and_control_is_in_the_curves(done):
    arms = set(read_curves(done.dir / "curves.csv").recipe)
    assert arms >= {"meta", "context-only", "shuffled-labels", "untrained", "ridge", "gaussian-process", "blosum62"}


def test_published_numbers_stand_in_the_table_and_a_smoke_scale_proves_nothing(done):
    rows = [row for row in read_results(done.dir / "results.csv") if row.published is not None]
    assert {row.verdict for row in rows} == {"not tested at this scale"}


def test_there_is_one_page_with_every_protein(done):
    page = (done.dir / "report.html").read_text()
    assert "potts-6" in page
    assert "How a ranking improves with labels" in page


def test_what_is_measured_is_not_measured_again(done, monkeypatch):
    monkeypatch.setattr("fledge.run.protein_study.measure", None)
    again = fledge.resume(done.dir, quiet=True)
    assert [row.value for row in again.results] == [row.value for row in done.results]


def test_real_assays_have_to_be_named(monkeypatch):
    monkeypatch.delenv("FLEDGE_DATA", raising=False)
    with pytest.raises(FledgeError, match="Set FLEDGE_DATA=FOLDER"):
        assays_of(recipe.load("study-protein").config("laptop"))


def test_everything_wrong_is_told_together():
    config = recipe.load("metalic-potts").config("smoke")
    faults = PROGRAM.faults(replace(config, arms=("met",), seeds=0, published={"meta-0": 0.1}))
    assert len(faults) == 3
    assert "Did you mean 'meta'" in faults[0]


def test_a_typo_in_a_setting_is_refused():
    with pytest.raises(ConfigError, match="n_steps"):
        fledge.run("metalic-potts", scale="smoke", quiet=True, **{"train.n_step": 3})
