"""From a meta-trained model to a protein: labels as context, and fine-tuning by splitting the labels at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from fledge.data.mutations import Variants
from fledge.data.residues import N_RESIDUES, encode
from fledge.learn.ranking import bradley_terry
from fledge.nets.site_tokens import Context, Rows, SiteTokenModel
from fledge.protein.episodes import standardised
from fledge.protein.tasks import bucket, padded, padded_wild_type

N_REFERENCES = 48
"""Unlabelled variants in every context, as many as a model sees in training at the least."""
ROWS_OF_TRAINING = 112
MOST_LABELS = 512
"""In one context; of more, each copy of the model sees a random part."""
LEARNING_RATE = 3e-4
_CHUNK = 512
_FEWEST_TO_TUNE = 32


def steps_by_rule(n_labels: int) -> int:
    """How many steps of fine-tuning so many labels are worth: none below 32, where context alone ranks better."""
    return 0 if n_labels < _FEWEST_TO_TUNE else 20


def references(wild_type: str, n_labels: int, seed: int = 0) -> Variants:
    """Random single mutants of a wild type, for the unlabelled part of a context: always the same for a seed."""
    n = max(N_REFERENCES, ROWS_OF_TRAINING - n_labels)
    codes = encode(wild_type)
    rng = np.random.default_rng((seed, len(codes), int(codes.sum())))
    sites = rng.permutation(np.resize(rng.permutation(len(codes)), n))
    residues = (codes[sites] + rng.integers(1, N_RESIDUES, n)) % N_RESIDUES
    return Variants(sites[:, None].astype(np.int32), residues[:, None].astype(np.int32))


def context_rows(
    wild_type: str, variants: Variants, labels: Float[np.ndarray, " label"], *, seed: int = 0, width: int = 1
) -> Rows:
    """The rows of a context: labelled variants, then unlabelled ones, filled up to a size that is already compiled.

    Args:
        wild_type: sequence.
        variants: the support.
        labels: of the support, on any scale.
        seed: of the unlabelled variants.
        width: mutations that there has to be room for.
    """
    others = references(wild_type, len(variants), seed)
    width = bucket(max(width, int(variants.counts.max(initial=1))), (1, 2, 4, 8))
    n = bucket(len(variants)) if len(variants) else 0
    support, others = (Variants(v.sites[:, :width], v.residues[:, :width]).widened(width) for v in (variants, others))
    known = np.arange(n) < len(variants)
    n_others = bucket(len(others))
    blank = np.zeros(n_others, bool)
    return Rows(
        np.concatenate([padded(support.sites, n), padded(others.sites, n_others)]),
        np.concatenate([padded(support.residues, n), padded(others.residues, n_others)]),
        np.concatenate([padded(np.asarray(labels, np.float32), n, 0.0), np.zeros(n_others, np.float32)]),
        np.concatenate([known, blank]),
        np.concatenate([known, np.arange(n_others) < len(others)]),
    )


def _ready(rows: Rows) -> Rows:
    """Rows with their labels standardised by themselves."""
    known = jnp.asarray(rows.known)
    labels = jnp.where(known, standardised(jnp.asarray(rows.labels), known), 0.0)
    return eqx.tree_at(lambda r: r.labels, rows, labels)


def split_again(key: Key[Array, ""], rows: Rows) -> tuple[Rows, Array]:
    """Half of the labels hidden at random: the rows that are left, and which have to be ranked."""
    chance = jnp.where(rows.known, jax.random.uniform(key, rows.known.shape), 2.0)
    rank = jnp.argsort(jnp.argsort(chance))
    shown = rows.known & (rank < (jnp.sum(rows.known) + 1) // 2)
    left = eqx.tree_at(lambda r: r.known, rows, shown)
    return _ready(left), jnp.asarray(rows.known & ~shown)


def tune(
    key: Key[Array, ""],
    model: SiteTokenModel,
    wild_type: Int[Array, " site"],
    rows: Rows,
    n_steps: Int[Array, ""],
    kind: Int[Array, ""],
    learning_rate: float = LEARNING_RATE,
) -> SiteTokenModel:
    """The model after some steps of Adam on random halves of the labels (Beck et al. 2025, §3: re-splitting)."""
    optimiser = optax.adam(learning_rate)

    def loss(model: SiteTokenModel, key: Key[Array, ""]) -> Array:
        shown, asked = split_again(key, rows)
        return bradley_terry(model.context(wild_type, shown, kind)[1], jnp.asarray(rows.labels), asked)

    def step(i: Array, carry: tuple) -> tuple:
        model, memory = carry
        updates, memory = optimiser.update(jax.grad(loss)(model, jax.random.fold_in(key, i)), memory, model)
        return optax.apply_updates(model, updates), memory

    return jax.lax.fori_loop(0, n_steps, step, (model, optimiser.init(model)))[0]


@partial(jax.jit, static_argnums=6)
def _tuned(key, model, wild_type, rows, n_steps, kind, learning_rate):
    return tune(key, model, wild_type, rows, n_steps, kind, learning_rate)


@jax.jit
def _context(model, wild_type, rows, kind):
    context, v = model.context(wild_type, _ready(rows), kind)
    others = rows.valid & ~rows.known
    count = jnp.sum(others)
    mean = jnp.sum(jnp.where(others, v, 0.0)) / count
    spread = jnp.sqrt(jnp.sum(jnp.where(others, (v - mean) ** 2, 0.0)) / count)
    return context, mean, jnp.maximum(spread, 1e-6)


@jax.jit
def _predictions(model, context, rows):
    return model.predict(context, rows)


@dataclass(frozen=True)
class Copy:
    """A model that knows a protein."""

    model: SiteTokenModel
    context: Context
    mean: float
    """Of its predictions for random single mutants."""
    spread: float


@dataclass(frozen=True)
class Adapted:
    """Copies of models that know a protein: members of an ensemble, each with its own part of the labels."""

    copies: tuple[Copy, ...]

    def predict(self, variants: Variants) -> Float[np.ndarray, "copy variant"]:
        """Values without a unit: 0 is the mean and 1 the standard deviation of random single mutants of the protein.

        A variant's value does not depend on what else is asked for.
        """
        n, found = len(variants), []
        width = bucket(max(1, int(variants.counts.max(initial=1))), (1, 2, 4, 8))
        wide = Variants(variants.sites[:, :width], variants.residues[:, :width]).widened(width)
        chunk = max(32, _CHUNK // width)
        for start in range(0, n, chunk):
            part = wide.take(np.arange(start, min(start + chunk, n)))
            size = chunk if n > chunk else bucket(len(part))
            zeros = np.zeros(size, np.float32)
            blank = np.zeros(size, bool)
            rows = Rows(padded(part.sites, size), padded(part.residues, size), zeros, blank, ~blank)
            raw = [np.asarray(_predictions(c.model, c.context, rows))[: len(part)] for c in self.copies]
            found.append(np.stack([(v - c.mean) / c.spread for v, c in zip(raw, self.copies, strict=True)]))
        return np.concatenate(found, axis=1) if found else np.zeros((len(self.copies), 0))


def adapt(
    members: SiteTokenModel,
    wild_type: str,
    parts: Sequence[tuple[Variants, np.ndarray]],
    *,
    n_steps: int,
    kind: int = 0,
    seed: int = 0,
    learning_rate: float = LEARNING_RATE,
) -> Adapted:
    """Each member adapted to each part of the labels: member by member, part by part.

    Args:
        members: models with a leading axis for members.
        wild_type: sequence.
        parts: supports; may be empty ones. All are filled up to one size.
        n_steps: of fine-tuning; 0: labels in context only. The members themselves stay as they are.
        kind: of the measurement: a number of `fledge.protein.tasks.KINDS`.
        seed: of the unlabelled variants and of the splits.
        learning_rate: of fine-tuning.
    """
    parts = [_at_most(part, seed + i) for i, part in enumerate(parts)]
    width = max(int(variants.counts.max(initial=1)) for variants, _ in parts)
    made = [context_rows(wild_type, v, y, seed=seed + i, width=width) for i, (v, y) in enumerate(parts)]
    most = max(len(rows.valid) for rows in made)
    made = [_filled(rows, most) for rows in made]
    codes, which = jnp.asarray(padded_wild_type(wild_type)), jnp.asarray(kind)
    copies: list[Copy] = []
    for member in range(members.additive.shape[0]):
        own = jax.tree.map(lambda leaf, i=member: leaf[i], members)
        for rows in made:
            key = jax.random.fold_in(jax.random.key(seed), len(copies))
            model = _tuned(key, own, codes, rows, jnp.asarray(n_steps), which, learning_rate) if n_steps else own
            context, mean, spread = _context(model, codes, rows, which)
            copies.append(Copy(model, context, float(mean), float(spread)))
    return Adapted(tuple(copies))


def _at_most(part: tuple[Variants, np.ndarray], seed: int) -> tuple[Variants, np.ndarray]:
    variants, labels = part
    if len(variants) <= MOST_LABELS:
        return part
    chosen = np.random.default_rng(seed).permutation(len(variants))[:MOST_LABELS]
    return variants.take(chosen), np.asarray(labels)[chosen]


def _filled(rows: Rows, size: int) -> Rows:
    extra = size - len(rows.valid)
    if not extra:
        return rows
    two = ((0, extra), (0, 0))
    return Rows(
        np.pad(rows.sites, two, constant_values=-1),
        np.pad(rows.residues, two, constant_values=-1),
        *(np.pad(leaf, (0, extra)) for leaf in (rows.labels, rows.known, rows.valid)),
    )
