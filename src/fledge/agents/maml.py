"""Agents that adapt by gradient steps: the MAML family inside a trial."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from fledge.core.contracts import Agent, Env
from fledge.core.errors import ConfigError, unknown
from fledge.core.types import Decision, Token, Trajectory
from fledge.learn.episodes import Episodes, decide
from fledge.learn.inner import InnerSettings, Meta, inner_step
from fledge.nets.adaptive import AdaptivePolicy
from fledge.nets.blocks import ACTIVATIONS


@dataclass(frozen=True)
class MAMLAgentSettings:
    """The policy network that is adapted."""

    hidden: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    context_size: int = 0
    """Inputs that belong to the task (CAVIA)."""
    init_std: float = 1.0
    """Standard deviation of continuous actions at first; its logarithm is a parameter like any other."""


class MAMLMemory(eqx.Module):
    """Adapted weights, and the episodes since the last step."""

    policy: AdaptivePolicy
    episodes: Episodes
    n_episodes: Int[Array, ""]
    """Finished in this trial."""


class MAMLAgent(Agent):
    """Acts with adapted weights, and takes an inner step after every `inner.batch_size` episodes of a trial.

    It goes on for as long as the trial lasts, also beyond the number of steps that it was trained for; with
    `inner.n_steps` = 0 (the multi-task control) it never steps.
    """

    adapts: ClassVar[bool] = True
    meta: Meta
    inner: InnerSettings = eqx.field(static=True)
    horizon: int = eqx.field(static=True)

    @property
    def episodes_per_step(self) -> int:
        """Episodes between two gradient steps: the x-axis of its adaptation curve."""
        return self.inner.batch_size

    def begin(self) -> MAMLMemory:
        policy, shape = self.meta.policy, (self.horizon, self.inner.batch_size)
        action = policy.head.space.zeros()
        nothing = Episodes(
            jnp.zeros((*shape, policy.observation_space.n_features)),
            jnp.zeros((*shape, *action.shape), action.dtype),
            jnp.zeros(shape),
            jnp.zeros(shape),
            jnp.zeros(shape, bool),
        )
        return MAMLMemory(policy, nothing, jnp.asarray(0, jnp.int32))

    def sample_noise(self, key: Key[Array, ""]) -> PyTree[Array]:
        return self.meta.policy.head.sample_noise(key)

    def act(self, memory: MAMLMemory, token: Token, noise: PyTree[Array] | None = None) -> tuple[Decision, MAMLMemory]:
        return decide(memory.policy, token.observation, noise), memory

    def adapt(
        self, key: Key[Array, ""], memory: MAMLMemory, episode: Trajectory, mask: Bool[Array, " time"]
    ) -> MAMLMemory:
        slot = memory.n_episodes % self.inner.batch_size
        features = memory.policy.features(episode.token.observation)
        new = Episodes(features, episode.decision.action, episode.timestep.reward, episode.decision.log_prob, mask)
        episodes = jax.tree.map(lambda all_, one: all_.at[:, slot].set(one), memory.episodes, new)
        count = memory.n_episodes + 1
        policy = memory.policy
        if self.inner.n_steps:
            stepped = inner_step(self.meta, policy, episodes, self.inner)
            full = count % self.inner.batch_size == 0
            policy = jax.tree.map(lambda a, b: jnp.where(full, a, b), stepped, policy)
        return MAMLMemory(policy, episodes, count)


def adaptive_policy(settings: MAMLAgentSettings, env: Env) -> Callable[[Key[Array, ""]], AdaptivePolicy]:
    """A function from a key to a fresh policy for this environment.

    Raises:
        ConfigError: an unknown activation, or a size or deviation that makes no sense.
    """
    if settings.activation not in ACTIVATIONS:
        raise unknown("activation", settings.activation, ACTIVATIONS)
    if settings.context_size < 0 or settings.init_std <= 0 or any(n < 1 for n in settings.hidden):
        raise ConfigError(
            f"Layers have at least 1 unit, context_size is at least 0 and init_std above 0; got hidden = "
            f"{list(settings.hidden)}, context_size = {settings.context_size}, init_std = {settings.init_std}."
        )
    sizes: dict[str, Any] = {
        "hidden": settings.hidden,
        "activation": settings.activation,
        "context_size": settings.context_size,
        "init_std": settings.init_std,
    }
    return lambda key: AdaptivePolicy.init(key, env.observation_space, env.action_space, **sizes)


def returns_by_step(returns: Float[Array, "task episode"], episodes_per_step: int) -> Float[Array, "task step"]:
    """The mean return of the episodes between two gradient steps."""
    return jnp.mean(returns.reshape(*returns.shape[:-1], -1, episodes_per_step), axis=-1)
