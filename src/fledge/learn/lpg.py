"""A whole update rule as η: a small network that reads a rollout backwards and says what the agent is to become.

Reference: Oh et al. 2020, Discovering Reinforcement Learning Algorithms (LPG), §3; Jackson et al. 2023 (GROOVE), whose
public code has the constants.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from fledge.core.errors import ConfigError, ContractError
from fledge.core.spaces import Discrete, Space
from fledge.learn.episodes import Episodes, masked_mean
from fledge.learn.eta import LossShape, Shaped, Targets, Theta, usual
from fledge.nets.blocks import MLP, Linear
from fledge.nets.recurrent import LSTMMemory


class LearnedPolicyGradient(LossShape):
    """An LSTM that runs backwards over each episode puts out π̂ (how much more likely the action is to become) and ŷ.

    It reads reward, end, discount, π(a), and an embedding of the agent's prediction y here and in the next step. What y
    means is not said: whatever helps π̂. An agent ascends log π(a) · π̂ and descends c_y KL(y ‖ ŷ). Its critic is the
    outer loss's: the policy never hears of it.

    The outer loss pays for certainty of the policy and of y, and for large targets (ibid.).
    """

    embed: MLP
    memory: LSTMMemory
    out: Linear
    discount: float = eqx.field(static=True, default=0.99)
    prediction_coef: float = eqx.field(static=True, default=0.5)
    policy_entropy_coef: float = eqx.field(static=True, default=5e-2)
    prediction_entropy_coef: float = eqx.field(static=True, default=1e-3)
    gain_coef: float = eqx.field(static=True, default=5e-3)
    """Of the mean square of π̂."""
    target_coef: float = eqx.field(static=True, default=1e-3)
    """Of the mean square of the logits of ŷ."""

    @classmethod
    def init(
        cls,
        key: Key[Array, ""],
        action_space: Space,
        *,
        hidden: int = 32,
        n_predictions: int = 8,
        embedding: int = 16,
        discount: float = 0.99,
    ) -> LearnedPolicyGradient:
        """A fresh rule. Published: 256 hidden units.

        Raises:
            ConfigError: actions are not discrete, so that π(a) is no probability.
        """
        if not isinstance(action_space, Discrete):
            raise ConfigError(
                "A learned policy gradient reads the probability of the action, and these actions are of the space "
                f"{type(action_space).__name__}. Take a family with discrete actions, such as mdp or bandit-5."
            )
        key_embed, key_memory, key_out = jax.random.split(key, 3)
        embed = MLP.init(key_embed, n_predictions, (embedding,), 1, activation="relu")
        memory = LSTMMemory.init(key_memory, 6, hidden)
        return cls(embed, memory, Linear.init(key_out, hidden, 1 + n_predictions), discount)

    @property
    def n_predictions(self) -> int:
        return self.out.bias.shape[0] - 1

    def __call__(self, episodes: Episodes, recent: Float[Array, " remembered"], theta: Theta) -> Shaped:
        if theta.predictor is None:
            raise ContractError(
                "This agent predicts nothing. `OnlineMeta` gives it a network of n_predictions outputs."
            )
        mask = episodes.mask
        ends = jnp.concatenate([~mask[1:], jnp.ones_like(mask[:1])])
        distribution = theta.policy(episodes.features)
        predicted = jax.nn.softmax(theta.predictor(episodes.features))
        following = jnp.concatenate([predicted[1:], jnp.zeros_like(predicted[:1])]) * ~ends[..., None]
        chance = jnp.exp(distribution.log_prob(episodes.actions))
        seen = [episodes.rewards * mask, ends * 1.0, jnp.full(mask.shape, self.discount), chance]
        tokens = jnp.stack([*seen, self.embed(predicted)[..., 0], self.embed(following)[..., 0]], axis=-1)
        start = jax.tree.map(lambda x: jnp.broadcast_to(x, (mask.shape[1], *x.shape)), self.memory.begin())
        # Backwards the last step of an episode comes first: there, and at all padding, memory starts anew.
        _, read = self.memory.scan(start, tokens[::-1], ends[::-1])
        found = self.out(read[::-1])
        targets = Targets(found[..., 0], found[..., 1:], self.prediction_coef)
        sizes = self.gain_coef * targets.gains**2 + self.target_coef * jnp.mean(targets.predictions**2, axis=-1)
        certain = -jnp.sum(predicted * jnp.log(predicted + 1e-8), axis=-1) * self.prediction_entropy_coef
        certain += self.policy_entropy_coef * distribution.entropy()
        weights = usual({"entropy_coef": 0.0})
        return Shaped(episodes.rewards, weights, targets, masked_mean(sizes - certain, mask))
