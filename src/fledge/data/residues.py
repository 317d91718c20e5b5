"""The twenty amino acids: their codes, what is known about them, and how like each other they are."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from fledge.core.errors import DataError

ALPHABET = "ACDEFGHIKLMNPQRSTVWY"
"""One-letter codes in the order of their numbers."""
N_RESIDUES = len(ALPHABET)
NOT_STANDARD = "XBZUOJ*-.?"
"""Letters of sequence files that stand for no single one of the twenty."""
THREE_LETTERS = dict(
    zip(
        [
            "ala",
            "cys",
            "asp",
            "glu",
            "phe",
            "gly",
            "his",
            "ile",
            "lys",
            "leu",
            "met",
            "asn",
            "pro",
            "gln",
            "arg",
            "ser",
            "thr",
            "val",
            "trp",
            "tyr",
        ],
        ALPHABET,
        strict=True,
    )
)
_CODE = np.full(256, -1, np.int8)
_CODE[np.frombuffer(ALPHABET.encode(), np.uint8)] = np.arange(N_RESIDUES)

_BLOSUM_ORDER = "ARNDCQEGHILKMFPSTWYV"
_BLOSUM_LOWER = """
4
-1 5
-2 0 6
-2 -2 1 6
0 -3 -3 -3 9
-1 1 0 0 -3 5
-1 0 0 2 -4 2 5
0 -2 0 -1 -3 -2 -2 6
-2 0 1 -1 -3 0 0 -2 8
-1 -3 -3 -3 -1 -3 -3 -4 -3 4
-1 -2 -3 -4 -1 -2 -3 -4 -3 2 4
-1 2 0 -1 -3 1 1 -2 -1 -3 -2 5
-1 -1 -2 -3 -1 0 -2 -3 -2 1 2 -1 5
-2 -3 -3 -3 -2 -3 -3 -3 -1 0 0 -3 0 6
-1 -2 -2 -1 -3 -1 -1 -2 -2 -3 -3 -1 -2 -4 7
1 -1 1 0 -1 0 0 0 -1 -2 -2 0 -1 -2 -1 4
0 -1 0 -1 -1 -1 -1 -2 -2 -1 -1 -1 -1 -2 -1 1 5
-3 -3 -4 -4 -2 -2 -3 -2 -2 -3 -2 -3 -1 1 -4 -3 -2 11
-2 -2 -2 -3 -2 -1 -2 -3 2 -1 -1 -2 -1 3 -3 -2 -2 2 7
0 -3 -3 -3 -1 -2 -2 -3 -3 3 1 -2 1 -1 -2 -2 0 -3 -1 4
"""


def _blosum() -> Int[np.ndarray, "20 20"]:
    rows = [[int(cell) for cell in line.split()] for line in _BLOSUM_LOWER.split("\n") if line]
    full = np.zeros((N_RESIDUES, N_RESIDUES), np.int64)
    for i, row in enumerate(rows):
        full[i, : i + 1] = full[: i + 1, i] = row
    order = [_BLOSUM_ORDER.index(letter) for letter in ALPHABET]
    return full[np.ix_(order, order)]


BLOSUM62 = _blosum()
"""Log-odds of one residue standing for another, in half bits (Henikoff & Henikoff 1992)."""

# Hydropathy (Kyte & Doolittle 1982), volume in Å³ (Zamyatnin 1972), charge at pH 7, helix propensity in kcal/mol
# (Pace & Scholtz 1998), aromatic, branched at the β carbon.
_PROPERTIES = {
    "A": (1.8, 88.6, 0, 0.00, 0, 0),
    "C": (2.5, 108.5, 0, 0.68, 0, 0),
    "D": (-3.5, 111.1, -1, 0.69, 0, 0),
    "E": (-3.5, 138.4, -1, 0.40, 0, 0),
    "F": (2.8, 189.9, 0, 0.54, 1, 0),
    "G": (-0.4, 60.1, 0, 1.00, 0, 0),
    "H": (-3.2, 153.2, 0.1, 0.61, 1, 0),
    "I": (4.5, 166.7, 0, 0.41, 0, 1),
    "K": (-3.9, 168.6, 1, 0.26, 0, 0),
    "L": (3.8, 166.7, 0, 0.21, 0, 0),
    "M": (1.9, 162.9, 0, 0.24, 0, 0),
    "N": (-3.5, 114.1, 0, 0.65, 0, 0),
    "P": (-1.6, 112.7, 0, 3.16, 0, 0),
    "Q": (-3.5, 143.8, 0, 0.39, 0, 0),
    "R": (-4.5, 173.4, 1, 0.21, 0, 0),
    "S": (-0.8, 89.0, 0, 0.50, 0, 0),
    "T": (-0.7, 116.1, 0, 0.66, 0, 1),
    "V": (4.2, 140.0, 0, 0.61, 0, 1),
    "W": (-0.9, 227.8, 0, 0.49, 1, 0),
    "Y": (-1.3, 193.6, 0, 0.53, 1, 0),
}


def properties() -> Float[np.ndarray, "20 feature"]:
    """Physical properties and rows of BLOSUM62, each column with mean 0 and variance 1 over the twenty residues."""
    physical = np.array([_PROPERTIES[letter] for letter in ALPHABET], float)
    columns = np.concatenate([physical, BLOSUM62], axis=1)
    return (columns - columns.mean(0)) / columns.std(0)


def encode(sequence: str) -> Int[np.ndarray, " residue"]:
    """Letters to numbers 0 … 19, −1 for a letter that is none of the twenty."""
    return _CODE[np.frombuffer(sequence.encode("latin-1", "replace"), np.uint8)].astype(np.int32)


def decode(codes: Int[np.ndarray, " residue"]) -> str:
    """Numbers to letters; the inverse of `encode`."""
    return "".join(ALPHABET[code] for code in codes)


def check_sequence(sequence: str, what: str = "wild type") -> str:
    """The sequence in capitals without blanks, if it is made of the twenty amino acids.

    Raises:
        DataError: it is empty, or names the letters that are none of the twenty and where they stand.
    """
    text = "".join(sequence.split()).upper()
    if not text:
        raise DataError(f"The {what} is empty. Give its amino-acid sequence in one-letter codes, or a FASTA file.")
    bad = [(i + 1, letter) for i, letter in enumerate(text) if letter not in ALPHABET]
    if bad:
        shown = ", ".join(f"'{letter}' at {place}" for place, letter in bad[:8]) + (" …" if len(bad) > 8 else "")
        known = " (X, B, Z, U, O, * and - stand for no single amino acid)" if bad[0][1] in NOT_STANDARD else ""
        raise DataError(
            f"The {what} has {len(bad)} letter{'s' * (len(bad) > 1)} that are none of the twenty amino acids: "
            f"{shown}{known}. Put the residue that is meant there, or leave those positions out of the construct."
        )
    return text
