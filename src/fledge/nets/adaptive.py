"""A policy network whose weights a gradient adapts: all of them, its last layer, or an input of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree, Shaped

from fledge.core.distributions import Distribution
from fledge.core.errors import ConfigError
from fledge.core.spaces import Space
from fledge.nets.blocks import MLP
from fledge.nets.policy import ActionHead

Part = Literal["all", "head", "context"]
PARTS = ("all", "head", "context")


class AdaptivePolicy(eqx.Module):
    """Features of the observation, beside a context vector that belongs to the task, → MLP → action distribution."""

    net: MLP
    head: ActionHead
    context: Float[Array, " context"]
    observation_space: Space

    @classmethod
    def init(
        cls,
        key: Key[Array, ""],
        observation_space: Space,
        action_space: Space,
        *,
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        context_size: int = 0,
        init_std: float = 1.0,
    ) -> AdaptivePolicy:
        """Random weights; the context starts at zero (Zintgraf et al. 2019, CAVIA)."""
        head = ActionHead.init(action_space, init_std=init_std)
        out_init, out_gain = head.out_init
        n_in = observation_space.n_features + context_size
        net = MLP.init(key, n_in, hidden, head.n_outputs, activation=activation, out_init=out_init, out_gain=out_gain)
        return cls(net, head, jnp.zeros(context_size), observation_space)

    def features(self, observation: Shaped[Array, "*batch_and_obs"]) -> Float[Array, "*batch feature"]:
        """What the network reads of an observation."""
        return self.observation_space.features(observation).astype(jnp.float32)

    def __call__(self, features: Float[Array, "*batch feature"]) -> Distribution:
        context = jnp.broadcast_to(self.context, (*features.shape[:-1], *self.context.shape))
        return self.head(self.net(jnp.concatenate([features, context], axis=-1)))


def adapted_part(policy: AdaptivePolicy, part: Part) -> PyTree[Float[Array, ""]]:
    """1 for every leaf that inner steps move, else 0: `all` (MAML), `head`, the last layer (ANIL), `context` (CAVIA).

    Raises:
        ConfigError: the context is to be adapted, and has size 0.
    """
    if part == "context" and policy.context.shape[0] == 0:
        raise ConfigError("adapts = 'context' needs a context_size of at least 1; CAVIA took 5 for 2D navigation.")
    zeros = jax.tree.map(lambda _: jnp.zeros(()), policy)
    if part == "all":
        return jax.tree.map(lambda _: jnp.ones(()), policy)
    if part == "head":
        last = jax.tree.map(lambda _: jnp.ones(()), policy.net.layers[-1])
        return eqx.tree_at(lambda p: p.net.layers[-1], zeros, last)
    return eqx.tree_at(lambda p: p.context, zeros, jnp.ones(()))
