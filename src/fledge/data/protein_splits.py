"""Which assays are learnt from and which are kept for the test, and which of a test assay's labels are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from fledge.core.errors import ConfigError, DataError
from fledge.data.homology import clusters, identities

PAPER_SINGLES = (
    "BLAT_ECOLX_Jacquier_2013",
    "CALM1_HUMAN_Weile_2017",
    "DYR_ECOLI_Thompson_2019",
    "DLG4_RAT_McLaughlin_2012",
    "REV_HV1H2_Fernandes_2016",
    "TAT_HV1BR_Fernandes_2016",
    "RL40A_YEAST_Roscoe_2013",
    "P53_HUMAN_Giacomelli_2018_WT_Nutlin",
)
"""Metalic's held-out assays of single mutants, by their names in ProteinGym 1."""
PAPER_MULTIPLES = (
    "PABP_YEAST_Melamed_2013",
    "HIS7_YEAST_Pokusaeva_2019",
    "CAPSD_AAV2S_Sinai_2021",
    "GFP_AEQVI_Sarkisyan_2016",
    "GRB2_HUMAN_Faure_2021",
)
PAPER_SKIPPED = ("A4_HUMAN_Seuma_2022",)
PAPER_LONGEST = 750
OLD_NAMES = {
    "DYR_ECOLI_Thompson_plusLon_2019": "DYR_ECOLI_Thompson_2019",
    "RL401_YEAST_Roscoe_2013": "RL40A_YEAST_Roscoe_2013",
    "P53_HUMAN_Giacomelli_WT_Nutlin_2018": "P53_HUMAN_Giacomelli_2018_WT_Nutlin",
    "CAPSD_AAV2S_Sinai_substitutions_2021": "CAPSD_AAV2S_Sinai_2021",
}
"""ProteinGym 0.1 → 1, for assays that the splits name."""
IDENTITY = 0.4
EARLY_STOP = 128
"""Labels that the paper's protocol reserves in every setting."""
MOST_EVALUATED = 2000


@dataclass(frozen=True)
class Split:
    """Names of training and test assays, and what they share."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    leaks: tuple[tuple[str, str], ...] = ()
    """Pairs (training, test) of one protein: what a test score may owe to memory."""

    @property
    def warning(self) -> str:
        """What to tell before a score of this split is believed; empty if nothing leaks."""
        if not self.leaks:
            return ""
        pairs = "; ".join(f"{a} ~ {b}" for a, b in self.leaks)
        return f"{len(self.leaks)} training assays share a protein with a test assay: {pairs}. Use the strict split."


def current_name(name: str) -> str:
    """An assay's name in ProteinGym 1, where it was renamed."""
    return OLD_NAMES.get(name, name)


def protein_of(name: str) -> str:
    """The UniProt entry name in an assay's name: its first two parts."""
    entry = "_".join(current_name(name).split("_")[:2])
    return "RL40A_YEAST" if entry == "RL401_YEAST" else entry


def paper_split(
    names: Sequence[str], test: Sequence[str] = PAPER_SINGLES, skip: Sequence[str] = PAPER_MULTIPLES
) -> Split:
    """Metalic's split by assay: all but the held-out ones are learnt from, also assays of the same protein.

    Args:
        names: of the assays that there are.
        test: to hold out, by their names in ProteinGym 1.
        skip: neither learnt from nor tested (the other mutant type's held-out assays).
    """
    held = [name for name in names if current_name(name) in test]
    _found(held, test, names)
    left_out = {*test, *skip, *PAPER_SKIPPED}
    train = [name for name in names if current_name(name) not in left_out]
    return Split(tuple(train), tuple(held), _shared(train, held))


def strict_split(
    wild_types: Mapping[str, str], test: Sequence[str] = PAPER_SINGLES, *, identity: float = IDENTITY
) -> Split:
    """As `paper_split`, without training assays of a test protein or of one that is alike.

    Args:
        wild_types: name → sequence of the assays that there are.
        test: to hold out, by their names in ProteinGym 1 or as in `wild_types`.
        identity: the share of the shorter sequence at which two proteins are alike (`homology.identities`).
    """
    held = [name for name in wild_types if current_name(name) in test or name in test]
    _found(held, test, list(wild_types))
    rest = [name for name in wild_types if name not in held and current_name(name) not in PAPER_SKIPPED]
    proteins = {protein_of(name) for name in held}
    rest = [name for name in rest if protein_of(name) not in proteins]
    alike = np.zeros(len(rest), bool)
    for name in held:
        alike |= identities(wild_types[name], [wild_types[other] for other in rest]) >= identity
    return Split(tuple(name for name, near in zip(rest, alike.tolist(), strict=True) if not near), tuple(held))


def domain_split(
    wild_types: Mapping[str, str], n_test: int = 20, seed: int = 0, *, identity: float = IDENTITY
) -> Split:
    """`n_test` random proteins that are alike to no other one of these; all others are learnt from.

    Raises:
        DataError: there are not so many that stand alone.
    """
    alone = sorted(group[0] for group in clusters(wild_types, identity) if len(group) == 1)
    if len(alone) < n_test:
        raise DataError(
            f"{n_test} test proteins were wanted, but only {len(alone)} of {len(wild_types)} are alike to no other. "
            "Ask for fewer, or take the split 'all'."
        )
    test = set(np.random.default_rng(seed).permutation(alone)[:n_test].tolist())
    return Split(tuple(n for n in wild_types if n not in test), tuple(n for n in wild_types if n in test))


def _found(held: Sequence[str], test: Sequence[str], names: Sequence[str]) -> None:
    if not held:
        raise DataError(
            f"None of the held-out assays is there ({', '.join(test[:3])} …); there are {len(names)}: "
            f"{', '.join(names[:3])} … Take the split 'all', or name your own test assays."
        )


def _shared(train: Sequence[str], held: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple((a, b) for b in held for a in train if protein_of(a) == protein_of(b))


def reference_split(rows: Sequence[Mapping[str, str]]) -> dict[str, Split]:
    """Metalic's training and test assays out of ProteinGym's reference file (rows of `DMS_substitutions.csv`).

    Single and multiple mutants apart, targets of at most 750 residues.
    """
    found = {}
    for kind, multiple, test in (("single", "false", PAPER_SINGLES), ("multiple", "true", PAPER_MULTIPLES)):
        names = [
            row["DMS_id"]
            for row in rows
            if row["includes_multiple_mutants"].lower() == multiple and int(row["seq_len"]) <= PAPER_LONGEST
        ]
        found[kind] = paper_split(names, test, ())
    return found


@dataclass(frozen=True, eq=False)
class FewShot:
    """Row numbers of one shuffle of an assay."""

    support: Int[np.ndarray, " label"]
    early_stop: Int[np.ndarray, " row"]
    """Extra labels to stop by; empty unless asked for."""
    query: Int[np.ndarray, " query"]


def few_shot(n: int, shots: int, seed: int, *, early_stop: int = 0, most: int = MOST_EVALUATED) -> FewShot:
    """Which of an assay's `n` variants are shown with their labels, and which are to be ranked.

    Without early-stop labels unless they are asked for: what is called n shots then costs n labels.

    Raises:
        ConfigError: the assay is too small to leave two variants to rank.
    """
    if n - shots - early_stop < 2:
        raise ConfigError(
            f"An assay of {n} variants cannot show {shots} labels"
            + (f", keep {early_stop} to stop by" if early_stop else "")
            + " and leave two to rank. Ask for fewer shots."
        )
    order = np.random.default_rng(seed).permutation(n)
    first, second = shots, shots + early_stop
    return FewShot(order[:first], order[first:second], order[second : second + most])


def paper_size(n: int, shots: int) -> int:
    """How many variants the paper's protocol evaluates: 128 are reserved, at most 2,000, whole hundreds."""
    return min(n - shots - EARLY_STOP, MOST_EVALUATED) // 100 * 100
