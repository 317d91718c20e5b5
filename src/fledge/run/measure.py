"""Measuring: from trained agents to the rows of curves.csv and the walks of paths.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from fledge.agents.references import make_reference
from fledge.core.contracts import Agent, task_batch
from fledge.core.records import Curves, WalkedEpisode, WalkedTrial
from fledge.core.types import Task
from fledge.envs.beliefs import grid_of
from fledge.envs.trial import Trial
from fledge.learn.belief_gap import belief_gaps
from fledge.learn.evaluate import Evaluation, evaluate
from fledge.learn.trace import walked_paths
from fledge.nets.decoders import CellRewardDecoder
from fledge.run.settings import EvaluationSettings

OPTIMUM = "optimum"
KEPT = ("success", "regret")
"""The environment's extras that are curves too."""


def tasks_of(trial: Trial, settings: EvaluationSettings, split: str) -> tuple[Task, list[str]]:
    """The tasks that are measured, and a name for each: every task once, the same for all seeds and recipes."""
    listed = trial.enumerate(split)
    key = jax.random.fold_in(jax.random.key(settings.seed), 1)
    if listed is not None:
        count = jax.tree.leaves(listed)[0].shape[0]
        n = min(settings.n_tasks or count, count)
        tasks = jax.tree.map(lambda leaf: leaf[:n], listed)
    else:
        n = settings.n_tasks
        tasks = task_batch(trial, key, split, n)
    names = [trial.describe(task) for task in unstack(tasks)]
    repeated = {name for name in names if names.count(name) > 1} if len(set(names)) < n else set()
    return tasks, [f"{name} #{i}" if name in repeated else name for i, name in enumerate(names)]


def unstack(tree: PyTree[Array]) -> list[PyTree[Array]]:
    """The rows of a tree whose leaves have a leading axis."""
    host = jax.device_get(tree)
    n = jax.tree.leaves(host)[0].shape[0]
    return [jax.tree.map(lambda leaf: jnp.asarray(leaf[i]), host) for i in range(n)]  # noqa: B023


def measure(
    agents: Agent,
    seeds: Sequence[int],
    trial: Trial,
    settings: EvaluationSettings,
    *,
    recipe: str,
    split: str,
    greedy: Sequence[bool] | None = None,
    adapt: str = "default",
    per_step: int = 0,
) -> Curves:
    """The rows of trained agents.

    Args:
        agents: one agent, every leaf with a leading axis `seed`.
        seeds: their numbers.
        trial: what they are measured on.
        settings: of the evaluation.
        recipe: what the rows are called.
        split: of the tasks.
        greedy: with sampled actions (False), greedy ones (True), or both; by default what the settings say.
        adapt: how the agent adapts.
        per_step: episodes whose mean is one point, the gradient step after them; 0 asks the agent.
    """
    tasks, names = tasks_of(trial, settings, split)
    keys = _seed_keys(settings, seeds)
    parts = []
    for is_greedy in greedy if greedy is not None else ((False, True) if settings.greedy_too else (False,)):
        found = _evaluate(
            agents, trial, tasks, keys, greedy=is_greedy, n_repeats=1 if is_greedy else settings.n_repeats
        )
        values = {"return": np.asarray(found.returns)}
        values |= {name: np.asarray(x) for name, x in found.extras.items() if name in KEPT}
        best = optimum(trial, tasks)
        if best is not None and "regret" not in values:
            values["regret"] = best - values["return"]
        suffix = "_greedy" if is_greedy else ""
        where = {"recipe": recipe, "split": split, "adapt": adapt}
        by = per_step or episodes_per_step(agents)
        parts += [_rows(where, seeds, names, metric + suffix, x, by) for metric, x in values.items()]
    return Curves.concat(parts)


def measure_beliefs(
    learner: Any, state: PyTree[Array], seeds: Sequence[int], trial: Trial, settings: EvaluationSettings, *, recipe: str
) -> Curves:
    """How far the decoded belief is from the exact one in each episode, where both are known; else no rows.

    Args:
        learner: that made the state.
        state: of training, every leaf with a leading axis `seed`.
        seeds: their numbers.
        trial: what is measured on.
        settings: of the evaluation.
        recipe: what the rows are called.
    """
    decoder = getattr(getattr(state, "decoders", None), "reward", None)
    if not isinstance(decoder, CellRewardDecoder) or grid_of(trial) is None or trial.splits_disjoint:
        return Curves.empty()
    tasks, names = tasks_of(trial, settings, settings.split)
    many = jax.tree.map(lambda leaf: jnp.tile(leaf, (settings.n_repeats,) + (1,) * (leaf.ndim - 1)), tasks)

    def one(agent: Any, decoder: CellRewardDecoder, key: Key[Array, ""]) -> Float[Array, "term batch"]:
        return belief_gaps(agent, decoder, trial, key, many, split=settings.split)[0]

    gaps = np.asarray(jax.vmap(one)(learner.agent(state), decoder, _seed_keys(settings, seeds)))
    gaps = gaps[:, 1:].reshape(len(seeds), trial.n_episodes, -1, settings.n_repeats, len(names)).mean((2, 3))
    where = {"recipe": recipe, "split": settings.split, "adapt": "default"}
    return _rows(where, seeds, names, "belief_gap", np.moveaxis(gaps, 1, 2))


def episodes_per_step(agents: Agent) -> int:
    """Episodes between two gradient steps inside a trial; 0 for agents that take none."""
    return getattr(agents, "episodes_per_step", 0)


def measure_references(
    trial: Trial, settings: EvaluationSettings, seeds: Sequence[int], *, split: str, episodes_per_step: int = 0
) -> Curves:
    """The rows of the best possible agent, where it is known, and of the named reference agents (one run per seed).

    Beside agents that take gradient steps, their episodes are grouped in the same way.
    """
    by = episodes_per_step
    tasks, names = tasks_of(trial, settings, split)
    parts = []
    best = optimum(trial, tasks)
    if best is not None:
        where = {"recipe": OPTIMUM, "split": split, "adapt": "default"}
        parts.append(_rows(where, [0], names, "return", best[None], by))
    for name in settings.references:
        agent = make_reference(name, trial)
        stacked = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(seeds), *jnp.shape(leaf))), agent)
        parts.append(measure(stacked, seeds, trial, settings, recipe=name, split=split, greedy=(False,), per_step=by))
    return Curves.concat(parts)


def optimum(trial: Trial, tasks: Task) -> Float[np.ndarray, "task episode"] | None:
    """The best expected return of each episode for an agent that is told the task; None where it is unknown."""
    first = jax.tree.map(lambda leaf: leaf[0], tasks)
    if trial.optimal_return(first, trial.n_episodes) is None:
        return None
    best: Callable[[Task], Any] = jax.jit(jax.vmap(lambda task: trial.optimal_return(task, trial.n_episodes)))
    return np.asarray(best(tasks))


def walks(
    agents: Agent, seeds: Sequence[int], trial: Trial, settings: EvaluationSettings, *, recipe: str, split: str
) -> list[WalkedTrial]:
    """The first seed's paths on the first tasks; none where the environment has nothing to draw."""
    tasks, names = tasks_of(trial, settings, split)
    n = min(settings.n_pictures, len(names))
    first = jax.tree.map(lambda leaf: leaf[0], tasks)
    if n == 0 or trial.scene(first) is None:
        return []
    agent = jax.tree.map(lambda leaf: leaf[0], agents)
    chosen = jax.tree.map(lambda leaf: leaf[:n], tasks)
    records = walked_paths(agent, trial, chosen, jax.random.fold_in(jax.random.key(settings.seed), 2))
    return [
        WalkedTrial(
            task=record["task"],
            scene=record["scene"],
            split=split,
            recipe=recipe,
            seed=int(seeds[0]),
            greedy=False,
            episodes=tuple(
                WalkedEpisode(np.asarray(walk["positions"], float).reshape(-1, 2), np.asarray(walk["rewards"], float))
                for walk in record["episodes"]
            ),
        )
        for record in records
    ]


def _evaluate(
    agents: Agent, trial: Trial, tasks: Task, keys: Key[Array, " seed"], *, greedy: bool, n_repeats: int
) -> Evaluation:
    """Every leaf of the evaluation has axes (seed, task, episode)."""

    def one(agent: Agent, key: Key[Array, ""]) -> Evaluation:
        return evaluate(agent, trial, tasks, key, greedy=greedy, n_repeats=n_repeats)

    return jax.vmap(one, in_axes=(0, 0), axis_size=len(keys))(agents, keys)


def _seed_keys(settings: EvaluationSettings, seeds: Sequence[int]) -> Key[Array, " seed"]:
    key = jax.random.key(settings.seed)
    return jnp.stack([jax.random.fold_in(jax.random.fold_in(key, 0), seed) for seed in seeds])


def _rows(
    where: Mapping[str, str],
    seeds: Sequence[int],
    tasks: Sequence[str],
    metric: str,
    values: Float[np.ndarray, "seed task episode"],
    by: int = 0,
) -> Curves:
    """Rows over episodes; with `by`, over gradient steps, each the mean of so many episodes."""
    if by:
        values = values.reshape(*values.shape[:2], -1, by).mean(-1)
    n_seeds, n_tasks, n_episodes = values.shape
    return Curves.of(
        **where,
        seed=np.repeat(np.asarray(seeds), n_tasks * n_episodes),
        task=np.tile(np.repeat(np.asarray(tasks, object), n_episodes), n_seeds),
        x=np.tile(np.arange(n_episodes) + (not by), n_seeds * n_tasks),
        x_unit="gradient_step" if by else "episode",
        metric=metric,
        value=values.reshape(-1),
    )
