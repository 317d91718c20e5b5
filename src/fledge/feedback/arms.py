"""The rows of the paper's table (Beck 2025), each a few switches on labels and learner; and a few more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from fledge.core.errors import ConfigError, unknown
from fledge.core.spaces import Space
from fledge.data.segments import SegmentTable
from fledge.data.trajectories import Trajectories
from fledge.feedback.labels import Selection, combine, select
from fledge.feedback.sfbc import examples_of
from fledge.learn.actors import ActionScale, Policy
from fledge.learn.clone import CloneSettings, clone
from fledge.learn.offline import OfflineSettings, Transitions, learn_offline
from fledge.learn.prefer import Pairs, PreferenceSettings, RewardSettings, learn_preferences, learn_reward
from fledge.learn.seeds import keys_of, over_seeds

Learner = Literal["clone", "td3bc", "awac", "iql", "sdpo", "cpl"]
Reward = Literal["true", "labels", "model"]


@dataclass(frozen=True)
class Published:
    """A row of the paper's table: 15 seeds, one rollout of 1000 steps each; errors are standard errors."""

    success: float
    success_error: float
    returned: float
    return_error: float


@dataclass(frozen=True)
class ArmRow:
    """One way of using feedback."""

    learner: Learner = "clone"
    about: str = ""
    uses_labels: bool = True
    whole_episodes: bool = False
    """Segments are whole episodes."""
    markov_only: bool = False
    """Only the question that one frame would answer."""
    filtered: bool = True
    retro: bool = True
    weighted: bool = True
    reward: Reward = "true"
    """What reinforcement learning is paid: the true reward, P of the segment, or a model learnt from pairs."""
    published: Published | None = None


ARMS: dict[str, ArmRow] = {
    "BC Naive": ArmRow("clone", "clone everything", False, published=Published(0.33, 0.12, -4716.0, 790.0)),
    "TD3+BC (GT)": ArmRow("td3bc", "true rewards", False, published=Published(0.27, 0.11, -5131.0, 814.0)),
    "VLM BC (Full-Trajectory)": ArmRow(
        "clone", "one label per episode", whole_episodes=True, published=Published(0.13, 0.09, -5234.0, 578.0)
    ),
    "AWAC (GT)": ArmRow("awac", "true rewards", False, published=Published(0.0, 0.0, -7840.0, 308.0)),
    "SF-BC": ArmRow("clone", "filter, look back, weigh", published=Published(0.73, 0.11, -1585.0, 518.0)),
    "VLM+TD3+BC": ArmRow(
        "td3bc", "labels in place of rewards", reward="labels", published=Published(0.27, 0.11, -5013.0, 649.0)
    ),
    "S-DPO": ArmRow("sdpo", "preferences over segments", False, published=Published(0.0, 0.0, -6859.0, 181.0)),
    "No Filtering": ArmRow(
        "clone", "weights only", filtered=False, retro=False, published=Published(0.40, 0.13, -4164.0, 883.0)
    ),
    "Markov Prompt Only": ArmRow(
        "clone", "one question only", markov_only=True, published=Published(0.40, 0.13, -4229.0, 869.0)
    ),
    "No Weighting": ArmRow("clone", "filter only", weighted=False, published=Published(0.33, 0.12, -3459.0, 604.0)),
    "No Retrospective Filtering": ArmRow(
        "clone", "no look back", retro=False, published=Published(0.13, 0.09, -5562.0, 525.0)
    ),
    "IQL (GT)": ArmRow("iql", "true rewards; not in the paper", False),
    "VLM+AWAC": ArmRow("awac", "labels in place of rewards; a switch of the code", reward="labels"),
    "CPL": ArmRow("cpl", "contrastive preferences; not in the paper", False),
    "RM+TD3+BC": ArmRow("td3bc", "a reward learnt from preferences; not in the paper", False, reward="model"),
}
"""Name → row. The first eleven are the paper's table, in its order, with its numbers (15 seeds, one rollout each)."""
PUBLISHED = tuple(name for name, row in ARMS.items() if row.published is not None)


@dataclass(frozen=True)
class ArmSettings:
    """What all arms share."""

    hidden: tuple[int, ...] = (256, 256)
    """Of cloning."""
    other_hidden: tuple[int, ...] = (256, 256)
    """Of reinforcement and preference learning."""
    n_steps: int = 8000
    """Gradient steps of every learner."""
    batch_size: int = 100
    """Transitions a step in cloning."""
    td3_batch_size: int = 256
    awac_batch_size: int = 1024
    pair_batch_size: int = 100
    """Pairs a step in learning from preferences."""
    learning_rate: float = 1e-3
    """Of cloning and preferences; reinforcement learning has 3e-4."""
    normalise_weights: bool = False
    head: Literal["deterministic", "stochastic"] = "deterministic"
    """Of cloning."""
    reference: bool = False
    """S-DPO relative to a policy that cloned everything. The paper has none."""
    aggregate: Literal["mean", "sum"] = "mean"
    soft_labels: bool = False


@dataclass(frozen=True, eq=False)
class Feedback:
    """Behaviour, and everything that was said about it."""

    trajectories: Trajectories
    table: SegmentTable
    parts: Mapping[str, Float[np.ndarray, "replicate segment"]]
    """Question → P(yes) of each segment; the Markov question first."""
    whole_table: SegmentTable
    """Whole episodes as segments."""
    whole_parts: Mapping[str, Float[np.ndarray, "asking episode"]]
    pairs: np.ndarray
    """(pair, 2) rows of segments."""
    preference: Float[np.ndarray, " pair"]


@dataclass(frozen=True, eq=False)
class Trained:
    """What became of an arm."""

    policies: Policy
    losses: Float[np.ndarray, "seed gradient_step"]
    selection: Selection | None
    keep_rate: float
    """Share of steps that the learner could draw."""


def arm_row(name: str) -> ArmRow:
    """The row of that name.

    Raises:
        ConfigError: there is none; the nearest is named.
    """
    if name not in ARMS:
        raise unknown("arm", name, ARMS)
    return ARMS[name]


def selection_of(row: ArmRow, feedback: Feedback, alpha: float, retro_k: int) -> Selection | None:
    """The transitions that a cloning arm may draw; None for everything, unweighted."""
    if not row.uses_labels:
        return None
    parts, table = feedback.parts, feedback.table
    if row.whole_episodes:
        parts, table = feedback.whole_parts, feedback.whole_table
    if row.markov_only:
        markov = next(iter(parts))
        parts = {markov: parts[markov]}
    return select(
        combine(parts),
        table,
        alpha=alpha if row.filtered else 0.0,
        retro_k=retro_k if row.retro else 0,
        weight=row.weighted,
    )


def train_arm(
    name: str,
    feedback: Feedback,
    space: Space,
    settings: ArmSettings,
    seeds: Sequence[int],
    *,
    bound: str = "env",
    alpha: float = 0.1,
    retro_k: int = 1,
) -> Trained:
    """Train an arm with every seed side by side.

    Args:
        name: of the arm.
        feedback: behaviour and answers.
        space: of the environment's actions.
        settings: budget and sizes.
        seeds: of initialisation and batching. Labels are the same for all.
        bound: `env` or `tanh1`.
        alpha: of the filter.
        retro_k: of the look back.

    Raises:
        ConfigError: no such arm or bound, or no seed.
        DataError: the filter leaves nothing.
    """
    row = arm_row(name)
    if not seeds:
        raise ConfigError("An arm needs one seed at least.")
    scale = ActionScale.of(space, bound)
    keys = keys_of(seeds)
    if row.learner == "clone":
        selection = selection_of(row, feedback, alpha, retro_k)
        examples = examples_of(feedback.trajectories, selection, scale)
        actor, losses = over_seeds(clone, keys, examples, _clone_settings(settings))
        rate = float(examples.n_rows) / feedback.trajectories.n_steps
        return Trained(scale.policy(actor), np.asarray(losses), selection, rate)
    if row.learner in ("sdpo", "cpl"):
        actor, losses = _prefer(row, feedback, scale, settings, keys)
        return Trained(scale.policy(actor), np.asarray(losses), None, 1.0)
    actor, losses = _reinforce(row, feedback, scale, settings, keys)
    return Trained(scale.policy(actor), np.asarray(losses), None, 1.0)


def _clone_settings(settings: ArmSettings) -> CloneSettings:
    return CloneSettings(
        settings.hidden,
        settings.learning_rate,
        settings.batch_size,
        settings.n_steps,
        settings.head,
        settings.normalise_weights,
    )


def pairs_of(feedback: Feedback, scale: ActionScale) -> Pairs:
    """The pairs of segments with what was preferred, as a learner wants them."""
    first, second = (feedback.table.first[feedback.pairs[:, side]] for side in (0, 1))
    return Pairs(
        jnp.asarray(feedback.trajectories.observations),
        scale.to_unit(jnp.asarray(feedback.trajectories.actions)),
        jnp.asarray(first, jnp.int32),
        jnp.asarray(second, jnp.int32),
        jnp.asarray(feedback.preference, jnp.float32),
        length=int(feedback.table.length[0]),
    )


def _prefer(row: ArmRow, feedback: Feedback, scale: ActionScale, settings: ArmSettings, keys: Any) -> Any:
    own = PreferenceSettings(
        loss="cpl" if row.learner == "cpl" else "sdpo",
        hidden=settings.other_hidden,
        learning_rate=settings.learning_rate,
        batch_size=settings.pair_batch_size,
        n_steps=settings.n_steps,
        aggregate=settings.aggregate,
        soft_labels=settings.soft_labels,
    )
    pairs = pairs_of(feedback, scale)
    if row.learner == "cpl":
        own = replace(own, beta=0.1, conservative=0.5, aggregate="sum", head="stochastic")
    if not settings.reference or row.learner == "cpl":
        return over_seeds(learn_preferences, keys, pairs, own)
    examples = examples_of(feedback.trajectories, None, scale)
    return over_seeds(
        _with_reference,
        keys,
        (pairs, examples),
        (own, replace(_clone_settings(settings), hidden=settings.other_hidden)),
    )


def _with_reference(key: Any, data: tuple, settings: tuple) -> Any:
    pairs, examples = data
    reference, _ = clone(key, examples, settings[1])
    return learn_preferences(key, pairs, settings[0], reference)


def _reinforce(row: ArmRow, feedback: Feedback, scale: ActionScale, settings: ArmSettings, keys: Any) -> Any:
    batch = settings.awac_batch_size if row.learner == "awac" else settings.td3_batch_size
    own = OfflineSettings(
        method=row.learner,  # type: ignore[arg-type]
        hidden=settings.other_hidden,
        batch_size=batch,
        n_steps=settings.n_steps,
    )
    rewards = feedback.trajectories.rewards
    if row.reward == "labels":
        rewards = np.nan_to_num(feedback.table.spread(combine(feedback.parts)))
    data = transitions_of(feedback.trajectories.with_rewards(rewards), scale)
    if row.reward == "model":
        model = RewardSettings(n_steps=settings.n_steps // 4, batch_size=min(128, settings.pair_batch_size))
        return over_seeds(_with_reward_model, keys, (pairs_of(feedback, scale), data), (model, own))
    return over_seeds(learn_offline, keys, data, own)


def _with_reward_model(key: Any, data: tuple, settings: tuple) -> Any:
    pairs, transitions = data
    model, _ = learn_reward(key, pairs, settings[0])
    paid = Transitions(
        transitions.observations,
        transitions.actions,
        model(transitions.observations, transitions.actions),
        transitions.next_observations,
        transitions.terminated,
    )
    return learn_offline(key, paid, settings[1])


def transitions_of(trajectories: Trajectories, scale: ActionScale) -> Transitions:
    """What reinforcement learning may draw: every step whose successor is known."""
    rows = np.flatnonzero(trajectories.has_next)
    return Transitions(
        jnp.asarray(trajectories.observations[rows]),
        scale.to_unit(jnp.asarray(trajectories.actions[rows])),
        jnp.asarray(trajectories.rewards[rows]),
        jnp.asarray(trajectories.next_observations[rows]),
        jnp.asarray(trajectories.terminated[rows]),
    )
