"""Meta-training: plain supervised training over episodes of many landscapes, as a pure function of its state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from fledge.learn.ranking import ranking_loss
from fledge.learn.schedules import warmup_cosine
from fledge.nets.site_tokens import SiteTokenModel
from fledge.protein.episodes import Episode, Plan, episode, plan
from fledge.protein.tasks import FEATURES, TaskArrays


@dataclass(frozen=True)
class PretrainSettings:
    """How a model is meta-trained. Defaults are ours; what a paper has stands in its recipe."""

    n_steps: int = 1500
    chunk: int = 50
    """Steps of one call of the compiled program."""
    n_tasks: int = 4
    """Tasks of a step."""
    n_rows: int = 112
    """Variants of an episode, labelled or not."""
    shots: tuple[int, ...] = (0, 0, 8, 16, 32, 64, 64, 64)
    """Labels shown in an episode: one of these, so that one model serves all numbers of labels."""
    learning_rate: float = 2e-3
    weight_decay: float = 5e-3
    max_grad_norm: float = 1.0
    warmup_frac: float = 0.05
    augment_prob: float = 0.5
    augment_range: tuple[float, float] = (0.3, 1.5)
    dropout: float = 0.3
    """Of the wild type's encoding."""
    multi_every: int = 6
    """Every so many chunks is about variants with up to `n_parts` mutations, put together from single ones; 0: none."""
    n_parts: int = 3
    loss: str = "pairs"
    """"pairs" or "mse"."""
    context: bool = True
    """False: no row sees another (the arm without context)."""
    width: int = 64
    n_layers: int = 2
    n_heads: int = 4


class TrainState(eqx.Module):
    """Everything that training carries from step to step."""

    model: SiteTokenModel
    optimiser: Any
    step: Int[Array, ""]
    key: Key[Array, ""]


def make_model(key: Key[Array, ""], settings: PretrainSettings) -> SiteTokenModel:
    """A model that has learnt nothing."""
    return SiteTokenModel.init(
        key, FEATURES, width=settings.width, n_layers=settings.n_layers, n_heads=settings.n_heads
    )


def make_optimiser(settings: PretrainSettings) -> optax.GradientTransformation:
    """AdamW with a global norm, a warm-up and a cosine; biases and norms do not decay."""
    factor = warmup_cosine(round(settings.warmup_frac * settings.n_steps), settings.n_steps)
    return optax.chain(
        optax.clip_by_global_norm(settings.max_grad_norm),
        optax.adamw(
            lambda step: settings.learning_rate * factor(step),
            weight_decay=settings.weight_decay,
            mask=lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree),
        ),
    )


def begin(seed: int, settings: PretrainSettings) -> TrainState:
    """The state before the first step."""
    key_model, key = jax.random.split(jax.random.key(seed))
    model = make_model(key_model, settings)
    return TrainState(model, make_optimiser(settings).init(model), jnp.zeros((), jnp.int32), key)


def episode_loss(
    model: SiteTokenModel, data: Episode, settings: PretrainSettings, key: Key[Array, ""] | None = None
) -> Float[Array, ""]:
    """The loss of the rows without labels."""
    if settings.context:
        drop = None if key is None or settings.dropout == 0 else (key, settings.dropout)
        v = model.context(data.wild_type, data.rows, data.kind, dropout=drop)[1]
    else:
        v = model.without_context(data.wild_type, data.rows, data.kind)
    return ranking_loss(settings.loss, v, data.targets, data.asked)


def make_chunk(settings: PretrainSettings) -> Callable[[TrainState, TaskArrays, Plan], tuple[TrainState, Array]]:
    """The compiled program of a chunk of steps: new state, and the loss of each step."""
    optimiser = make_optimiser(settings)

    def loss(model: SiteTokenModel, key: Key[Array, ""], arrays: TaskArrays, part: Plan) -> Array:
        keys = jax.random.split(key, settings.n_tasks)

        def one(k: Key[Array, ""], task: Array, rows: Array, shots: Array) -> Array:
            key_data, key_drop = jax.random.split(k)
            data = episode(
                key_data,
                arrays,
                task,
                rows,
                shots,
                augment_prob=settings.augment_prob,
                augment_range=settings.augment_range,
            )
            return episode_loss(model, data, settings, key_drop)

        return jnp.mean(jax.vmap(one)(keys, *map(jnp.asarray, (part.tasks, part.rows, part.shots))))

    def step(arrays: TaskArrays, state: TrainState, part: Plan) -> tuple[TrainState, Array]:
        key, key_loss = jax.random.split(state.key)
        value, gradient = jax.value_and_grad(loss)(state.model, key_loss, arrays, part)
        updates, memory = optimiser.update(gradient, state.optimiser, state.model)
        model = optax.apply_updates(state.model, updates)
        return TrainState(model, memory, state.step + 1, key), value

    @partial(jax.jit, donate_argnums=0)
    def chunk(state: TrainState, arrays: TaskArrays, steps: Plan) -> tuple[TrainState, Array]:
        return jax.lax.scan(partial(step, arrays), state, steps)

    return chunk


def chunk_plan(counts: Int[np.ndarray, " task"], number: int, settings: PretrainSettings, seed: int) -> Plan:
    """What chunk `number` of a run takes."""
    composed = settings.multi_every > 0 and number % settings.multi_every == settings.multi_every - 1
    return plan(
        counts,
        number,
        n_steps=settings.chunk,
        n_tasks=settings.n_tasks,
        n_rows=settings.n_rows,
        shots=settings.shots,
        n_parts=settings.n_parts if composed else 1,
        seed=seed,
    )
