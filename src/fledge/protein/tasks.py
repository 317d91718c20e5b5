"""Many assays as arrays, so that episodes can be cut out of them inside of a compiled program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fledge.core.errors import DataError
from fledge.data.assays import Assay
from fledge.data.mutations import PAD
from fledge.data.residues import encode, properties

END = 20
"""Stands after the end of a wild type."""
WILD_QUANTILE = 0.9
"""Of an assay's scores: where its wild type stands, if nobody measured it. Most mutations do harm."""
FEATURES: Float[np.ndarray, "20 feature"] = properties()


KINDS = ("general", "stability")
"""Of measurements: models are told which it is, for what makes a protein stable is not what makes it work."""


def kind_of(assay: Assay) -> int:
    """The kind of an assay: the small domains of a library were measured for stability."""
    return KINDS.index("stability") if assay.set == "domain" else 0


class TaskArrays(eqx.Module):
    """Landscapes, one after the other."""

    wild_types: Int[Array, "task site"]
    """`END` after the end."""
    sites: Int[Array, "entry mutation"]
    residues: Int[Array, "entry mutation"]
    scores: Float[Array, " entry"]
    """Standardised within each task: only so that augmentation has a scale. Models see them by their support's."""
    wild_scores: Float[Array, " task"]
    """What the wild type has, on the same scale."""
    kinds: Int[Array, " task"]
    """See `KINDS`."""
    starts: Int[Array, " task"]
    counts: Int[Array, " task"]


def task_arrays(assays: Sequence[Assay]) -> TaskArrays:
    """The arrays of assays; variants without a finite score are left out.

    Raises:
        DataError: an assay has fewer than two different scores.
    """
    length = bucket(max(len(assay.wild_type) for assay in assays))
    width = max(int(assay.variants.counts.max(initial=1)) for assay in assays)
    wild_types = np.full((len(assays), length), END, np.int32)
    parts: list[list[np.ndarray]] = [[], [], []]
    wild, counts = [], []
    for i, assay in enumerate(assays):
        kept = np.isfinite(assay.scores)
        scores = assay.scores[kept]
        if len(scores) < 2 or scores.std() == 0:
            raise DataError(f"{assay.name} has fewer than two different scores: nothing can be ranked. Leave it out.")
        variants = assay.variants.take(kept).widened(max(width, assay.variants.sites.shape[1]))
        wild_types[i, : len(assay.wild_type)] = encode(assay.wild_type)
        for part, array in zip(parts, (variants.sites[:, :width], variants.residues[:, :width]), strict=False):
            part.append(array)
        parts[2].append((scores - scores.mean()) / scores.std())
        known = 0.0 if assay.set == "domain" else float(np.quantile(scores, WILD_QUANTILE))
        wild.append((known - scores.mean()) / scores.std())
        counts.append(len(scores))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return TaskArrays(
        jnp.asarray(wild_types),
        jnp.asarray(np.concatenate(parts[0]), jnp.int32),
        jnp.asarray(np.concatenate(parts[1]), jnp.int32),
        jnp.asarray(np.concatenate(parts[2]), jnp.float32),
        jnp.asarray(wild, jnp.float32),
        jnp.asarray([kind_of(assay) for assay in assays], jnp.int32),
        jnp.asarray(starts, jnp.int32),
        jnp.asarray(counts, jnp.int32),
    )


@dataclass(frozen=True, eq=False)
class Spans:
    """Where the mutations of an assay's variants lie, in the order of `TaskArrays`: what windows are cut by."""

    first: Int[np.ndarray, " variant"]
    """The first mutated site; the protein's length for the wild type, which lies in every window."""
    last: Int[np.ndarray, " variant"]
    length: int
    """Of the protein."""


def spans_of(assay: Assay) -> Spans:
    """The spans of the variants with a finite score."""
    sites = assay.variants.take(np.isfinite(assay.scores)).sites
    length = len(assay.wild_type)
    return Spans(np.where(sites >= 0, sites, length).min(axis=1), sites.max(axis=1), length)


def bucket(n: int, sizes: Sequence[int] = (16, 32, 48, 64, 80, 96, 128, 192, 256)) -> int:
    """The next size that arrays are filled up to, so that few programs are compiled; later ones are powers of two."""
    for size in sizes:
        if n <= size:
            return size
    return 1 << (n - 1).bit_length()


def padded_wild_type(wild_type: str) -> Int[np.ndarray, " site"]:
    """Codes of a wild type, filled up with `END`."""
    codes = np.full(bucket(len(wild_type)), END, np.int32)
    codes[: len(wild_type)] = encode(wild_type)
    return codes


def padded(array: np.ndarray, rows: int, fill: float = PAD) -> np.ndarray:
    """An array with its first axis filled up to so many rows."""
    return np.pad(array, ((0, rows - len(array)),) + ((0, 0),) * (array.ndim - 1), constant_values=fill)
