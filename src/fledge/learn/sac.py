"""Soft actor-critic with a latent context (Haarnoja et al. 2018; the context as in PEARL, Rakelly et al. 2019).

A set of pure functions on a state: `init`, `act`, `update`. Whoever learns the context (an encoder, a posterior) gets
the gradient of the critics' loss with respect to it from `update`; the actor teaches it nothing, as in PEARL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key, PyTree

from fledge.core.distributions import LOG_2PI
from fledge.learn.ppo import warmed_up
from fledge.nets.blocks import MLP

LOG_STD_RANGE = (-10.0, 2.0)


@dataclass(frozen=True)
class SACSettings:
    """What can be turned. The defaults are those of the second SAC paper (arXiv 1812.05905, table 1).

    `temperature` None tunes it until the policy's entropy is `target_entropy` (None: −1 nat for each action dimension);
    a number keeps it there. `target_rate` is the share by which the targets move towards the critics in each update.
    """

    hidden: tuple[int, ...] = (256, 256)
    discount: float = 0.99
    learning_rate: float = 3e-4
    target_rate: float = 0.005
    temperature: float | None = None
    target_entropy: float | None = None
    reward_scale: float = 1.0
    n_warmup: int = 0
    """Steps over which the learning rate rises."""


class Transition(eqx.Module):
    """Rows of experience. Actions lie in [−1, 1]. `terminated` is not raised where only time ran out."""

    observation: Float[Array, "*batch obs"]
    action: Float[Array, "*batch act"]
    reward: Float[Array, "*batch"]
    next_observation: Float[Array, "*batch obs"]
    terminated: Bool[Array, "*batch"]


class Critics(eqx.Module):
    """Two action values, each of its own network; the smaller is believed."""

    first: MLP
    second: MLP

    def __call__(
        self,
        observation: Float[Array, "*batch obs"],
        action: Float[Array, "*batch act"],
        context: Float[Array, "*batch context"],
    ) -> Float[Array, "2 *batch"]:
        x = jnp.concatenate([observation, action, context], axis=-1)
        return jnp.stack([self.first(x)[..., 0], self.second(x)[..., 0]])


class SACState(eqx.Module):
    """Networks, targets, temperature, and their optimisers."""

    actor: MLP
    critics: Critics
    targets: Critics
    log_temperature: Float[Array, ""]
    optimisers: tuple[PyTree, PyTree, PyTree]
    """Of actor, critics and temperature."""


def init(
    key: Key[Array, ""], settings: SACSettings, *, observation_size: int, action_size: int, context_size: int = 0
) -> SACState:
    """Fresh networks; the targets begin as copies of the critics."""
    key_actor, key_first, key_second = jax.random.split(key, 3)
    n_in = observation_size + context_size

    actor = make_actor(key_actor, n_in, settings.hidden, action_size)
    critics = Critics(*(_mlp(key, n_in + action_size, settings.hidden, 1) for key in (key_first, key_second)))
    log_temperature = jnp.zeros(())
    optimisers = tuple(adam(settings).init(part) for part in (actor, critics, log_temperature))
    return SACState(actor, critics, critics, log_temperature, (optimisers[0], optimisers[1], optimisers[2]))


def make_actor(key: Key[Array, ""], n_in: int, hidden: Sequence[int], action_size: int) -> MLP:
    """A fresh actor, as `act` takes it."""
    return _mlp(key, n_in, hidden, 2 * action_size)


def _mlp(key: Key[Array, ""], n_in: int, hidden: Sequence[int], n_out: int) -> MLP:
    return MLP.init(key, n_in, hidden, n_out, activation="relu", init="uniform_fan_in", gain=1.0)


def adam(settings: SACSettings) -> optax.GradientTransformation:
    """Of each network, and of whoever learns along with them."""
    if settings.n_warmup < 1:
        return optax.adam(settings.learning_rate)
    return optax.adam(warmed_up(optax.constant_schedule(settings.learning_rate), settings.n_warmup))


def act(
    actor: MLP,
    observation: Float[Array, "*batch obs"],
    context: Float[Array, "*batch context"],
    noise: Float[Array, "*batch act"] | None = None,
) -> tuple[Float[Array, "*batch act"], Float[Array, "*batch"]]:
    """An action tanh(u), u ~ N(mean, std), and its log density in nats; without noise, tanh(mean).

    Args:
        actor: mean and log standard deviation (clipped to `LOG_STD_RANGE`) of u, one after the other.
        observation: what is seen.
        context: what is believed about the task.
        noise: standard normal.
    """
    mean, log_std = jnp.split(actor(jnp.concatenate([observation, context], axis=-1)), 2, axis=-1)
    log_std = jnp.clip(log_std, *LOG_STD_RANGE)
    z = jnp.zeros_like(mean) if noise is None else noise
    u = mean + jnp.exp(log_std) * z
    # log(1 − tanh²u), written so that it does not vanish for large |u| (appendix C of the first paper).
    squash = 2 * (jnp.log(2.0) - u - jax.nn.softplus(-2 * u))
    log_prob = -0.5 * (z**2 + LOG_2PI) - log_std - squash
    return jnp.tanh(u), jnp.sum(log_prob, axis=-1)


def critic_loss(
    critics: Critics,
    context: Float[Array, "*batch context"],
    state: SACState,
    batch: Transition,
    noise: Float[Array, "*batch act"],
    settings: SACSettings,
) -> tuple[Float[Array, ""], Float[Array, "2 *batch"]]:
    """½ Σ over both critics of the mean of (Q − r − γ(1 − terminated)(min Q' − α log π'))², and both Q.

    Differentiable in critics and context; the target sees the context without a gradient.
    """
    fixed = jax.lax.stop_gradient(context)
    action, log_prob = act(state.actor, batch.next_observation, fixed, noise)
    following = jnp.min(state.targets(batch.next_observation, action, fixed), axis=0)
    following = following - _temperature(state, settings) * log_prob
    target = settings.reward_scale * batch.reward + settings.discount * jnp.where(batch.terminated, 0.0, following)
    values = critics(batch.observation, batch.action, context)
    loss = 0.5 * jnp.sum(jnp.mean((values - jax.lax.stop_gradient(target)) ** 2, axis=range(1, values.ndim)))
    return loss, values


def actor_loss(
    actor: MLP,
    context: Float[Array, "*batch context"],
    state: SACState,
    batch: Transition,
    noise: Float[Array, "*batch act"],
    settings: SACSettings,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean of α log π − min Q, and the policy's entropy in nats (one sample a row)."""
    context = jax.lax.stop_gradient(context)
    action, log_prob = act(actor, batch.observation, context, noise)
    value = jnp.min(state.critics(batch.observation, action, context), axis=0)
    return jnp.mean(_temperature(state, settings) * log_prob - value), -jnp.mean(log_prob)


def _temperature(state: SACState, settings: SACSettings) -> Float[Array, ""]:
    if settings.temperature is not None:
        return jnp.asarray(settings.temperature, jnp.float32)
    return jax.lax.stop_gradient(jnp.exp(state.log_temperature))


def update(
    key: Key[Array, ""],
    state: SACState,
    batch: Transition,
    context: Float[Array, "*batch context"],
    settings: SACSettings,
) -> tuple[SACState, Float[Array, "*batch context"], dict[str, Float[Array, ""]]]:
    """One step of critics, actor, temperature and targets, in this order.

    Returns:
        The new state; the gradient of the critics' loss with respect to `context`; and the two losses, the mean value,
        the entropy (nats) and the temperature.
    """
    key_next, key_now = jax.random.split(key)
    shape = batch.action.shape
    noise = jax.random.normal(key_next, shape)
    optimiser = adam(settings)
    of_actor, of_critics, of_temperature = state.optimisers

    graded = jax.value_and_grad(critic_loss, argnums=(0, 1), has_aux=True)
    (loss_critic, values), (gradient, context_gradient) = graded(state.critics, context, state, batch, noise, settings)
    step, of_critics = optimiser.update(gradient, of_critics)
    critics = optax.apply_updates(state.critics, step)
    state = eqx.tree_at(lambda s: s.critics, state, critics)

    noise = jax.random.normal(key_now, shape)
    graded_actor = jax.value_and_grad(actor_loss, has_aux=True)
    (loss_actor, entropy), gradient = graded_actor(state.actor, context, state, batch, noise, settings)
    step, of_actor = optimiser.update(gradient, of_actor)
    actor = optax.apply_updates(state.actor, step)

    wanted = -float(shape[-1]) if settings.target_entropy is None else settings.target_entropy
    # The loss is log α · (entropy − wanted): too little entropy raises α.
    step, of_temperature = optimiser.update(entropy - wanted, of_temperature)
    log_temperature = optax.apply_updates(state.log_temperature, step)

    targets = optax.incremental_update(critics, state.targets, settings.target_rate)
    metrics = {
        "loss/critic": loss_critic,
        "loss/actor": loss_actor,
        "value": jnp.mean(values),
        "entropy": entropy,
        "temperature": _temperature(state, settings),
    }
    after = SACState(actor, critics, targets, log_temperature, (of_actor, of_critics, of_temperature))
    return after, context_gradient, metrics
