"""Bandits: every pull is an episode of one step, so a trial of n episodes is n pulls of the same arms."""

from __future__ import annotations

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from fledge.core.contracts import Env
from fledge.core.errors import ConfigError
from fledge.core.spaces import Box, Discrete
from fledge.core.types import TimeStep
from fledge.envs.splits import known_split

USUAL_SHARE = 0.95


class BanditState(eqx.Module):
    """Pulls made in the running episode: 0, then 1."""

    pulls: Int[Array, ""]


class Bandit(Env):
    """k arms whose means stay hidden; a task is the vector of means. `Trial(Bandit(), 100)` is 100 pulls.

    An episode is one pull and ends by itself (`terminated`: nothing more can be earned in it). There is nothing to see:
    the observation is a zero. `info["regret"]` is the *expected* regret of the pull, best mean − mean of its arm.

    Args:
        n_arms: arms; 5, 10 and 50 are published.
        reward: `bernoulli` pays 1 with the arm's mean as its probability; `gaussian` pays N(mean, std²).
        std: standard deviation of a Gaussian reward; 1 (RL² and MAML studies) or 0.3 (DPT).
        bias: `none` draws all means from U(0, 1). With `odd-even` the arms 1, 3, 5 … (counted from 0) are U(½, 1) and
            the others U(0, ½) in a share `usual_share` of the tasks, the other way round in the rest; the `ood` split
            swaps the two shares, or takes `ood_share`.
        usual_share: of the tasks in which odd arms pay; 0.95 is published.
        ood_share: the same in `ood`; None for 1 − `usual_share`.

    Without a bias, all splits are one distribution; with it, `test` is `train`'s.

    Reference: Duan et al., RL², 2016, §3.1; Laskin et al., Algorithm Distillation, ICLR 2023 (adversarial bandit);
    Sinii et al., Headless-AD, ICML 2024 (the intervals of the biased means).
    """

    horizon: int = eqx.field(static=True, default=1, init=False)
    n_arms: int = eqx.field(static=True, default=10)
    reward: Literal["bernoulli", "gaussian"] = eqx.field(static=True, default="bernoulli")
    std: float = eqx.field(static=True, default=1.0)
    bias: Literal["none", "odd-even"] = eqx.field(static=True, default="none")
    usual_share: float = eqx.field(static=True, default=USUAL_SHARE)
    ood_share: float | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        if self.n_arms < 2:
            raise ConfigError(f"A bandit has two arms or more, not {self.n_arms}. Raise n_arms.")
        if self.reward not in ("bernoulli", "gaussian"):
            raise ConfigError(f"reward is 'bernoulli' or 'gaussian', not '{self.reward}'.")
        if self.bias not in ("none", "odd-even"):
            raise ConfigError(f"bias is 'none' or 'odd-even', not '{self.bias}'.")
        for name, share in (("usual_share", self.usual_share), ("ood_share", self.ood_share)):
            if share is not None and not 0 <= share <= 1:
                raise ConfigError(f"{name} is a share between 0 and 1, not {share}.")
        if self.std <= 0:
            raise ConfigError(f"std is a standard deviation above 0, not {self.std}.")

    @property
    def splits_disjoint(self) -> bool:
        return False

    @property
    def observation_space(self) -> Box:
        return Box(1, 0.0, 0.0)

    @property
    def action_space(self) -> Discrete:
        return Discrete(self.n_arms)

    @property
    def fixed_length(self) -> bool:
        return True

    def sample(self, key: Key[Array, ""], split: str = "train") -> Float[Array, " arm"]:
        known_split(split)
        if self.bias == "none":
            return jax.random.uniform(key, (self.n_arms,))
        draws = jax.random.uniform(key, (self.n_arms + 1,))
        ood_share = 1 - self.usual_share if self.ood_share is None else self.ood_share
        odd_pays = draws[0] < (ood_share if split == "ood" else self.usual_share)
        odd = jnp.arange(self.n_arms) % 2 == 1
        return 0.5 * (draws[1:] + (odd == odd_pays))

    def describe(self, task: Float[Array, " arm"]) -> str:
        return f"best arm {int(jnp.argmax(task))} with mean {float(jnp.max(task)):.3f}"

    def task_vector(self, task: Float[Array, " arm"]) -> Float[Array, " arm"]:
        return task

    def reset(self, key: Key[Array, ""], task: Float[Array, " arm"]) -> tuple[BanditState, Float[Array, "1"]]:
        return BanditState(jnp.asarray(0, jnp.int32)), jnp.zeros(1)

    def step(
        self, key: Key[Array, ""], state: BanditState, action: Int[Array, ""], task: Float[Array, " arm"]
    ) -> tuple[BanditState, TimeStep]:
        mean = jax.nn.one_hot(action, self.n_arms) @ task
        if self.reward == "bernoulli":
            reward = (jax.random.uniform(key) < mean).astype(jnp.float32)
        else:
            reward = mean + self.std * jax.random.normal(key)
        timestep = TimeStep.of(jnp.zeros(1), reward, terminated=True, info={"regret": jnp.max(task) - mean})
        return BanditState(state.pulls + 1), timestep

    def optimal_return(self, task: Float[Array, " arm"], n_episodes: int = 1) -> Float[Array, " episode"]:
        """Always the best arm: its mean, pull after pull."""
        return jnp.full(n_episodes, jnp.max(task))
