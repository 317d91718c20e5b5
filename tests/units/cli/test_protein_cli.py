"""`fledge protein …` from files to tables."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protein"))

from protein_cases import WILD, additive, weights  # noqa: F401

from fledge.cli.main import main
from fledge.core.files import to_csv
from fledge.core.records import read_curves, read_results
from fledge.data.assays import Library
from fledge.protein.published import beside
from fledge.report.protein import PUBLISHED_COLUMNS, published_tables
from fledge.run.protein_evaluate import _to_rank

ASSAY = additive(7)


@pytest.fixture
def file(tmp_path):
    rows = [f"{name},{score}" for name, score in zip(ASSAY.variants.names(WILD)[:12], ASSAY.scores, strict=False)]
    (tmp_path / "round1.csv").write_text("mutant,score\n" + "\n".join([*rows, "WT,0", "K2C,"]) + "\n")
    return tmp_path / "round1.csv"


@pytest.fixture
def library(tmp_path):
    folder = tmp_path / "data"
    (folder / "domains").mkdir(parents=True)
    lines = ["name,set,length,variants,target_seq"]
    rng = np.random.default_rng(0)
    for i in range(3):
        wild = "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), 20))
        assay = additive(i, f"P{i}_X", wild)
        lines.append(f"P{i}_X,domain,20,{len(assay)},{wild}")
        rows = zip(assay.variants.names(wild), assay.scores, strict=True)
        (folder / "domains" / f"P{i}_X.csv").write_text("mutant,DMS_score\n" + "".join(f"{m},{s}\n" for m, s in rows))
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_file_is_checked_before_anything_is_computed(file, capsys):
    assert main(["protein", "check-data", str(file), "-w", WILD]) == 0
    shown = capsys.readouterr().out
    assert "14 variants of a protein of 20 residues" in shown
    assert "missing scores" in shown


def test_candidates_are_ranked_into_a_file(file, weights, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "ranked.csv"
    assert main(["protein", "rank", str(file), "-w", WILD, "--weights", str(weights), "--out", str(out)]) == 0
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == 19 * 20 - 12
    assert "12 labels" not in rows[0]
    assert "Spearman of held-out labels" in capsys.readouterr().out


def test_predictions_stay_in_the_order_of_the_candidates(file, weights, tmp_path):  # noqa: F811
    (tmp_path / "wanted.csv").write_text("mutant\nK2R\nA4G\nT3S\n")
    out = tmp_path / "predicted.csv"
    words = ["--candidates", str(tmp_path / "wanted.csv"), "--weights", str(weights), "--out", str(out)]
    assert main(["protein", "predict", str(file), "-w", WILD, *words]) == 0
    assert [row["mutant"] for row in csv.DictReader(out.open())] == ["K2R", "A4G", "T3S"]


def test_a_batch_is_suggested(file, weights, capsys):  # noqa: F811
    words = ["--n", "4", "--strategy", "ucb", "--per-site", "1", "--weights", str(weights)]
    assert main(["protein", "suggest", str(file), "-w", WILD, *words]) == 0
    assert "nearest_measured" in capsys.readouterr().out


def test_before_anything_is_measured_a_wild_type_is_enough(weights, tmp_path, capsys):  # noqa: F811
    (tmp_path / "wt.fasta").write_text(f">wt\n{WILD}\n")
    words = ["-w", str(tmp_path / "wt.fasta"), "-n", "3", "--diversity", "0.5", "--strategy", "thompson"]
    assert main(["protein", "suggest", *words, "--random-share", "0.3", "--weights", str(weights)]) == 0
    assert "0 labels" in capsys.readouterr().out
    assert main(["protein", "rank"]) == 2
    assert "neither a FILE of measurements nor a wild type" in capsys.readouterr().err


def test_a_file_without_scores_is_told_and_not_taken_for_labels(weights, tmp_path, capsys):  # noqa: F811
    (tmp_path / "a.csv").write_text("mutant,enrichment\nK2R,1\nA4G,2\n")
    assert main(["protein", "rank", str(tmp_path / "a.csv"), "-w", WILD, "--weights", str(weights)]) == 0
    assert "ranked without labels. Name the column of scores (--score): enrichment." in capsys.readouterr().err


def test_constant_scores_are_told_in_one_line(weights, tmp_path, capsys):  # noqa: F811
    (tmp_path / "a.csv").write_text("mutant,score\nK2R,1\nA4G,1\n")
    assert main(["protein", "rank", str(tmp_path / "a.csv"), "-w", WILD, "--weights", str(weights)]) == 0
    assert capsys.readouterr().err.startswith("All 2 scores are 1: they say nothing about an order.")


def test_plates_are_put_on_one_scale(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("mutant,score,plate\nWT,2,a\nK2R,1,a\nWT,20,b\nK2R,10,b\n")
    words = [str(tmp_path / "a.csv"), "-w", WILD, "--round", "plate", "--normalise", "wild_type"]
    assert main(["protein", "check-data", *words]) == 0
    assert "they differ by 0 on average" in capsys.readouterr().out


def test_a_heat_map_is_drawn_with_its_numbers(file, weights, tmp_path):  # noqa: F811
    picture = tmp_path / "map.svg"
    words = [str(file), "-w", WILD, "--weights", str(weights), "--heat-map", str(picture)]
    assert main(["protein", "rank", *words]) == 0
    assert picture.read_text().count("<svg") == 1
    assert len(list(csv.DictReader(picture.with_suffix(".csv").open()))) == 19 * 20


def test_a_table_that_is_there_is_refused_before_anything_is_computed(file, tmp_path, capsys):
    words = ["--out", str(file), "--weights", str(tmp_path / "none.safetensors")]
    assert main(["protein", "rank", str(file), "-w", WILD, *words]) == 2
    assert "is there already" in capsys.readouterr().err


def test_trust_is_told_beside_trivial_rankings(file, weights, capsys):  # noqa: F811
    assert main(["protein", "fit", str(file), "-w", WILD, "--weights", str(weights)]) == 0
    assert "gaussian-process" in capsys.readouterr().out


def test_a_wrong_wild_type_is_one_line(file, capsys):
    assert main(["protein", "rank", str(file), "-w", WILD[1:]]) == 2
    assert "cannot be used" in capsys.readouterr().err


def test_a_folder_is_evaluated_beside_baselines(library, weights, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "out"
    words = ["--data", str(library), "--out", str(out), "--shots", "32,0", "--limit", "2"]
    assert main(["protein", "evaluate", *words, "--repeats", "1", "--weights", str(weights)]) == 0
    curves = read_curves(out / "curves.csv")
    assert set(curves.recipe) >= {"meta", "ridge", "mutation-count", "blosum62", "shuffled-labels"}
    assert set(curves.x_unit) == {"shot"}
    assert read_results(out / "results.csv")[0].n == 2
    assert "P1_X" in (out / "report.html").read_text()
    assert (out / "calibration.csv").read_text().startswith("nominal,covered,assay,n,width")
    page = (out / "report.html").read_text()
    assert "Do intervals hold what they promise?" in page
    assert "every single mutant of P0_X, 32 labels" in page
    assert "Published numbers" not in page  # none of these assays has any
    assert "mutation-count: 4 rankings had one value for all variants" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--shots", "0,-3"], ["--repeats", "0"], ["--limit", "-1"]])
def test_numbers_that_cannot_be_are_refused(library, tmp_path, capsys, words):
    assert main(["protein", "evaluate", "--data", str(library), "--out", str(tmp_path / "o"), *words]) == 2
    assert "Shots are 0 or more" in capsys.readouterr().err


def test_what_is_there_is_not_overwritten(library, tmp_path, capsys):
    assert main(["protein", "evaluate", "--data", str(library), "--out", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_a_folder_that_is_none_is_told(tmp_path, capsys):
    assert main(["protein", "pretrain", "--data", str(tmp_path), "--out", str(tmp_path / "w.safetensors")]) == 2
    assert "there is no index.csv" in capsys.readouterr().err


def test_published_numbers_are_drawn_beside_ours(tmp_path):
    ours = beside({0: {"TAT_HV1BR_Fernandes_2016": 0.3}, 16: {"TAT_HV1BR_Fernandes_2016": 0.4}})
    rows = [(row.method, row.assay, row.labels, row.spearman, row.differs) for row in ours]
    (tmp_path / "published.csv").write_text(to_csv(PUBLISHED_COLUMNS, rows))
    found = published_tables(tmp_path / "published.csv")
    assert found["labels"][:3] == [0, 16, 20]
    assert [(row[0], row[1][:3]) for row in found["means"]][:2] == [
        ("Fledge", ["0.300", "0.400", ""]), ("Metalic (ESM-2 8M)", ["0.480", "", ""])
    ]  # fmt: skip
    assert found["assays"]["TAT_HV1BR_Fernandes_2016"] == ["0.30", "-0.03", "0.34", "0.41", "0.27"]
    assert found["assays"]["CALM1_HUMAN_Weile_2017"][0] == "–"


def test_what_the_weights_know_of_a_protein_is_told(library, weights, tmp_path):  # noqa: F811
    told = []
    names = _to_rank(Library(library), "unseen", 0, {"P1_X", "P2_X_other"}, told.append)
    assert names == ["P0_X", "P2_X"]
    assert "1 left out, for the weights were trained on them: P1_X" in told[0]
    assert told[1].endswith("which may help them: P2_X")
