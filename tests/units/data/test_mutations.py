"""Variants as people write them: dialects, wild-type checks, offsets, and one error for all bad rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.core.errors import DataError
from fledge.data.mutations import Variants, all_singles, derive_wild_type, parse
from fledge.data.residues import ALPHABET, BLOSUM62, check_sequence, decode, encode

WILD = "MKTAYLVCAG"


@pytest.mark.parametrize(
    "text",
    [
        "K2R:A4G",
        "K2R,A4G",
        "K2R;A4G",
        "K2R_A4G",
        "K2R/A4G",
        "K2R+A4G",
        "K2R A4G",
        "A4G:K2R",
        "k2r:a4g",
        "2R:4G",
        "p.[Lys2Arg;Ala4Gly]",
        "MRTGYLVCAG",
    ],
)
def test_every_dialect_says_the_same(text):
    assert parse([text], WILD).names(WILD) == ["K2R:A4G"]


@pytest.mark.parametrize("text", ["WT", "", "wt", "p.=", WILD, "K2K"])
def test_the_wild_type_has_no_mutation(text):
    assert parse([text], WILD).counts.tolist() == [0]


def test_a_wrong_wild_type_letter_names_row_and_position():
    with pytest.raises(DataError, match=r"row 2: R3K says R at 3, but the wild type has T there"):
        parse(["K2R", "R3K"], WILD)


def test_numbers_that_count_from_zero_are_found_out():
    with pytest.raises(DataError, match=r"All letters fit if \+1 is added to every number \(counts from 0"):
        parse(["M0A,K1C", "T2G"], WILD)


def test_an_offset_is_applied_when_it_is_given():
    assert parse(["M0A,K1C"], WILD, offset=1).names(WILD) == ["M1A:K2C"]


def test_an_offset_can_be_detected():
    assert parse(["M0A,K1C", "T2G"], WILD, offset="auto").names(WILD) == ["M1A:K2C", "T3G"]


def test_no_offset_fits_a_wrong_wild_type():
    with pytest.raises(DataError, match="No constant offset makes all letters fit"):
        parse(["W2R", "W3K"], WILD)


def test_one_error_lists_every_bad_row():
    bad = ["K2R", "K2*", "K2del", "hello", "K99R", "B2K", "MKT" * 4, "A4B", "K2R:K2G", "A23K"]
    with pytest.raises(DataError) as caught:
        parse(bad, WILD)
    lines = str(caught.value).splitlines()
    assert lines[0] == "9 of the mutations of 10 variants cannot be used:"
    assert [line.split(":")[0].strip() for line in lines[1:10]] == [
        "row 2", "row 3", "row 4", "row 6", "row 7", "row 8", "row 5", "row 9", "row 10"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("K2*", "is a stop"),
        ("K2del", "an insertion or a deletion"),
        ("A4_Y5insG", "'A4_Y5insG' is an insertion or a deletion"),
        ("p.Ala4_Tyr5del", "is an insertion or a deletion"),
        ("MKTAYLVCAGG", "insertions and deletions cannot be ranked"),
        ("K2-", "a deletion"),
        ("K2X", "'X' is none of the twenty"),
        ("MKTAYXVCAG", "letters that are none of the twenty amino acids: X"),
        ("Xaa2Lys", "none of the twenty"),
        ("K0R", r"outside of the wild type's 1 … 10"),
    ],
)
def test_what_is_no_substitution_is_told_so(text, said):
    with pytest.raises(DataError, match=said):
        parse([text], WILD)


def test_a_wild_type_with_unknown_letters_is_refused_with_their_places():
    with pytest.raises(DataError, match=r"2 letters that are none of the twenty amino acids: 'X' at 2, '\*' at 4"):
        check_sequence("MXT*")


def test_a_wild_type_is_derived_where_every_position_is_told():
    assert derive_wild_type(["M0A,K1R", "T2A"], offset=1) == "MKT"


def test_a_wild_type_is_derived_from_numbers_that_count_from_zero_when_that_may_be_found():
    assert derive_wild_type(["M0A,K1R", "T2A"], offset="auto") == "MKT"
    with pytest.raises(DataError, match=r"count from 0 here.*--offset 1"):
        derive_wild_type(["M0A,K1R", "T2A"])


def test_sequences_do_not_tell_which_is_the_wild_type():
    with pytest.raises(DataError, match="do not say which of them is the wild type"):
        derive_wild_type([WILD, "M1A"])


def test_a_wild_type_is_not_guessed():
    with pytest.raises(DataError, match="no variant tells the residue at 2"):
        derive_wild_type(["M1A", "T3A"])


def test_mutation_order_does_not_matter_for_a_join():
    assert len(set(parse(["K2R:A4G", "A4G:K2R"], WILD).keys())) == 1


def test_all_singles_are_nineteen_at_each_site():
    assert len(set(all_singles(WILD).names(WILD))) == 19 * len(WILD)


def test_sequences_and_mutations_are_two_spellings_of_one_thing():
    variants = parse(["K2R:A4G", "WT", "G10A"], WILD)
    assert parse(variants.sequences(WILD), WILD).keys() == variants.widened(3).keys()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 19)), max_size=4), min_size=1, max_size=6))
def test_what_is_written_is_read_again(lists):
    codes = encode(WILD)
    clean = [[(s, r) for s, r in dict(row).items() if codes[s] != r] for row in lists]
    variants = Variants.of(clean)
    again = parse(variants.names(WILD), WILD)
    assert np.array_equal(again.widened(4).sites, variants.widened(4).sites)


def test_letters_and_numbers_are_inverse():
    assert decode(encode(ALPHABET)) == ALPHABET


def test_blosum62_is_symmetric():
    assert (BLOSUM62 == BLOSUM62.T).all()
    assert BLOSUM62[ALPHABET.index("W"), ALPHABET.index("W")] == 11
