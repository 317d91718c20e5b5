"""The MAML family: an initialisation (and more) that a few policy-gradient steps adapt to a task.

One update is one compiled program: collect on every task, adapt, collect again, and move η by the outer loop's rule.

Reference: Finn et al. 2017 (MAML); Nichol et al. 2018 (Reptile); Stadie et al. 2018 (E-MAML); Rothfuss et al. 2019
(ProMP); Li et al. 2017 (Meta-SGD); Song et al. 2020 (ES-MAML); Zintgraf et al. 2019 (CAVIA); Raghu et al. 2020 (ANIL).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key, PyTree

from fledge.core.contracts import Agent, Learner
from fledge.core.errors import ConfigError
from fledge.core.types import Task
from fledge.envs.trial import Trial
from fledge.learn.episodes import Episodes, collect
from fledge.learn.inner import InnerSettings, Meta, inner_step
from fledge.learn.outer import OuterSettings, Played, objective, outer_kl, penalty
from fledge.learn.rollout import sample_tasks
from fledge.learn.trpo import trust_region_step
from fledge.nets.adaptive import AdaptivePolicy

Outer = Literal["pg", "ppo", "trpo", "reptile", "es"]
OUTERS = ("pg", "ppo", "trpo", "reptile", "es")


@dataclass(frozen=True)
class MAMLSettings:
    """The outer loop.

    `pg`: one step of Adam on the policy gradient after adaptation. `ppo`: several on its clipped surrogate, from the
    same data (ProMP, with inner.objective = "ratio"). `trpo`: a trust-region step (MAML's own). `reptile`: towards the
    adapted parameters. `es`: evolution strategies on the return after adaptation (ES-MAML): nothing is differentiated
    but the inner steps themselves.
    """

    outer: Outer = "trpo"
    n_tasks: int = 20
    """Lifetimes of an update."""
    lifetimes_per_task: int = 1
    """Lifetimes that share a task. With two or more the sampling correction's baseline is the mean of the others."""
    learn_step_sizes: bool = False
    """One for each parameter (Meta-SGD)."""
    inner: InnerSettings = field(default_factory=InnerSettings)
    objective: OuterSettings = field(default_factory=OuterSettings)
    learning_rate: float = 1e-3
    """Of the outer loop, but for `trpo`."""
    n_outer_steps: int = 5
    """Of `ppo`, from one batch."""
    max_grad_norm: float = 10.0
    max_kl: float = 0.01
    n_cg: int = 10
    cg_damping: float = 1e-5
    n_line_search: int = 15
    line_search_shrink: float = 0.8
    kl_target: float = 0.0
    """The inner KL that its penalty is adjusted to: halved below target/1.5, doubled above 1.5·target. 0: fixed."""
    es_sigma: float = 0.1
    es_pairs: int = 8
    split: str = "train"

    def __post_init__(self) -> None:
        counts = ("n_tasks", "lifetimes_per_task", "n_outer_steps", "n_cg", "n_line_search", "es_pairs")
        faults = [f"{name} is at least 1, not {getattr(self, name)}." for name in counts if getattr(self, name) < 1]
        rates = ("learning_rate", "max_grad_norm", "max_kl", "es_sigma")
        faults += [f"{name} is above 0, not {getattr(self, name)}." for name in rates if getattr(self, name) <= 0]
        if self.outer not in OUTERS:
            faults.append(f"outer is one of {', '.join(OUTERS)}, not '{self.outer}'.")
        if self.lifetimes_per_task > 0 and self.n_tasks % self.lifetimes_per_task:
            faults.append(
                f"n_tasks = {self.n_tasks} cannot be cut into groups of lifetimes_per_task = "
                f"{self.lifetimes_per_task}. Make it a multiple."
            )
        if self.outer in ("reptile", "es"):
            faults += self._unheard()
        if faults:
            raise ConfigError(" ".join(faults))

    def _unheard(self) -> list[str]:
        """Settings that these outer loops would silently ignore."""
        faults = []
        if self.objective.sc_coef:
            faults.append(f"objective.sc_coef has no effect with outer = '{self.outer}': set it to 0.")
        if self.objective.kl_coef:
            faults.append(f"objective.kl_coef has no effect with outer = '{self.outer}': set it to 0.")
        if self.outer == "reptile" and self.learn_step_sizes:
            faults.append("learn_step_sizes has no gradient with outer = 'reptile': set it to false.")
        return faults


class MAMLState(eqx.Module):
    """Everything that training carries from one update to the next."""

    meta: Meta
    optimiser: PyTree
    kl_coef: Float[Array, ""]
    key: Key[Array, ""]
    n_updates: Int[Array, ""]


class MAML(Learner):
    """Meta-learning by gradients through (or around) gradient steps.

    Args:
        trial: trials of one episode; how many are played is the inner loop's business.
        make_policy: from a key to a fresh policy.
        wrap: from η to the agent that is evaluated.
        settings: see `MAMLSettings`.

    Raises:
        ConfigError: the outer loop learns something that no inner step moves, such as step sizes with 0 steps.
    """

    trial: Trial
    make_policy: Callable[[Key[Array, ""]], AdaptivePolicy] = eqx.field(static=True)
    wrap: Callable[[Meta], Agent] = eqx.field(static=True)
    settings: MAMLSettings = eqx.field(static=True)

    def __check_init__(self) -> None:
        s = self.settings
        if s.inner.n_steps == 0 and (s.learn_step_sizes or s.outer == "reptile" or s.inner.adapts == "context"):
            what = "step sizes" if s.learn_step_sizes else "a context" if s.inner.adapts == "context" else "Reptile"
            raise ConfigError(
                f"inner.n_steps = 0 leaves nothing for {what} to learn from: the gradient would be zero. "
                "Set inner.n_steps to 1 or more."
            )

    @property
    def steps_per_update(self) -> int:
        s = self.settings
        once = s.n_tasks * (s.inner.n_steps + 1) * s.inner.batch_size * self.trial.horizon
        return once * 2 * s.es_pairs if s.outer == "es" else once

    def optimiser(self) -> optax.GradientTransformation:
        """Clip the global norm, then Adam; plain gradient descent for Reptile."""
        s = self.settings
        step = optax.sgd if s.outer == "reptile" else optax.adam
        return optax.chain(optax.clip_by_global_norm(s.max_grad_norm), step(s.learning_rate))

    def init(self, key: Key[Array, ""]) -> MAMLState:
        key_policy, key = jax.random.split(key)
        s = self.settings
        meta = Meta.init(self.make_policy(key_policy), s.inner, learn_step_sizes=s.learn_step_sizes)
        kl_coef = jnp.asarray(s.objective.kl_coef, jnp.float32)
        return MAMLState(meta, self.optimiser().init(meta), kl_coef, key, jnp.asarray(0, jnp.int32))

    def agent(self, state: MAMLState) -> Agent:
        return self.wrap(state.meta)

    def update(self, state: MAMLState) -> tuple[MAMLState, dict[str, Float[Array, ""]]]:
        key, key_task, key_play = jax.random.split(state.key, 3)
        s = self.settings
        tasks = sample_tasks(self.trial, key_task, s.split, s.n_tasks // s.lifetimes_per_task)
        tasks = jax.tree.map(lambda leaf: jnp.repeat(leaf, s.lifetimes_per_task, axis=0), tasks)
        if s.outer == "es":
            meta, optimiser, metrics = self._evolve(state, tasks, key_play)
            return MAMLState(meta, optimiser, state.kl_coef, key, state.n_updates + 1), metrics
        played = self.play(state.meta, tasks, key_play)
        meta, optimiser, metrics = self._step(state, played)
        kl_coef = state.kl_coef
        if s.kl_target > 0:
            kl = metrics["ppo/kl"]
            kl_coef = jnp.where(kl < s.kl_target / 1.5, kl_coef / 2, kl_coef)
            kl_coef = jnp.where(kl > s.kl_target * 1.5, kl_coef * 2, kl_coef)
        metrics |= {
            "return/before": jnp.mean(jax.vmap(_first_returns)(played)),
            "return/after": jnp.mean(jax.vmap(lambda p: jnp.mean(p.after.returns))(played)),
        }
        return MAMLState(meta, optimiser, kl_coef, key, state.n_updates + 1), metrics

    def play(self, meta: Meta, tasks: Task, key: Key[Array, ""]) -> Played:
        """Batches before each inner step and after the last, on each task; leading axis: task."""
        n_tasks = jax.tree.leaves(tasks)[0].shape[0]
        return jax.vmap(lambda task, k: self.play_one(meta, task, k))(tasks, jax.random.split(key, n_tasks))

    def play_one(self, meta: Meta, task: Task, key: Key[Array, ""]) -> Played:
        """The same on one task. No gradients."""
        s = self.settings.inner
        meta = jax.lax.stop_gradient(meta)
        key_before, key_after = jax.random.split(key)

        def step(policy: AdaptivePolicy, k: Key[Array, ""]) -> tuple[AdaptivePolicy, Episodes]:
            episodes = collect(policy, self.trial, task, k, s.batch_size)
            return inner_step(meta, policy, episodes, s), episodes

        adapted, before = jax.lax.scan(step, meta.policy, jax.random.split(key_before, s.n_steps))
        return Played(before, collect(adapted, self.trial, task, key_after, s.batch_size), adapted)

    def _step(self, state: MAMLState, played: Played) -> tuple[Meta, PyTree, dict[str, Array]]:
        """The outer loop's move on recorded data."""
        s = self.settings
        if s.outer == "reptile":
            towards = jax.tree.map(lambda old, new: old - jnp.mean(new, axis=0), state.meta.policy, played.adapted)
            return self._descend(state.meta, state.optimiser, Meta(towards))
        flat, unravel = ravel_pytree(state.meta)

        def raised(x: Float[Array, " n"]) -> Float[Array, ""]:
            meta = unravel(x)
            clip = s.outer == "ppo"
            value = objective(meta, played, s.inner, s.objective, s.lifetimes_per_task, clip=clip)
            if s.objective.kl_coef:
                value -= state.kl_coef * penalty(meta, state.meta, played, s.inner)
            return value

        if s.outer == "trpo":
            gradient = jax.grad(raised)(flat)
            after, metrics = trust_region_step(
                raised,
                lambda x: outer_kl(unravel(x), played, s.inner),
                flat,
                gradient,
                max_kl=s.max_kl,
                n_cg=s.n_cg,
                damping=s.cg_damping,
                n_line_search=s.n_line_search,
                shrink=s.line_search_shrink,
            )
            return unravel(after), state.optimiser, metrics | {"grad/norm": jnp.linalg.norm(gradient)}

        def descend(carry: tuple[Meta, PyTree], _: None) -> tuple[tuple[Meta, PyTree], dict[str, Array]]:
            meta, optimiser = carry
            value, gradient = jax.value_and_grad(lambda x: -raised(x))(ravel_pytree(meta)[0])
            meta, optimiser, metrics = self._descend(meta, optimiser, unravel(gradient))
            return (meta, optimiser), metrics | {"loss/policy": value}

        n_steps = s.n_outer_steps if s.outer == "ppo" else 1
        (meta, optimiser), metrics = jax.lax.scan(descend, (state.meta, state.optimiser), None, length=n_steps)
        found = {name: jnp.mean(x) for name, x in metrics.items()}
        if s.outer == "ppo":
            found["ppo/kl"] = penalty(meta, state.meta, played, s.inner)
        return meta, optimiser, found

    def _descend(self, meta: Meta, optimiser: PyTree, gradient: Meta) -> tuple[Meta, PyTree, dict[str, Array]]:
        moves, optimiser = self.optimiser().update(gradient, optimiser, meta)
        return optax.apply_updates(meta, moves), optimiser, {"grad/norm": optax.tree.norm(gradient)}

    def _evolve(self, state: MAMLState, tasks: Task, key: Key[Array, ""]) -> tuple[Meta, PyTree, dict[str, Array]]:
        """Antithetic ES on the return after adaptation; the members of a pair meet the same tasks and keys."""
        s = self.settings
        flat, unravel = ravel_pytree(state.meta)
        key_noise, key_play = jax.random.split(key)

        def returns(x: Float[Array, " n"], k: Key[Array, ""]) -> tuple[Array, Array]:
            played = self.play(unravel(x), tasks, k)
            return jnp.mean(jax.vmap(lambda p: jnp.mean(p.after.returns))(played)), jnp.mean(
                jax.vmap(_first_returns)(played)
            )

        def pair(keys: Key[Array, " 2"]) -> tuple[Array, Array, Array]:
            noise = jax.random.normal(keys[0], flat.shape)
            both = jnp.stack([flat + s.es_sigma * noise, flat - s.es_sigma * noise])
            (after, before) = jax.vmap(returns, in_axes=(0, None))(both, keys[1])
            return (after[0] - after[1]) * noise / (2 * s.es_sigma), jnp.mean(after), jnp.mean(before)

        keys = jnp.stack([jax.random.split(key_noise, s.es_pairs), jax.random.split(key_play, s.es_pairs)], axis=1)
        gradients, after, before = jax.lax.map(pair, keys)
        # The scale of the returns is that of the task; dividing by the spread of the estimates' lengths would be
        # shaping. Adam's own scaling does.
        meta, optimiser, metrics = self._descend(state.meta, state.optimiser, unravel(-jnp.mean(gradients, axis=0)))
        return meta, optimiser, metrics | {"return/after": jnp.mean(after), "return/before": jnp.mean(before)}


def _first_returns(played: Played) -> Float[Array, ""]:
    """Mean return before the first inner step (of the only batch, without any)."""
    if played.before.rewards.shape[0] == 0:
        return jnp.mean(played.after.returns)
    return jnp.mean(jax.tree.map(lambda leaf: leaf[0], played.before).returns)
