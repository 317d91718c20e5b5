"""Policy gradient on one task, batch after batch: what agents of the MAML family do at test time."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from fledge.core.contracts import Learner
from fledge.envs.trial import Trial
from fledge.learn.episodes import PolicyAgent, collect
from fledge.learn.inner import InnerSettings, Meta, inner_loss, inner_step
from fledge.learn.ppo import warmed_up


class PolicyGradientState(eqx.Module):
    """Everything that is carried from one step to the next."""

    agent: PolicyAgent
    meta: Meta
    """What the inner steps of training were taken with (their step sizes)."""
    optimiser: PyTree
    key: Key[Array, ""]
    n_updates: Int[Array, ""]


class PolicyGradient(Learner):
    """A batch of episodes, a baseline fitted to it, one step; and so on.

    The first `n_inner` steps are the inner steps of training (their part of the policy, their step sizes); then comes
    Adam on all parameters, whose learning rate is warmed up.

    Args:
        trial: of one episode, on one task.
        make_policy: from a key to η with a fresh policy.
        inner: settings of the steps.
        n_inner: how many steps are as in training; None: all of them.
        learning_rate: of Adam.
        n_warmup: its steps until it is whole.
    """

    trial: Trial
    make_meta: Callable[[Key[Array, ""]], Meta] = eqx.field(static=True)
    inner: InnerSettings = eqx.field(static=True)
    n_inner: int | None = eqx.field(static=True, default=None)
    learning_rate: float = eqx.field(static=True, default=3e-3)
    n_warmup: int = eqx.field(static=True, default=0)

    @property
    def steps_per_update(self) -> int:
        return self.inner.batch_size * self.trial.horizon

    def optimiser(self) -> optax.GradientTransformation:
        """Adam, warmed up, on the whole policy."""
        schedule = warmed_up(optax.constant_schedule(self.learning_rate), self.n_warmup)
        return optax.chain(optax.clip_by_global_norm(10.0), optax.adam(schedule))

    def init(self, key: Key[Array, ""]) -> PolicyGradientState:
        key_policy, key = jax.random.split(key)
        meta = self.make_meta(key_policy)
        optimiser = self.optimiser().init(meta.policy)
        return PolicyGradientState(PolicyAgent(meta.policy), meta, optimiser, key, jnp.asarray(0, jnp.int32))

    def agent(self, state: PolicyGradientState) -> PolicyAgent:
        return state.agent

    def update(self, state: PolicyGradientState) -> tuple[PolicyGradientState, dict[str, Float[Array, ""]]]:
        key, key_play = jax.random.split(state.key)
        policy = state.agent.policy
        episodes = collect(policy, self.trial, self.trial.sample(key), key_play, self.inner.batch_size)
        loss, gradient = jax.value_and_grad(inner_loss)(policy, episodes, self.inner)
        moves, optimiser = self.optimiser().update(gradient, state.optimiser, policy)
        whole = (optax.apply_updates(policy, moves), optimiser)
        meant = (inner_step(state.meta, policy, episodes, self.inner), state.optimiser)
        inner = jnp.asarray(self.n_inner is None) | (state.n_updates < (self.n_inner or 0))
        policy, optimiser = jax.tree.map(lambda a, b: jnp.where(inner, a, b), meant, whole)
        metrics = {"loss/policy": loss, "grad/norm": optax.tree.norm(gradient)}
        metrics["return/per_step"] = jnp.sum(episodes.rewards * episodes.mask) / jnp.sum(episodes.mask)
        return PolicyGradientState(PolicyAgent(policy), state.meta, optimiser, key, state.n_updates + 1), metrics
