"""Variants of a protein: the dialects that people write them in, and the arrays that programs read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

from fledge.core.errors import DataError
from fledge.data.residues import ALPHABET, N_RESIDUES, THREE_LETTERS, decode, encode

_SEPARATOR = re.compile(r"[:,;_/+\s]+")
_SHORT = re.compile(r"([A-Za-z*])?(-?\d+)([A-Za-z*=-])")
_LONG = re.compile(r"([A-Za-z]{3})(\d+)([A-Za-z]{3}|=|\*)")
_WILD = {"", "wt", "wildtype", "wild-type", "wild type", "_wt", "p.=", "=", "none"}
_INDEL = re.compile(r"del|ins|dup|fs|ext", re.IGNORECASE)
_INDEL_RANGE = re.compile(r"\d_[A-Za-z]{0,3}\d+(del|ins|dup)", re.IGNORECASE)
"""Such as A4_Y5insG; `_` alone also separates mutations."""
SHOWN = 40
"""Bad rows that an error lists; further ones are counted."""
PAD = -1
"""In the place of a mutation that a variant does not have."""

Raw = tuple[str, int, str]
"""Wild-type letter ("" where none is written), the number as written, mutant letter."""
Offset = int | Literal["auto"]


@dataclass(frozen=True, eq=False)
class Variants:
    """Variants of one wild type as arrays. A variant with no mutation is the wild type itself."""

    sites: Int[np.ndarray, "variant mutation"]
    """0-based, ascending; `PAD` after the last mutation."""
    residues: Int[np.ndarray, "variant mutation"]
    """What stands there now (see `residues.ALPHABET`); `PAD` after the last mutation."""

    def __len__(self) -> int:
        return len(self.sites)

    @property
    def counts(self) -> Int[np.ndarray, " variant"]:
        """Mutations of each variant."""
        return (self.sites >= 0).sum(axis=1)

    def take(self, rows: Int[np.ndarray, " row"] | Bool[np.ndarray, " variant"]) -> Variants:
        """Some of the variants, in this order."""
        return Variants(self.sites[rows], self.residues[rows])

    def widened(self, width: int) -> Variants:
        """The same with room for `width` mutations each."""
        extra = ((0, 0), (0, width - self.sites.shape[1]))
        return Variants(
            np.pad(self.sites, extra, constant_values=PAD), np.pad(self.residues, extra, constant_values=PAD)
        )

    def keys(self) -> list[bytes]:
        """Something equal for equal variants, for joins."""
        width = max(1, int(self.counts.max(initial=1)))
        both = np.stack([self.sites[:, :width], self.residues[:, :width]], axis=-1).astype(np.int32)
        return [row.tobytes() for row in both] if both.size else [b""] * len(self)

    def names(self, wild_type: str) -> list[str]:
        """As ProteinGym writes them: `A23K:L45P`, 1-based; `WT` for the wild type."""
        found = []
        for sites, residues in zip(self.sites.tolist(), self.residues.tolist(), strict=True):
            parts = [f"{wild_type[s]}{s + 1}{ALPHABET[r]}" for s, r in zip(sites, residues, strict=True) if s >= 0]
            found.append(":".join(parts) or "WT")
        return found

    def sequences(self, wild_type: str) -> list[str]:
        """Full sequences."""
        codes = encode(wild_type)
        found = []
        for sites, residues in zip(self.sites, self.residues, strict=True):
            changed = codes.copy()
            changed[sites[sites >= 0]] = residues[sites >= 0]
            found.append(decode(changed))
        return found

    @classmethod
    def of(cls, lists: Sequence[Sequence[tuple[int, int]]]) -> Variants:
        """From lists of (0-based site, residue number)."""
        width = max(1, max(map(len, lists), default=1))
        arrays = np.full((2, len(lists), width), PAD, np.int32)
        for i, mutations in enumerate(lists):
            for j, (site, residue) in enumerate(sorted(mutations)):
                arrays[:, i, j] = site, residue
        return cls(arrays[0], arrays[1])

    @classmethod
    def concat(cls, parts: Sequence[Variants]) -> Variants:
        """One after the other."""
        width = max((part.sites.shape[1] for part in parts), default=1)
        wide = [part.widened(width) for part in parts]
        return cls(np.concatenate([part.sites for part in wide]), np.concatenate([part.residues for part in wide]))


def split(text: str) -> list[Raw]:
    """The mutations that a string spells, with its numbers as written.

    Understands `A23K`, `A23K:L45P` with any of `: , ; _ / +` or blanks between, `23K`, `p.Ala23Lys`, `WT` and nothing.

    Raises:
        DataError: says what cannot be read, and that indels are not supported where it is one.
    """
    text = text.strip()
    if text.lower() in _WILD:
        return []
    if text.lower().startswith("p."):
        text = text[2:].strip("()[]")
    if _INDEL_RANGE.search(text):
        raise DataError(f"'{text}' is an insertion or a deletion; only substitutions can be ranked")
    found: list[Raw] = []
    for part in _SEPARATOR.split(text):
        if not part:
            continue
        if long := _LONG.fullmatch(part):
            wild, place, mutant = (THREE_LETTERS.get(x.lower(), x) for x in long.groups())
        elif short := _SHORT.fullmatch(part):
            wild, place, mutant = (short[1] or "").upper(), short[2], short[3].upper()
        else:
            raise DataError(_unreadable(part))
        mutant = wild if mutant == "=" else mutant
        if mutant not in ALPHABET or len(mutant) != 1:
            raise DataError(_not_a_residue(part, mutant))
        if wild and wild not in ALPHABET:
            raise DataError(f"'{part}': '{wild}' is none of the twenty amino acids")
        found.append((wild, int(place), mutant))
    return found


def _unreadable(part: str) -> str:
    if _INDEL.search(part) or part.endswith("-"):
        return f"'{part}' is an insertion or a deletion; only substitutions can be ranked"
    return f"'{part}' is not a mutation such as A23K"


def _not_a_residue(part: str, mutant: str) -> str:
    if mutant in ("*", "Ter", "ter", "TER"):
        return f"'{part}' is a stop; only substitutions by amino acids can be ranked"
    if mutant == "-":
        return f"'{part}' is a deletion; only substitutions can be ranked"
    return f"'{part}': '{mutant}' is none of the twenty amino acids"


def parse(texts: Iterable[str], wild_type: str, *, offset: Offset = 0, rows: Sequence[str] | None = None) -> Variants:
    """Variants from mutation strings or full sequences, checked against the wild type.

    Args:
        texts: one per variant, in any of the dialects of `split`, or whole sequences of the wild type's length.
        wild_type: sequence of the twenty amino acids.
        offset: added to the numbers as written to get positions that count from 1; "auto" takes the one at which all
            wild-type letters fit, if there is just one.
        rows: what to call each variant in an error; by default "row 1", …

    Raises:
        DataError: one error that lists every bad row; if one constant offset would make all letters fit, it says which.
    """
    texts = [str(text) for text in texts]
    called = rows if rows is not None else [f"row {i + 1}" for i in range(len(texts))]
    faults: list[str] = []
    raws: list[list[Raw]] = []
    wild_type = wild_type.upper()
    for text, name in zip(texts, called, strict=True):
        try:
            raws.append(_raw(text, wild_type))
        except DataError as error:
            raws.append([])
            faults.append(f"{name}: {error}")
    if offset == "auto":
        offset = _found_offset(raws, wild_type)
    lists, misfits = _placed(raws, wild_type, offset, called)
    faults += misfits
    if faults:
        raise DataError(_told(faults, len(texts), _hint(raws, wild_type, offset) if misfits else ""))
    return Variants.of(lists)


def _raw(text: str, wild_type: str) -> list[Raw]:
    stripped = text.strip().upper()
    return _differences(stripped, wild_type) if _is_sequence(stripped) else split(text)


def _is_sequence(text: str) -> bool:
    """Whether a text in capitals is a whole sequence, not a list of mutations."""
    return len(text) >= 8 and text.isalpha() and not text.startswith(("WILD", "NONE"))


def _differences(sequence: str, wild_type: str) -> list[Raw]:
    if len(sequence) != len(wild_type):
        raise DataError(
            f"a sequence of {len(sequence)} residues, but the wild type has {len(wild_type)}: insertions and deletions "
            "cannot be ranked"
        )
    if bad := sorted(set(sequence) - set(ALPHABET)):
        raise DataError(f"the sequence has letters that are none of the twenty amino acids: {', '.join(bad)}")
    return [("=", i, b) for i, (a, b) in enumerate(zip(wild_type, sequence, strict=True)) if a != b]


def _placed(
    raws: Sequence[Sequence[Raw]], wild_type: str, offset: int, called: Sequence[str]
) -> tuple[list[list[tuple[int, int]]], list[str]]:
    """Site and residue number of each mutation; and what does not fit the wild type."""
    lists: list[list[tuple[int, int]]] = []
    faults = []
    codes = {letter: i for i, letter in enumerate(ALPHABET)}
    length = len(wild_type)
    for raw, name in zip(raws, called, strict=True):
        placed: dict[int, int] = {}
        for wild, number, mutant in raw:
            site = number if wild == "=" else number + offset - 1
            if not 0 <= site < length:
                faults.append(f"{name}: {wild}{number}{mutant} is outside of the wild type's 1 … {length}")
            elif wild not in ("", "=") and wild_type[site] != wild:
                faults.append(
                    f"{name}: {wild}{number}{mutant} says {wild} at {number}, but the wild type has {wild_type[site]} "
                    "there"
                )
            elif placed.get(site, codes[mutant]) != codes[mutant]:
                faults.append(f"{name}: two different mutations at position {number}")
            elif wild_type[site] != mutant:
                placed[site] = codes[mutant]
        lists.append(sorted(placed.items()))
    return lists, faults


def offsets(raws: Iterable[Sequence[Raw]], wild_type: str) -> list[int]:
    """Every constant offset at which all written wild-type letters fit and all positions exist."""
    letters = {(wild, number) for raw in raws for wild, number, _ in raw if wild not in ("", "=")}
    numbers = [number for raw in raws for wild, number, _ in raw if wild != "="]
    if not letters:
        return []
    codes = np.array([ALPHABET.index(letter) for letter, _ in letters])
    places = np.array([number for _, number in letters]) - 1
    target = encode(wild_type)
    first, last = -(min(numbers) - 1), len(wild_type) - max(numbers)
    return [shift for shift in range(first, last + 1) if (target[places + shift] == codes).all()]


def _found_offset(raws: Sequence[Sequence[Raw]], wild_type: str) -> int:
    fitting = offsets(raws, wild_type)
    return 0 if 0 in fitting or len(fitting) != 1 else fitting[0]


def _hint(raws: Sequence[Sequence[Raw]], wild_type: str, offset: int) -> str:
    fitting = [shift for shift in offsets(raws, wild_type) if shift != offset]
    if len(fitting) == 1:
        count = "counts from 0: " if fitting[0] == 1 else ""
        return f"All letters fit if {fitting[0]:+d} is added to every number ({count}offset={fitting[0]}; --offset)."
    if fitting:
        near = sorted(fitting, key=abs)[:3]
        return (
            f"All letters fit at several offsets ({', '.join(f'{shift:+d}' for shift in near)} …): give the right one."
        )
    return "No constant offset makes all letters fit: is this the wild type that was measured?"


def _told(faults: Sequence[str], n: int, hint: str) -> str:
    more = f"\n  … and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    lines = "\n".join(f"  {fault}" for fault in faults[:SHOWN])
    cure = hint or "Mend or leave out those rows."
    return f"{len(faults)} of the mutations of {n} variants cannot be used:\n{lines}{more}\n{cure}"


def derive_wild_type(texts: Sequence[str], *, offset: Offset = 0, length: int | None = None) -> str:
    """The wild type that mutation strings speak of; for files that do not bring it. "auto": a position 0 adds 1.

    Raises:
        DataError: letters contradict each other, names positions that no variant touches, or there are only sequences.
    """
    if any(_is_sequence(text.strip().upper()) for text in texts):
        raise DataError("Full sequences do not say which of them is the wild type. Give it (wild_type=…, -w).")
    raws = [split(text) for text in texts]
    from_zero = any(number == 0 for raw in raws for _, number, _ in raw)
    if offset == "auto":
        offset = int(from_zero)
    elif from_zero and offset <= 0:
        raise DataError("Positions count from 0 here. Give the wild type and offset=1 (--offset 1), or offset='auto'.")
    letters: dict[int, str] = {}
    for i, raw in enumerate(raws, 1):
        for wild, number, _ in raw:
            if letters.setdefault(number + offset, wild) != wild:
                raise DataError(
                    f"row {i}: {wild}{number} contradicts an earlier row's {letters[number + offset]}{number}. "
                    "These are not variants of one protein."
                )
    last = length or max(letters, default=0)
    missing = [place for place in range(1, last + 1) if not letters.get(place)]
    if missing or not letters:
        shown = ", ".join(map(str, missing[:10])) + (" …" if len(missing) > 10 else "")
        raise DataError(f"The wild type cannot be derived: no variant tells the residue at {shown}. Give the sequence.")
    return "".join(letters[place] for place in range(1, last + 1))


def all_singles(wild_type: str) -> Variants:
    """Every single substitution of a wild type."""
    codes = encode(wild_type)
    sites = np.repeat(np.arange(len(codes)), N_RESIDUES - 1)
    residues = np.concatenate([np.delete(np.arange(N_RESIDUES), code) for code in codes])
    return Variants(sites[:, None].astype(np.int32), residues[:, None].astype(np.int32))
