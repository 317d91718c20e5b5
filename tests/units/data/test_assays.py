"""Files of measured variants: formats, columns, replicates, censored values, rounds, joins, libraries."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from fledge.core.errors import DataError
from fledge.data.assays import Library, normalised, read_assay, read_wild_type
from fledge.data.measurements import combine_replicates, join, normalise_rounds, place_censored, read_scores
from fledge.data.mutations import parse
from fledge.data.tables import read_fasta

WILD = "MKTAYLVCAG"
ROWS = [("K2R", "0.5"), ("A4G:C8S", "-1.25"), ("WT", "1")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "mutant,DMS_score\nK2R,0.5\nA4G:C8S,-1.25\nWT,1\n"),
        ("a.tsv", "variant\tscore\nK2R\t0.5\nA4G,C8S\t-1.25\nWT\t1\n"),
        ("a.csv", "score;mutation\r\n0.5;K2R\r\n-1.25;A4G:C8S\r\n1;WT\r\n"),
        ("a.csv", '\ufeffMutant,Fitness\n"K2R",0.5\n"A4G,C8S",-1.25\n,1\n'),
        ("a.csv", "sequence,y\nMRTAYLVCAG,0.5\nMKTGYLVSAG,-1.25\nMKTAYLVCAG,1\n"),
    ],
)
def test_every_kind_of_table_gives_the_same_assay(name, text, tmp_path):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assay = read_assay(tmp_path / name, WILD)
    assert list(zip(assay.variants.names(WILD), assay.scores.tolist(), strict=True)) == [
        (variant, float(score)) for variant, score in ROWS
    ]


def test_a_packed_file_is_unpacked(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"mutant,DMS_score\nK2R,0.5\n"))
    assert read_assay(tmp_path / "a.csv.gz", WILD).scores.tolist() == [0.5]


def test_a_sheet_is_read_like_a_table(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (("mutant", "score", "note"), *((a, float(b), "x") for a, b in ROWS)):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    assay = read_assay(tmp_path / "a.xlsx", WILD)
    assert (assay.scores.tolist(), assay.columns["note"]) == ([0.5, -1.25, 1.0], ["x"] * 3)


def test_fasta_sequences_are_variants_without_scores(tmp_path):
    (tmp_path / "a.fasta").write_text(">one\nMRTAY\nLVCAG\n>two\nMKTAYLVCAA\n")
    assay = read_assay(tmp_path / "a.fasta", WILD, scored=False)
    assert assay.variants.names(WILD) == ["K2R", "G10A"]


def test_a_wild_type_comes_from_a_string_or_a_fasta_file(tmp_path):
    (tmp_path / "wt.fa").write_text(">p\nMKTA\nYLVCAG\n")
    assert read_wild_type(tmp_path / "wt.fa") == read_wild_type("mktay lvcag") == WILD


def test_two_sequences_are_no_wild_type(tmp_path):
    (tmp_path / "wt.fa").write_text(">p\nMK\n>q\nMT\n")
    with pytest.raises(DataError, match="has 2 sequences; the wild type is one"):
        read_wild_type(tmp_path / "wt.fa")


def test_text_that_is_no_fasta_is_refused(tmp_path):
    (tmp_path / "a.fa").write_text("MKT")
    with pytest.raises(DataError, match="does not begin with '>'"):
        read_fasta(tmp_path / "a.fa")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mutant,DMS\nK2R,1\n", "has no score column. It has: mutant, DMS"),
        ("who,score\nK2R,1\n", "has no variant column"),
        ("", "is empty"),
        ("mutant,score\n", "has a header, but no variant below it"),
        ("mutant,score\nK2R\n", "line 2: 1 cells came where the header has 2"),
        ("mutant,score\nK2R,x\nA4G,y\n", r"2 of 2 scores are not numbers:\n  line 2: 'x'\n  line 3: 'y'"),
        ("mutant,mutant\nK2R,x\n", "two columns called 'mutant'"),
        ("mutant,score\nR2K,1\n", "line 2: R2K says R at 2, but the wild type has K there"),
    ],
)
def test_a_bad_table_is_one_clear_message(text, said, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        read_assay(tmp_path / "a.csv", WILD)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"There is no file .*none\.csv"):
        read_assay(tmp_path / "none.csv", WILD)


def test_missing_and_censored_cells_are_kept_apart():
    values = read_scores(["1.5", "", "NaN", "<LOD", "<0.1", "dead"])
    assert np.array_equal(values, [1.5, np.nan, np.nan, -np.inf, -np.inf, -np.inf], equal_nan=True)


def test_censored_values_are_tied_at_the_bottom():
    assert place_censored(np.array([2.0, -np.inf, 1.0, np.nan])).tolist()[:3] == [2.0, 1.0, 1.0]


def test_only_dead_variants_cannot_be_ranked():
    with pytest.raises(DataError, match="All scores are below detection"):
        place_censored(np.array([-np.inf, -np.inf]))


def test_replicates_become_mean_deviation_and_count():
    found = combine_replicates(parse(["K2R", "A4G", "K2R", "C8S"], WILD), np.array([1.0, 5.0, 3.0, np.nan]))
    assert (found.mean.tolist(), found.count.tolist()) == ([2.0, 5.0], [2, 1])
    assert found.sd[0] == pytest.approx(2**0.5)
    assert np.isnan(found.sd[1])


def test_rounds_are_standardised_each_by_itself():
    scores = normalise_rounds(np.array([1.0, 3.0, 10.0, 30.0]), ["a", "a", "b", "b"])
    assert scores.tolist() == [-1, 1, -1, 1]


def test_rounds_are_divided_by_their_wild_type():
    scores = normalise_rounds(
        np.array([2.0, 3.0, 10.0, 30.0]), ["a", "a", "b", "b"], how="wild_type", is_wild_type=[1, 0, 1, 0]
    )
    assert scores.tolist() == [1.0, 1.5, 1.0, 3.0]


@pytest.mark.parametrize("scores", [[2.0, 3.0], [2.0, -1.0]])
def test_a_round_without_wild_type_above_zero_is_named(scores):
    with pytest.raises(DataError, match="Round 'b' has no wild-type well with a value above 0"):
        normalise_rounds(np.array(scores), ["a", "b"], how="wild_type", is_wild_type=[1, scores[1] < 0])


def test_rounds_of_a_file_are_put_on_one_scale_by_its_own_column(tmp_path):
    (tmp_path / "a.csv").write_text("mutant,score,plate\nWT,2,a\nK2R,1,a\nWT,20,b\nA4G,<LOD,b\n")
    assay = read_assay(tmp_path / "a.csv", WILD)
    assert normalised(assay, "plate", how="wild_type").scores.tolist() == [1.0, 0.5, 1.0, -np.inf]
    assert normalised(assay, how="wild_type").scores[:2] == pytest.approx([2 / 11, 1 / 11])
    with pytest.raises(DataError, match=r"no column 'plat' of rounds\. Did you mean 'plate'"):
        normalised(assay, "plat")


def test_a_join_goes_by_mutant_and_not_by_order():
    mine, table = parse(["A4G:K2R", "C8S", "G10A"], WILD), parse(["C8S", "K2R:A4G"], WILD)
    assert np.array_equal(join(mine, table, np.array([1.0, 2.0])), [2.0, 1.0, np.nan], equal_nan=True)


def test_a_join_with_two_values_for_one_variant_is_refused():
    with pytest.raises(DataError, match="two different values for one variant"):
        join(parse(["C8S"], WILD), parse(["C8S", "C8S"], WILD), np.array([1.0, 2.0]))


def test_a_library_is_a_folder_with_an_index(tmp_path):
    (tmp_path / "index.csv").write_text(f"name,set,length,variants,target_seq\none,domain,10,2,{WILD}\n")
    (tmp_path / "domains").mkdir()
    (tmp_path / "domains" / "one.csv").write_text("mutant,DMS_score,GEMME_epi\nK2R,0.5,\nA4G,1,2\n")
    assay = Library(tmp_path).read("one")
    assert (assay.set, len(assay), assay.columns["GEMME_epi"]) == ("domain", 2, ["", "2"])


def test_a_folder_without_index_is_no_library(tmp_path):
    with pytest.raises(DataError, match=r"there is no index\.csv"):
        Library(tmp_path)
