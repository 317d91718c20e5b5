"""Policies learnt from logged behaviour: an MLP with a tanh, deterministic or normal, and the scale of its actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from fledge.core.distributions import LOG_2PI
from fledge.core.errors import ConfigError, unknown
from fledge.core.spaces import Box, Space
from fledge.nets.blocks import MLP

Head = Literal["deterministic", "stochastic"]
Bound = Literal["env", "tanh1"]
BOUNDS: tuple[Bound, ...] = ("env", "tanh1")


class Actor(eqx.Module):
    """tanh(net(s)) in [−1, 1], as it is or as the mean of a normal with one learnt deviation per action entry.

    The log deviation lies in `log_std_range` by a sigmoid (d3rlpy's parametrisation).
    """

    net: MLP
    raw_log_std: Float[Array, " act"] | None
    log_std_range: tuple[float, float] = eqx.field(static=True, default=(-5.0, 2.0))

    @classmethod
    def init(
        cls,
        key: Key[Array, ""],
        n_obs: int,
        n_act: int,
        *,
        hidden: Sequence[int] = (256, 256),
        head: Head = "deterministic",
        log_std_range: tuple[float, float] = (-5.0, 2.0),
    ) -> Actor:
        """Fresh weights (PyTorch's usual scale; biases zero)."""
        if head not in ("deterministic", "stochastic"):
            raise unknown("policy head", head, ("deterministic", "stochastic"))
        raw = jnp.zeros(n_act) if head == "stochastic" else None
        return cls(relu_net(key, n_obs, hidden, n_act), raw, log_std_range)

    def __call__(self, observation: Float[Array, "*batch obs"]) -> Float[Array, "*batch act"]:
        """The deterministic action, or the mean."""
        return jnp.tanh(self.net(observation))

    @property
    def log_std(self) -> Float[Array, " act"]:
        """Log standard deviation.

        Raises:
            ConfigError: the policy is deterministic.
        """
        if self.raw_log_std is None:
            raise ConfigError("This policy is deterministic and has no deviation; make it with head='stochastic'.")
        low, high = self.log_std_range
        return low + jax.nn.sigmoid(self.raw_log_std) * (high - low)

    def log_prob(
        self, observation: Float[Array, "*batch obs"], action: Float[Array, "*batch act"]
    ) -> Float[Array, "*batch"]:
        """Log density of an action in nats. Deterministic: that of a normal of deviation 1, without its constant."""
        difference = action - self(observation)
        if self.raw_log_std is None:
            return -0.5 * jnp.sum(difference**2, axis=-1)
        log_std = self.log_std
        return jnp.sum(-0.5 * ((difference * jnp.exp(-log_std)) ** 2 + LOG_2PI) - log_std, axis=-1)

    def sample(
        self, observation: Float[Array, "*batch obs"], noise: Float[Array, "*batch act"]
    ) -> Float[Array, "*batch act"]:
        """An action from standard normal noise, clipped to [−1, 1]; the mean where there is no deviation."""
        mean = self(observation)
        if self.raw_log_std is None:
            return mean
        return jnp.clip(mean + jnp.exp(self.log_std) * noise, -1.0, 1.0)


class Policy(eqx.Module):
    """An actor, and the scale that brings its [−1, 1] to the environment's actions."""

    actor: Actor
    centre: Float[Array, ""]
    half: Float[Array, ""]

    def __call__(self, observation: Float[Array, "*batch obs"]) -> Float[Array, "*batch act"]:
        """The greedy action in the environment's units."""
        return self.centre + self.half * self.actor(observation)


class ActionScale(eqx.Module):
    """How the actions of a data set become the [−1, 1] of an actor, and back.

    `env`: the environment's bounds are ±1. `tanh1`: nothing is scaled, so the policy can only reach ±1 whatever the
    environment takes (d3rlpy without an action scaler, and the published numbers of Beck 2025).
    """

    centre: float = eqx.field(static=True, default=0.0)
    half: float = eqx.field(static=True, default=1.0)

    @classmethod
    def of(cls, space: Space, bound: str) -> ActionScale:
        """The scale for an environment's actions.

        Raises:
            ConfigError: there is no such bound, or the space has no finite bounds.
        """
        if bound not in BOUNDS:
            raise unknown("action bound", bound, BOUNDS)
        if bound == "tanh1":
            return cls()
        if not isinstance(space, Box) or not (abs(space.low) < float("inf") and abs(space.high) < float("inf")):
            raise ConfigError(
                f"action_bound='env' needs actions in a Box with finite bounds, not {space}; use 'tanh1'."
            )
        return cls((space.low + space.high) / 2, (space.high - space.low) / 2)

    def to_unit(self, actions: Float[Array, "*batch act"]) -> Float[Array, "*batch act"]:
        """Actions as the actor has to put them out."""
        return (actions - self.centre) / self.half

    def policy(self, actor: Actor) -> Policy:
        """The actor with this scale. Under `vmap` over actors it is the same for all."""
        return Policy(actor, jnp.asarray(self.centre, jnp.float32), jnp.asarray(self.half, jnp.float32))


def relu_net(key: Key[Array, ""], n_in: int, hidden: Sequence[int], n_out: int) -> MLP:
    """The network that all learners here use: ReLU, PyTorch's usual scale."""
    return MLP.init(key, n_in, tuple(hidden), n_out, activation="relu", init="uniform_fan_in", gain=1.0)
