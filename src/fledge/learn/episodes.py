"""Batches of whole episodes on one task: collecting them, a linear value baseline, and advantages."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree, Shaped

from fledge.core.contracts import ReplayAgent
from fledge.core.distributions import Distribution
from fledge.core.returns import discounted_returns, gae
from fledge.core.types import Decision, Task, Token
from fledge.envs.trial import Trial
from fledge.learn.evaluate import episode_index
from fledge.learn.rollout import begin, rollout
from fledge.nets.adaptive import AdaptivePolicy

RIDGE = 1e-5


class Episodes(eqx.Module):
    """Episodes of one task, padded at their ends. Observations are features already."""

    features: Float[Array, "time *episode feature"]
    actions: Shaped[Array, "time *episode ..."]
    rewards: Float[Array, "time *episode"]
    log_probs: Float[Array, "time *episode"]
    """Of the policy that acted."""
    mask: Bool[Array, "time *episode"]
    """Which steps are real: the first steps of each episode."""

    @property
    def returns(self) -> Float[Array, "*episode"]:
        """Undiscounted return of each episode."""
        return jnp.sum(self.rewards * self.mask, axis=0)


class PolicyAgent(ReplayAgent):
    """A policy network as an agent without memory. Its value is 0 everywhere: a baseline is fitted to the data."""

    policy: AdaptivePolicy

    def begin(self) -> tuple[()]:
        return ()

    def sample_noise(self, key: Key[Array, ""]) -> PyTree[Array]:
        return self.policy.head.sample_noise(key)

    def act(self, memory: tuple[()], token: Token, noise: PyTree[Array] | None = None) -> tuple[Decision, tuple[()]]:
        return decide(self.policy, token.observation, noise), memory

    def replay(self, memory: tuple[()], tokens: Token) -> tuple[Distribution, Float[Array, "time *batch"], tuple[()]]:
        return self.policy(self.policy.features(tokens.observation)), jnp.zeros(tokens.start.shape), memory


def decide(policy: AdaptivePolicy, observation: Shaped[Array, "*obs"], noise: PyTree[Array] | None) -> Decision:
    """The decision on one observation; greedy without noise."""
    distribution = policy(policy.features(observation))
    action = distribution.mode() if noise is None else distribution.sample(noise)
    return Decision(action, distribution.log_prob(action), jnp.zeros(()))


def collect(policy: AdaptivePolicy, trial: Trial, task: Task, key: Key[Array, ""], n_episodes: int) -> Episodes:
    """`n_episodes` episodes on one task with one policy. Actions are data: nothing here is differentiated.

    Args:
        policy: acts, with sampled actions.
        trial: of one episode.
        task: without leading axis.
        key: randomness.
        n_episodes: played side by side.
    """
    key_begin, key_rollout = jax.random.split(key)
    agent = jax.lax.stop_gradient(PolicyAgent(policy))
    tasks = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (n_episodes, *jnp.shape(leaf))), task)
    state = begin(agent, trial, key_begin, tasks)
    _, trajectory = rollout(agent, trial, state, key_rollout, n_steps=trial.horizon)
    decision = trajectory.decision
    return Episodes(
        policy.features(trajectory.token.observation),
        decision.action,
        trajectory.timestep.reward,
        decision.log_prob,
        episode_index(trajectory)[1],
    )


def advantages(
    episodes: Episodes, *, discount: float, gae_lambda: float, normalise: bool = True
) -> tuple[Float[Array, "time episode"], Float[Array, ""]]:
    """Advantages over a linear baseline that is fitted to these very episodes, and the scale they were divided by.

    Where an episode ends, at a limit or not, its value is 0 (as in the public code of MAML). Constants to autodiff.
    """
    rewards, mask = episodes.rewards * episodes.mask, episodes.mask
    cuts = jnp.concatenate([~mask[1:], jnp.ones_like(mask[:1])])
    values = linear_values(episodes, discounted_returns(rewards, cuts, discount=discount))
    following = jnp.concatenate([values[1:], jnp.zeros_like(values[:1])]) * ~cuts
    found = gae(rewards, values, following, cuts, discount=discount, gae_lambda=gae_lambda)[0] * mask
    scale = jnp.ones(())
    if normalise:
        mean = masked_mean(found, mask)
        found = (found - mean) * mask
        scale = jnp.sqrt(masked_mean(found**2, mask)) + 1e-5
        found = found / scale
    return jax.lax.stop_gradient(found), jax.lax.stop_gradient(scale)


def masked_mean(x: Float[Array, "time episode"], mask: Bool[Array, "time episode"]) -> Float[Array, ""]:
    """The mean over real steps."""
    return jnp.sum(x * mask) / jnp.maximum(jnp.sum(mask), 1)


def linear_values(episodes: Episodes, returns: Float[Array, "time episode"]) -> Float[Array, "time episode"]:
    """Ridge regression of returns on [o, o², τ, τ², τ³, 1], τ = step / 100, over the real steps.

    Reference: Duan et al. 2016, Benchmarking Deep Reinforcement Learning, §4 (linear feature baseline).
    """
    o = jnp.clip(episodes.features, -10.0, 10.0)
    tau = jnp.broadcast_to(jnp.arange(o.shape[0])[:, None, None] / 100.0, (*o.shape[:-1], 1))
    x = jnp.concatenate([o, o**2, tau, tau**2, tau**3, jnp.ones_like(tau)], axis=-1)
    rows = (x * episodes.mask[..., None]).reshape(-1, x.shape[-1])
    gram = rows.T @ rows
    ridge = RIDGE * (1.0 + jnp.trace(gram) / len(gram))
    weights = solve(gram + ridge * jnp.eye(len(gram)), rows.T @ (returns * episodes.mask).reshape(-1))
    return jax.lax.stop_gradient(x @ weights)


def solve(matrix: Float[Array, "n n"], vector: Float[Array, " n"]) -> Float[Array, " n"]:
    """x of A x = b for a positive definite A, by Gauss–Jordan elimination.

    Not by LAPACK: its calls under `vmap` wait for each other's threads.
    """
    n = len(vector)

    def eliminate(k: Array, table: Float[Array, "n m"]) -> Float[Array, "n m"]:
        row = table[k] / table[k, k]
        return (table - table[:, k][:, None] * row).at[k].set(row)

    return jax.lax.fori_loop(0, n, eliminate, jnp.concatenate([matrix, vector[:, None]], axis=1))[:, -1]
