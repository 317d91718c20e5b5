"""Agents that nobody trained: the yardsticks beside which a learned one is drawn.

They know what the family is, never which task it is: all they read is the token (last action, last reward, start).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
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
        if noise is None:
            drawn = alpha / (alpha + beta)
        else:
            # Beta(α, β) is X / (X + Y) with X ~ Γ(α), Y ~ Γ(β), which rises with log X − log Y: one draw of both.
            log_x, log_y = jax.random.loggamma(noise, jnp.stack([alpha, beta]))
            drawn = log_x - log_y
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


class GittinsBandit(Agent):
    """Pulls the arm of the highest Gittins index for Bernoulli rewards with a Beta(1, 1) prior. Needs no randomness.

    The index is optimal for an endless bandit discounted by γ; for `n_pulls` pulls γ = 1 − 1/n_pulls is the usual
    stand-in, which is near optimal but not the exact finite-horizon optimum.

    Reference: Gittins 1979; the stand-in and the comparison are those of Duan et al., RL², 2016, §3.1.
    """

    n_arms: int = eqx.field(static=True)
    index: Float[Array, "success failure"]

    @classmethod
    def of(cls, n_arms: int, n_pulls: int) -> GittinsBandit:
        """The agent for trials of `n_pulls` pulls, its table of indices worked out (0.1 s for 100 pulls)."""
        return cls(n_arms, jnp.asarray(gittins_indices(n_pulls, 1.0 - 1.0 / max(n_pulls, 2))))

    def begin(self, task_vector: Float[Array, " task"] | None = None) -> ArmCounts:
        return ArmCounts.none(self.n_arms)

    def act(self, memory: ArmCounts, token: Token, noise: Key[Array, ""] | None = None) -> tuple[Decision, ArmCounts]:
        memory = memory.after(token)
        successes = memory.total.astype(jnp.int32)
        failures = (memory.pulls - memory.total).astype(jnp.int32)
        # Beyond the table (trials longer than it was made for) the last entry serves: indexing clamps.
        return Decision.plain(jnp.argmax(self.index[successes, failures]).astype(jnp.int32)), memory


def gittins_indices(n_pulls: int, discount: float, *, depth: int = 300, n_grid: int = 1000) -> np.ndarray:
    """The Gittins index of a Bernoulli arm after each count of successes and failures, prior Beta(1, 1).

    By calibration: an arm is worth λ where pulling it on and retiring on λ a step for ever are equally good. For a grid
    of λ the value of the arm is worked out backwards from `n_pulls + depth` pulls, where its mean is taken as settled.

    Returns:
        Indices [successes, failures] up to `n_pulls` pulls in all (entries beyond are 0), to 1 / (2 `n_grid`).
    """
    retire = (np.arange(n_grid) + 0.5)[:, None] / n_grid
    last = n_pulls + depth
    settled = (1.0 + np.arange(last + 1)) / (2.0 + last)
    value = np.maximum(retire, settled)  # in units of reward per step, that is times 1 − γ
    index = np.zeros((n_pulls + 1, n_pulls + 1), np.float32)
    for pulls in range(last - 1, -1, -1):
        successes = np.arange(pulls + 1)
        p = (1.0 + successes) / (2.0 + pulls)
        go_on = (1.0 - discount) * p + discount * (p * value[:, 1:] + (1.0 - p) * value[:, :-1])
        if pulls <= n_pulls:
            index[successes, pulls - successes] = np.mean(go_on > retire, axis=0)
        value = np.maximum(retire, go_on)
    return index


def _untried_first(memory: ArmCounts, index: Float[Array, " arm"]) -> Int[Array, ""]:
    return jnp.argmax(jnp.where(memory.pulls == 0, jnp.inf, index)).astype(jnp.int32)


@dataclass(frozen=True)
class Reference:
    """A row of the table of references."""

    make: Callable[[Env, int], Agent]
    """The agent for an environment (a trial's inner one) and the episodes of its trials."""
    applies: Callable[[Env], bool]
    """Whether it makes sense there."""
    about: str


def _bernoulli(env: Env) -> bool:
    return isinstance(env, Bandit) and env.reward == "bernoulli"


def _gaussian(env: Env) -> bool:
    return isinstance(env, Bandit) and env.reward == "gaussian"


def _bandit(env: Env) -> bool:
    return isinstance(env, Bandit)


def _thompson_gaussian(env: Env, n_episodes: int) -> ThompsonGaussian:
    if not isinstance(env, Bandit):
        raise ConfigError(f"Thompson sampling of means needs a Bandit, not {type(env).__name__}.")
    return ThompsonGaussian(env.n_arms, env.std)


REFERENCES: dict[str, Reference] = {
    "random": Reference(lambda env, n: RandomAgent(env.action_space), lambda env: True, "uniform actions"),
    "thompson": Reference(
        lambda env, n: ThompsonBernoulli(env.action_space.n_features), _bernoulli, "Thompson sampling, Beta(1, 1) prior"
    ),
    "thompson-gaussian": Reference(
        _thompson_gaussian, _gaussian, "Thompson sampling, normal prior N(1/2, 1/12), known noise"
    ),
    "gittins": Reference(
        lambda env, n: GittinsBandit.of(env.action_space.n_features, n), _bernoulli, "Gittins index, near optimal"
    ),
    "ucb1": Reference(lambda env, n: UCB1(env.action_space.n_features), _bandit, "upper confidence bounds, bonus 2"),
    "greedy": Reference(lambda env, n: GreedyBandit(env.action_space.n_features), _bandit, "best empirical mean"),
}


def references_for(env: Env) -> list[str]:
    """The names of the references that apply to an environment or to trials of it."""
    inner, _ = _unwrap(env)
    return [name for name, row in REFERENCES.items() if row.applies(inner)]


def make_reference(name: str, env: Env) -> Agent:
    """The reference agent of this name for an environment or for trials of it.

    Hand in the *trial*: the Gittins index depends on its length (a bare bandit counts as a trial of one pull).

    Raises:
        ConfigError: there is no such reference, or it does not apply to this environment.
    """
    if name not in REFERENCES:
        raise unknown("reference", name, REFERENCES)
    inner, n_episodes = _unwrap(env)
    if not REFERENCES[name].applies(inner):
        raise ConfigError(
            f"Reference '{name}' does not apply to {type(inner).__name__}. These do: {', '.join(references_for(env))}."
        )
    return REFERENCES[name].make(inner, n_episodes)


def _unwrap(env: Env) -> tuple[Env, int]:
    return (env.env, env.n_episodes) if isinstance(env, Trial) else (env, 1)
