"""What a meta-learnt ranking has to beat: trivial scores, ridge regression, and a Gaussian process on mutations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from fledge.data.mutations import Variants
from fledge.data.residues import BLOSUM62, N_RESIDUES, encode, properties

Labels = Float[np.ndarray, " label"]
Predictor = Callable[[str, Variants, Labels, Variants], Float[np.ndarray, " variant"]]
"""(wild type, labelled variants, labels, candidates) → values."""


def one_hot(wild_type: str, variants: Variants) -> Float[np.ndarray, "variant feature"]:
    """Counts of mutated sites, mutant residues and wild-type residues."""
    length, codes = len(wild_type), encode(wild_type)
    found = np.zeros((len(variants), length + 2 * N_RESIDUES))
    rows, columns = np.nonzero(variants.sites >= 0)
    sites, residues = variants.sites[rows, columns], variants.residues[rows, columns]
    for feature in (sites, length + residues, length + N_RESIDUES + codes[sites]):
        np.add.at(found, (rows, feature), 1.0)
    return found


def ridge(
    wild_type: str, support: Variants, labels: Labels, candidates: Variants, penalty: float = 1.0
) -> Float[np.ndarray, " variant"]:
    """Ridge regression on `one_hot`, with an intercept that is not penalised; in its dual form."""
    if not len(labels):
        return np.zeros(len(candidates))
    x, mean = one_hot(wild_type, support), labels.mean()
    centre = x.mean(axis=0)
    x = x - centre
    weights = np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), labels - mean)
    return mean + (one_hot(wild_type, candidates) - centre) @ (x.T @ weights)


def mutation_count(
    wild_type: str, support: Variants, labels: Labels, candidates: Variants
) -> Float[np.ndarray, " variant"]:
    """Fewer mutations are fitter."""
    return -candidates.counts.astype(float)


def blosum(wild_type: str, support: Variants, labels: Labels, candidates: Variants) -> Float[np.ndarray, " variant"]:
    """Sum over mutations of BLOSUM62 of the exchange, minus that of no exchange."""
    codes = encode(wild_type)
    real = candidates.sites >= 0
    wild = codes[np.where(real, candidates.sites, 0)]
    each = BLOSUM62[wild, np.where(real, candidates.residues, 0)] - BLOSUM62[wild, wild]
    return np.where(real, each, 0).sum(axis=1).astype(float)


def _correlation(wild_type: str, a: Variants, b: Variants) -> Float[np.ndarray, "variant other"]:
    """A kernel of mutations, summed over pairs: alike sites (near, and of alike residues) times alike mutants.

    After Kermut (Groth et al. 2024), with sequence and residue properties in place of structure and a language model.
    """
    features = properties() / properties().shape[1] ** 0.5
    alike = np.exp(-0.5 * ((features[:, None] - features[None]) ** 2).sum(-1))
    codes = encode(wild_type)
    total = np.zeros((len(a), len(b)))
    for i in range(a.sites.shape[1]):
        for j in range(b.sites.shape[1]):
            s, t = a.sites[:, i, None], b.sites[None, :, j]
            both = (s >= 0) & (t >= 0)
            site = np.where(s == t, 1.0, 0.5 * np.exp(-np.abs(s - t) / 3.0) * alike[codes[s], codes[t]])
            total += np.where(both, (0.5 + 0.5 * alike[a.residues[:, i, None], b.residues[None, :, j]]) * site, 0.0)
            total += np.where(
                both, 0.2 * alike[codes[s], codes[t]] * alike[a.residues[:, i, None], b.residues[None, :, j]], 0
            )
    return total


def gaussian_process(
    wild_type: str, support: Variants, labels: Labels, candidates: Variants
) -> Float[np.ndarray, " variant"]:
    """The posterior mean of a Gaussian process on mutations; the noise by marginal likelihood on a grid."""
    if len(labels) < 2 or np.ptp(labels) == 0:
        return np.zeros(len(candidates))
    mean, scale = labels.mean(), labels.std()
    y = (labels - mean) / scale
    values, vectors = np.linalg.eigh(_correlation(wild_type, support, support))
    rotated, best, chosen = vectors.T @ y, -np.inf, 1.0
    for noise in np.geomspace(0.03, 10, 12):
        variance = np.maximum(values, 0) + noise
        power = float(np.mean(rotated**2 / variance))
        likelihood = -0.5 * float(np.sum(np.log(variance))) - 0.5 * len(y) * np.log(power)
        if likelihood > best:
            best, chosen = likelihood, noise
    weights = vectors @ (rotated / (np.maximum(values, 0) + chosen))
    return mean + scale * (_correlation(wild_type, candidates, support) @ weights)


BASELINES: dict[str, Predictor] = {
    "ridge": ridge,
    "gaussian-process": gaussian_process,
    "blosum62": blosum,
    "mutation-count": mutation_count,
}
"""Name → predictor. Those that need labels say 0 for everything without."""
NEED_LABELS = ("ridge", "gaussian-process")
