"""Meta-training: plain supervised training over episodes of many landscapes, as a pure function of its state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from fledge.core.errors import unknown
from fledge.learn.ranking import agreement, ranking_loss
from fledge.learn.schedules import warmup_cosine
from fledge.learn.supervised_meta import maml_loss, reptile_direction
from fledge.nets.site_tokens import SiteTokenModel
from fledge.protein.episodes import Episode, Plan, episode, plan, standardised
from fledge.protein.tasks import FEATURES, Spans, TaskArrays

Groups = tuple[TaskArrays, ...]
Plans = tuple[Plan, ...]
RULES = ("plain", "maml", "reptile")
VALIDATION_SHOTS = (0, 16, 64)
_VALIDATION_SEED = 7


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
    window: int = 256
    """Sites that are shown of a longer protein: another random part each time."""
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
    rule: str = "plain"
    """"plain": the gradient of the episodes' loss; "maml": of the loss after inner steps on the labels; "reptile":
    where inner steps on random halves of the labels lead."""
    inner_steps: int = 3
    inner_rate: float = 0.05
    """Of the inner steps' gradient descent."""
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


def reordered_loss(
    model: SiteTokenModel, data: Episode, settings: PretrainSettings, key: Key[Array, ""]
) -> Float[Array, ""]:
    """The loss of a random half of the labelled rows, the other half shown: what fine-tuning descends.

    Without context, the loss of all labelled rows.
    """
    known = jnp.asarray(data.rows.known)
    if not settings.context:
        v = model.without_context(data.wild_type, data.rows, data.kind)
        return ranking_loss(settings.loss, v, data.targets, known)
    asked = known & jax.random.bernoulli(key, 0.5, known.shape)
    shown = known & ~asked
    labels = jnp.where(shown, standardised(data.targets, shown), 0.0)
    rows = eqx.tree_at(lambda r: (r.labels, r.known), data.rows, (labels, shown))
    return ranking_loss(settings.loss, model.context(data.wild_type, rows, data.kind)[1], data.targets, asked)


def task_gradient(
    model: SiteTokenModel, data: Episode, settings: PretrainSettings, key: Key[Array, ""]
) -> tuple[Float[Array, ""], SiteTokenModel]:
    """The loss of a task and what stands for its gradient, by the rule of the settings."""
    n_steps, rate = settings.inner_steps, settings.inner_rate

    def inner(model: SiteTokenModel, k: Key[Array, ""]) -> Array:
        return reordered_loss(model, data, settings, k)

    def outer(model: SiteTokenModel, k: Key[Array, ""]) -> Array:
        return episode_loss(model, data, settings, k)

    if settings.rule == "maml":
        return jax.value_and_grad(lambda m: maml_loss(inner, outer, m, key, n_steps=n_steps, learning_rate=rate))(model)
    return inner(model, key), reptile_direction(inner, model, key, n_steps=n_steps, learning_rate=rate)


@lru_cache(maxsize=8)
def make_chunk(settings: PretrainSettings) -> Callable[[TrainState, Groups, Plans], tuple[TrainState, Array]]:
    """The compiled program of a chunk of steps: new state, and the loss of each step.

    A step takes tasks of every group: proteins of alike length, so that short ones are not filled up to long ones.
    The same settings give the same program, which is compiled once.

    Raises:
        ConfigError: there is no such rule.
    """
    if settings.rule not in RULES:
        raise unknown("rule of meta-training", settings.rule, RULES)
    optimiser = make_optimiser(settings)

    def each(
        call: Callable[[Episode, Key[Array, ""]], Any], key: Key[Array, ""], arrays: TaskArrays, part: Plan
    ) -> Any:
        def one(k: Key[Array, ""], task: Array, rows: Array, shots: Array, start: Array) -> Any:
            key_data, key_call = jax.random.split(k)
            data = episode(
                key_data,
                arrays,
                task,
                rows,
                shots,
                start,
                window=settings.window,
                augment_prob=settings.augment_prob,
                augment_range=settings.augment_range,
            )
            return call(data, key_call)

        keys = jax.random.split(key, part.tasks.shape[0])
        return jax.vmap(one)(keys, *map(jnp.asarray, (part.tasks, part.rows, part.shots, part.starts)))

    def over(call: Callable[[Episode, Key[Array, ""]], Any], key: Key[Array, ""], groups: Groups, parts: Plans) -> Any:
        keys = jax.random.split(key, len(groups))
        found = [each(call, *group) for group in zip(keys, groups, parts, strict=True)]
        return jax.tree.map(lambda *leaves: jnp.mean(jnp.concatenate(leaves), axis=0), *found)

    def gradient_of(model: SiteTokenModel, *drawn: Any) -> tuple[Array, SiteTokenModel]:
        if settings.rule != "plain":
            return over(lambda data, k: task_gradient(model, data, settings, k), *drawn)
        return jax.value_and_grad(lambda m: over(lambda data, k: episode_loss(m, data, settings, k), *drawn))(model)

    def step(groups: Groups, state: TrainState, parts: Plans) -> tuple[TrainState, Array]:
        key, key_loss = jax.random.split(state.key)
        value, gradient = gradient_of(state.model, key_loss, groups, parts)
        updates, memory = optimiser.update(gradient, state.optimiser, state.model)
        model = optax.apply_updates(state.model, updates)
        return TrainState(model, memory, state.step + 1, key), value

    @partial(jax.jit, donate_argnums=0)
    def chunk(state: TrainState, groups: Groups, steps: Plans) -> tuple[TrainState, Array]:
        return jax.lax.scan(partial(step, groups), state, steps)

    return chunk


def make_validator(settings: PretrainSettings) -> Callable[[SiteTokenModel, TaskArrays, Plan], Array]:
    """The compiled program that ranks tasks in context: the agreement of each draw of a plan's only step."""

    @jax.jit
    def validate(model: SiteTokenModel, arrays: TaskArrays, part: Plan) -> Array:
        def one(drawn: tuple[Array, ...]) -> Array:
            data = episode(jax.random.key(0), arrays, *drawn, window=settings.window)
            if settings.context:
                v = model.context(data.wild_type, data.rows, data.kind)[1]
            else:
                v = model.without_context(data.wild_type, data.rows, data.kind)
            return agreement(v, data.targets, data.asked)

        return jax.lax.map(one, tuple(jnp.asarray(x[0]) for x in (part.tasks, part.rows, part.shots, part.starts)))

    return validate


def validation_plan(counts: Int[np.ndarray, " task"], settings: PretrainSettings, spans: Sequence[Spans]) -> Plan:
    """Every task twice after each of `VALIDATION_SHOTS` labels: the same draws at every call."""
    n, shots = len(counts), [*VALIDATION_SHOTS, *VALIDATION_SHOTS]
    drawn = plan(
        counts,
        0,
        n_steps=1,
        n_tasks=n * len(shots),
        n_rows=settings.n_rows,
        shots=(0,),
        seed=_VALIDATION_SEED,
        spans=spans,
        window=settings.window,
    )
    return Plan(drawn.tasks, drawn.rows, np.repeat(np.asarray(shots, np.int32), n)[None], drawn.starts)


def shares(n_groups: int, settings: PretrainSettings) -> tuple[int, ...]:
    """How many tasks of a step come from each group: equally many, the rest from the last."""
    each = settings.n_tasks // n_groups
    return (each,) * (n_groups - 1) + (settings.n_tasks - each * (n_groups - 1),)


def chunk_plan(
    counts: Sequence[Int[np.ndarray, " task"]],
    number: int,
    settings: PretrainSettings,
    seed: int,
    spans: Sequence[Sequence[Spans]] | None = None,
) -> Plans:
    """What chunk `number` of a run takes of each group."""
    composed = settings.multi_every > 0 and number % settings.multi_every == settings.multi_every - 1
    return tuple(
        plan(
            own,
            number,
            n_steps=settings.chunk,
            n_tasks=share,
            n_rows=settings.n_rows,
            shots=settings.shots,
            n_parts=settings.n_parts if composed else 1,
            seed=seed + 1000 * i,
            spans=None if spans is None else spans[i],
            window=settings.window if spans is not None else 0,
        )
        for i, (own, share) in enumerate(zip(counts, shares(len(counts), settings), strict=True))
    )
