"""Sub-trajectory filtered behaviour cloning as an estimator: behaviour and answers in, a policy out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from fledge.core.annotations import Annotation
from fledge.core.errors import DataError, ShapeError
from fledge.core.spaces import Box, Space
from fledge.data.segments import SegmentTable, segment
from fledge.data.trajectories import Trajectories
from fledge.feedback.labels import Selection, combine, probabilities, select
from fledge.learn.actors import ActionScale, Policy
from fledge.learn.clone import CloneSettings, Examples, clone
from fledge.learn.seeds import keys_of, over_seeds


class SFBC:
    """Keeps the segments that are judged good and whose successors are, and clones them, weighted by the judgement.

    Args:
        k: steps of a segment.
        alpha: a segment passes with P ≥ alpha.
        retro_k: how many segments before a failing one are dropped with it.
        weight: weigh each transition with its segment's P.
        prob_mode: how answers become probabilities (`emitted_no`, `top_no`, `normalised`).
        action_bound: `env` scales the policy to the actions' bounds, `tanh1` leaves it in ±1 as the paper's code does.
        stride: from one segment's start to the next; None is k (disjoint).
        tail: what to do with steps that are left over (`error`, `drop`, `keep`).
        seed: of training; several seeds train side by side.
        settings: of the cloning.

    Example: `SFBC(k=100).fit(trajectories, annotations).act(observation)`; see docs/methods/sfbc.md.

    Reference: Beck, Offline RLAIF: Piloting VLM Feedback for RL via SFO, 2025 (arXiv 2503.01062).
    """

    def __init__(
        self,
        k: int = 100,
        alpha: float = 0.1,
        retro_k: int = 1,
        weight: bool = True,
        prob_mode: str = "normalised",
        action_bound: str = "env",
        *,
        stride: int | None = None,
        tail: Any = "error",
        seed: int | Sequence[int] = 0,
        settings: CloneSettings | None = None,
    ) -> None:
        self.k, self.alpha, self.retro_k, self.weight = k, alpha, retro_k, weight
        self.prob_mode, self.action_bound = prob_mode, action_bound
        self.stride, self.tail = stride, tail
        self.seeds = (seed,) if isinstance(seed, int) else tuple(seed)
        self.settings = settings or CloneSettings()
        self.policies: Policy | None = None
        """The trained policies; leaves of the actor have the leading axis `seed`."""
        self.table: SegmentTable | None = None
        self.probability: Float[np.ndarray, " segment"] | None = None
        """P of every segment."""
        self.selection: Selection | None = None
        self.losses: Float[np.ndarray, "seed gradient_step"] | None = None

    def fit(
        self, trajectories: Trajectories, annotations: Sequence[Annotation], action_space: Space | None = None
    ) -> SFBC:
        """Learn from behaviour and what was answered about its segments.

        Args:
            trajectories: logged behaviour.
            annotations: answers to yes/no questions about segments of length k (`feedback.items.items_of`).
            action_space: bounds for `action_bound="env"`; by default the largest magnitude in the data, both ways.

        Raises:
            DataError: answers about other segments, or nothing is left after the filter (with the histogram of P).
            ConfigError: a setting makes no sense.
        """
        self.table = segment(trajectories, self.k, self.stride, self.tail)
        self.probability = combine(probabilities(annotations, self.table, mode=self.prob_mode))
        self.selection = select(
            self.probability, self.table, alpha=self.alpha, retro_k=self.retro_k, weight=self.weight
        )
        limit = float(np.abs(trajectories.actions).max())
        scale = ActionScale.of(action_space or Box(trajectories.actions.shape[1], -limit, limit), self.action_bound)
        examples = examples_of(trajectories, self.selection, scale)
        actor, losses = over_seeds(clone, keys_of(self.seeds), examples, self.settings)
        self.policies, self.losses = scale.policy(actor), np.asarray(losses)
        return self

    def act(self, observation: Any, seed: int = 0) -> np.ndarray:
        """The greedy action of one seed's policy for an observation, or for rows of them.

        Raises:
            DataError: it was not fitted yet.
            ShapeError: an observation of another length.
        """
        if self.policies is None:
            raise DataError("This SFBC was not fitted yet; call fit(trajectories, annotations) first.")
        x = jnp.asarray(observation, jnp.float32)
        actor = jax.tree.map(lambda leaf: leaf[seed], self.policies.actor)
        wanted = actor.net.layers[0].weight.shape[0]
        if x.shape[-1:] != (wanted,):
            raise ShapeError(f"Observations of length {wanted} were learnt from; one of shape {x.shape} came.")
        return np.asarray(self.policies.centre + self.policies.half * actor(x))

    predict = act


def examples_of(trajectories: Trajectories, selection: Selection | None, scale: ActionScale) -> Examples:
    """What a cloner is given; without a selection every step counts, with weight 1."""
    n = trajectories.n_steps
    rows = np.arange(n) if selection is None else selection.rows
    weights = np.ones(n, np.float32) if selection is None else selection.weights
    padded = np.zeros(n, np.int32)
    padded[: len(rows)] = rows
    return Examples(
        jnp.asarray(trajectories.observations),
        scale.to_unit(jnp.asarray(trajectories.actions)),
        jnp.asarray(weights),
        jnp.asarray(padded),
        jnp.asarray(len(rows), jnp.int32),
    )
