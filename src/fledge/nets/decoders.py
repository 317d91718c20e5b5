"""Networks that decode a latent: what it says about rewards, next observations and the task.

All take latents with the axes (term, batch, latent) and steps with (step, batch): for every term the whole trajectory
is decoded, what is past and what is to come. The errors of the steps are summed under the weights that are handed in.
"""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from fledge.core.spaces import Space
from fledge.core.types import Token
from fledge.nets.blocks import MLP, Linear, activate


class TransitionFeatures(eqx.Module):
    """The chosen parts of a transition, embedded: one linear layer + ReLU for each kind, E_s shared by observations.

    Decoders have layers of their own, not the encoder's (VariBAD).
    """

    layers: dict[str, Linear]
    parts: tuple[str, ...] = eqx.field(static=True)
    observation_space: Space
    action_space: Space

    @classmethod
    def init(
        cls,
        key: Key[Array, ""],
        observation_space: Space,
        action_space: Space,
        parts: Sequence[str],
        *,
        observation: int = 32,
        action: int = 16,
    ) -> TransitionFeatures:
        """Random weights; `parts` among `final_observation`, `action`, `last_observation`."""
        key_observation, key_action = jax.random.split(key)
        layers = {"observation": Linear.init(key_observation, observation_space.n_features, observation)}
        if "action" in parts:
            layers["action"] = Linear.init(key_action, action_space.n_features, action)
        return cls(layers, tuple(parts), observation_space, action_space)

    @property
    def out_size(self) -> int:
        """Width of the output."""
        return sum(self._layer(part).bias.shape[0] for part in self.parts)

    def __call__(self, steps: Token) -> Float[Array, "*batch features"]:
        return jnp.concatenate([jax.nn.relu(self._layer(p)(self._raw(p, steps))) for p in self.parts], axis=-1)

    def _layer(self, part: str) -> Linear:
        return self.layers["action" if part == "action" else "observation"]

    def _raw(self, part: str, steps: Token) -> Float[Array, "*batch features"]:
        space = self.action_space if part == "action" else self.observation_space
        return space.features(getattr(steps, part))


class PairMLP(eqx.Module):
    """MLP([m_t, e_i]) for every pair of a latent m_t and a step i. The first layer is taken of each alone, then added.

    ReLU, as in VariBAD's decoders.
    """

    of_latent: Linear
    of_step: Float[Array, "in out"]
    rest: MLP | None

    @classmethod
    def init(cls, key: Key[Array, ""], latent_size: int, step_size: int, hidden: Sequence[int], n_out: int) -> PairMLP:
        """Random weights. `hidden=()` leaves a linear map of [m, e]."""
        key_first, key_rest = jax.random.split(key)
        first = Linear.init(key_first, latent_size + step_size, hidden[0] if hidden else n_out)
        rest = None
        if hidden:
            rest = MLP.init(key_rest, hidden[0], hidden[1:], n_out, activation="relu", init="uniform_fan_in", gain=1.0)
        of_latent = Linear(first.weight[:latent_size], first.bias)
        of_step = first.weight[latent_size:]
        return cls(of_latent, of_step, rest)

    def __call__(
        self, latents: Float[Array, "term *batch latent"], steps: Float[Array, "step *batch features"]
    ) -> Float[Array, "term step *batch out"]:
        x = self.of_latent(latents)[:, None] + (steps @ self.of_step)[None]
        return x if self.rest is None else self.rest(jax.nn.relu(x))


def _relu_mlp(key: Key[Array, ""], n_in: int, hidden: Sequence[int], n_out: int) -> MLP:
    return MLP.init(key, n_in, hidden, n_out, activation="relu", init="uniform_fan_in", gain=1.0)


class RewardDecoder(eqx.Module):
    """r̂ = MLP([m, E_s(o′), E_a(a), E_s(o)]), squared error against the raw reward.

    The squared error is −log N(r; r̂, ½) but for ½ log π.
    """

    features: TransitionFeatures
    net: PairMLP

    @classmethod
    def init(
        cls,
        key: Key[Array, ""],
        latent_size: int,
        observation_space: Space,
        action_space: Space,
        hidden: Sequence[int],
        *,
        parts: Sequence[str] = ("final_observation", "action", "last_observation"),
    ) -> RewardDecoder:
        """Random weights; `parts` are what of a transition it reads."""
        key_features, key_net = jax.random.split(key)
        features = TransitionFeatures.init(key_features, observation_space, action_space, parts)
        return cls(features, PairMLP.init(key_net, latent_size, features.out_size, hidden, 1))

    def __call__(
        self, latents: Float[Array, "term batch latent"], steps: Token, weights: Float[Array, "step batch"]
    ) -> Float[Array, "term batch"]:
        error = self.net(latents, self.features(steps))[..., 0] - steps.reward
        return jnp.sum(weights * error**2, axis=1)


class CellRewardDecoder(eqx.Module):
    """MLP(m) → one logit per cell of a grid: does a step that ends there earn 1? Binary cross-entropy in nats.

    Cell (x, y) is row x · height + y. As the prediction depends on the cell alone, the sum over steps needs only how
    often each cell was entered, and how often it paid: T × cells terms instead of T × T.
    """

    net: MLP
    height: int = eqx.field(static=True)

    @classmethod
    def init(
        cls, key: Key[Array, ""], latent_size: int, width: int, height: int, hidden: Sequence[int]
    ) -> CellRewardDecoder:
        """Random weights for a grid of `width` × `height` cells."""
        return cls(_relu_mlp(key, latent_size, hidden, width * height), height)

    def __call__(
        self, latents: Float[Array, "term batch latent"], steps: Token, weights: Float[Array, "step batch"]
    ) -> Float[Array, "term batch"]:
        logits = self.net(latents)
        xy = jnp.round(steps.final_observation).astype(jnp.int32)
        entered = weights[..., None] * jax.nn.one_hot(xy[..., 0] * self.height + xy[..., 1], logits.shape[-1])
        paid = entered * (steps.reward == 1.0)[..., None]
        return jnp.sum(jnp.sum(entered, 0) * jax.nn.softplus(logits) - jnp.sum(paid, 0) * logits, axis=-1)

    def probabilities(self, latents: Float[Array, "*batch latent"]) -> Float[Array, "*batch cell"]:
        """The chance of each cell to pay, each by itself: they need not sum to one."""
        return jax.nn.sigmoid(self.net(latents))


class StateDecoder(eqx.Module):
    """ô′ = MLP([m, E_s(o), E_a(a)]), squared error averaged over the features of an observation."""

    features: TransitionFeatures
    net: PairMLP

    @classmethod
    def init(
        cls,
        key: Key[Array, ""],
        latent_size: int,
        observation_space: Space,
        action_space: Space,
        hidden: Sequence[int],
    ) -> StateDecoder:
        """Random weights."""
        key_features, key_net = jax.random.split(key)
        parts = ("last_observation", "action")
        features = TransitionFeatures.init(key_features, observation_space, action_space, parts)
        n_out = observation_space.n_features
        return cls(features, PairMLP.init(key_net, latent_size, features.out_size, hidden, n_out))

    def __call__(
        self, latents: Float[Array, "term batch latent"], steps: Token, weights: Float[Array, "step batch"]
    ) -> Float[Array, "term batch"]:
        wanted = self.features.observation_space.features(steps.final_observation)
        error = jnp.mean((self.net(latents, self.features(steps)) - wanted) ** 2, axis=-1)
        return jnp.sum(weights * error, axis=1)


WIDE = 8
"""See `TaskDecoder`."""


class TaskDecoder(eqx.Module):
    """MLP(m) → what is known of the task: a vector (squared error averaged over its entries) or the logits of an id
    (cross-entropy in nats), after the type of what it is held against.

    Vectors much wider than the last hidden layer (all the weights of a policy) are never decoded: with h the
    last hidden layer and y the target less the bias, |Wᵀh − y|² = hᵀ(WWᵀ)h − 2 hᵀ(Wy) + |y|², which costs a product
    with y per trial instead of one per trial and term.
    """

    net: MLP

    @classmethod
    def init(cls, key: Key[Array, ""], latent_size: int, hidden: Sequence[int], n_out: int) -> TaskDecoder:
        """Random weights."""
        return cls(_relu_mlp(key, latent_size, hidden, n_out))

    def __call__(
        self, latents: Float[Array, "term batch latent"], target: Float[Array, "batch out"] | Int[Array, " batch"]
    ) -> Float[Array, "term batch"]:
        n_in, n_out = self.net.layers[-1].weight.shape
        if jnp.issubdtype(target.dtype, jnp.integer):
            return -jnp.sum(jax.nn.log_softmax(self.net(latents)) * jax.nn.one_hot(target, n_out), axis=-1)
        if n_out > WIDE * n_in:
            return self._wide(latents, target)
        return jnp.mean((self.net(latents) - target) ** 2, axis=-1)

    def _wide(
        self, latents: Float[Array, "term batch latent"], target: Float[Array, "batch out"]
    ) -> Float[Array, "term batch"]:
        last = self.net.layers[-1]
        h = latents
        for layer in self.net.layers[:-1]:
            h = activate(self.net.activation, layer(h))
        # Less the bias, so that what is squared is small: the bias soon is near the mean of the targets.
        weight, rest = last.weight, target - last.bias
        squares = jnp.sum((h @ (weight @ weight.T) - 2 * (rest @ weight.T)) * h, axis=-1)
        return (squares + jnp.sum(rest**2, axis=-1)) / rest.shape[-1]
