"""Agents that nobody trained: the yardsticks beside which a learned one is drawn.

They know what the family is, never which task it is: all they read is the token (last action, last reward, start).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from fledge.core.contracts import Agent, Env
from fledge.core.errors import ConfigError, unknown
from fledge.core.spaces import Space
from fledge.core.types import Decision, Token
from fledge.envs.bandits import Bandit
from fledge.envs.trial import Trial


class ArmCounts(eqx.Module):
    """Per arm: how often it was pulled, and what it paid in sum."""

    pulls: Float[Array, " arm"]
    total: Float[Array, " arm"]

    @classmethod
    def none(cls, n_arms: int) -> ArmCounts:
        """The counts at the start of a trial."""
        return cls(jnp.zeros(n_arms), jnp.zeros(n_arms))

    def after(self, token: Token) -> ArmCounts:
        """The counts with the token's last pull; at a trial's start, none at all."""
        pulled = jax.nn.one_hot(token.action, self.pulls.shape[0])
        keep = 1.0 - token.start
        return ArmCounts(keep * (self.pulls + pulled), keep * (self.total + pulled * token.reward))

    @property
    def mean(self) -> Float[Array, " arm"]:
        """What each arm paid on average; nan-free (0 where it was never pulled)."""
        return self.total / jnp.maximum(self.pulls, 1.0)


class RandomAgent(Agent):
    """Acts uniformly in the action space. Greedy, it has no preference and takes the action of zeros."""

    action_space: Space

    def begin(self, task_vector: Float[Array, " task"] | None = None) -> tuple[()]:
        return ()

    def act(self, memory: tuple[()], token: Token, noise: Key[Array, ""] | None = None) -> tuple[Decision, tuple[()]]:
        action = self.action_space.zeros() if noise is None else self.action_space.sample(noise)
        return Decision.plain(action), memory


class ThompsonBernoulli(Agent):
    """Thompson sampling for arms that pay 0 or 1, with a Beta(1, 1) prior: the right one for means U(0, 1).

    Greedy, it pulls the arm of the best posterior mean.

    Reference: Thompson 1933; Chapelle and Li, 2011, algorithm 2.
    """

    n_arms: int = eqx.field(static=True)

    def begin(self, task_vector: Float[Array, " task"] | None = None) -> ArmCounts:
        return ArmCounts.none(self.n_arms)

    def act(self, memory: ArmCounts, token: Token, noise: Key[Array, ""] | None = None) -> tuple[Decision, ArmCounts]:
        memory = memory.after(token)
        alpha, beta = self.posterior(memory)
        drawn = alpha / (alpha + beta) if noise is None else jax.random.beta(noise, alpha, beta)
        return Decision.plain(jnp.argmax(drawn).astype(jnp.int32)), memory

    @staticmethod
    def posterior(memory: ArmCounts) -> tuple[Float[Array, " arm"], Float[Array, " arm"]]:
        """Both parameters of each arm's Beta: 1 + successes, 1 + failures."""
        return 1.0 + memory.total, 1.0 + memory.pulls - memory.total


class ThompsonGaussian(Agent):
    """Thompson sampling for Gaussian rewards of known spread, with a normal prior on each mean.

    The prior's default N(½, 1/12) has the moments of U(0, 1). Greedy, it pulls the arm of the best posterior mean.

    Reference: Lee et al., DPT, NeurIPS 2023, appendix (the same prior).
    """

    n_arms: int = eqx.field(static=True)
    std: float = eqx.field(static=True, default=1.0)
    prior_mean: float = eqx.field(static=True, default=0.5)
    prior_variance: float = eqx.field(static=True, default=1.0 / 12.0)

    def begin(self, task_vector: Float[Array, " task"] | None = None) -> ArmCounts:
        return ArmCounts.none(self.n_arms)

    def act(self, memory: ArmCounts, token: Token, noise: Key[Array, ""] | None = None) -> tuple[Decision, ArmCounts]:
        memory = memory.after(token)
        mean, variance = self.posterior(memory)
        drawn = mean if noise is None else mean + jnp.sqrt(variance) * jax.random.normal(noise, (self.n_arms,))
        return Decision.plain(jnp.argmax(drawn).astype(jnp.int32)), memory

    def posterior(self, memory: ArmCounts) -> tuple[Float[Array, " arm"], Float[Array, " arm"]]:
        """Mean and variance of each arm's mean."""
        precision = 1.0 / self.prior_variance + memory.pulls / self.std**2
        mean = (self.prior_mean / self.prior_variance + memory.total / self.std**2) / precision
        return mean, 1.0 / precision


class UCB1(Agent):
    """Every arm once, then the best of mean + √(bonus · ln n / n_arm), n being all pulls so far. Needs no randomness.

    Reference: Auer et al., Finite-time Analysis of the Multiarmed Bandit Problem, 2002 (bonus 2).
    """

    n_arms: int = eqx.field(static=True)
    bonus: float = eqx.field(static=True, default=2.0)

    def begin(self, task_vector: Float[Array, " task"] | None = None) -> ArmCounts:
        return ArmCounts.none(self.n_arms)

    def act(self, memory: ArmCounts, token: Token, noise: Key[Array, ""] | None = None) -> tuple[Decision, ArmCounts]:
        memory = memory.after(token)
        log_pulls = jnp.log(jnp.maximum(jnp.sum(memory.pulls), 1.0))
        width = jnp.sqrt(self.bonus * log_pulls / jnp.maximum(memory.pulls, 1.0))
        return Decision.plain(_untried_first(memory, memory.mean + width)), memory


class GreedyBandit(Agent):
    """Every arm once, then the best empirical mean. Needs no randomness."""

    n_arms: int = eqx.field(static=True)

    def begin(self, task_vector: Float[Array, " task"] | None = None) -> ArmCounts:
        return ArmCounts.none(self.n_arms)

    def act(self, memory: ArmCounts, token: Token, noise: Key[Array, ""] | None = None) -> tuple[Decision, ArmCounts]:
        memory = memory.after(token)
        return Decision.plain(_untried_first(memory, memory.mean)), memory


def _untried_first(memory: ArmCounts, index: Float[Array, " arm"]) -> Int[Array, ""]:
    return jnp.argmax(jnp.where(memory.pulls == 0, jnp.inf, index)).astype(jnp.int32)


@dataclass(frozen=True)
class Reference:
    """A row of the table of references."""

    make: Callable[[Env], Agent]
    """The agent for an environment (a trial's inner one)."""
    applies: Callable[[Env], bool]
    """Whether it makes sense there."""
    about: str


def _bernoulli(env: Env) -> bool:
    return isinstance(env, Bandit) and env.reward == "bernoulli"


def _gaussian(env: Env) -> bool:
    return isinstance(env, Bandit) and env.reward == "gaussian"


def _bandit(env: Env) -> bool:
    return isinstance(env, Bandit)


REFERENCES: dict[str, Reference] = {
    "random": Reference(lambda env: RandomAgent(env.action_space), lambda env: True, "uniform actions"),
    "thompson": Reference(
        lambda env: ThompsonBernoulli(env.action_space.n_features), _bernoulli, "Thompson sampling, Beta(1, 1) prior"
    ),
    "thompson-gaussian": Reference(
        lambda env: ThompsonGaussian(env.action_space.n_features, env.std),
        _gaussian,
        "Thompson sampling, normal prior N(1/2, 1/12), known noise",
    ),
    "ucb1": Reference(lambda env: UCB1(env.action_space.n_features), _bandit, "upper confidence bounds, bonus 2"),
    "greedy": Reference(lambda env: GreedyBandit(env.action_space.n_features), _bandit, "best empirical mean"),
}


def references_for(env: Env) -> list[str]:
    """The names of the references that apply to an environment or to trials of it."""
    inner = _inner(env)
    return [name for name, row in REFERENCES.items() if row.applies(inner)]


def make_reference(name: str, env: Env) -> Agent:
    """The reference agent of this name for an environment or for trials of it.

    Raises:
        ConfigError: there is no such reference, or it does not apply to this environment.
    """
    if name not in REFERENCES:
        raise unknown("reference", name, REFERENCES)
    inner = _inner(env)
    if not REFERENCES[name].applies(inner):
        raise ConfigError(
            f"Reference '{name}' does not apply to {type(inner).__name__}. These do: {', '.join(references_for(env))}."
        )
    return REFERENCES[name].make(inner)


def _inner(env: Env) -> Env:
    while isinstance(env, Trial):
        env = env.env
    return env
