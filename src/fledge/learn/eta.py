"""What η can be, beside an initialisation and step sizes: discounts, loss weights, rewards and entropy schedules.

A whole learnt update rule is in `fledge.learn.lpg`.

A shape turns a batch into the loss that an actor-critic descends on it. Its arrays are η.

Reference: Xu et al. 2018 (MGRL); Zahavy et al. 2020 (STAC); Zheng et al. 2018 (LIRPG); Vuorio et al. 2022 (the entropy
schedule).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from fledge.core.errors import unknown
from fledge.core.spaces import Space
from fledge.learn.episodes import Episodes
from fledge.nets.adaptive import AdaptivePolicy
from fledge.nets.blocks import MLP

N_REMEMBERED = 10
"""Mean rewards of the last batches that a schedule sees."""
WEIGHTS: dict[str, float] = {
    "discount": 0.99,
    "gae_lambda": 0.95,
    "policy_coef": 1.0,
    "value_coef": 0.5,
    "entropy_coef": 0.01,
}
"""Numbers of an actor-critic's loss → usual value."""


class Theta(eqx.Module):
    """What an inner update moves."""

    policy: AdaptivePolicy
    critic: MLP
    predictor: MLP | None = None
    """Predictions y whose meaning η has to invent; for shapes that ask for them."""


class Targets(eqx.Module):
    """What a learnt update rule puts in the place of advantages."""

    gains: Float[Array, "time episode"]
    """π̂: how much more likely each action is to become."""
    predictions: Float[Array, "time episode prediction"]
    """Logits of ŷ, what the predictions are to become."""
    prediction_coef: float = eqx.field(static=True, default=0.5)


class Shaped(eqx.Module):
    """The loss that a shape made of a batch: rewards to learn from, and the numbers of `WEIGHTS`."""

    rewards: Float[Array, "time episode"]
    weights: dict[str, Float[Array, ""]]
    targets: Targets | None = None
    """In the place of advantages over the critic."""
    penalty: Float[Array, ""] | None = None
    """What the outer loss has to pay for this shape."""


class LossShape(eqx.Module):
    """η as a module: every array in it is meta-learnt."""

    @property
    def n_predictions(self) -> int:
        """Predictions that an agent makes for this shape, of a network of its own; 0 for none."""
        return 0

    @abstractmethod
    def __call__(self, episodes: Episodes, recent: Float[Array, " remembered"], theta: Theta) -> Shaped:
        """The shaped loss of a batch.

        Args:
            episodes: the batch.
            recent: mean rewards of the last batches (newest last).
            theta: the agent that is to be updated. What is read of it is differentiated through.
        """


class HandSet(LossShape):
    """Numbers that a person chose. Nothing in it is learnt: the control beside a learnt η."""

    weights: tuple[tuple[str, float], ...] = eqx.field(static=True, default=())

    def __call__(self, episodes: Episodes, recent: Float[Array, " remembered"], theta: Theta) -> Shaped:
        return Shaped(episodes.rewards, usual(dict(self.weights)))


def usual(weights: Mapping[str, float] | None = None) -> dict[str, Array]:
    """The numbers of a loss, with some in place of the usual ones.

    Raises:
        ConfigError: there is no such number.
    """
    for name in weights or {}:
        if name not in WEIGHTS:
            raise unknown("number of an actor-critic's loss", name, WEIGHTS)
    return {name: jnp.asarray(value, jnp.float32) for name, value in {**WEIGHTS, **(weights or {})}.items()}


class LossWeights(LossShape):
    """Some numbers of the loss, each the sigmoid of an entry of η: discount and λ (MGRL), loss weights too (STAC)."""

    logits: dict[str, Float[Array, ""]]

    @classmethod
    def init(cls, start: Mapping[str, float]) -> LossWeights:
        """η at which the named numbers (all in (0, 1)) have these values.

        Raises:
            ConfigError: there is no such number.
        """
        usual(start)
        inside = {name: jnp.clip(jnp.asarray(x, jnp.float32), 1e-4, 1 - 1e-4) for name, x in start.items()}
        return cls({name: jnp.log(x) - jnp.log1p(-x) for name, x in inside.items()})

    def __call__(self, episodes: Episodes, recent: Float[Array, " remembered"], theta: Theta) -> Shaped:
        learnt = {name: jax.nn.sigmoid(x) for name, x in self.logits.items()}
        return Shaped(episodes.rewards, {**usual(), **learnt})


class IntrinsicReward(LossShape):
    """A reward beside the environment's, r + c · tanh(net(o, a)) (LIRPG)."""

    net: MLP
    action_space: Space
    scale: float = eqx.field(static=True, default=0.1)

    @classmethod
    def init(
        cls, key: Key[Array, ""], observation_space: Space, action_space: Space, *, hidden: int = 32, scale: float = 0.1
    ) -> IntrinsicReward:
        """A fresh network."""
        n_in = observation_space.n_features + action_space.n_features
        return cls(MLP.init(key, n_in, (hidden,), 1), action_space, scale)

    def __call__(self, episodes: Episodes, recent: Float[Array, " remembered"], theta: Theta) -> Shaped:
        seen = jnp.concatenate([episodes.features, self.action_space.features(episodes.actions)], axis=-1)
        return Shaped(episodes.rewards + self.scale * jnp.tanh(self.net(seen)[..., 0]), usual())


class EntropySchedule(LossShape):
    """The entropy weight as a function of the last mean rewards: sigmoid(net(recent))."""

    net: MLP

    @classmethod
    def init(cls, key: Key[Array, ""], *, hidden: int = 32) -> EntropySchedule:
        """A fresh network."""
        return cls(MLP.init(key, N_REMEMBERED, (hidden,), 1, activation="relu"))

    def __call__(self, episodes: Episodes, recent: Float[Array, " remembered"], theta: Theta) -> Shaped:
        return Shaped(episodes.rewards, {**usual(), "entropy_coef": jax.nn.sigmoid(self.net(recent)[0])})


def ignored_parts(gradient: LossShape) -> list[str]:
    """The names of η's arrays whose gradient is exactly zero: the update ignores them. Runs outside `jit`."""
    leaves = jax.tree_util.tree_flatten_with_path(gradient)[0]
    return [jax.tree_util.keystr(path).lstrip(".") for path, leaf in leaves if not bool(jnp.any(leaf != 0))]
