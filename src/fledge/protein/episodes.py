"""Episodes: a task, some of its variants with labels, the others to be ranked."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from fledge.nets.site_tokens import N_RESIDUES, Rows
from fledge.protein.tasks import Spans, TaskArrays

WILD = -2
"""In the place of row numbers: the wild type itself."""
WILD_SHARE = 0.03
"""Of the rows of an episode whose variants are put together."""


class Plan(eqx.Module):
    """Which tasks and rows a chunk of training steps takes: drawn beforehand, without replacement."""

    tasks: Int[Array | np.ndarray, "step task"]
    rows: Int[Array | np.ndarray, "step task row part"]
    """Numbers within the task; −1 for none, `WILD` for the wild type. More than one part: put together."""
    shots: Int[Array | np.ndarray, "step task"]
    """How many of the first rows have their label shown."""
    starts: Int[Array | np.ndarray, "step task"]
    """The first site of the part of the protein that is shown; 0 where all of it is."""


def walk(n_tasks: int, n: int, start: int, seed: int) -> Int[np.ndarray, " draw"]:
    """Draws `start` … `start + n` of an endless walk over random permutations of the tasks."""
    first, last = start // n_tasks, (start + n - 1) // n_tasks
    orders = [np.random.default_rng((seed, 1, epoch)).permutation(n_tasks) for epoch in range(first, last + 1)]
    return np.concatenate(orders)[start - first * n_tasks :][:n]


def plan(
    counts: Int[np.ndarray, " task"],
    chunk: int,
    *,
    n_steps: int,
    n_tasks: int,
    n_rows: int,
    shots: Sequence[int],
    n_parts: int = 1,
    seed: int = 0,
    spans: Sequence[Spans] | None = None,
    window: int = 0,
) -> Plan:
    """The plan of a chunk: the same for the same chunk number and seed, whatever was drawn before.

    Args:
        counts: variants of each task.
        chunk: its number.
        n_steps: steps in it.
        n_tasks: tasks of a step; a permutation of all tasks is walked through.
        n_rows: variants of an episode.
        shots: numbers of labels, each equally likely.
        n_parts: up to so many variants are put together into one.
        seed: of the run.
        spans: of the tasks' variants; needed for a window.
        window: of longer proteins, only a random part of so many sites is shown, and variants of it; 0: all.
    """
    rng = np.random.default_rng((seed, 2, chunk))
    tasks = walk(len(counts), n_steps * n_tasks, chunk * n_steps * n_tasks, seed).reshape(n_steps, n_tasks)
    rows = np.full((n_steps, n_tasks, n_rows, n_parts), -1, np.int32)
    starts = np.zeros(tasks.shape, np.int32)
    for step in range(n_steps):
        for i, task in enumerate(tasks[step]):
            starts[step, i], inside = _part(rng, int(counts[task]), spans[task] if spans and window else None, window)
            order = rng.permutation(inside)[: n_rows * n_parts]
            whole = len(order) // n_parts
            rows[step, i, :whole] = order[: whole * n_parts].reshape(whole, n_parts)
    if n_parts > 1:
        alone = rng.integers(1, n_parts + 1, rows.shape[:3])
        rows[np.arange(n_parts) >= alone[..., None]] = -1
        rows[rng.random(rows.shape[:3]) < WILD_SHARE] = WILD
    return Plan(tasks.astype(np.int32), rows, rng.choice(np.asarray(shots, np.int32), tasks.shape), starts)


def _part(rng: np.random.Generator, count: int, spans: Spans | None, window: int) -> tuple[int, np.ndarray]:
    """A random part of a protein around one of its variants: its first site, and the variants inside."""
    if spans is None or spans.length <= window:
        return 0, np.arange(count)
    around = min(int(spans.first[rng.integers(count)]), spans.length - 1)
    start = int(np.clip(around - rng.integers(window), 0, spans.length - window))
    return start, np.flatnonzero((spans.first >= start) & (spans.last < start + window))


class Episode(eqx.Module):
    """What a model sees, and what its predictions are compared with."""

    wild_type: Int[Array, " site"]
    rows: Rows
    targets: Float[Array, " row"]
    asked: Bool[Array, " row"]
    """Rows whose prediction counts: those without a label."""
    kind: Int[Array, ""]


def episode(
    key: Key[Array, ""],
    arrays: TaskArrays,
    task: Int[Array, ""],
    chosen: Int[Array, "row part"],
    shots: Int[Array, ""],
    start: Int[Array, ""] | int = 0,
    *,
    window: int = 0,
    augment_prob: float = 0.0,
    augment_range: tuple[float, float] = (0.3, 1.5),
) -> Episode:
    """An episode of a task.

    Labels are standardised by the support alone; what is asked for can reach neither the rows nor their scale.

    Args:
        key: randomness of the augmentation.
        arrays: all tasks.
        task: which.
        chosen: row numbers within the task; −1 for none.
        shots: how many of the first rows are labelled.
        start: the first site that is shown.
        window: how many are, at most; 0: all.
        augment_prob: chance that a random additive landscape is added where there are labels, so that part of the task
            can only be known from them.
        augment_range: its standard deviation, relative to that of the scores.
    """
    wild_type = arrays.wild_types[task]
    sites, residues, y = _compose(arrays, task, chosen)
    if 0 < window < wild_type.shape[0]:
        wild_type = jax.lax.dynamic_slice(wild_type, (start,), (window,))
        sites = jnp.where(sites >= 0, sites - start, -1)
    valid = jnp.any(chosen != -1, axis=-1)
    key_whether, key_size, key_field = jax.random.split(key, 3)
    size = jax.random.uniform(key_size, minval=augment_range[0], maxval=augment_range[1])
    size = jnp.where((jax.random.uniform(key_whether) < augment_prob) & (shots > 0), size, 0.0)
    y = y + size * _random_landscape(key_field, wild_type, sites, residues, valid)
    known = (jnp.arange(y.shape[0]) < shots) & valid
    return Episode(
        wild_type,
        Rows(sites, residues, standardised(y, known), known, valid),
        jnp.where(valid, y, 0.0),
        valid & ~known,
        arrays.kinds[task],
    )


def _compose(arrays: TaskArrays, task: Array, chosen: Int[Array, "row part"]) -> tuple[Array, Array, Array]:
    """Mutations and scores of rows. Parts add up, relative to the wild type, down to about the worst score there is."""
    entry = arrays.starts[task] + jnp.maximum(chosen, 0)
    there = (chosen >= 0)[..., None]
    sites = jnp.where(there, arrays.sites[entry], -1)
    residues = jnp.where(there, arrays.residues[entry], -1)
    if chosen.shape[1] == 1:
        return sites[:, 0], residues[:, 0], arrays.scores[entry[:, 0]]
    clash = jnp.any(sites[:, :, None, :, None] == sites[:, None, :, None, :], axis=(3, 4))
    earlier = jnp.tril(jnp.ones((chosen.shape[1],) * 2, bool), -1)
    keep = (chosen >= 0) & ~jnp.any(clash & earlier, axis=-1)
    wild = arrays.wild_scores[task]
    total = wild + jnp.sum(jnp.where(keep, arrays.scores[entry] - wild, 0.0), axis=-1)
    floor = jnp.min(jnp.where(chosen >= 0, arrays.scores[entry], jnp.inf))
    total = floor + 0.5 * jax.nn.softplus((total - floor) / 0.5)
    flat = (chosen.shape[0], -1)
    sites, residues = (jnp.where(keep[..., None], x, -1).reshape(flat) for x in (sites, residues))
    return sites, residues, total


def _random_landscape(key: Key[Array, ""], wild_type: Array, sites: Array, residues: Array, valid: Array) -> Array:
    """Standardised: a normal draw per site, and half as large ones per mutant and per wild-type residue."""
    key_site, key_mutant, key_wild = jax.random.split(key, 3)
    by_site = jax.random.normal(key_site, wild_type.shape)
    by_mutant = 0.5 * jax.random.normal(key_mutant, (N_RESIDUES,))
    by_wild = 0.5 * jax.random.normal(key_wild, (N_RESIDUES + 1,))
    each = by_site[sites] + by_mutant[residues] + by_wild[wild_type[sites]]
    total = jnp.sum(jnp.where(sites >= 0, each, 0.0), axis=-1)
    return standardised(total, valid)


def standardised(y: Float[Array, " row"], by: Bool[Array, " row"]) -> Float[Array, " row"]:
    """y minus the mean of some rows, divided by their standard deviation (1 where that is 0)."""
    count = jnp.maximum(jnp.sum(by), 1)
    mean = jnp.sum(jnp.where(by, y, 0.0)) / count
    variance = jnp.sum(jnp.where(by, (y - mean) ** 2, 0.0)) / count
    return (y - mean) / jnp.where(variance > 1e-12, jnp.sqrt(jnp.maximum(variance, 1e-12)), 1.0)
