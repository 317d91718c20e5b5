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
from fledge.core.records import read_curves, read_results

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


def test_trust_is_told_beside_trivial_rankings(file, weights, capsys):  # noqa: F811
    assert main(["protein", "fit", str(file), "-w", WILD, "--weights", str(weights)]) == 0
    assert "gaussian-process" in capsys.readouterr().out


def test_a_wrong_wild_type_is_one_line(file, capsys):
    assert main(["protein", "rank", str(file), "-w", WILD[1:]]) == 2
    assert "cannot be used" in capsys.readouterr().err


def test_a_folder_is_evaluated_beside_baselines(library, weights, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "out"
    words = ["--data", str(library), "--out", str(out), "--shots", "0,32", "--split", "all", "--limit", "2"]
    assert main(["protein", "evaluate", *words, "--repeats", "1", "--weights", str(weights)]) == 0
    curves = read_curves(out / "curves.csv")
    assert set(curves.recipe) >= {"meta", "ridge", "mutation-count", "blosum62", "shuffled-labels"}
    assert set(curves.x_unit) == {"shot"}
    assert read_results(out / "results.csv")[0].n == 2
    assert "P1_X" in (out / "report.html").read_text()
    assert (out / "calibration.csv").read_text().startswith("nominal,covered,assay,n,width")
    assert "Do intervals hold what they promise?" in (out / "report.html").read_text()


def test_what_is_there_is_not_overwritten(library, tmp_path, capsys):
    assert main(["protein", "evaluate", "--data", str(library), "--out", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_a_folder_that_is_none_is_told(tmp_path, capsys):
    assert main(["protein", "pretrain", "--data", str(tmp_path), "--out", str(tmp_path / "w.safetensors")]) == 2
    assert "there is no index.csv" in capsys.readouterr().err
