"""Actor-critics as lifetimes: a small network learns an environment, with an entropy weight that η sets."""

from __future__ import annotations

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from fledge.core.contracts import Env
from fledge.core.errors import ConfigError
from fledge.core.spaces import Discrete
from fledge.core.types import Task
from fledge.learn.lifetimes import Lifetime
from fledge.learn.surrogates import Surrogate, advantages, discounts

Layers = tuple[tuple[Array, Array], ...]
"""Weights and biases of a network with ReLUs between its layers."""
N_REMEMBERED = 10
"""Mean rewards that the context network sees."""


class Episodes(eqx.Module):
    """A batch of episodes of one length."""

    observation: Float[Array, "batch time obs"]
    action: Int[Array, "batch time"]
    reward: Float[Array, "batch time"]


class Life(eqx.Module):
    """What is carried: both networks, and the mean rewards of the last batches (newest last)."""

    policy: PyTree
    critic: PyTree
    rewards: Float[Array, " remembered"]


class ActorCriticLifetime(Lifetime):
    """A2C from a fresh start on one task of an environment: SGD on policy, value and entropy terms.

    Direction of an update: the gradient of surrogate/T + w(η) · entropy − value_coef · ½ (V − G)², means over steps.

    Args:
        env: an environment of fixed length with vector observations and discrete actions.
        n_updates: N.
        batch_size: B episodes.
        width: units of both hidden layers of policy and critic.
        learning_rate: of SGD.
        value_coef: weighs the critic's loss.
        discount: of returns, inside and outside.
        eta: `constant` entropy weight sigmoid(η), a scalar; `context` a network of the last 10 mean rewards (32 ReLUs,
            then a sigmoid) whose weights are η.
        flip_every: updates after which good and bad change places (the task's sign flips); 0 never.

    Reference: Vuorio et al. 2022: 3×3 maze, B 10, 256-256, SGD 1.0, value weight .1, γ .99, 8 updates; 5×5 maze, B 5,
    context network, the task flips every 6,400 steps without a fresh start.
    """

    env: Env
    n_updates: int = eqx.field(static=True, default=7)
    batch_size: int = eqx.field(static=True, default=10)
    width: int = eqx.field(static=True, default=256)
    learning_rate: float = eqx.field(static=True, default=1.0)
    value_coef: float = eqx.field(static=True, default=0.1)
    discount: float = eqx.field(static=True, default=0.99)
    eta: Literal["constant", "context"] = eqx.field(static=True, default="constant")
    flip_every: int = eqx.field(static=True, default=0)

    def __check_init__(self) -> None:
        if not self.env.fixed_length or not isinstance(self.env.action_space, Discrete):
            raise ConfigError(
                f"{type(self.env).__name__} has episodes of varying length or continuous actions; this lifetime wants "
                "fixed_length and Discrete actions."
            )

    @property
    def episode_len(self) -> int:
        return self.env.horizon

    def sample_task(self, key: Key[Array, ""]) -> Task:
        return self.env.sample(key, "train")

    def begin(self, key: Key[Array, ""], eta: PyTree[Array], task: Task) -> Life:
        key_policy, key_critic = jax.random.split(key)
        n_obs, n_actions = self.env.observation_space.n_features, self.env.action_space.n_features
        policy = layers(key_policy, (n_obs, self.width, self.width, n_actions))
        critic = layers(key_critic, (n_obs, self.width, self.width, 1))
        return Life(policy, critic, jnp.zeros(N_REMEMBERED))

    def collect(self, key: Key[Array, ""], n: Int[Array, ""], life: Life, eta: PyTree[Array], task: Task) -> Episodes:
        if self.flip_every:
            task = task * (1.0 - 2.0 * ((n // self.flip_every) % 2))

        def step(carry: tuple[PyTree, Array], k: Array) -> tuple[tuple[PyTree, Array], tuple[Array, Array, Array]]:
            state, seen = carry
            key_act, key_step = jax.random.split(k)
            action = jax.random.categorical(key_act, forward(life.policy, seen))
            state, timestep = self.env.step(key_step, state, action, task)
            return (state, timestep.observation), (seen, action, timestep.reward)

        def episode(k: Array) -> tuple[Array, Array, Array]:
            key_reset, key_steps = jax.random.split(k)
            start = self.env.reset(key_reset, task)
            return jax.lax.scan(step, start, jax.random.split(key_steps, self.env.horizon))[1]

        return Episodes(*jax.vmap(episode)(jax.random.split(key, self.batch_size)))

    def log_probs(self, life: Life, data: Episodes, eta: PyTree[Array]) -> Float[Array, "batch time"]:
        return chosen(jax.nn.log_softmax(forward(life.policy, data.observation)), data.action)

    def returns(self, data: Episodes) -> Float[Array, " batch"]:
        return data.reward @ discounts(data.reward, self.discount)

    def advantages(
        self, life: Life, data: Episodes, eta: PyTree[Array], baseline: Float[Array, ""]
    ) -> Float[Array, "batch time"]:
        """Discounted rewards to go. A baseline of whole returns is of no use to single steps, and left out."""
        to_go = advantages(data.reward, jnp.zeros_like(data.reward), discount=self.discount)
        return to_go * discounts(data.reward, self.discount)

    def entropy_weight(self, life: Life, eta: PyTree[Array]) -> Float[Array, ""]:
        """What η makes of the last mean rewards."""
        if self.eta == "constant":
            return jax.nn.sigmoid(eta)
        return jax.nn.sigmoid(forward(eta, life.rewards)[0])

    def update(self, n: Int[Array, ""], life: Life, data: Episodes, eta: PyTree[Array], surrogate: Surrogate) -> Life:
        weight = self.entropy_weight(life, eta)
        targets = advantages(data.reward, jnp.zeros_like(data.reward), discount=self.discount)

        def objective(nets: tuple[Layers, Layers]) -> Array:
            logs = jax.nn.log_softmax(forward(nets[0], data.observation))
            values = forward(nets[1], data.observation)[..., 0]
            known = jax.lax.stop_gradient(values)
            gain = surrogate(chosen(logs, data.action), data.reward, known, discount=self.discount)
            entropy = -jnp.mean(jnp.sum(jnp.exp(logs) * logs, axis=-1))
            error = 0.5 * jnp.mean((values - targets) ** 2)
            return gain / self.episode_len + weight * entropy - self.value_coef * error

        nets = (life.policy, life.critic)
        direction = surrogate.shield(jax.grad(objective)(nets))
        policy, critic = jax.tree.map(lambda x, d: x + self.learning_rate * d, nets, direction)
        rewards = jnp.append(life.rewards[1:], jnp.mean(data.reward))
        return Life(policy, critic, rewards)

    def value(self, life: Life, data: Episodes, task: Task) -> Float[Array, ""]:
        """The critic's mean value of the first observations of D_n: it depends on what θ_n was learned from."""
        return jnp.mean(forward(life.critic, data.observation[:, 0])[:, 0])


def layers(key: Key[Array, ""], sizes: tuple[int, ...]) -> Layers:
    """A network's weights, normal with standard deviation 1/√(inputs), cut off at two of them; biases 0.

    That is what Haiku's linear layers begin with, and so the networks of Vuorio et al. (2022).
    """
    made = []
    for k, n_in, n_out in zip(jax.random.split(key, len(sizes) - 1), sizes[:-1], sizes[1:], strict=True):
        made.append((jax.random.truncated_normal(k, -2.0, 2.0, (n_in, n_out)) * n_in**-0.5, jnp.zeros(n_out)))
    return tuple(made)


def forward(net: Layers, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
    """The network's output, ReLUs between layers."""
    for weight, bias in net[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    weight, bias = net[-1]
    return x @ weight + bias


def chosen(logs: Float[Array, "*batch action"], action: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """The log-probabilities of the actions that were taken."""
    return jnp.take_along_axis(logs, action[..., None], axis=-1)[..., 0]
