"""Bandits as lifetimes: a softmax agent that learns by policy gradient, with a step size that η decides."""

from __future__ import annotations

import itertools
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from fledge.core.types import Task
from fledge.envs.tabular import draw_index
from fledge.learn.lifetimes import Lifetime
from fledge.learn.surrogates import Surrogate


class Pulls(eqx.Module):
    """A batch of pulls."""

    action: Int[Array, "*many batch"]
    reward: Float[Array, "*many batch"]


class BanditLifetime(Lifetime):
    """Softmax over K arms; one update is the mean over B pulls of r ∇ log π, times a step size of η's.

    The task is the vector of mean rewards; a pull pays it plus N(0, noise²).

    Args:
        n_updates: N; the life has N + 1 batches of pulls.
        batch_size: B, pulls of a batch.
        n_arms: K.
        noise: standard deviation of a reward.
        means: law of a task: `spiky` exp(U(−100, 1)), most arms pay nothing; `given` the vector (1, .2, 0).
        eta: `schedule`: η in R², step size softplus(η_0) for the first `n_early` updates and softplus(η_1) after them,
            θ_0 = 0; `initial`: η = {"logits": θ_0, "log_step": log of the step size}.
        n_early: see `schedule`.

    Reference: Vuorio et al. 2022, the bandit of the bias-variance study: K 30, B 10, noise 2, N 79, n_early 8.
    """

    n_updates: int = eqx.field(static=True, default=79)
    batch_size: int = eqx.field(static=True, default=10)
    n_arms: int = eqx.field(static=True, default=30)
    noise: float = eqx.field(static=True, default=2.0)
    means: Literal["spiky", "given"] = eqx.field(static=True, default="spiky")
    eta: Literal["schedule", "initial"] = eqx.field(static=True, default="schedule")
    n_early: int = eqx.field(static=True, default=8)
    episode_len: int = eqx.field(static=True, default=1, init=False)

    def sample_task(self, key: Key[Array, ""]) -> Float[Array, " arm"]:
        if self.means == "given":
            return jnp.array([1.0, 0.2, 0.0])
        return jnp.exp(jax.random.uniform(key, (self.n_arms,), minval=-100.0, maxval=1.0))

    def begin(self, key: Key[Array, ""], eta: PyTree[Array], task: Task) -> Float[Array, " arm"]:
        return jnp.zeros(self.n_arms) if self.eta == "schedule" else eta["logits"]

    def collect(self, key: Key[Array, ""], n: Int[Array, ""], life: PyTree, eta: PyTree[Array], task: Task) -> Pulls:
        key_action, key_reward = jax.random.split(key)
        probabilities = jax.nn.softmax(life)
        us = jax.random.uniform(key_action, (self.batch_size,))
        actions = jax.vmap(lambda u: draw_index(u, probabilities))(us)
        rewards = task[actions]
        if self.noise:
            rewards = rewards + self.noise * jax.random.normal(key_reward, rewards.shape)
        return Pulls(actions, rewards)

    def log_probs(self, life: PyTree, data: Pulls, eta: PyTree[Array]) -> Float[Array, "batch time"]:
        return jax.nn.log_softmax(life)[data.action][:, None]

    def returns(self, data: Pulls) -> Float[Array, " batch"]:
        return data.reward

    def step_size(self, n: Int[Array, ""], eta: PyTree[Array]) -> Float[Array, ""]:
        """The step size of update n."""
        if self.eta == "initial":
            return jnp.exp(eta["log_step"])
        return jax.nn.softplus(jnp.where(n < self.n_early, eta[0], eta[1]))

    def update(self, n: Int[Array, ""], life: PyTree, data: Pulls, eta: PyTree[Array], surrogate: Surrogate) -> PyTree:
        rewards = data.reward[:, None]

        def objective(logits: Array) -> Array:
            return surrogate(self.log_probs(logits, data, eta), rewards, jnp.zeros_like(rewards), discount=1.0)

        return life + self.step_size(n, eta) * surrogate.shield(jax.grad(objective)(life))

    def value(self, life: PyTree, data: Pulls, task: Task) -> Float[Array, ""]:
        """A perfect critic: the expected reward of θ_n."""
        return self.expected_return(life, None, task)

    def expected_return(self, life: PyTree, eta: PyTree[Array] | None, task: Task) -> Float[Array, ""]:
        return jax.nn.softmax(life) @ task

    def outcomes(self, task: Task) -> tuple[Pulls, Float[Array, " outcome"]]:
        """Every sequence of B pulls; the rewards must be certain (noise 0)."""
        if self.noise:
            return super().outcomes(task)
        actions = jnp.asarray(np.array(list(itertools.product(range(self.n_arms), repeat=self.batch_size))))
        return Pulls(actions, jnp.asarray(task)[actions]), jnp.zeros(len(actions))


def golden_bandit() -> tuple[BanditLifetime, dict[str, Float[Array, "..."]], Float[Array, " arm"]]:
    """A lifetime of two updates whose every outcome (729) can be listed, its η, and its task.

    Three arms that pay 1, 0.2 and 0 for certain, B = 2, step size exp(η) with η = log 2. The meta-gradients of all
    estimators are known to six digits.
    """
    lifetime = BanditLifetime(n_updates=2, batch_size=2, n_arms=3, noise=0.0, means="given", eta="initial")
    eta = {"log_step": jnp.log(jnp.asarray(2.0)), "logits": jnp.array([0.3, -0.1, 0.0])}
    return lifetime, eta, jnp.array([1.0, 0.2, 0.0])
