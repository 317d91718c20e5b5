"""Reinforcement learning from logged transitions: TD3+BC, AWAC and IQL, with d3rlpy 2.7's defaults.

Each is one scan over gradient steps: critics, actor, targets in this order (IQL: value and critics together). Actions
are in the actor's units, [−1, 1].
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key, PyTree

from fledge.core.errors import unknown
from fledge.learn.actors import Actor, Head, relu_net
from fledge.nets.blocks import MLP


@dataclass(frozen=True)
class OfflineSettings:
    """What all three share, and what is each one's own."""

    method: Literal["td3bc", "awac", "iql"] = "td3bc"
    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    batch_size: int = 256
    """AWAC: 1024."""
    n_steps: int = 8000
    discount: float = 0.99
    target_rate: float = 0.005
    alpha: float = 2.5
    """TD3+BC: λ = alpha / mean |Q|."""
    smoothing: float = 0.2
    """TD3+BC: deviation of the noise on target actions."""
    smoothing_clip: float = 0.5
    actor_every: int = 2
    """TD3+BC: gradient steps of the critics for each of the actor (and of all targets)."""
    awac_lambda: float = 1.0
    """AWAC: temperature of the weights, softmax(advantage / λ) over the batch × its size."""
    expectile: float = 0.7
    """IQL."""
    weight_temp: float = 3.0
    """IQL: weights are min(exp(weight_temp · advantage), max_weight)."""
    max_weight: float = 100.0


LOG_STD = {"td3bc": (-5.0, 2.0), "awac": (-6.0, 0.0), "iql": (-5.0, 2.0)}
"""Range of the actor's log deviation; TD3+BC has none."""


class Transitions(eqx.Module):
    """Logged steps, all of which may be drawn."""

    observations: Float[Array, "step obs"]
    actions: Float[Array, "step act"]
    rewards: Float[Array, " step"]
    next_observations: Float[Array, "step obs"]
    terminated: Bool[Array, " step"]

    def draw(self, key: Key[Array, ""], n: int) -> Transitions:
        """`n` steps, uniformly and with replacement."""
        at = jax.random.randint(key, (n,), 0, self.rewards.shape[0])
        return jax.tree.map(lambda leaf: leaf[at], self)


class Networks(eqx.Module):
    """Everything that is learnt, and the slow copies."""

    actor: Actor
    critics: MLP
    """Two action values; every leaf has the leading axis `critic`."""
    value: MLP | None
    """IQL's state value."""
    slow_actor: Actor
    slow_critics: MLP


def q_values(
    critics: MLP, observation: Float[Array, "*batch obs"], action: Float[Array, "*batch act"]
) -> Float[Array, "critic *batch"]:
    """What each critic says."""
    x = jnp.concatenate([observation, action], axis=-1)
    return jax.vmap(lambda net: net(x)[..., 0])(critics)


def learn_offline(
    key: Key[Array, ""], data: Transitions, settings: OfflineSettings
) -> tuple[Actor, Float[Array, " gradient_step"]]:
    """The actor after `n_steps`, and the critics' loss at every step. `vmap` over keys for seeds.

    Raises:
        ConfigError: there is no such method.
    """
    if settings.method not in _LOSSES:
        raise unknown("offline method", settings.method, _LOSSES)
    key_init, key_train = jax.random.split(key)
    networks = _networks(key_init, data, settings)
    adam = optax.adam(settings.learning_rate)
    every = settings.actor_every if settings.method == "td3bc" else 1

    def round_(carry: tuple[Networks, PyTree], keys: Key[Array, " step"]) -> tuple[tuple[Networks, PyTree], Array]:
        networks, (of_critics, of_actor) = carry
        losses = []
        for i in range(every):
            key_batch, key_noise, key_actor = jax.random.split(keys[i], 3)
            batch = data.draw(key_batch, settings.batch_size)
            networks, of_critics, loss = _critic_step(networks, of_critics, batch, key_noise, settings)
            losses.append(loss)
        networks, of_actor = _actor_step(networks, of_actor, batch, key_actor, settings)
        return (networks, (of_critics, of_actor)), jnp.stack(losses)

    states = (adam.init((networks.critics, networks.value)), adam.init(networks.actor))
    rounds = jax.random.split(key_train, (settings.n_steps // every, every))
    (networks, _), losses = jax.lax.scan(round_, (networks, states), rounds)
    return networks.actor, losses.reshape(-1)


def _critic_step(
    networks: Networks, state: PyTree, batch: Transitions, key: Key[Array, ""], settings: OfflineSettings
) -> tuple[Networks, PyTree, Float[Array, ""]]:
    loss_of, _ = _LOSSES[settings.method]
    learnt = (networks.critics, networks.value)
    loss, gradient = jax.value_and_grad(loss_of)(learnt, networks, batch, key, settings)
    change, state = optax.adam(settings.learning_rate).update(gradient, state)
    critics, value = optax.apply_updates(learnt, change)
    return dataclasses.replace(networks, critics=critics, value=value), state, loss


def _actor_step(
    networks: Networks, state: PyTree, batch: Transitions, key: Key[Array, ""], settings: OfflineSettings
) -> tuple[Networks, PyTree]:
    """One step of the actor, and of all slow copies."""
    _, loss_of = _LOSSES[settings.method]
    gradient = jax.grad(loss_of)(networks.actor, networks, batch, key, settings)
    change, state = optax.adam(settings.learning_rate).update(gradient, state)
    actor = optax.apply_updates(networks.actor, change)
    slow_actor = optax.incremental_update(actor, networks.slow_actor, settings.target_rate)
    slow_critics = optax.incremental_update(networks.critics, networks.slow_critics, settings.target_rate)
    return dataclasses.replace(networks, actor=actor, slow_actor=slow_actor, slow_critics=slow_critics), state


def _networks(key: Key[Array, ""], data: Transitions, settings: OfflineSettings) -> Networks:
    key_actor, key_critics, key_value = jax.random.split(key, 3)
    n_obs, n_act = data.observations.shape[1], data.actions.shape[1]
    head: Head = "deterministic" if settings.method == "td3bc" else "stochastic"
    span = LOG_STD[settings.method]
    actor = Actor.init(key_actor, n_obs, n_act, hidden=settings.hidden, head=head, log_std_range=span)
    critics = jax.vmap(lambda k: relu_net(k, n_obs + n_act, settings.hidden, 1))(jax.random.split(key_critics))
    value = relu_net(key_value, n_obs, settings.hidden, 1) if settings.method == "iql" else None
    return Networks(actor, critics, value, actor, critics)


def _td_loss(critics: MLP, batch: Transitions, following: Array, settings: OfflineSettings) -> Float[Array, ""]:
    """Σ over both critics of the mean squared temporal difference."""
    target = batch.rewards + settings.discount * jnp.where(batch.terminated, 0.0, following)
    found = q_values(critics, batch.observations, batch.actions)
    return jnp.sum(jnp.mean((found - jax.lax.stop_gradient(target)) ** 2, axis=-1))


def td3bc_critic_loss(
    learnt: tuple, networks: Networks, batch: Transitions, key: Key[Array, ""], settings: OfflineSettings
) -> Float[Array, ""]:
    """Towards r + γ min Q'(s', clip(π'(s') + clipped noise)) (Fujimoto et al. 2018)."""
    noise = settings.smoothing * jax.random.normal(key, batch.actions.shape)
    noise = jnp.clip(noise, -settings.smoothing_clip, settings.smoothing_clip)
    action = jnp.clip(networks.slow_actor(batch.next_observations) + noise, -1.0, 1.0)
    following = jnp.min(q_values(networks.slow_critics, batch.next_observations, action), axis=0)
    return _td_loss(learnt[0], batch, following, settings)


def td3bc_actor_loss(
    actor: Actor, networks: Networks, batch: Transitions, key: Key[Array, ""], settings: OfflineSettings
) -> Float[Array, ""]:
    """−λ mean Q + mean (π(s) − a)², λ = alpha / mean |Q| (Fujimoto & Gu 2021, eq. 5)."""
    action = actor(batch.observations)
    value = q_values(networks.critics, batch.observations, action)[0]
    scale = settings.alpha / jax.lax.stop_gradient(jnp.mean(jnp.abs(value)))
    return -scale * jnp.mean(value) + jnp.mean((action - batch.actions) ** 2)


def awac_critic_loss(
    learnt: tuple, networks: Networks, batch: Transitions, key: Key[Array, ""], settings: OfflineSettings
) -> Float[Array, ""]:
    """Towards r + γ min Q'(s', a'), a' from the policy (no entropy; Nair et al. 2020)."""
    action = networks.actor.sample(batch.next_observations, jax.random.normal(key, batch.actions.shape))
    following = jnp.min(q_values(networks.slow_critics, batch.next_observations, action), axis=0)
    return _td_loss(learnt[0], batch, following, settings)


def awac_actor_loss(
    actor: Actor, networks: Networks, batch: Transitions, key: Key[Array, ""], settings: OfflineSettings
) -> Float[Array, ""]:
    """−Σ log π(a|s) · softmax(A / λ) · n / n; A = min Q(s, a) − min Q(s, a_π), one sampled a_π."""
    noise = jax.random.normal(key, batch.actions.shape)
    own = networks.actor.sample(batch.observations, noise)
    baseline = jnp.min(q_values(networks.critics, batch.observations, own), axis=0)
    advantage = jnp.min(q_values(networks.critics, batch.observations, batch.actions), axis=0) - baseline
    weights = jax.nn.softmax(advantage / settings.awac_lambda) * advantage.shape[0]
    return -jnp.mean(actor.log_prob(batch.observations, batch.actions) * jax.lax.stop_gradient(weights))


def iql_critic_loss(
    learnt: tuple, networks: Networks, batch: Transitions, key: Key[Array, ""], settings: OfflineSettings
) -> Float[Array, ""]:
    """Temporal difference with V(s') plus the expectile loss of V towards min Q' (Kostrikov et al. 2022)."""
    critics, value = learnt
    following = value(batch.next_observations)[..., 0]
    td = _td_loss(critics, batch, jax.lax.stop_gradient(following), settings)
    target = jnp.min(q_values(networks.slow_critics, batch.observations, batch.actions), axis=0)
    difference = jax.lax.stop_gradient(target) - value(batch.observations)[..., 0]
    return td + jnp.mean(expectile_loss(difference, settings.expectile))


def expectile_loss(difference: Float[Array, "*batch"], expectile: float) -> Float[Array, "*batch"]:
    """|τ − 1(u < 0)| u²."""
    return jnp.where(difference < 0, 1.0 - expectile, expectile) * difference**2


def iql_actor_loss(
    actor: Actor, networks: Networks, batch: Transitions, key: Key[Array, ""], settings: OfflineSettings
) -> Float[Array, ""]:
    """−mean min(exp(weight_temp · (min Q' − V)), max_weight) · log π(a|s)."""
    value = networks.value
    value = networks.value
    target = jnp.min(q_values(networks.slow_critics, batch.observations, batch.actions), axis=0)
    advantage = target - (0.0 if value is None else value(batch.observations)[..., 0])
    weights = jnp.minimum(jnp.exp(settings.weight_temp * advantage), settings.max_weight)
    return -jnp.mean(jax.lax.stop_gradient(weights) * actor.log_prob(batch.observations, batch.actions))


_LOSSES = {
    "td3bc": (td3bc_critic_loss, td3bc_actor_loss),
    "awac": (awac_critic_loss, awac_actor_loss),
    "iql": (iql_critic_loss, iql_actor_loss),
}
