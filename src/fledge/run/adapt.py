"""Learning on at test time: agents of run folders, on tasks that they were handed, with what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree
from rich.console import Console
from rich.table import Table

from fledge.agents.adapt import AdaptSettings, Measured, carry_over, check_mode, learn_on
from fledge.agents.references import make_reference
from fledge.core.contracts import Learner, task_batch
from fledge.core.errors import ConfigError, ContractError
from fledge.core.metrics import METRICS
from fledge.core.records import Curves
from fledge.core.stats import bootstrap, iqm
from fledge.core.types import Task
from fledge.envs.one_task import OneTask
from fledge.envs.trial import Trial
from fledge.learn.evaluate import evaluate
from fledge.run import at_test_time
from fledge.run import config as tomls
from fledge.run import recipe as recipes
from fledge.run.agent import LoadedAgent, load
from fledge.run.folder import RunFolder
from fledge.run.job import Job
from fledge.run.measure import optimum, unstack
from fledge.run.recipe import KINDS

MULTITASK = "multitask"
"""Subfolder of the policy without memory that `--adapt multitask` trains."""


@dataclass(frozen=True, eq=False)
class Adapted:
    """What became of the agents of a run that learnt on: seeds × tasks."""

    recipe: str
    split: str
    mode: str
    seeds: tuple[int, ...]
    tasks: tuple[str, ...]
    env_steps: Int[np.ndarray, " point"]
    """Of each task, at each point."""
    trials: Float[np.ndarray, "seed task point"]
    """Return of a trial."""
    log: Mapping[str, Float[np.ndarray, "seed task point"]]
    """Metric → values: episodes of the trial, old tasks, KL, distances, losses."""
    oracle: Float[np.ndarray, " task"] | None
    """Best expected return of a trial for whoever is told the task."""
    floor: Float[np.ndarray, " task"]
    """Return of a trial of uniformly random actions."""
    agents: PyTree
    """The agents at the end; leaves have axes (seed, task)."""

    @property
    def shares(self) -> Float[np.ndarray, "seed task point"]:
        """Return of a trial on a scale where random actions are 0 and the oracle is 1.

        Raises:
            ConfigError: the best return on these tasks is unknown.
        """
        if self.oracle is None:
            raise ConfigError("The best return on these tasks is unknown, so there is no share of it. Use `trials`.")
        span = np.maximum(self.oracle - self.floor, 1e-6)
        return (self.trials - self.floor[:, None]) / span[:, None]

    def curves(self) -> Curves:
        """The rows of curves.csv, over environment steps."""
        n_seeds, n_tasks, n_points = self.trials.shape
        where = {
            "recipe": self.recipe,
            "split": self.split,
            "adapt": self.mode,
            "seed": np.repeat(np.asarray(self.seeds), n_tasks * n_points),
            "task": np.tile(np.repeat(np.asarray(self.tasks, object), n_points), n_seeds),
            "x": np.tile(self.env_steps, n_seeds * n_tasks),
            "x_unit": "env_step",
        }
        values = {"return/trial": self.trials, **self.log}
        if self.oracle is not None:
            values["oracle_share"] = self.shares
        return Curves.concat([Curves.of(**where, metric=name, value=x.reshape(-1)) for name, x in values.items()])

    def take(self, rows: slice, split: str | None = None) -> Adapted:
        """The same on some of the tasks."""
        return replace(
            self,
            split=split or self.split,
            tasks=self.tasks[rows],
            trials=self.trials[:, rows],
            log={name: x[:, rows] for name, x in self.log.items()},
            oracle=None if self.oracle is None else self.oracle[rows],
            floor=self.floor[rows],
            agents=jax.tree.map(lambda leaf: leaf[:, rows], self.agents),
        )

    def table(self) -> Table:
        """A table for `rich`: one row per point, interquartile means over seeds and tasks."""
        shown = [n for n in ("return/old_tasks", "kl/from_meta", "distance/parameters") if n in self.log]
        title = f"{self.recipe}: {self.mode} on {len(self.tasks)} {self.split} tasks, {len(self.seeds)} seed(s)"
        table = Table(title=title, caption="interquartile mean [95 % interval] over seeds and tasks")
        for name in ("env. steps", "return of a trial", *shown):
            table.add_column(name, justify="right")
        for i, steps in enumerate(self.env_steps):
            estimate = bootstrap(self.trials[..., i])
            value, lo, hi = (float(x) for x in estimate[:3])
            interval = "" if np.isnan(lo) else f" [{lo:.2f}, {hi:.2f}]"
            cells = [f"{float(iqm(self.log[name][..., i])):.3g}" for name in shown]
            table.add_row(f"{int(steps):,}", f"{value:.2f}{interval}", *cells)
        return table


def adapt(
    agent: LoadedAgent | Path | str,
    task: Task | None = None,
    budget: int | None = None,
    mode: str = "all",
    *,
    split: str = "ood",
    n_tasks: int = 10,
    settings: AdaptSettings | None = None,
    seed: int = 0,
    tell: Callable[[str], None] = lambda line: None,
) -> Adapted:
    """Let every seed of a run learn on, on each of some tasks.

    Args:
        agent: what `load` returned, or a run folder.
        task: one task; None takes `n_tasks` of `split`.
        budget: environment steps on each task; by default that of `settings`.
        mode: `default` (parameters stay: the agent adapts as it was trained to), `all` (every part learns on, by the
            loss of its training, with fresh optimisers and continuing normalisers), `subset:NAME,NAME` (only these
            parts), `scratch` (the same with fresh parameters) or `multitask` (a policy without memory that was trained
            on the same tasks as long as the agent, and then learns on like `all`).
        split: of the tasks.
        n_tasks: how many; fewer where fewer can be listed.
        settings: see `AdaptSettings`.
        seed: of all randomness.
        tell: called with a sentence when something takes long.

    Raises:
        ConfigError: an unknown mode or component, or a budget below one update.
    """
    if not isinstance(agent, LoadedAgent):
        agent = load(agent)
    check_mode(mode, agent.agent)
    settings = replace(settings or AdaptSettings(), **({} if budget is None else {"budget": budget}))
    if task is None:
        tasks = tasks_of(agent.trial, split, n_tasks, seed)
    else:
        tasks, split = jax.tree.map(lambda x: jnp.asarray(x)[None], task), "ood"
    return adapt_to(agent, tasks, mode, split=split, settings=settings, seed=seed, tell=tell)


def tasks_of(trial: Trial, split: str, n_tasks: int, seed: int = 0) -> Task:
    """Some tasks of a split: listed where they can be (then at most all of them, once), otherwise drawn."""
    listed = trial.enumerate(split)
    count = n_tasks if listed is None else min(n_tasks, jax.tree.leaves(listed)[0].shape[0])
    return task_batch(trial, jax.random.fold_in(jax.random.key(seed), 1), split, count)


def adapt_to(
    agent: LoadedAgent,
    tasks: Task,
    mode: str,
    *,
    split: str,
    settings: AdaptSettings,
    seed: int = 0,
    tell: Callable[[str], None] = lambda line: None,
) -> Adapted:
    """The same on stacked tasks (leading axis `task`), which need not be of the agent's own family settings."""
    names, label = names_of(agent.trial, tasks), agent.recipe
    if mode == MULTITASK:
        agent = multitask_of(agent, tell)
    key_run, key_old = jax.random.split(jax.random.key(seed))
    found, agents, steps = _learn(agent, tasks, settings, mode, key_run, key_old)
    return _adapted(label, split, mode, agent, tasks, names, found, agents, steps)


def _learn(
    agent: LoadedAgent,
    tasks: Task,
    settings: AdaptSettings,
    mode: str,
    key_run: Key[Array, ""],
    key_old: Key[Array, ""],
) -> tuple[Measured, PyTree, np.ndarray]:
    """What was measured of all seeds on all tasks, the agents at the end, and the environment steps of each point."""
    env, n_episodes, config = agent.trial.env, agent.trial.n_episodes, agent.config
    subset = check_mode(mode, agent.agent)
    old_tasks = jax.vmap(agent.trial.sample)(jax.random.split(key_old, settings.n_old_tasks))
    probe = at_test_time.make_test_learner(config, agent.trial, settings, 1, mode)
    n_updates = 0 if subset == () and not probe.default else _updates(settings, probe.learner.steps_per_update)

    def one(state: Any, task: Task, key: Key[Array, ""]) -> tuple[Measured, PyTree]:
        key_init, key_measure = jax.random.split(key)
        trial = Trial(OneTask(env, task), probe.n_episodes or n_episodes)
        old = (Trial(env, trial.n_episodes), old_tasks)
        made = at_test_time.make_test_learner(config, trial, settings, n_updates * settings.n_points, mode)
        learner: Learner = made.learner
        begun = learner.init(key_init)
        begun = begun if mode == "scratch" else carry_over(begun, state)
        meta = learner.agent(carry_over(begun, state))
        done, found = learn_on(
            learner,
            begun,
            meta,
            trial,
            old,
            key_measure,
            settings=settings,
            n_updates=n_updates,
            subset=subset or None,
        )
        return found, learner.agent(done)

    n_seeds, n_tasks = len(agent.seeds), jax.tree.leaves(tasks)[0].shape[0]
    keys = jnp.stack([jax.random.split(jax.random.fold_in(key_run, s), n_tasks) for s in agent.seeds])
    if agent.state is None:
        raise ContractError("This agent carries no training state. Load it from its run folder: fledge.load(DIR).")
    many = jax.jit(jax.vmap(jax.vmap(one, in_axes=(None, 0, 0)), in_axes=(0, None, 0), axis_size=n_seeds))
    found, agents = many(agent.state, tasks, keys)
    steps = np.arange(found.kl.shape[-1]) * n_updates * probe.learner.steps_per_update
    return found, agents, steps


def _updates(settings: AdaptSettings, steps_per_update: int) -> int:
    """Updates between two points.

    Raises:
        ConfigError: the budget does not hold one update for each.
    """
    n = settings.budget // (steps_per_update * settings.n_points)
    if n < 1:
        raise ConfigError(
            f"A budget of {settings.budget:,} environment steps was given; one update takes {steps_per_update:,}, and "
            f"there are {settings.n_points} points. Give {steps_per_update * settings.n_points:,} or more, or lower "
            "n_envs or n_points."
        )
    return n


def _adapted(
    label: str,
    split: str,
    mode: str,
    agent: LoadedAgent,
    tasks: Task,
    names: Sequence[str],
    found: Measured,
    agents: PyTree,
    steps: np.ndarray,
) -> Adapted:
    episodes = np.asarray(found.episodes, float)
    k = episodes.shape[-1]
    trial = Trial(agent.trial.env, k)
    log = {"return/episode_1": episodes[..., 0], f"return/episode_{k}": episodes[..., -1]}
    log |= {"return/old_tasks": np.asarray(found.old_tasks, float), "kl/from_meta": np.asarray(found.kl, float)}
    log |= {f"distance/{name}": np.asarray(x, float) for name, x in found.distance.items()}
    log |= {name: np.asarray(x, float) for name, x in found.losses.items() if name.startswith("loss/")}
    log = {name: x for name, x in log.items() if name in METRICS or name.startswith("return/episode_")}
    best = optimum(trial, tasks)
    random = evaluate(make_reference("random", trial), trial, tasks, jax.random.key(0), n_repeats=32)
    return Adapted(
        recipe=label,
        split=split,
        mode=mode,
        seeds=agent.seeds,
        tasks=tuple(names),
        env_steps=steps,
        trials=episodes.sum(-1),
        log=log,
        oracle=None if best is None else best.sum(-1),
        floor=np.asarray(random.returns, float).sum(-1),
        agents=agents,
    )


def names_of(trial: Trial, tasks: Task) -> list[str]:
    """A name for each of stacked tasks; equal ones are numbered."""
    names = [trial.describe(task) for task in unstack(tasks)]
    return [f"{name} #{i}" if names.count(name) > 1 else name for i, name in enumerate(names)]


def multitask_of(agent: LoadedAgent, tell: Callable[[str], None] = lambda line: None) -> LoadedAgent:
    """The control without memory: trained on the same tasks with the same budget, kept beside the run.

    Raises:
        ConfigError: the agent was not loaded from a folder.
    """
    if agent.folder is None:
        raise ConfigError("The multi-task control is kept beside a run. Load the agent from its folder: fledge.load.")
    folder = RunFolder(agent.folder / MULTITASK)
    if folder.record.exists() and folder.read_record().finished:
        return load(folder.path)
    changes = at_test_time.without_memory(agent.config)
    recipe = recipes.load(agent.folder / "config.toml")
    config = recipe.config(changes=tomls.nest(changes))
    tell(f"training the control that does not adapt, once: {folder.path}")
    folder.path.mkdir(exist_ok=True)
    words = " ".join(f"{key}={value}" for key, value in changes.items())
    command = f"fledge run {agent.folder / 'config.toml'} {words}"
    scale = RunFolder(agent.folder).read_record().scale
    quiet = Console(stderr=True, quiet=True)
    recipes.find(KINDS[recipe.header.kind].program).run(Job(recipe, config, scale, folder, command, (), quiet))
    return load(folder.path)
