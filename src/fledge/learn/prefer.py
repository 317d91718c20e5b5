"""Learning from pairs of segments: S-DPO, contrastive preference learning, and a Bradley–Terry reward model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from fledge.learn.actors import Actor, Head, relu_net
from fledge.nets.blocks import MLP


class Pairs(eqx.Module):
    """Pairs of segments of one length, and which was preferred.

    A batch of M pairs is gathered as (M, k, obs) and (M, k, act) for either side: one row per pair, whatever the length
    of an episode. (The released code lays pairs out by episodes, which is right only if k is an episode's length.)
    """

    observations: Float[Array, "step obs"]
    actions: Float[Array, "step act"]
    first: Int[Array, " pair"]
    """First step of the one segment."""
    second: Int[Array, " pair"]
    preference: Float[Array, " pair"]
    """Probability that the first is better; ½ says nothing and teaches nothing."""
    length: int = eqx.field(static=True)
    """k, the steps of a segment."""

    def gather(self, at: Int[Array, " pair_of_batch"]) -> tuple[Array, Array, Array]:
        """Observations (2, pair, k, obs), actions (2, pair, k, act) and preference (pair,) of some pairs."""
        starts = jnp.stack([self.first[at], self.second[at]])
        steps = starts[..., None] + jnp.arange(self.length)
        return self.observations[steps], self.actions[steps], self.preference[at]


@dataclass(frozen=True)
class PreferenceSettings:
    """Of S-DPO (Beck 2025) and of CPL (Hejna et al. 2024)."""

    loss: Literal["sdpo", "cpl"] = "sdpo"
    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 1e-3
    batch_size: int = 100
    """Pairs."""
    n_steps: int = 8000
    head: Head = "deterministic"
    beta: float = 1.0
    """S-DPO: scale of the difference of scores. CPL's α is 0.1 in its paper."""
    aggregate: Literal["mean", "sum"] = "mean"
    """Of the steps' log likelihoods over a segment."""
    soft_labels: bool = False
    """Weigh both orders by the preference, instead of taking the likelier one as certain."""
    conservative: float = 1.0
    """CPL: λ, what the score of the rejected segment is multiplied by; 0.5 in its paper."""


def segment_scores(
    actor: Actor,
    observations: Float[Array, "*pair time obs"],
    actions: Float[Array, "*pair time act"],
    aggregate: str = "mean",
) -> Float[Array, "*pair"]:
    """Mean or sum over a segment of log π(a|s); −½ (π(s) − a)² for a deterministic policy."""
    steps = actor.log_prob(observations, actions)
    return jnp.mean(steps, axis=-1) if aggregate == "mean" else jnp.sum(steps, axis=-1)


def pair_loss(
    first: Float[Array, " pair"],
    second: Float[Array, " pair"],
    preference: Float[Array, " pair"],
    *,
    beta: float = 1.0,
    soft: bool = False,
    conservative: float = 1.0,
) -> Float[Array, ""]:
    """Mean over all pairs of −log σ(β (score of the preferred − λ · score of the other)).

    Args:
        first: scores of the first segments.
        second: of the second ones.
        preference: that the first is better; a pair with ½ adds 0 (and still counts in the mean).
        beta: scale.
        soft: weigh both orders by `preference` and 1 − `preference`.
        conservative: λ; 1 is symmetric (S-DPO), less is CPL's.
    """
    first_wins = -jax.nn.log_sigmoid(beta * (first - conservative * second))
    second_wins = -jax.nn.log_sigmoid(beta * (second - conservative * first))
    p = preference if soft else (preference > 0.5).astype(first.dtype)
    told = preference != 0.5
    return jnp.mean(jnp.where(told, p * first_wins + (1 - p) * second_wins, 0.0))


def learn_preferences(
    key: Key[Array, ""], pairs: Pairs, settings: PreferenceSettings, reference: Actor | None = None
) -> tuple[Actor, Float[Array, " gradient_step"]]:
    """The actor after `n_steps` of Adam, and the loss at every step.

    Args:
        key: randomness.
        pairs: what was preferred to what.
        settings: S-DPO or CPL.
        reference: scores are taken relative to this policy's (as in DPO; the actor then starts as a copy of it). The
            paper has none, so its loss can also be lowered by making the rejected segment unlikely.
    """
    key_init, key_train = jax.random.split(key)
    n_obs, n_act = pairs.observations.shape[1], pairs.actions.shape[1]
    actor = Actor.init(key_init, n_obs, n_act, hidden=settings.hidden, head=settings.head)
    actor = actor if reference is None else reference

    def loss(actor: Actor, at: Int[Array, " pair_of_batch"]) -> Float[Array, ""]:
        observations, actions, preference = pairs.gather(at)
        scores = segment_scores(actor, observations, actions, settings.aggregate)
        if reference is not None:
            base = segment_scores(reference, observations, actions, settings.aggregate)
            scores = scores - jax.lax.stop_gradient(base)
        conservative = settings.conservative if settings.loss == "cpl" else 1.0
        return pair_loss(
            scores[0], scores[1], preference, beta=settings.beta, soft=settings.soft_labels, conservative=conservative
        )

    n = pairs.first.shape[0]
    return _descend(key_train, actor, loss, n, settings.batch_size, settings.n_steps, settings.learning_rate)


@dataclass(frozen=True)
class RewardSettings:
    """Of the reward model (Christiano et al. 2017; sizes of PEBBLE and RL-VLM-F)."""

    hidden: tuple[int, ...] = (256, 256, 256)
    learning_rate: float = 3e-4
    batch_size: int = 128
    n_steps: int = 8000
    n_members: int = 3
    last_frame_only: bool = False
    """The Markov variant: a segment is worth what its last step is worth."""


class RewardModel(eqx.Module):
    """An ensemble of r(s, a) = tanh(net(s, a)); its reward is the members' mean."""

    members: MLP
    """Every leaf has the leading axis `member`."""

    def each(
        self, observation: Float[Array, "*batch obs"], action: Float[Array, "*batch act"]
    ) -> Float[Array, "member *batch"]:
        """What each member says."""
        x = jnp.concatenate([observation, action], axis=-1)
        return jax.vmap(lambda net: jnp.tanh(net(x))[..., 0])(self.members)

    def __call__(
        self, observation: Float[Array, "*batch obs"], action: Float[Array, "*batch act"]
    ) -> Float[Array, "*batch"]:
        """The reward of a step, in [−1, 1]."""
        return jnp.mean(self.each(observation, action), axis=0)


def reward_loss(
    model: RewardModel,
    observations: Float[Array, "2 pair time obs"],
    actions: Float[Array, "2 pair time act"],
    preference: Float[Array, " pair"],
    last_frame_only: bool = False,
) -> Float[Array, ""]:
    """Cross-entropy of the preference with P(1 ≻ 2) = σ(Σ r(τ1) − Σ r(τ2)), summed over the members (nats)."""
    steps = model.each(observations, actions)
    total = steps[..., -1] if last_frame_only else jnp.sum(steps, axis=-1)
    difference = total[:, 0] - total[:, 1]
    crossed = -preference * jax.nn.log_sigmoid(difference) - (1 - preference) * jax.nn.log_sigmoid(-difference)
    return jnp.sum(jnp.mean(crossed, axis=-1))


def learn_reward(
    key: Key[Array, ""], pairs: Pairs, settings: RewardSettings
) -> tuple[RewardModel, Float[Array, " gradient_step"]]:
    """The reward model after `n_steps` of Adam, and the loss at every step."""
    key_init, key_train = jax.random.split(key)
    n_in = pairs.observations.shape[1] + pairs.actions.shape[1]
    keys = jax.random.split(key_init, settings.n_members)
    model = RewardModel(jax.vmap(lambda k: relu_net(k, n_in, settings.hidden, 1))(keys))

    def loss(model: RewardModel, at: Int[Array, " pair_of_batch"]) -> Float[Array, ""]:
        return reward_loss(model, *pairs.gather(at), settings.last_frame_only)

    n = pairs.first.shape[0]
    return _descend(key_train, model, loss, n, settings.batch_size, settings.n_steps, settings.learning_rate)


def _descend(
    key: Key[Array, ""], model: Any, loss: Callable[..., Array], n: int, batch_size: int, n_steps: int, rate: float
) -> tuple[Any, Float[Array, " gradient_step"]]:
    """Adam on batches of places drawn uniformly from n."""
    adam = optax.adam(rate)

    def step(carry: tuple[Any, optax.OptState], key: Key[Array, ""]) -> tuple[tuple[Any, optax.OptState], Array]:
        model, state = carry
        value, gradient = jax.value_and_grad(loss)(model, jax.random.randint(key, (batch_size,), 0, n))
        change, state = adam.update(gradient, state)
        return (optax.apply_updates(model, change), state), value

    (model, _), losses = jax.lax.scan(step, (model, adam.init(model)), jax.random.split(key, n_steps))
    return model, losses
