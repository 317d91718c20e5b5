"""Consistency: an agent that goes on learning at test time, with the loss of its training, on a task it was handed.

A meta-trained agent adapts through its memory, and only as far as training taught it to. Updating all of its parts on
the new task makes any agent consistent: with enough data it gets as good as learning from scratch would.

Reference: Xiong et al. 2021, On the Practical Consistency of Meta-Reinforcement Learning Algorithms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import singledispatch
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from fledge.core.contracts import Agent, Learner, ReplayAgent
from fledge.core.errors import ConfigError, ContractError, unknown
from fledge.core.types import Task, Token
from fledge.envs.trial import Trial
from fledge.learn.evaluate import by_episode, evaluate
from fledge.learn.inference import InferenceState
from fledge.learn.maml import MAMLState
from fledge.learn.pearl import PEARLState
from fledge.learn.policy_gradient import PolicyGradientState
from fledge.learn.ppo import PPOState
from fledge.learn.rollout import begin, rollout

MODES = ("default", "all", "scratch", "multitask")
SUBSET = "subset:"
NO_COMPONENT = ("statistics", "normaliser", "head")
"""Fields of an agent that no gradient moves."""


@dataclass(frozen=True)
class AdaptSettings:
    """How an agent goes on learning on one task, and what is looked at."""

    budget: int = 50_000
    """Environment steps on each task."""
    n_envs: int = 16
    """Copies of the task that act side by side; the recipe's own number would spend the budget in a few updates."""
    n_points: int = 10
    """Times that the agent is measured after the first (which comes before any update)."""
    n_repeats: int = 16
    """Trials of a measurement."""
    n_old_tasks: int = 16
    """Tasks of training on which forgetting is measured."""
    warmup_frac: float = 0.05
    """Share of the budget over which the learning rate rises: full first steps would destroy what was learnt."""

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("budget", "n_envs", "n_points", "n_repeats", "n_old_tasks")}
        faults = [f"{name} is at least 1, not {value}." for name, value in counts.items() if value < 1]
        if not 0 <= self.warmup_frac < 1:
            faults.append(f"warmup_frac is a share in [0, 1), not {self.warmup_frac}.")
        if faults:
            raise ConfigError(" ".join(faults))


class Measured(eqx.Module):
    """What was seen at each point. Point 0 is before the first update."""

    episodes: Float[Array, "point episode"]
    """Mean return of each episode of a trial on the task."""
    old_tasks: Float[Array, " point"]
    """Mean return of an episode on tasks of training."""
    kl: Float[Array, " point"]
    """KL(π ‖ π_meta) in nats, mean over tokens of the agent's own trials; NaN where agents cannot be replayed."""
    distance: dict[str, Float[Array, " point"]]
    """Component → Euclidean distance of its parameters from the meta-trained ones; `parameters` is all of them."""
    losses: dict[str, Float[Array, " point"]]
    """Mean training metrics since the last point (NaN at point 0)."""


@singledispatch
def carry_over(fresh: Any, trained: Any) -> Any:
    """`fresh` with what continues from training: parameters and normalisers, but neither optimisers nor buffers.

    Args:
        fresh: the state of a learner that was just initialised on the new task.
        trained: the state that training ended in.

    Raises:
        ContractError: nobody has said how for this learner.
    """
    raise ContractError(
        f"Nobody has said what of a {type(fresh).__name__} goes on at test time. "
        "Register it: @fledge.agents.adapt.carry_over.register."
    )


@carry_over.register
def _(fresh: PPOState, trained: PPOState | InferenceState) -> PPOState:
    agent: Any = trained.agent
    if isinstance(trained, InferenceState):  # inferred the task by being told it, which nobody does at test time
        agent = _untold(agent)
    return eqx.tree_at(lambda s: (s.agent, s.rewards.stats), fresh, (agent, trained.rewards.stats))


@carry_over.register
def _(fresh: InferenceState, trained: InferenceState) -> InferenceState:
    decoders = replace(trained.decoders, task=None)
    going_on = (_untold(trained.agent), decoders, trained.rewards.stats)
    return eqx.tree_at(lambda s: (s.agent, s.decoders, s.rewards.stats), fresh, going_on)


@carry_over.register
def _(fresh: PolicyGradientState, trained: MAMLState) -> PolicyGradientState:
    return eqx.tree_at(lambda s: (s.agent.policy, s.meta), fresh, (trained.meta.policy, trained.meta))


@carry_over.register
def _(fresh: PEARLState, trained: PEARLState) -> PEARLState:
    """Encoder, actor, critics, their targets and the temperature; the buffers are those of this task, and empty."""
    nets = ("actor", "critics", "targets", "log_temperature")
    sac = replace(fresh.sac, **{name: getattr(trained.sac, name) for name in nets})
    everyone = jnp.arange(fresh.replay.n_written.shape[0])
    replay, recent = fresh.replay.emptied(everyone), fresh.recent.emptied(everyone)
    return replace(fresh, encoder=trained.encoder, sac=sac, replay=replay, recent=recent)


def _untold(agent: Any) -> Any:
    """An agent that infers the task, without anything that reads it."""
    agent = agent.untold()
    return replace(agent, statistics=replace(agent.statistics, task=None))


def components(agent: Agent) -> dict[str, PyTree]:
    """The parts of an agent that have parameters, by name."""
    found = {f.name: getattr(agent, f.name) for f in fields(agent) if f.name not in NO_COMPONENT}
    return {name: part for name, part in found.items() if any(eqx.is_inexact_array(x) for x in jax.tree.leaves(part))}


def check_mode(mode: str, agent: Agent | None = None) -> tuple[str, ...] | None:
    """The components that a mode updates: None for all of them, () for none.

    Raises:
        ConfigError: there is no such mode, or the agent has no such component.
    """
    if mode.startswith(SUBSET):
        chosen = tuple(name.strip() for name in mode.removeprefix(SUBSET).split(",") if name.strip())
        known = components(agent) if agent is not None else dict.fromkeys(chosen)
        for name in chosen:
            if name not in known:
                raise unknown("component of this agent", name, known)
        if not chosen:
            raise ConfigError(f"'{mode}' names no component. Write, for example, subset:policy.")
        return chosen
    if mode not in MODES:
        raise unknown("way to adapt", mode, (*MODES, f"{SUBSET}policy"))
    return () if mode == "default" else None


def learn_on(
    learner: Learner,
    state: Any,
    meta: Agent,
    trial: Trial,
    old: tuple[Trial, Task],
    key: Key[Array, ""],
    *,
    settings: AdaptSettings,
    n_updates: int,
    subset: Sequence[str] | None = None,
) -> tuple[Any, Measured]:
    """Some updates of `learner`, in `settings.n_points` equal parts, and what was measured before, between and after.

    Args:
        learner: trains on trials of one task.
        state: of it, before the first update.
        meta: what distances are taken from.
        trial: trials of that task.
        old: trials and stacked tasks of training, for forgetting.
        key: randomness of the measurements (the learner has its own).
        settings: how many points and trials.
        n_updates: between two points; 0 only measures.
        subset: components that are updated; None for all.
    """

    def update(state: Any, _: None) -> tuple[Any, dict[str, Array]]:
        after, metrics = learner.update(state)
        if subset is not None:
            kept = {name: part for name, part in components(state.agent).items() if name not in subset}
            after = eqx.tree_at(lambda s: s.agent, after, replace(after.agent, **kept))
        return after, metrics

    def live(state: Any) -> tuple[Any, dict[str, Array]]:
        state, metrics = jax.lax.scan(update, state, None, length=n_updates)
        return state, {name: jnp.nanmean(x) for name, x in metrics.items()}

    def point(state: Any, x: tuple[Array, Key[Array, ""]]) -> tuple[Any, tuple[dict[str, Any], dict[str, Array]]]:
        i, key = x
        losses: dict[str, Array] = {}
        if n_updates:
            nothing = {name: jnp.full(x.shape, jnp.nan) for name, x in jax.eval_shape(live, state)[1].items()}
            state, losses = jax.lax.cond(i > 0, live, lambda s: (s, nothing), state)
        return state, (measure(learner.agent(state), meta, trial, old, key, settings.n_repeats), losses)

    n_points = settings.n_points + 1 if n_updates else 1
    keys = jax.random.split(key, n_points)
    state, (seen, losses) = jax.lax.scan(point, state, (jnp.arange(n_points), keys))
    return state, Measured(**seen, losses=losses)


def measure(
    agent: Agent, meta: Agent, trial: Trial, old: tuple[Trial, Task], key: Key[Array, ""], n_repeats: int
) -> dict[str, Any]:
    """The entries of `Measured` (but losses) for one agent."""
    key_task, key_begin, key_own, key_old = jax.random.split(key, 4)
    tasks = jax.vmap(trial.sample)(jax.random.split(key_task, n_repeats))
    state = begin(agent, trial, key_begin, tasks)
    _, trajectory = rollout(agent, trial, state, key_own, n_steps=trial.horizon)
    episodes = jnp.mean(by_episode(trajectory, trial.n_episodes).returns, axis=0)
    old_tasks = jnp.mean(evaluate(agent, *old, key_old).returns)
    kl = jnp.asarray(jnp.nan)
    if isinstance(agent, ReplayAgent) and isinstance(meta, ReplayAgent):
        ours, theirs = (_replayed(a, trajectory.token) for a in (agent, meta))
        kl = jnp.mean(ours.kl(theirs))
    return {"episodes": episodes, "old_tasks": old_tasks, "kl": kl, "distance": distances(agent, meta)}


def _replayed(agent: ReplayAgent, tokens: Token) -> Any:
    """The action distribution at each token (time, batch) of trials from their start."""
    n = tokens.start.shape[1]
    memory = jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *x.shape)), agent.begin())
    return agent.replay(memory, tokens)[0]


def distances(agent: Agent, meta: Agent) -> dict[str, Float[Array, ""]]:
    """Component → Euclidean distance of its parameters; `parameters` is that of all. Empty for unlike agents."""
    ours, theirs = components(agent), components(meta)
    shapes: list[Any] = [jax.tree.structure(parts) for parts in (ours, theirs)]
    if shapes[0] != shapes[1]:
        return {}
    squares = {name: _square(part, theirs[name]) for name, part in ours.items()}
    return {name: jnp.sqrt(x) for name, x in {**squares, "parameters": sum(squares.values(), jnp.zeros(()))}.items()}


def _square(ours: PyTree, theirs: PyTree) -> Float[Array, ""]:
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return sum((jnp.sum((a - b) ** 2) for a, b in pairs if eqx.is_inexact_array(a)), jnp.zeros(()))
