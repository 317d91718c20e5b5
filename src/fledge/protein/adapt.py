"""From a meta-trained model to a protein: labels as context, and fine-tuning by splitting the labels at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

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
_CHUNK = 256
_SIZES = (112, 128, 144, 176, 208, 256, 320, 432, 560)
"""Of contexts: 48 rows more than 64, 80, 96, 128 … labels."""
_WIDTHS = (1, 2, 4, 8)
_STEPS = (50, 100)
_FEWEST_TO_TUNE = 32


def steps_by_rule(n_labels: int, *, in_context: bool = True) -> int:
    """How many steps of fine-tuning so many labels are worth: none below 32, where context alone ranks better.

    Models without context learn from labels by fine-tuning alone.
    """
    return 0 if n_labels < (_FEWEST_TO_TUNE if in_context else 4) else 20


def references(wild_type: str, n_labels: int, seed: int = 0) -> Variants:
    """Random single mutants of a wild type, for the unlabelled part of a context: always the same for a seed."""
    n = max(N_REFERENCES, ROWS_OF_TRAINING - n_labels)
    codes = encode(wild_type)
    rng = np.random.default_rng((seed, len(codes), int(codes.sum())))
    sites = rng.permutation(np.resize(rng.permutation(len(codes)), n))
    residues = (codes[sites] + rng.integers(1, N_RESIDUES, n)) % N_RESIDUES
    return Variants(sites[:, None].astype(np.int32), residues[:, None].astype(np.int32))


def context_size(n_labels: int) -> int:
    """Rows of a context with room for so many labels: one of few sizes, so that few programs are compiled."""
    return bucket(max(ROWS_OF_TRAINING, n_labels + N_REFERENCES), _SIZES)


def context_rows(
    wild_type: str,
    variants: Variants,
    labels: Float[np.ndarray, " label"],
    *,
    seed: int = 0,
    width: int = 1,
    size: int | None = None,
) -> Rows:
    """The rows of a context: labelled variants, then unlabelled ones, filled up to a size that is already compiled.

    Args:
        wild_type: sequence.
        variants: the support.
        labels: of the support, on any scale.
        seed: of the unlabelled variants.
        width: mutations that there has to be room for.
        size: rows; by default just enough.
    """
    n, others = len(variants), references(wild_type, len(variants), seed)
    size = size or context_size(n)
    width = bucket(max(width, int(variants.counts.max(initial=1))), _WIDTHS)
    both = [Variants(v.sites[:, :width], v.residues[:, :width]).widened(width) for v in (variants, others)]
    rows = Variants.concat(both)
    return Rows(
        padded(rows.sites, size),
        padded(rows.residues, size),
        padded(np.asarray(labels, np.float32), size, 0.0),
        np.arange(size) < n,
        np.arange(size) < len(rows),
    )


def _ready(rows: Rows) -> Rows:
    """Rows with their labels standardised by themselves."""
    known = jnp.asarray(rows.known)
    labels = jnp.where(known, standardised(jnp.asarray(rows.labels), known), 0.0)
    return eqx.tree_at(lambda r: r.labels, rows, labels)


def halves(seed: tuple[int, ...], n_labels: int, size: int, n_steps: int) -> Bool[np.ndarray, "step row"]:
    """For each step of fine-tuning, a random half of the labelled rows: those whose label stays."""
    rng, found = np.random.default_rng(seed), np.zeros((bucket(n_steps, _STEPS), size), bool)
    for step in range(n_steps):
        found[step, rng.permutation(n_labels)[: (n_labels + 1) // 2]] = True
    return found


def tune(
    model: SiteTokenModel,
    wild_type: Int[Array, " site"],
    rows: Rows,
    shown: Bool[Array | np.ndarray, "step row"],
    n_steps: Int[Array, ""],
    kind: Int[Array, ""],
    learning_rate: Float[Array, ""] | float = LEARNING_RATE,
    in_context: bool = True,
) -> SiteTokenModel:
    """The model after some steps of Adam, each on a random half of the labels with the other half to be ranked.

    Re-splitting the support is Beck et al. 2025, §3.

    Args:
        model: to begin with.
        wild_type: residue codes.
        rows: the context.
        shown: which labels each step shows (`halves`); what is beyond `n_steps` only fills up.
        n_steps: how many.
        kind: of the measurement.
        learning_rate: of Adam.
        in_context: False for a model whose rows see nothing but themselves; it then descends the loss of all labels.
    """
    optimiser = optax.adam(learning_rate)

    labels, known = jnp.asarray(rows.labels), jnp.asarray(rows.known)

    def loss(model: SiteTokenModel, here: Bool[Array, " row"]) -> Array:
        if not in_context:
            return bradley_terry(model.without_context(wild_type, rows, kind), labels, known)
        left = _ready(eqx.tree_at(lambda r: r.known, rows, here))
        return bradley_terry(model.context(wild_type, left, kind)[1], labels, known & ~here)

    def step(i: Array, carry: tuple) -> tuple:
        model, memory = carry
        updates, memory = optimiser.update(jax.grad(loss)(model, jnp.asarray(shown)[i]), memory, model)
        return optax.apply_updates(model, updates), memory

    return jax.lax.fori_loop(0, n_steps, step, (model, optimiser.init(model)))[0]


_tuned = jax.jit(tune, static_argnames="in_context")


@partial(jax.jit, static_argnums=4)
def _context(model, wild_type, rows, kind, in_context):
    others = rows.valid & ~rows.known
    if in_context:
        context, v = model.context(wild_type, _ready(rows), kind)
    else:
        nobody = eqx.tree_at(lambda r: r.valid, rows, jnp.zeros_like(rows.valid))
        context, v = model.context(wild_type, nobody, kind)[0], model.without_context(wild_type, rows, kind)
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
        width = bucket(max(1, int(variants.counts.max(initial=1))), _WIDTHS)
        wide = Variants(variants.sites[:, :width], variants.residues[:, :width]).widened(width)
        size = max(32, _CHUNK // width)
        zeros, blank = np.zeros(size, np.float32), np.zeros(size, bool)
        for start in range(0, n, size):
            part = wide.take(np.arange(start, min(start + size, n)))
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
    room: int = 0,
    learning_rate: float = LEARNING_RATE,
    in_context: bool = True,
) -> Adapted:
    """Each member adapted to each part of the labels: member by member, part by part.

    Args:
        members: models with a leading axis for members.
        wild_type: sequence.
        parts: supports; may be empty ones. All are filled up to one size.
        n_steps: of fine-tuning; 0: labels in context only. The members themselves stay as they are.
        kind: of the measurement: a number of `fledge.protein.tasks.KINDS`.
        seed: of the unlabelled variants and of the splits.
        room: labels that contexts have room for at the least: parts of a whole then use the whole's programs.
        learning_rate: of fine-tuning.
        in_context: False for models that were trained without context.
    """
    parts = [_at_most(part, seed + i) for i, part in enumerate(parts)]
    width = max(int(variants.counts.max(initial=1)) for variants, _ in parts)
    size = context_size(max(min(room, MOST_LABELS), *(len(v) for v, _ in parts)))
    made = [context_rows(wild_type, v, y, seed=seed + i, width=width, size=size) for i, (v, y) in enumerate(parts)]
    members = jax.tree.map(np.asarray, members)  # taking parts of them then compiles nothing
    codes, which, steps = padded_wild_type(wild_type), np.int32(kind), np.int32(n_steps)
    copies: list[Copy] = []
    for member in range(members.additive.shape[0]):
        own = jax.tree.map(lambda leaf, i=member: leaf[i], members)
        for i, rows in enumerate(made):
            model = own
            if n_steps:
                shown = halves((seed, member, i), len(parts[i][0]), size, n_steps)
                how: dict[str, Any] = {"learning_rate": np.float32(learning_rate), "in_context": in_context}
                model = _tuned(own, codes, rows, shown, steps, which, **how)
            context, mean, spread = _context(model, codes, rows, which, in_context)
            copies.append(Copy(model, context, float(mean), float(spread)))
    return Adapted(tuple(copies))


def _at_most(part: tuple[Variants, np.ndarray], seed: int) -> tuple[Variants, np.ndarray]:
    variants, labels = part
    if len(variants) <= MOST_LABELS:
        return part
    chosen = np.random.default_rng(seed).permutation(len(variants))[:MOST_LABELS]
    return variants.take(chosen), np.asarray(labels)[chosen]
