"""Random tabular Markov decision processes, and their exact values, gradients and Hessians."""

from __future__ import annotations

from collections.abc import Callable
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


class MDP(eqx.Module):
    """The numbers of one Markov decision process: the task of `TabularMDP`."""

    transitions: Float[Array, "state action next"]
    """P(s'|s, a)."""
    rewards: Float[Array, "state action"]
    """Mean reward of taking a in s."""
    start: Float[Array, " state"]
    """Probability of starting in s."""


class TabularState(eqx.Module):
    """State of the chain and step of the running episode."""

    state: Int[Array, ""]
    time: Int[Array, ""]


def draw_index(u: Float[Array, ""], probabilities: Float[Array, " n"]) -> Int[Array, ""]:
    """The category that the uniform number `u` in [0, 1) falls into; never an impossible one."""
    cumulative = jnp.cumsum(probabilities)
    # Scaled by the total, because float32 sums of probabilities end a little beside 1.
    return jnp.sum(cumulative <= u * cumulative[-1]).astype(jnp.int32)


class TabularMDP(Env):
    """A finite MDP with random transitions and rewards; observations are one-hot states, episodes last `horizon` steps.

    The defaults are RL²'s family. Every split is the same distribution.

    Args:
        n_states: states.
        n_actions: actions.
        horizon: steps per episode; the time limit is a truncation.
        concentration: every P(·|s, a) is drawn from the symmetric Dirichlet of this parameter (1 is uniform over the
            simplex; 0.001 is nearly deterministic).
        rewards: law of the mean rewards: `normal` N(1, 1) per (s, a); `uniform` U(0, 1) per (s, a); `state`
            10·(5 + N(0, 1)) per state, whatever the action.
        reward_noise: standard deviation of the reward around its mean.
        start: `first` starts in state 0, `uniform` anywhere.
        discount: the discount that the family is studied with. The environment itself never discounts; pass it on to
            `exact_value` and its derivatives.

    Reference: Duan et al., RL², 2016, §3.2 (10×5); Tang et al., 2021 (20×5, Dirichlet(0.001), U(0, 1), γ 0.8, T 20);
    Farquhar et al., Loaded DiCE, 2019 (5×4, state rewards, γ 0.95, T 50; its transitions come from a toolbox whose
    random rows also have zeros, ours are Dirichlet(1)).
    """

    n_states: int = eqx.field(static=True, default=10)
    n_actions: int = eqx.field(static=True, default=5)
    horizon: int = eqx.field(static=True, default=10)
    concentration: float = eqx.field(static=True, default=1.0)
    rewards: Literal["normal", "uniform", "state"] = eqx.field(static=True, default="normal")
    reward_noise: float = eqx.field(static=True, default=1.0)
    start: Literal["first", "uniform"] = eqx.field(static=True, default="first")
    discount: float = eqx.field(static=True, default=1.0)

    def __check_init__(self) -> None:
        if self.rewards not in ("normal", "uniform", "state"):
            raise ConfigError(f"rewards is 'normal', 'uniform' or 'state', not '{self.rewards}'.")
        if self.start not in ("first", "uniform"):
            raise ConfigError(f"start is 'first' or 'uniform', not '{self.start}'.")
        if self.concentration <= 0:
            raise ConfigError(f"concentration is a Dirichlet parameter above 0, not {self.concentration}.")

    @property
    def splits_disjoint(self) -> bool:
        return False

    @property
    def observation_space(self) -> Box:
        return Box(self.n_states, 0.0, 1.0)

    @property
    def action_space(self) -> Discrete:
        return Discrete(self.n_actions)

    @property
    def fixed_length(self) -> bool:
        return True

    def sample(self, key: Key[Array, ""], split: str = "train") -> MDP:
        known_split(split)
        key_transitions, key_rewards = jax.random.split(key)
        table = (self.n_states, self.n_actions)
        if self.concentration == 1.0:
            # Normalised exponentials are Dirichlet(1), without the rejection sampling of the general case.
            weights = jax.random.exponential(key_transitions, (*table, self.n_states))
            transitions = weights / jnp.sum(weights, axis=-1, keepdims=True)
        else:
            transitions = jax.random.dirichlet(key_transitions, jnp.full(self.n_states, self.concentration), table)
        if self.rewards == "normal":
            rewards = 1.0 + jax.random.normal(key_rewards, table)
        elif self.rewards == "uniform":
            rewards = jax.random.uniform(key_rewards, table)
        else:
            per_state = 10.0 * (5.0 + jax.random.normal(key_rewards, (self.n_states, 1)))
            rewards = jnp.broadcast_to(per_state, table)
        first = jnp.arange(self.n_states) == 0
        start = first.astype(jnp.float32) if self.start == "first" else jnp.full(self.n_states, 1.0 / self.n_states)
        return MDP(transitions, rewards, start)

    def describe(self, task: MDP) -> str:
        best = float(self.optimal_return(task)[0])
        return f"{self.n_states} states × {self.n_actions} actions, best return {best:.2f}"

    def task_vector(self, task: MDP) -> Float[Array, " task"]:
        """All transition probabilities, then all mean rewards."""
        return jnp.concatenate([task.transitions.ravel(), task.rewards.ravel()])

    def reset(self, key: Key[Array, ""], task: MDP) -> tuple[TabularState, Float[Array, " state"]]:
        u = jnp.zeros(()) if self.start == "first" else jax.random.uniform(key)
        state = draw_index(u, task.start)
        return TabularState(state, jnp.asarray(0, jnp.int32)), jax.nn.one_hot(state, self.n_states)

    def step(
        self, key: Key[Array, ""], state: TabularState, action: Int[Array, ""], task: MDP
    ) -> tuple[TabularState, TimeStep]:
        reward = task.rewards[state.state, action]
        if self.reward_noise == 0:
            u = jax.random.uniform(key)
        else:
            # One draw of two normals: the first, through the normal distribution function, is the uniform that moves.
            normals = jax.random.normal(key, (2,))
            u = jnp.minimum(jax.scipy.special.ndtr(normals[0]), 1.0 - 2.0**-24)
            reward = reward + self.reward_noise * normals[1]
        following = draw_index(u, task.transitions[state.state, action])
        time = state.time + 1
        timestep = TimeStep.of(jax.nn.one_hot(following, self.n_states), reward, truncated=time >= self.horizon)
        return TabularState(following, time), timestep

    def optimal_return(self, task: MDP, n_episodes: int = 1) -> Float[Array, " episode"]:
        """Finite-horizon dynamic programming, undiscounted."""
        return jnp.full(n_episodes, task.start @ optimal_value(task, self.horizon)[0])


def optimal_value(mdp: MDP, horizon: int, discount: float = 1.0) -> Float[Array, "time state"]:
    """V*_t(s) for t = 0 … horizon (the last row is zero), by backward induction."""

    def back(value: Array, _: None) -> tuple[Array, Array]:
        value = jnp.max(mdp.rewards + discount * mdp.transitions @ value, axis=-1)
        return value, value

    return _backward(back, len(mdp.start), horizon)


def finite_value(
    mdp: MDP, logits: Float[Array, "state action"], *, horizon: int, discount: float = 1.0
) -> Float[Array, "time state"]:
    """V^π_t(s) for t = 0 … horizon (the last row is zero) of the softmax policy with these logits."""
    policy = jax.nn.softmax(logits)

    def back(value: Array, _: None) -> tuple[Array, Array]:
        value = jnp.sum(policy * (mdp.rewards + discount * mdp.transitions @ value), axis=-1)
        return value, value

    return _backward(back, len(mdp.start), horizon)


def stationary_value(mdp: MDP, logits: Float[Array, "state action"], *, discount: float) -> Float[Array, " state"]:
    """V^π(s) over an infinite horizon: (I − γ P_π)⁻¹ r_π. Needs a discount below 1."""
    if not 0 <= discount < 1:
        raise ConfigError(
            f"An infinite horizon needs a discount in [0, 1), not {discount}. Lower it, or give a horizon."
        )
    policy = jax.nn.softmax(logits)
    moves = jnp.einsum("sa,san->sn", policy, mdp.transitions)
    return jnp.linalg.solve(jnp.eye(len(mdp.start)) - discount * moves, jnp.sum(policy * mdp.rewards, axis=-1))


def exact_value(
    mdp: MDP, logits: Float[Array, "state action"], *, discount: float = 1.0, horizon: int | None = None
) -> Float[Array, ""]:
    """The expected discounted return of the softmax policy from the start.

    Args:
        mdp: the process.
        logits: one logit per state and action; the policy is the same at every step.
        discount: γ per step.
        horizon: steps of an episode; None for ever (then γ < 1).
    """
    if horizon is None:
        return mdp.start @ stationary_value(mdp, logits, discount=discount)
    return mdp.start @ finite_value(mdp, logits, horizon=horizon, discount=discount)[0]


def exact_gradient(
    mdp: MDP, logits: Float[Array, "state action"], *, discount: float = 1.0, horizon: int | None = None
) -> Float[Array, "state action"]:
    """The derivative of `exact_value` with respect to the logits."""
    return jax.grad(lambda x: exact_value(mdp, x, discount=discount, horizon=horizon))(logits)


def exact_hessian(
    mdp: MDP, logits: Float[Array, "state action"], *, discount: float = 1.0, horizon: int | None = None
) -> Float[Array, "logit logit"]:
    """The second derivative of `exact_value`; logits in row-major order (state, then action)."""
    shape = logits.shape
    return jax.hessian(lambda x: exact_value(mdp, x.reshape(shape), discount=discount, horizon=horizon))(logits.ravel())


def golden_mdp() -> tuple[MDP, Float[Array, "2 2"]]:
    """A process of 2 states × 2 actions and the logits of a policy, whose values and derivatives are known by heart.

    Horizon 3, discount 0.9: value 0.742620. The estimators of second derivatives are tested against it.
    """
    transitions = jnp.array([[[0.7, 0.3], [0.2, 0.8]], [[0.5, 0.5], [0.9, 0.1]]])
    rewards = jnp.array([[0.0, 1.0], [0.5, -0.3]])
    return MDP(transitions, rewards, jnp.array([1.0, 0.0])), jnp.array([[0.2, -0.4], [0.1, 0.3]])


def _backward(
    back: Callable[[Array, None], tuple[Array, Array]], n_states: int, horizon: int
) -> Float[Array, "time state"]:
    """Values from the end (zeros) to the start, in the order of time."""
    end = jnp.zeros(n_states)
    _, values = jax.lax.scan(back, end, None, length=horizon)
    return jnp.concatenate([values[::-1], end[None]])
