"""Lifetimes: what meta-gradients differentiate. An agent's life on one task is N inner updates on data it sampled.

The contract, and three ways to live it: without gradients (`unroll`), on given data (`Scripted`), and batch by batch
inside the estimators of `fledge.learn.metagrad` and `fledge.learn.es`.

Notation of this part of the house: η meta-parameters, θ_n the agent after n updates, D_n the batch of B trajectories
sampled with π_{θ_n}, n = 0 … N; R_n = R(D_n) its mean return; J(η) = E Σ_n w_n R_n.
"""

# No `from __future__ import annotations` in this file: Equinox has to see AbstractVar as an object.
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from fledge.core.errors import ContractError
from fledge.core.types import Task
from fledge.learn.surrogates import Surrogate

Objective = Literal["auc", "final"]
"""`auc`: w_n = 1/(N+1), the lifetime's mean return. `final`: w_N = 1, what adaptation leads to (MAML)."""


class Lifetime(eqx.Module):
    """N inner updates on sampled data, as a function of η. Nothing has a batch axis but the B trajectories of D_n.

    What is carried from update to update (`life`) holds θ, optimiser states and environment states: everything that
    a derivative may run through. `collect` is data: it is never differentiated.
    """

    if TYPE_CHECKING:

        @property
        def n_updates(self) -> int: ...
        @property
        def batch_size(self) -> int: ...
        @property
        def episode_len(self) -> int: ...
    else:
        n_updates: eqx.AbstractVar[int]
        """N; the life has N + 1 batches."""
        batch_size: eqx.AbstractVar[int]
        """B, trajectories of a batch."""
        episode_len: eqx.AbstractVar[int]
        """Steps of a trajectory."""

    @abstractmethod
    def sample_task(self, key: Key[Array, ""]) -> Task:
        """A task; drawn by each lifetime itself where an estimator is handed None."""

    @abstractmethod
    def begin(self, key: Key[Array, ""], eta: PyTree[Array], task: Task) -> PyTree:
        """θ_0 and what else is carried. θ_0 may be a function of η."""

    @abstractmethod
    def collect(self, key: Key[Array, ""], n: Int[Array, ""], life: PyTree, eta: PyTree[Array], task: Task) -> PyTree:
        """D_n: B trajectories sampled with π_{θ_n}."""

    @abstractmethod
    def log_probs(self, life: PyTree, data: PyTree, eta: PyTree[Array]) -> Float[Array, "batch time"]:
        """log π_{θ_n}(a | s) of every recorded step, with θ_n (and η, where it enters the policy) in the graph."""

    @abstractmethod
    def returns(self, data: PyTree) -> Float[Array, " batch"]:
        """R(τ) of each trajectory."""

    @abstractmethod
    def update(self, n: Int[Array, ""], life: PyTree, data: PyTree, eta: PyTree[Array], surrogate: Surrogate) -> PyTree:
        """θ_{n+1} = U(θ_n, D_n; η), with the gradient of `surrogate` as its direction (where it has such a socket)."""

    def advantages(
        self, life: PyTree, data: PyTree, eta: PyTree[Array], baseline: Float[Array, ""]
    ) -> Float[Array, "batch time"]:
        """What the outer policy gradient weighs log-probabilities by. By default R(τ) − baseline at every step."""
        earned = (self.returns(data) - baseline)[:, None]
        return jnp.broadcast_to(earned, (self.batch_size, self.episode_len))

    def outer(self, life: PyTree, data: PyTree, eta: PyTree[Array], baseline: Float[Array, ""]) -> Float[Array, ""]:
        """A scalar whose derivative is the effect of θ_n on the data that its return is measured on (term A).

        By default the policy-gradient surrogate mean_b Σ_t log π sg(A). A PPO surrogate would do as well; a return
        that depends on θ by itself (a loss, not a sample) is returned as it is.
        """
        weights = jax.lax.stop_gradient(self.advantages(life, data, eta, baseline))
        return jnp.mean(jnp.sum(self.log_probs(life, data, eta) * weights, axis=1))

    def value(self, life: PyTree, data: PyTree, task: Task) -> Float[Array, ""]:
        """The agent's own critic at the start of D_n: a baseline that must *not* go into the sampling correction."""
        raise ContractError(f"{type(self).__name__} has no critic. Use the baseline 'loo' or 'none'.")

    def expected_return(self, life: PyTree, eta: PyTree[Array], task: Task) -> Float[Array, ""]:
        """E[R_n | θ_n] in closed form, differentiable. For ground truth, where it is known."""
        raise ContractError(
            f"{type(self).__name__} does not know its expected return in closed form. Take expected=False."
        )

    def expected_update(self, n: Int[Array, ""], life: PyTree, eta: PyTree[Array], task: Task) -> PyTree:
        """θ_{n+1} after an update with infinitely many trajectories. For ground truth, where it is known."""
        raise ContractError(f"{type(self).__name__} does not know its expected update in closed form.")

    def outcomes(self, task: Task) -> tuple[PyTree, Float[Array, " outcome"]]:
        """Every batch that can be collected, stacked, and the log-probability of what the world adds to each.

        P(D | θ) = exp(Σ log π + that). For problems so small that everything can be enumerated.
        """
        raise ContractError(f"{type(self).__name__} cannot list every batch. Estimate instead of enumerating.")

    @property
    def n_batches(self) -> int:
        """N + 1."""
        return self.n_updates + 1

    @property
    def steps(self) -> int:
        """Environment steps of one lifetime."""
        return self.n_batches * self.batch_size * self.episode_len


class Scripted(Lifetime):
    """A lifetime whose batches are chosen beforehand from a list: how tiny problems are enumerated."""

    inner: Lifetime
    outcomes_: PyTree
    """Every batch, stacked."""
    choice: Int[Array, " n"]
    """Which of them is D_n."""
    # Declared as fields, because Equinox wants the abstract variables overridden by name.
    n_updates: int = eqx.field(static=True)
    batch_size: int = eqx.field(static=True)
    episode_len: int = eqx.field(static=True)

    @classmethod
    def of(cls, inner: Lifetime, outcomes: PyTree, choice: Int[Array, " n"]) -> "Scripted":
        """`inner` on these batches."""
        return cls(inner, outcomes, choice, inner.n_updates, inner.batch_size, inner.episode_len)

    def sample_task(self, key: Key[Array, ""]) -> Task:
        return self.inner.sample_task(key)

    def begin(self, key: Key[Array, ""], eta: PyTree[Array], task: Task) -> PyTree:
        return self.inner.begin(key, eta, task)

    def collect(self, key: Key[Array, ""], n: Int[Array, ""], life: PyTree, eta: PyTree[Array], task: Task) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[self.choice[n]], self.outcomes_)

    def log_probs(self, life: PyTree, data: PyTree, eta: PyTree[Array]) -> Float[Array, "batch time"]:
        return self.inner.log_probs(life, data, eta)

    def returns(self, data: PyTree) -> Float[Array, " batch"]:
        return self.inner.returns(data)

    def update(self, n: Int[Array, ""], life: PyTree, data: PyTree, eta: PyTree[Array], surrogate: Surrogate) -> PyTree:
        return self.inner.update(n, life, data, eta, surrogate)

    def advantages(
        self, life: PyTree, data: PyTree, eta: PyTree[Array], baseline: Float[Array, ""]
    ) -> Float[Array, "batch time"]:
        return self.inner.advantages(life, data, eta, baseline)

    def outer(self, life: PyTree, data: PyTree, eta: PyTree[Array], baseline: Float[Array, ""]) -> Float[Array, ""]:
        return self.inner.outer(life, data, eta, baseline)

    def value(self, life: PyTree, data: PyTree, task: Task) -> Float[Array, ""]:
        return self.inner.value(life, data, task)

    def expected_return(self, life: PyTree, eta: PyTree[Array], task: Task) -> Float[Array, ""]:
        return self.inner.expected_return(life, eta, task)


def outer_weights(objective: Objective, n_batches: int) -> Float[Array, " n"]:
    """w_0 … w_N of an objective."""
    if objective == "final":
        return jnp.zeros(n_batches).at[-1].set(1.0)
    return jnp.full(n_batches, 1.0 / n_batches)


def start_life(
    lifetime: Lifetime, key: Key[Array, ""], eta: PyTree[Array], task: Task
) -> tuple[PyTree, Task, Key[Array, ""]]:
    """The life before its first batch, its task (drawn here if None came), and the key of its data."""
    key_task, key_begin, key_data = jax.random.split(key, 3)
    task = lifetime.sample_task(key_task) if task is None else task
    return lifetime.begin(key_begin, eta, task), task, key_data


def live(
    lifetime: Lifetime,
    key_data: Key[Array, ""],
    life: PyTree,
    eta: PyTree[Array],
    task: Task,
    surrogate: Surrogate,
    batches: Int[Array, " n"],
    *,
    expected: bool = False,
) -> tuple[PyTree, Float[Array, " n"]]:
    """The life after these batches, and R_n of each (its expectation given θ_n, with `expected`). No gradients meant.

    The randomness of batch n depends on `key_data` and n alone: lives of one key meet the same luck, whatever their η.
    """

    def step(life: PyTree, n: Int[Array, ""]) -> tuple[PyTree, Float[Array, ""]]:
        data = lifetime.collect(jax.random.fold_in(key_data, n), n, life, eta, task)
        found = lifetime.expected_return(life, eta, task) if expected else jnp.mean(lifetime.returns(data))
        return lifetime.update(n, life, data, eta, surrogate), found

    return jax.lax.scan(step, life, batches)


def unroll(
    lifetime: Lifetime,
    key: Key[Array, ""],
    eta: PyTree[Array],
    task: Task,
    surrogate: Surrogate,
    *,
    expected: bool = False,
) -> Float[Array, " n"]:
    """R_0 … R_N of one whole lifetime."""
    life, task, key_data = start_life(lifetime, key, eta, task)
    batches = jnp.arange(lifetime.n_batches)
    return live(lifetime, key_data, life, eta, task, surrogate, batches, expected=expected)[1]


def no_gradient(tree: Any) -> Any:
    """The tree as constants."""
    return jax.lax.stop_gradient(tree)
