"""A trained agent outside of training: one decision at a time, in whatever program asks for it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Key, PyTree, Shaped

from fledge.agents.adapt import check_mode
from fledge.core.contracts import Agent
from fledge.core.errors import ConfigError, ShapeError
from fledge.core.records import Curves
from fledge.core.spaces import Space
from fledge.core.types import Token
from fledge.envs.trial import Trial
from fledge.run import build, checkpoint
from fledge.run import recipe as recipes
from fledge.run.curve import AdaptationCurve
from fledge.run.folder import RunFolder
from fledge.run.measure import episodes_per_step, measure, measure_references
from fledge.run.program import seeds_of, state_like
from fledge.run.settings import EvaluationSettings, TrainedSettings


class AgentMemory(eqx.Module):
    """What an agent in use carries from one decision to the next. Hand it back as it came."""

    inner: PyTree[Array]
    """The agent's own memory."""
    observation: Shaped[Array, "*obs"]
    """That the last decision was made on."""
    action: Shaped[Array, "*act"]
    """The last one."""
    start: Bool[Array, ""]
    """Whether nothing has happened yet in this trial."""
    key: Key[Array, ""]
    task: Array | None
    """For agents that are told."""


def first_memory(agent: Agent, trial: Trial, key: Key[Array, ""], task: Array | None) -> AgentMemory:
    """The memory at the start of a trial."""
    space = trial.observation_space
    return AgentMemory(agent.begin(), space.zeros(), trial.action_space.zeros(), jnp.asarray(True), key, task)


def decide(
    agent: Agent,
    memory: AgentMemory,
    observation: Shaped[Array, "*obs"],
    reward: Array,
    done: Array,
    final_observation: Shaped[Array, "*obs"],
    noise: PyTree[Array] | None,
) -> tuple[Shaped[Array, "*act"], AgentMemory]:
    """One decision. At a trial's start what there is of a last transition is zero, whatever is handed in."""
    known = ~memory.start
    token = Token(
        observation=observation,
        last_observation=memory.observation,
        action=memory.action,
        reward=jnp.where(known, reward, 0.0),
        done=known & done,
        final_observation=jnp.where(known, final_observation, jnp.zeros_like(final_observation)),
        start=memory.start,
        task=memory.task,
    )
    decision, inner = agent.act(memory.inner, token, noise)
    after = AgentMemory(inner, observation, decision.action, jnp.asarray(False), memory.key, memory.task)
    return decision.action, after


@partial(jax.jit, static_argnames="greedy")
def _act(
    agent: Agent,
    memory: AgentMemory,
    observation: Shaped[Array, "*obs"],
    reward: Array,
    done: Array,
    final_observation: Shaped[Array, "*obs"],
    *,
    greedy: bool,
) -> tuple[Shaped[Array, "*act"], AgentMemory]:
    key, key_act = jax.random.split(memory.key)
    noise = None if greedy else agent.sample_noise(key_act)
    action, after = decide(agent, memory, observation, reward, done, final_observation, noise)
    return action, eqx.tree_at(lambda m: m.key, after, key)


@dataclass(frozen=True, eq=False)
class LoadedAgent:
    """A trained agent: `begin` a trial, then `act`, decision after decision. It adapts through its memory.

    Example:
        memory = agent.begin()
        action, memory = agent.act(memory, observation)
        action, memory = agent.act(memory, observation, reward=reward, done=done)
    """

    recipe: str
    config: TrainedSettings
    trial: Trial
    """What it was trained on."""
    agents: Agent
    """All seeds: every leaf has the leading axis `seed`."""
    agent: Agent
    """The seed that acts."""
    seeds: tuple[int, ...]
    seed: int
    """The number of the one that acts."""
    state: Any = None
    """What training ended in, of all seeds: what goes on when the agent learns on."""
    folder: Path | None = None
    """Where it was loaded from."""

    @property
    def observation_space(self) -> Space:
        """What observations must be."""
        return self.trial.observation_space

    @property
    def action_space(self) -> Space:
        """What actions will be."""
        return self.trial.action_space

    def begin(self, *, seed: int = 0, task: Any = None) -> AgentMemory:
        """The memory at the start of a trial: nothing is known of the task.

        Args:
            seed: of the randomness of sampled actions.
            task: the task vector, for an agent that is told (an oracle).

        Raises:
            ConfigError: the agent is told, and no task came; or the other way round.
        """
        if self.agent.told != (task is not None):
            wanted = "is told the task: begin(task=…)" if self.agent.told else "finds out the task by itself: begin()"
            raise ConfigError(f"This agent {wanted}.")
        return first_memory(self.agent, self.trial, jax.random.key(seed), None if task is None else jnp.asarray(task))

    def act(
        self,
        memory: AgentMemory,
        observation: Any,
        *,
        reward: float = 0.0,
        done: bool = False,
        final_observation: Any = None,
        greedy: bool = False,
    ) -> tuple[np.ndarray, AgentMemory]:
        """The action for an observation, and the memory after it.

        Args:
            memory: from `begin`, or from the last call.
            observation: what the agent sees now. After an episode's end, the start of the next episode.
            reward: what the last action earned (ignored at a trial's first decision, like `done`).
            done: whether the last action ended an episode.
            final_observation: what the last action led to; left out, it is `observation`, which is right unless `done`.
            greedy: take the most likely action instead of a sampled one.

        Raises:
            ShapeError: an observation of another shape than the environment's.
        """
        seen = self._observation(observation, "observation")
        final = seen if final_observation is None else self._observation(final_observation, "final_observation")
        action, memory = _act(
            self.agent,
            memory,
            seen,
            jnp.asarray(reward, jnp.float32),
            jnp.asarray(done, bool),
            final,
            greedy=greedy,
        )
        return np.asarray(action), memory

    def _observation(self, value: Any, name: str) -> Array:
        space = self.observation_space
        array = np.asarray(value)
        if array.shape != space.shape:
            raise ShapeError(
                f"{name} has shape {array.shape}, but this agent sees arrays of shape {space.shape}. "
                "Hand over one observation, without a batch axis."
            )
        return jnp.asarray(array, space.dtype)


def load(path: Path | str, *, seed: int | None = None, tell: Callable[[str], None] = warnings.warn) -> LoadedAgent:
    """The agent of a run folder, from its newest checkpoint.

    Args:
        path: the folder.
        seed: which of its seeds acts; the first by default.
        tell: called with a sentence if the newest checkpoint is damaged and an earlier one had to do.

    Raises:
        DataError: no run folder, or a damaged one.
        ConfigError: there is no such seed, or the run is a study.
    """
    folder = RunFolder.open(path)
    folder.read_record()
    recipe = recipes.load(folder.config)
    config = recipe.config()
    if not isinstance(config, TrainedSettings):
        arms = ", ".join(sorted(p.name for p in folder.path.iterdir() if (p / "record.json").exists()))
        raise ConfigError(f"{path} is a run of kind '{recipe.header.kind}'. Load one of its arms: {arms}.")
    seeds = seeds_of(config.train)
    chosen = seeds[0] if seed is None else seed
    if chosen not in seeds:
        raise ConfigError(f"There is no seed {chosen} in {path}. There is: {', '.join(map(str, seeds))}.")
    trial = build.make_trial(config.env)
    loop = build.make_loop(config, trial)
    found = checkpoint.load_checkpoint(folder.checkpoints, state_like(loop, seeds), tell=tell)
    agents = jax.tree.map(jnp.asarray, loop.learner.agent(found.tree))
    one = jax.tree.map(lambda leaf: leaf[seeds.index(chosen)], agents)
    state = jax.tree.map(jnp.asarray, found.tree)
    return LoadedAgent(recipe.name, config, trial, agents, one, seeds, chosen, state, folder.path)


def evaluate(
    agent: LoadedAgent | Path | str,
    *,
    split: str | None = None,
    episodes: int | None = None,
    n_tasks: int | None = None,
    n_repeats: int | None = None,
    greedy: bool | None = None,
    seed: int | None = None,
    references: bool = True,
    adapt: str = "default",
) -> AdaptationCurve:
    """The adaptation curve of all seeds of a run.

    Args:
        agent: what `load` returned, or a run folder.
        split: of the tasks; by default the recipe's.
        episodes: of a trial; by default as in training.
        n_tasks: how many tasks; 0 is all of a split that can be listed.
        n_repeats: trials per task with sampled actions.
        greedy: only sampled actions (False), only the most likely ones (True); by default as the recipe says.
        seed: of the evaluation's randomness.
        references: measure the optimum and the recipe's reference agents too.
        adapt: `default` only, here; see `fledge.run.adapt` for agents that learn on.

    Raises:
        ConfigError: a setting makes no sense.
    """
    if not isinstance(agent, LoadedAgent):
        agent = load(agent)
    if check_mode(adapt) != ():
        raise ConfigError(
            f"Learning on ({adapt}) has a curve over environment steps. Ask for it by fledge.run.api.adapt, or on the "
            f"command line by: fledge eval DIR --adapt {adapt}"
        )
    changes: dict[str, Any] = {"split": split, "n_tasks": n_tasks, "n_repeats": n_repeats, "seed": seed}
    tree = {key: value for key, value in changes.items() if value is not None}
    faults: list[str] = []
    asked = {"evaluation": tree, "env": {} if episodes is None else {"n_episodes": episodes}}
    config = recipes.settings.override(agent.config, asked, faults)
    faults = faults or build.faults_of(config, exam=False)
    recipes.settings.refuse(faults, "The evaluation")
    settings: EvaluationSettings = config.evaluation
    trial = Trial(agent.trial.env, config.env.n_episodes)
    modes = None if greedy is None else (greedy,)
    where: dict[str, Any] = {"recipe": agent.recipe, "split": settings.split}
    curves = measure(agent.agents, agent.seeds, trial, settings, greedy=modes, adapt=adapt, **where)
    if references:
        by = episodes_per_step(agent.agents)
        beside = measure_references(trial, settings, agent.seeds, split=settings.split, episodes_per_step=by)
        curves = Curves.concat([curves, beside])
    return AdaptationCurve(agent.recipe, settings.split, curves)
