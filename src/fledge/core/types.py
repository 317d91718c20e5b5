"""The values that travel between environments, agents and learners."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from fledge.core.spaces import Space

Task = PyTree[Array]
"""One task: a pytree of arrays, so that `vmap` over tasks, splits and task-told networks are one line each."""

SPLITS = ("train", "test", "ood")


class TimeStep(eqx.Module):
    """What one environment step returns. Shapes are those of one environment; batch with `vmap`.

    At an episode's end inside a trial the two observations differ: `final_observation` is what the action led to,
    `observation` is the start of the next episode. Elsewhere they are equal.
    """

    observation: Shaped[Array, "*obs"]
    """What the agent acts from next (after a reset, if the episode ended)."""
    final_observation: Shaped[Array, "*obs"]
    """What this action led to (before any reset)."""
    reward: Float[Array, "*batch"]
    terminated: Bool[Array, "*batch"]
    """The episode reached an end of its own: nothing more could be earned in it."""
    truncated: Bool[Array, "*batch"]
    """The episode was cut by a time limit."""
    trial_end: Bool[Array, "*batch"]
    """The last episode on this task ended: memory is reset and a new task is drawn."""
    info: dict[str, Array] = eqx.field(default_factory=dict)
    """Named extras (`success` …), the same keys at every step."""

    @property
    def done(self) -> Bool[Array, "*batch"]:
        """Whether the episode ended, for whichever reason."""
        return self.terminated | self.truncated

    @classmethod
    def of(
        cls,
        observation: Shaped[Array, "*obs"],
        reward: Any,
        *,
        terminated: Any = False,
        truncated: Any = False,
        info: dict[str, Array] | None = None,
    ) -> TimeStep:
        """The step of a plain episode: one observation, no reset, no trial."""
        return cls(
            observation=observation,
            final_observation=observation,
            reward=jnp.asarray(reward, jnp.float32),
            terminated=jnp.asarray(terminated, bool),
            truncated=jnp.asarray(truncated, bool),
            trial_end=jnp.asarray(False),
            info=info or {},
        )


class Token(eqx.Module):
    """What an agent receives before one decision: the last transition whole, and where it stands now.

    The last transition is (`last_observation`, `action`, `reward`, `done`, `final_observation`); at a trial's first
    decision (`start`) there is none and its entries are zero. Nothing of the old task is ever in the new one's token.
    """

    observation: Shaped[Array, "*obs"]
    last_observation: Shaped[Array, "*obs"]
    action: Shaped[Array, "*act"]
    reward: Float[Array, "*batch"]
    done: Bool[Array, "*batch"]
    final_observation: Shaped[Array, "*obs"]
    start: Bool[Array, "*batch"]
    task: Float[Array, "*batch task"] | None = None
    """The task vector, filled in only for agents that are told (`Agent.told`)."""

    @classmethod
    def first(
        cls, observation: Shaped[Array, "*obs"], action_space: Space, task: Float[Array, " task"] | None = None
    ) -> Token:
        """The token of a trial's first decision (one environment)."""
        zero = jnp.zeros_like(observation)
        no = jnp.asarray(False)
        return cls(
            observation=observation,
            last_observation=zero,
            action=action_space.zeros(),
            reward=jnp.zeros(()),
            done=no,
            final_observation=zero,
            start=~no,
            task=task,
        )

    def next(self, action: Shaped[Array, "*act"], timestep: TimeStep) -> Token:
        """The token after `action` led to `timestep`, inside the same trial."""
        return Token(
            observation=timestep.observation,
            last_observation=self.observation,
            action=action,
            reward=timestep.reward,
            done=timestep.done,
            final_observation=timestep.final_observation,
            start=jnp.zeros_like(timestep.done),
            task=self.task,
        )


class Decision(eqx.Module):
    """An action, with what its maker thought of it (zeros where it has no opinion)."""

    action: Shaped[Array, "*act"]
    log_prob: Float[Array, "*batch"]
    value: Float[Array, "*batch"]

    @classmethod
    def plain(cls, action: Shaped[Array, "*act"]) -> Decision:
        """A decision without probability or value, for agents that are not learnt by policy gradients."""
        return cls(action, jnp.zeros(()), jnp.zeros(()))


class Trajectory(eqx.Module):
    """What happened: decision t was made on `token[t]`, and `timestep[t]` came back. Time is the first axis."""

    token: Token
    decision: Decision
    timestep: TimeStep
