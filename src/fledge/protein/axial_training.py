"""Meta-training of the axial models (Beck et al. 2025, §3): contexts one after the other, their gradients averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from fledge.core.errors import ConfigError, unknown
from fledge.data.assays import Assay
from fledge.data.measurements import read_scores
from fledge.data.residues import ALPHABET, encode
from fledge.learn.ranking import bradley_terry
from fledge.learn.schedules import warmup_cosine
from fledge.protein.metalic import TINY, AxialModel, AxialSettings, TinyAxial
from fledge.protein.scores import spearman
from fledge.protein.tasks import bucket


@runtime_checkable
class Embed(Protocol):
    """What makes features of residues: an `esm.Encoder` or an `esm.EmbeddingCache`."""

    def get(self, name: str, sequences: Sequence[str]) -> Float[np.ndarray, "row column part"]:
        """Features of sequences of the protein of that name."""
        ...


MODELS = ("metalic", "tiny-axial")
FLOOR = 1e-5
"""Of the schedule, as published: a share of the peak."""
_STEADY = 10**9
"""Steps of a schedule that does not fall while fine-tuning."""


@dataclass(frozen=True)
class AxialTraining:
    """How an axial model is meta-trained. Defaults are the published ones, where there are any."""

    model: str = "metalic"
    """"metalic": features of a frozen language model; "tiny-axial": small, with an encoder of its own."""
    n_steps: int = 50_000
    schedule_steps: int = 100_000
    """What the cosine is drawn over: as published, training stops halfway."""
    warmup: int = 5_000
    n_tasks: int = 4
    n_support: int = 16
    """Labels in a context: the published models are trained for one number each (0, 16 or 128)."""
    n_query: int = 100
    learning_rate: float = 6e-5
    weight_decay: float = 5e-3
    max_grad_norm: float = 1.0
    seed: int = 0
    auxiliary: str = ""
    """Of "metalic": a column of the assays with another model's zero-shot scores, shown for every row."""
    sizes: AxialSettings | None = None
    """Of the model; by default those of its name."""


class AxialContext(eqx.Module):
    """Rows of one protein as an axial model takes them; positions are filled up to a size that is compiled already."""

    x: Array | np.ndarray
    """Features (row, column, part), or residue codes (row, site)."""
    wild_type: Int[Array | np.ndarray, " site"]
    columns: Bool[Array | np.ndarray, " column"]
    labels: Float[Array | np.ndarray, " row"]
    """Standardised by the support (by all rows, where there is none: a scale says nothing to the loss)."""
    known: Bool[Array | np.ndarray, " row"]
    auxiliary: Float[Array | np.ndarray, " row"] | None = None
    """A zero-shot score, standardised over the whole assay; 0 where it is missing."""


class AxialState(eqx.Module):
    """Everything that training carries from step to step."""

    model: Any
    optimiser: Any
    step: Int[Array, ""]


def context_of(
    assay: Assay,
    rows: Int[np.ndarray, " row"],
    n_support: int,
    embed: Embed | None = None,
    auxiliary: str = "",
) -> AxialContext:
    """The context of some rows of an assay, the first `n_support` of them labelled."""
    wild = encode(assay.wild_type)
    sequences = np.tile(wild, (len(rows), 1))
    variants = assay.variants.take(rows)
    at, part = np.nonzero(variants.sites >= 0)
    sequences[at, variants.sites[at, part]] = variants.residues[at, part]
    x: np.ndarray = sequences
    if embed is not None:
        letters = np.array(list(ALPHABET))
        x = embed.get(assay.name, ["".join(letters[codes]) for codes in sequences])
    length = x.shape[1]
    extra = bucket(length) - length
    scores = assay.scores[rows]
    by = scores[:n_support] if n_support else scores
    labels = (scores - by.mean()) / (by.std() if by.std() > 0 else 1.0)
    return AxialContext(
        np.pad(x, ((0, 0), (0, extra)) + ((0, 0),) * (x.ndim - 2)),
        np.pad(wild, (0, bucket(length) - len(wild))),
        np.arange(length + extra) < length,
        labels.astype(np.float32),
        np.arange(len(rows)) < n_support,
        auxiliary_scores(assay, auxiliary)[rows] if auxiliary else None,
    )


def auxiliary_scores(assay: Assay, column: str) -> Float[np.ndarray, " variant"]:
    """A column of zero-shot scores, standardised over the whole assay (they are no labels); 0 where there is none."""
    if column not in assay.columns:
        return np.zeros(len(assay), np.float32)
    values = read_scores(assay.columns[column])
    there = np.isfinite(values)
    spread = values[there].std() if there.any() else 0.0
    if spread == 0:
        return np.zeros(len(assay), np.float32)
    return np.where(there, (values - values[there].mean()) / spread, 0.0).astype(np.float32)


def forward(model: Any, data: AxialContext, key: Key[Array, ""] | None = None) -> Float[Array, " row"]:
    """Predictions of all rows."""
    given = (jnp.asarray(data.labels), jnp.asarray(data.known))
    columns = jnp.asarray(data.columns)
    if isinstance(model, TinyAxial):
        wild = jnp.asarray(data.wild_type)
        return model(jnp.asarray(data.x), wild, *given, columns=columns, key=key)
    auxiliary = None if data.auxiliary is None else jnp.asarray(data.auxiliary)
    return model(jnp.asarray(data.x), *given, columns=columns, auxiliary=auxiliary, key=key)


def make_axial(settings: AxialTraining, embedding: int | None = None) -> AxialModel | TinyAxial:
    """A model that has learnt nothing.

    Args:
        settings: which.
        embedding: numbers per residue that the language model gives.

    Raises:
        ConfigError: there is no such model.
    """
    key = jax.random.key(settings.seed)
    if settings.model == "tiny-axial":
        return TinyAxial.init(key, settings.sizes or TINY)
    if settings.model != "metalic":
        raise unknown("axial model", settings.model, MODELS)
    sizes = settings.sizes or AxialSettings()
    if embedding is not None:
        sizes = AxialSettings(**{**vars(sizes), "embedding": embedding})
    return AxialModel.init(key, sizes)


def axial_optimiser(settings: AxialTraining) -> optax.GradientTransformation:
    """AdamW behind a global norm. What is called a bias does not decay; gains of norms do, as in the public code."""
    factor = warmup_cosine(settings.warmup, settings.schedule_steps, FLOOR)

    def decays(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, leaf: "bias" not in jax.tree_util.keystr(path), tree)

    return optax.chain(
        optax.clip_by_global_norm(settings.max_grad_norm),
        optax.adamw(
            lambda step: settings.learning_rate * factor(step), weight_decay=settings.weight_decay, mask=decays
        ),
    )


def begin_axial(settings: AxialTraining, embedding: int | None = None) -> AxialState:
    """The state before the first step."""
    model = make_axial(settings, embedding)
    return AxialState(model, axial_optimiser(settings).init(model), jnp.zeros((), jnp.int32))


@eqx.filter_jit
def _gradient(model: Any, data: AxialContext, key: Key[Array, ""]) -> tuple[Array, Any]:
    def loss(model: Any) -> Array:
        return bradley_terry(forward(model, data, key), jnp.asarray(data.labels), ~jnp.asarray(data.known))

    return jax.value_and_grad(loss)(model)


@lru_cache(maxsize=4)
def make_axial_step(
    settings: AxialTraining,
) -> Callable[[AxialState, Sequence[AxialContext]], tuple[AxialState, float]]:
    """One step: a gradient for each context, one update with their mean. Memory is that of one context."""
    optimiser = axial_optimiser(settings)

    @jax.jit
    def update(state: AxialState, total: Any, n: Array) -> AxialState:
        mean = jax.tree.map(lambda g: g / n, total)
        updates, memory = optimiser.update(mean, state.optimiser, state.model)
        return AxialState(optax.apply_updates(state.model, updates), memory, state.step + 1)

    def step(state: AxialState, contexts: Sequence[AxialContext]) -> tuple[AxialState, float]:
        total, losses = None, []
        for i, data in enumerate(contexts):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(settings.seed), state.step), i)
            value, gradient = _gradient(state.model, data, key)
            total = gradient if total is None else jax.tree.map(jnp.add, total, gradient)
            losses.append(float(value))
        return update(state, total, jnp.asarray(float(len(contexts)))), float(np.mean(losses))

    return step


def fine_tuned(
    model: Any,
    assay: Assay,
    support: Int[np.ndarray, " label"],
    settings: AxialTraining,
    *,
    n_steps: int = 100,
    n_splits: int = 4,
    seed: int = 0,
    embed: Embed | None = None,
) -> Any:
    """The model after steps of AdamW on the support alone (Beck et al. 2025, §3); the one handed in stays as it is.

    Each step averages random re-splits: half of the support keeps its labels, the other half is ranked. The rate stays
    that of the peak. No further labels are used, so nothing stops it early.

    Raises:
        ConfigError: there are fewer than four labels.
    """
    if len(support) < 4:
        raise ConfigError(
            f"Fine-tuning takes at least 4 labels to split, not {len(support)}. Use them in context alone."
        )
    steady = replace(settings, warmup=0, schedule_steps=_STEADY)
    step = make_axial_step(steady)
    state = AxialState(model, axial_optimiser(steady).init(model), jnp.zeros((), jnp.int32))
    rng = np.random.default_rng(seed)
    for _ in range(n_steps):
        orders = [rng.permutation(support) for _ in range(n_splits)]
        contexts = [context_of(assay, rows, len(support) // 2, embed, settings.auxiliary) for rows in orders]
        state, _ = step(state, contexts)
    return state.model


_forward = eqx.filter_jit(forward)


def axial_spearman(
    model: Any,
    assay: Assay,
    support: Int[np.ndarray, " label"],
    query: Int[np.ndarray, " query"],
    *,
    n_query: int = 100,
    embed: Embed | None = None,
    auxiliary: str = "",
) -> float:
    """Spearman of the query, in contexts of `n_query` (the last filled up with rows of the first): no fine-tuning."""
    found = []
    for start in range(0, len(query), n_query):
        part = query[start : start + n_query]
        rows = np.concatenate([support, np.resize(np.concatenate([part, query]), max(n_query, len(part)))])
        v = np.asarray(_forward(model, context_of(assay, rows, len(support), embed, auxiliary)))
        found.append(v[len(support) : len(support) + len(part)])
    return spearman(np.concatenate(found), assay.scores[query])
