"""Tabular Markov decision processes as lifetimes: a softmax table that learns by policy gradient (tabular MAML)."""

from __future__ import annotations

import itertools
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from fledge.core.types import Task
from fledge.envs.paths import enumerate_paths
from fledge.envs.tabular import MDP, TabularMDP, draw_index, exact_value, finite_value
from fledge.learn.lifetimes import Lifetime
from fledge.learn.surrogates import Surrogate, advantages, discounts


class Walks(eqx.Module):
    """A batch of trajectories."""

    state: Int[Array, "*many batch time"]
    action: Int[Array, "*many batch time"]
    reward: Float[Array, "*many batch time"]
    value: Float[Array, "*many batch time"]
    """What the update subtracts from rewards to go."""


class TabularLifetime(Lifetime):
    """N policy-gradient steps on the logits of a table; η = {"logits": θ_0, "log_step": log of the step size}.

    A task is an `MDP`; rewards are the mean ones (no noise), returns are discounted with the family's discount.

    Args:
        env: the family.
        n_updates: N.
        batch_size: B.
        values: the inner update's baseline: `none`, or `exact` V^π_t of θ_n.

    Reference: Tang et al. 2021 and Liu et al. 2022 (the process of 20 × 5, one update, step size 10, γ .8, T 20).
    """

    env: TabularMDP = eqx.field(default_factory=lambda: TabularMDP(2, 2, 2, reward_noise=0.0))
    n_updates: int = eqx.field(static=True, default=1)
    batch_size: int = eqx.field(static=True, default=1)
    values: Literal["none", "exact"] = eqx.field(static=True, default="none")

    @property
    def episode_len(self) -> int:
        return self.env.horizon

    def sample_task(self, key: Key[Array, ""]) -> MDP:
        return self.env.sample(key)

    def begin(self, key: Key[Array, ""], eta: PyTree[Array], task: Task) -> Float[Array, "state action"]:
        return eta["logits"]

    def collect(self, key: Key[Array, ""], n: Int[Array, ""], life: PyTree, eta: PyTree[Array], task: Task) -> Walks:
        policy = jax.nn.softmax(life)

        def step(state: Array, us: Array) -> tuple[Array, tuple[Array, Array, Array]]:
            action = draw_index(us[0], policy[state])
            following = draw_index(us[1], task.transitions[state, action])
            return following, (state, action, task.rewards[state, action])

        def walk(us: Array) -> tuple[Array, Array, Array]:
            return jax.lax.scan(step, draw_index(us[0, 2], task.start), us)[1]

        us = jax.random.uniform(key, (self.batch_size, self.env.horizon, 3))
        states, actions, rewards = jax.vmap(walk)(us)
        return Walks(states, actions, rewards, self._values(life, states, task))

    def _values(self, life: PyTree, states: Int[Array, "batch time"], task: Task) -> Float[Array, "batch time"]:
        if self.values == "none":
            return jnp.zeros(states.shape, life.dtype)
        table = finite_value(task, life, horizon=self.env.horizon, discount=self.env.discount)
        return table[jnp.arange(self.env.horizon), states]

    def log_probs(self, life: PyTree, data: Walks, eta: PyTree[Array]) -> Float[Array, "batch time"]:
        return jax.nn.log_softmax(life)[data.state, data.action]

    def returns(self, data: Walks) -> Float[Array, " batch"]:
        return data.reward @ discounts(data.reward, self.env.discount)

    def advantages(
        self, life: PyTree, data: Walks, eta: PyTree[Array], baseline: Float[Array, ""]
    ) -> Float[Array, "batch time"]:
        """Discounted rewards to go; the baseline of a whole return is subtracted at the first step's scale."""
        to_go = advantages(data.reward, data.value, discount=self.env.discount)
        return to_go * discounts(data.reward, self.env.discount)

    def update(self, n: Int[Array, ""], life: PyTree, data: Walks, eta: PyTree[Array], surrogate: Surrogate) -> PyTree:
        def objective(logits: Array) -> Array:
            known = jax.lax.stop_gradient(data.value)
            return surrogate(self.log_probs(logits, data, eta), data.reward, known, discount=self.env.discount)

        return life + jnp.exp(eta["log_step"]) * surrogate.shield(jax.grad(objective)(life))

    def expected_return(self, life: PyTree, eta: PyTree[Array], task: Task) -> Float[Array, ""]:
        return exact_value(task, life, discount=self.env.discount, horizon=self.env.horizon)

    def expected_update(self, n: Int[Array, ""], life: PyTree, eta: PyTree[Array], task: Task) -> PyTree:
        direction = jax.grad(lambda x: self.expected_return(x, eta, task))(life)
        return life + jnp.exp(eta["log_step"]) * direction

    def value(self, life: PyTree, data: Walks, task: Task) -> Float[Array, ""]:
        return self.expected_return(life, None, task)

    def outcomes(self, task: Task) -> tuple[Walks, Float[Array, " outcome"]]:
        """Every batch of B paths. With `values` `exact` the values would depend on θ_n: then it cannot be listed."""
        if self.values == "exact":
            return super().outcomes(task)
        paths = enumerate_paths(task, self.env.horizon)
        rows = np.array(list(itertools.product(range(paths.log_world.shape[0]), repeat=self.batch_size)))
        rewards = paths.reward[rows]
        walks = Walks(paths.state[rows], paths.action[rows], rewards, jnp.zeros_like(rewards))
        return walks, jnp.sum(paths.log_world[rows], axis=1)

    def starting_eta(self, log_step: float = 0.0) -> dict[str, Array]:
        """A table of zeros, and this step size."""
        return {"log_step": jnp.asarray(log_step), "logits": jnp.zeros((self.env.n_states, self.env.n_actions))}
