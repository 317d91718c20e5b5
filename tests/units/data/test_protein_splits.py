"""Splits of assays: nothing of a test protein is learnt from, and shots cost what they say."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fledge.core.errors import ConfigError, DataError
from fledge.data.assays import Library
from fledge.data.homology import clusters, identities
from fledge.data.protein_splits import (
    PAPER_MULTIPLES,
    PAPER_SINGLES,
    domain_split,
    few_shot,
    paper_size,
    paper_split,
    protein_of,
    reference_split,
    strict_split,
)

DATA = Path(os.environ.get("FLEDGE_DATA", Path(__file__).resolve().parents[4] / "shared" / "data")) / "protein"
KEY = np.random.default_rng(3)
LETTERS = list("ACDEFGHIKLMNPQRSTVWY")
SEQUENCES = {name: "".join(KEY.choice(LETTERS, 60)) for name in "abcdef"}
NAMES = [
    "BLAT_ECOLX_Jacquier_2013",
    "BLAT_ECOLX_Deng_2012",
    "TAT_HV1BR_Fernandes_2016",
    "RL401_YEAST_Mavor_2016",
    "RL401_YEAST_Roscoe_2013",
    "KKA2_KLEPN_Melnikov_2014",
    "GFP_AEQVI_Sarkisyan_2016",
    "A4_HUMAN_Seuma_2022",
]


def test_a_sequence_is_identical_to_itself_and_to_a_part_of_it():
    a = SEQUENCES["a"]
    assert identities(a, [a, a[10:40], "W" * 5 + a]).tolist() == [1.0, 1.0, 1.0]


def test_a_deletion_costs_a_gap_and_nothing_else():
    a = SEQUENCES["a"]
    assert identities(a, [a[:30] + a[33:]])[0] == 1.0


def test_random_sequences_are_not_alike():
    assert max(identities(SEQUENCES["a"], [SEQUENCES[name] for name in "bcdef"])) < 0.4


def test_identity_is_symmetric():
    a, b = SEQUENCES["a"], SEQUENCES["a"][:20] + SEQUENCES["b"][20:50]
    assert identities(a, [b])[0] == identities(b, [a])[0]


def test_clusters_join_what_is_alike():
    near = SEQUENCES["a"][:40] + SEQUENCES["f"][40:]
    groups = clusters({**{name: SEQUENCES[name] for name in "abcd"}, "near": near})
    assert groups[0] == ["a", "near"]
    assert len(groups) == 4


def test_the_papers_split_says_what_leaks():
    split = paper_split(NAMES)
    assert split.test == (NAMES[0], NAMES[2], NAMES[4])
    assert set(split.leaks) == {(NAMES[1], NAMES[0]), (NAMES[3], NAMES[4])}
    assert "2 training assays share a protein with a test assay" in split.warning


def test_the_papers_split_leaves_the_multiples_out():
    assert not {"GFP_AEQVI_Sarkisyan_2016", "A4_HUMAN_Seuma_2022"} & set(paper_split(NAMES).train)


def test_no_protein_is_on_both_sides_of_the_strict_split():
    sequences = {name: "".join(KEY.choice(LETTERS, 50)) for name in NAMES}
    split = strict_split(sequences)
    assert not {protein_of(name) for name in split.train} & {protein_of(name) for name in split.test}
    assert "KKA2_KLEPN_Melnikov_2014" in split.train


def test_an_alike_protein_of_another_name_is_not_learnt_from():
    sequences = {"one_A": SEQUENCES["a"], "two_B": SEQUENCES["b"], "three_C": SEQUENCES["a"][:45] + "W" * 15}
    assert strict_split(sequences, ["one_A"]).train == ("two_B",)


def test_held_out_assays_have_to_be_there():
    with pytest.raises(DataError, match="None of the held-out assays is there"):
        paper_split(["KKA2_KLEPN_Melnikov_2014"])


def test_test_domains_are_alike_to_no_other():
    near = SEQUENCES["a"][:50] + SEQUENCES["f"][50:]
    split = domain_split({**SEQUENCES, "near": near}, 4, seed=1)
    assert len(split.test) == 4
    assert not {"a", "near"} & set(split.test)


def test_more_test_domains_than_stand_alone_are_refused():
    with pytest.raises(DataError, match="only 6 of 6 are alike to no other"):
        domain_split(SEQUENCES, 7)


def test_shots_cost_no_labels_that_are_not_asked_for():
    shot = few_shot(500, 16, 0)
    assert (len(shot.support), len(shot.early_stop), len(shot.query)) == (16, 0, 484)
    assert len({*shot.support.tolist(), *shot.query.tolist()}) == 500


def test_a_small_assay_says_so():
    with pytest.raises(ConfigError, match=r"An assay of 63 variants cannot show 16 labels, keep 128 to stop by"):
        few_shot(63, 16, 0, early_stop=128)


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        (989, (800, 800, 700)),
        (1813, (1600, 1600, 1500)),
        (2363, (2000, 2000, 2000)),
        (1576, (1400, 1400, 1300)),
        (2147, (2000, 2000, 1800)),
        (1577, (1400, 1400, 1300)),
        (1195, (1000, 1000, 900)),
        (7467, (2000, 2000, 2000)),
    ],
)
def test_the_papers_evaluation_sizes_come_out(n, sizes):
    assert tuple(paper_size(n, shots) for shots in (0, 16, 128)) == sizes


def test_a_reference_file_is_split_by_mutant_type_and_length():
    rows = [{"DMS_id": name, "seq_len": "286", "includes_multiple_mutants": "False"} for name in NAMES[:3]]
    rows += [{"DMS_id": "LONG_X_Y_2020", "seq_len": "751", "includes_multiple_mutants": "False"}]
    rows += [{"DMS_id": NAMES[6], "seq_len": "238", "includes_multiple_mutants": "TRUE"}]
    found = reference_split(rows)
    assert (found["single"].train, len(found["single"].test), found["multiple"].test) == ((NAMES[1],), 2, (NAMES[6],))


def test_the_papers_numbers_of_assays_come_out_of_the_reference_file():
    """148 single and 69 multiple assays; 27 of the one kind and 1 of the other are of longer targets."""

    def rows(flag, held, n_short, n_long):
        names = [*held, *(f"P{i}_{flag}_X_2020" for i in range(n_short - len(held)))]
        found = [{"DMS_id": name, "seq_len": "750", "includes_multiple_mutants": flag} for name in names]
        return found + [
            {"DMS_id": f"L{i}_{flag}_X_2020", "seq_len": "751", "includes_multiple_mutants": flag}
            for i in range(n_long)
        ]

    split = reference_split(rows("FALSE", PAPER_SINGLES, 121, 27) + rows("TRUE", PAPER_MULTIPLES, 68, 1))
    assert [len(x) for s in (split["single"], split["multiple"]) for x in (s.train, s.test)] == [113, 8, 63, 5]


@pytest.mark.skipif(not DATA.is_dir(), reason="the real assays are not beside the checkout (set FLEDGE_DATA)")
def test_all_held_out_assays_of_the_paper_are_in_the_real_library():
    library = Library(DATA)
    split = paper_split(library.names("assay"))
    assert len(split.test) == len(PAPER_SINGLES)
    assert len(library.read("TAT_HV1BR_Fernandes_2016")) == 1577
