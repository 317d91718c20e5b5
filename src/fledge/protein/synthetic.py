"""Families of made-up proteins, for tests and demonstrations without data: Potts, NK and Ehrlich landscapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from fledge.core.errors import ConfigError, unknown
from fledge.data.assays import Assay
from fledge.data.mutations import Variants
from fledge.data.residues import decode

LETTERS = 8
"""Residues that the Potts and NK families use: the first eight."""
LENGTH = 12
N_VARIANTS = 400
MOST_MUTATIONS = 4


def potts(seed: int) -> Assay:
    """A protein of 12 sites in a space of three properties, with six interacting pairs of sites.

    Residue properties are the same for all proteins; which site matters, and what it prefers, is each protein's own.
    The wild type gives most preferences away, so that something can be known without labels.
    """
    shared = np.random.default_rng(7).normal(0, 3**-0.5, (LETTERS, 3))
    rng = np.random.default_rng((11, seed))
    weight = np.exp(rng.normal(size=LENGTH))
    field = weight[:, None] * (rng.normal(size=(LENGTH, 3)) @ shared.T)
    pairs = [tuple(rng.choice(LENGTH, 2, replace=False)) for _ in range(6)]
    links = [0.5 * (weight[i] * weight[j]) ** 0.5 * rng.normal(size=(3, 3)) for i, j in pairs]
    wild = field.argmax(axis=1)
    wild = np.where(rng.random(LENGTH) < 0.25, rng.integers(0, LETTERS, LENGTH), wild)

    def value(x: Int[np.ndarray, " site"]) -> float:
        pairwise = sum(shared[x[i]] @ link @ shared[x[j]] for (i, j), link in zip(pairs, links, strict=True))
        return float(field[np.arange(LENGTH), x].sum() + pairwise)

    return _measured(f"potts-{seed}", wild, value, rng)


def nk(seed: int, k: int = 2) -> Assay:
    """An NK landscape: each site's contribution depends on its k right neighbours, from a random table.

    Nothing is shared between proteins: the control in which meta-learning cannot help without labels.
    """
    rng = np.random.default_rng((13, seed))
    tables = rng.normal(size=(LENGTH, *[LETTERS] * (k + 1)))
    around = (np.arange(LENGTH)[:, None] + np.arange(k + 1)) % LENGTH

    def value(x: Int[np.ndarray, " site"]) -> float:
        return float(np.mean([tables[(i, *x[around[i]])] for i in range(LENGTH)]))

    return _measured(f"nk-{seed}", rng.integers(0, LETTERS, LENGTH), value, rng)


def ehrlich(seed: int) -> Assay:
    """Variants of a sequence near the optimum of an `Ehrlich` problem; those with a forbidden neighbour rank last.

    Heavily tied, and nothing is shared between proteins: for design loops and for tests of ties.
    """
    problem = Ehrlich.sample(seed, n_states=LETTERS, length=LENGTH, n_motifs=2)
    rng = np.random.default_rng((23, seed))
    wild = problem.optimum()
    for _ in range(100):
        x = wild.copy()
        x[rng.integers(LENGTH)] = rng.integers(LETTERS)
        wild = x if problem(x) > 0 else wild
        if problem(wild) < 1 and rng.random() < 0.2:
            break
    return _measured(f"ehrlich-{seed}", wild, lambda x: max(problem(x), -0.25), rng, noise=0.0)


def _measured(
    name: str,
    wild: Int[np.ndarray, " site"],
    value: Callable[[np.ndarray], float],
    rng: np.random.Generator,
    noise: float = 0.1,
) -> Assay:
    """400 variants with one to four mutations, noise relative to their spread, standardised."""
    lists, scores = [], []
    for _ in range(N_VARIANTS):
        n = int(rng.integers(1, MOST_MUTATIONS + 1))
        sites = rng.choice(LENGTH, n, replace=False)
        residues = (wild[sites] + rng.integers(1, LETTERS, n)) % LETTERS
        x = wild.copy()
        x[sites] = residues
        lists.append([(int(s), int(r)) for s, r in zip(sites, residues, strict=True)])
        scores.append(value(x))
    y = np.array(scores)
    y = y + noise * y.std() * rng.normal(size=len(y))
    return Assay(name, decode(wild), Variants.of(lists), (y - y.mean()) / y.std(), {}, "synthetic")


FAMILIES: dict[str, Callable[[int], Assay]] = {"potts": potts, "nk": nk, "ehrlich": ehrlich}


def synthetic_assays(family: str, n: int, seed: int = 0) -> list[Assay]:
    """`n` proteins of a family.

    Raises:
        ConfigError: there is none of that name.
    """
    if family not in FAMILIES:
        raise unknown("synthetic family", family, FAMILIES)
    return [FAMILIES[family](seed * 100_000 + i) for i in range(n)]


@dataclass(frozen=True, eq=False)
class Ehrlich:
    """A design problem with a known optimum of 1 (Stanton et al. 2024, holo-bench): motifs at spaced positions.

    A sequence with a forbidden pair of neighbours is infeasible. For design loops; scores are heavily tied.
    """

    allowed: Bool[np.ndarray, "state state"]
    motifs: Int[np.ndarray, "motif element"]
    gaps: Int[np.ndarray, "motif element"]
    """Positions of a motif's elements, relative to its first."""
    length: int
    levels: int
    epistasis: float = 0.0

    @classmethod
    def sample(
        cls, seed: int, *, n_states: int = 5, length: int = 7, n_motifs: int = 1, size: int = 3, levels: int = 3
    ) -> Ehrlich:
        """A random problem.

        Raises:
            ConfigError: the motifs do not fit into the length.
        """
        if n_motifs * size > length or size < 2:
            raise ConfigError(
                f"{n_motifs} motifs of {size} elements do not fit into {length} sites (elements: at least 2). Take a "
                "greater length."
            )
        rng = np.random.default_rng((17, seed))
        chance = np.exp(rng.normal(size=(n_states, n_states)) / 0.5)
        offset = np.arange(n_states)
        wrapped = np.abs(offset[:, None] - offset[None])
        band = np.minimum(wrapped, n_states - wrapped) <= max(1, int(0.4 * n_states))
        allowed = np.eye(n_states, dtype=bool)
        while not (np.linalg.matrix_power(allowed.astype(float), n_states) > 0).all():  # every state leads to every one
            allowed = band[rng.permutation(n_states)] | np.eye(n_states, dtype=bool)
        chance = np.where(allowed, chance, 0)
        chance /= chance.sum(axis=1, keepdims=True)
        chain = [int(rng.integers(n_states))]
        while len(chain) < n_motifs * size:
            chain.append(int(rng.choice(n_states, p=chance[chain[-1]])))
        slack = (length - n_motifs * size) // n_motifs
        gaps = np.zeros((n_motifs, size), int)
        for m in range(n_motifs):
            share = rng.random(size - 1)
            steps = 1 + np.floor(slack * share / share.sum()).astype(int)
            gaps[m, 1:] = np.cumsum(steps)
        return cls(allowed, np.array(chain).reshape(n_motifs, size), gaps, length, levels)

    def optimum(self) -> Int[np.ndarray, " site"]:
        """A sequence of value 1: motif after motif, each element repeated until the next one's place."""
        x = np.zeros(self.length, np.int64)
        at = 0
        for motif, gap in zip(self.motifs, self.gaps, strict=True):
            for state, place in zip(motif, gap, strict=True):
                x[at + place :] = state
            at += int(gap[-1]) + 1
        return x

    def __call__(self, x: Int[np.ndarray, " site"]) -> float:
        """The value of a sequence of states: 0 … 1, −∞ where infeasible."""
        if not self.allowed[x[:-1], x[1:]].all():
            return float("-inf")
        value = 1.0
        for motif, gap in zip(self.motifs, self.gaps, strict=True):
            starts = range(self.length - int(gap[-1]))
            best = max(float(np.mean(x[start + gap] == motif)) for start in starts)
            t = np.floor(best * self.levels) / self.levels
            value *= float(t * (1 + self.epistasis * t * (t - 1)))
        return value


def additive(seed: int, wild_type: str) -> Float[np.ndarray, "site residue"]:
    """Effects of every single mutation of a protein in which effects add up: where a ranking can become perfect."""
    rng = np.random.default_rng((19, seed))
    return (
        rng.normal(size=(len(wild_type), 1))
        + 0.5 * rng.normal(size=(1, 20))
        + 0.2 * rng.normal(size=(len(wild_type), 20))
    )
