"""The study of annotation sensitivity from recipe to page."""

from __future__ import annotations

import re
import shutil
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

import fledge
from fledge.core.errors import ConfigError, DataError
from fledge.core.records import read_curves, read_results
from fledge.report.instrument import read_analysis, write_instrument_report
from fledge.run import api
from fledge.run.sensitivity import ModelSettings, backend_of

NAME = "study-annotation-sensitivity"
QUICK = {"workers": 1, "labels.mixed": False}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return fledge.run(NAME, scale="smoke", out=tmp_path_factory.mktemp("study") / "run", quiet=True, workers=1)


@pytest.fixture(scope="module")
def page(study) -> str:
    return (study.dir / "report.html").read_text(encoding="utf-8")


def test_the_first_rows_of_results_are_the_shares_of_each_condition(study):
    rows = read_results(study.dir / "results.csv")
    shares = [(row.arm, row.metric) for row in rows if row.metric.startswith("share_")]
    assert shares == [(arm, f"share_{name}") for name in ("hate_speech", "offensive_language") for arm in "ABCDE"]


def test_results_hold_agreement_and_the_matrix(study):
    found = {(row.arm, row.metric) for row in read_results(study.dir / "results.csv")}
    assert {
        ("A", "alpha_hate_speech"),
        ("A-E", "alpha_hate_speech"),
        ("train B, test D", "auc_offensive_language"),
    } <= found


def test_shares_lie_inside_their_intervals(study):
    rows = [row for row in study.results if row.metric.startswith("share_")]
    assert all(row.lo <= row.value <= row.hi for row in rows)


def test_nothing_published_is_compared_with_a_simulation(study):
    assert {row.verdict for row in study.results} == {""}


def test_curves_have_a_line_for_each_condition_and_construct(study):
    curves = read_curves(study.dir / "curves.csv")
    assert set(zip(curves.recipe, curves.task, strict=True)) == {
        (f"condition {name}", task) for name in "ABCDE" for task in ("hate_speech", "offensive_language")
    }


@pytest.mark.parametrize(
    "heading",
    [
        "Conditions and fieldwork",
        "Labels",
        "Effects of the instrument",
        "Agreement",
        "Models",
        "Learning curves",
        "Datasheet",
    ],
)
def test_the_page_has_every_part(page, heading):
    assert f"<h2>{heading}</h2>" in page


@pytest.mark.parametrize(
    "name", ["prevalence", "effects", "agreement", "between", "matrix-auc", "predictions", "curves-own"]
)
def test_every_figure_is_on_the_page_and_beside_it(study, page, name):
    assert f'id="{name}"' in page and (study.dir / "report_files" / f"{name}.csv").stat().st_size > 20


def test_no_text_of_an_item_leaves_the_study(study):
    from fledge.run import recipe as recipes
    from fledge.run.sensitivity import study_of

    texts = study_of(recipes.load(study.dir / "config.toml").config()).texts.values()
    pairs = {" ".join(pair) for text in texts for pair in pairwise(text.split())}
    files = [path for path in study.dir.rglob("*") if path.suffix in (".html", ".json", ".csv", ".svg", ".toml")]
    written = " ".join(path.read_text(encoding="utf-8") for path in files)
    assert len(files) > 10 and not [pair for pair in pairs if pair in written]


def test_the_page_needs_nothing_from_elsewhere(page):
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]+', page)


def test_a_study_that_goes_on_trains_nothing_twice(study, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(study.dir, copy)
    before = {path.name: path.stat().st_mtime_ns for path in (copy / "cells").glob("*.npy")}
    again = api.resume(copy, quiet=True)
    after = {path.name: path.stat().st_mtime_ns for path in (copy / "cells").glob("*.npy")}
    assert (again.results, after) == (study.results, before)


def test_the_page_can_be_written_anew_from_the_files(study, tmp_path):
    assert api.report([study.dir], tmp_path / "again.html").read_text(encoding="utf-8").count("<figure") == 9


def test_a_damaged_analysis_is_named(tmp_path):
    (tmp_path / "analysis.json").write_text('{"format": 7}', encoding="utf-8")
    with pytest.raises(DataError, match="not an analysis of format 1"):
        write_instrument_report(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model.backend": "tfdif"}, "model.backend is tfidf"),
        ({"curves.fractions": (0.5, 2.0)}, "curves.fractions lie in"),
        ({"simulation.constructs.hate_speech.blocked": 0.9}, "leaves no room for its effects"),
        ({"model.seeds": ()}, "model.seeds: give one or more"),
        ({"labels.rule": "mean"}, "labels.rule is one of"),
        ({"data.pathh": "x"}, "Did you mean 'path'"),
    ],
)
def test_wrong_settings_are_refused_before_anything_runs(change, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        fledge.run(NAME, scale="smoke", out=tmp_path / "run", quiet=True, **change)


def test_ones_own_table_is_analysed(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"item": i, "annotator": f"{c}{a}", "condition": c, "construct": "funny", "value": int(rng.random() < 0.4)}
        | {"text": "pun " * (i % 5 + 1)}
        for c in "XY"
        for a in range(6)
        for i in range(24)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "mine.csv", index=False)
    settings = {"data.path": str(tmp_path / "mine.csv"), **QUICK, "curves.fractions": ()}
    done = fledge.run(NAME, scale="smoke", out=tmp_path / "run", quiet=True, **settings)
    about = read_analysis(done.dir / "analysis.json")["about"]
    assert (about["conditions"], about["constructs"], about["test_items"]) == (["X", "Y"], ["funny"], 6)


def test_items_without_texts_are_analysed_without_models(tmp_path):
    rows = [(i, f"{c}{a}", c, "q", (i + a) % 2) for c in "XY" for a in range(4) for i in range(12)]
    pd.DataFrame(rows, columns=["item", "annotator", "condition", "construct", "value"]).to_parquet(
        tmp_path / "t.parquet"
    )
    done = fledge.run(
        NAME, scale="smoke", out=tmp_path / "run", quiet=True, **{"data.path": str(tmp_path / "t.parquet"), **QUICK}
    )
    assert "matrix" not in read_analysis(done.dir / "analysis.json") and (done.dir / "report.html").exists()


def test_a_missing_folder_says_what_is_wanted(tmp_path):
    with pytest.raises(DataError, match=r"full_train_s\.csv"):
        fledge.run(NAME, scale="smoke", out=tmp_path / "run", quiet=True, **{"data.path": str(tmp_path / "nowhere")})


def test_a_backend_that_cannot_be_imported_is_named():
    with pytest.raises(ConfigError, match="no_such_module:Thing cannot be imported"):
        backend_of(ModelSettings(backend="no_such_module:Thing"))


def test_screens_of_the_instrument_are_shown(tmp_path, study):
    from PIL import Image

    copy = tmp_path / "run"
    shutil.copytree(study.dir, copy)
    (copy / "screenshots").mkdir()
    Image.new("RGB", (4, 4)).save(copy / "screenshots" / "condition_A.png")
    text = write_instrument_report(copy).read_text(encoding="utf-8")
    assert 'alt="Screen: condition A" src="data:image/png;base64,' in text
