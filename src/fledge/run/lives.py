"""The program of lifetimes: meta-train η, then let fresh lives learn with it, beside lives without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from rich.console import Console

from fledge.core.records import Curves, Result, write_curves, write_results
from fledge.core.stats import bootstrap
from fledge.core.types import Task
from fledge.envs.trial import Trial
from fledge.learn.eta import HandSet, LossShape, ignored_parts
from fledge.learn.online_meta import OnlineMeta
from fledge.report.page import write_report
from fledge.run import build
from fledge.run.curve import AdaptationCurve
from fledge.run.job import Clock, Job, begin_record
from fledge.run.judge import improvement, row_of
from fledge.run.measure import OPTIMUM, optimum, tasks_of
from fledge.run.program import promising, seed_keys, seeds_of, train
from fledge.run.settings import LifetimeRunSettings
from fledge.run.study import table_of

START = "η at the start"
HAND_SET = "hand-set numbers"
WHOLE_LIFE = "mean return over a life"
LAST = "return after the last update"

Returns = Float[np.ndarray, "seed task update"]


@dataclass(frozen=True)
class LifetimeRun:
    """A finished run."""

    dir: Path
    curve: AdaptationCurve
    results: Sequence[Result]

    def show(self, console: Console) -> None:
        """Print the curve over inner updates, how the lives compare, and where everything lies."""
        console.print(self.curve.table())
        console.print(table_of(self.results))
        console.print(f"report: {self.dir / 'report.html'}", highlight=False, soft_wrap=True)


class LifetimeProgram:
    """Trains η from the last checkpoint, then measures, judges and reports."""

    def faults(self, config: LifetimeRunSettings) -> list[str]:
        """Everything that is wrong with the settings."""
        return build.faults_of(config)

    def seeded(self, config: LifetimeRunSettings, seeds: int) -> Mapping[str, Any]:
        """The change that trains so many seeds."""
        return {"train": {"seeds": seeds}}

    def run(self, job: Job) -> LifetimeRun:
        """Train to the end, then let lives learn with the η of before, of after, and with hand-set numbers."""
        config: LifetimeRunSettings = job.config
        trial, seeds = build.make_trial(config.env), seeds_of(config.train)
        clock = Clock(job.folder.record, begin_record(job, seeds))
        with promising(job):
            state = train(job, trial, clock)
            learner = build.make_online_meta(config, trial)
            begun = jax.jit(jax.vmap(lambda key: learner.init(key).eta))(seed_keys(seeds))
            if unmoved := ignored_parts(jax.tree.map(jnp.subtract, state.eta, begun)):
                job.tell(
                    f"No update of η moved {', '.join(unmoved)}: its gradient was zero, for the update ignores it."
                )
            curves, lives = _measure(job, learner, trial, {job.recipe.name: state.eta, START: begun})
            write_curves(job.folder.curves, curves)
            results = compare(job.recipe.name, lives, job.scale)
            write_results(job.folder.results, results)
            clock.note(finished=True)
            write_report([job.folder.path], job.folder.report, results=results)
        curve = AdaptationCurve(job.recipe.name, config.evaluation.split, curves)
        return LifetimeRun(job.folder.path, curve, results)


PROGRAM = LifetimeProgram()


def _measure(
    job: Job, learner: OnlineMeta, trial: Trial, etas: Mapping[str, LossShape]
) -> tuple[Curves, dict[str, Returns]]:
    """Lives of every seed's η on the tasks of the split; those of all kinds meet the same luck."""
    config: LifetimeRunSettings = job.config
    s, seeds, n_updates = config.evaluation, seeds_of(config.train), config.learner.life_len
    tasks, names = tasks_of(trial, s, s.split)
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(s.seed), i))(jnp.asarray(seeds))

    def one(eta: LossShape, task: Task, key: Key[Array, ""]) -> Float[Array, " update"]:
        many = jax.vmap(lambda k: learner.whole_life(eta, task, k, n_updates))(jax.random.split(key, s.n_repeats))
        return jnp.mean(many, axis=0)

    def of_seed(eta: LossShape, key: Key[Array, ""]) -> Float[Array, "task update"]:
        return jax.vmap(one, in_axes=(None, 0, 0))(eta, tasks, jax.random.split(key, len(names)))

    live = jax.jit(jax.vmap(of_seed))
    found = {name: np.asarray(live(eta, keys), float) for name, eta in etas.items()}
    hand_set = HandSet(tuple(config.eta.hand_set.items()))
    found[HAND_SET] = np.asarray(jax.jit(jax.vmap(of_seed, in_axes=(None, 0)))(hand_set, keys), float)
    shown = dict(found)
    if (best := optimum(trial, tasks)) is not None:
        shown[OPTIMUM] = np.broadcast_to(np.asarray(best)[..., -1:], (len(seeds), len(names), n_updates + 1))
    where = {
        "split": s.split,
        "adapt": "default",
        "seed": np.repeat(np.asarray(seeds), len(names) * (n_updates + 1)),
        "task": np.tile(np.repeat(np.asarray(names, object), n_updates + 1), len(seeds)),
        "x": np.tile(np.arange(n_updates + 1.0), len(seeds) * len(names)),
        "x_unit": "gradient_step",
        "metric": "return",
    }
    rows = [Curves.of(recipe=name, value=values.reshape(-1), **where) for name, values in shown.items()]
    return Curves.concat(rows), found


def compare(study: str, lives: Mapping[str, Returns], scale: str) -> list[Result]:
    """The rows of results.csv: what lives earned, and whether those with the learnt η earned more.

    Args:
        study: the recipe; also the name of the learnt η's lives.
        lives: name → returns over a life.
        scale: at `smoke` nothing is judged.
    """
    rows = []
    for name, returns in lives.items():
        for metric, scores in ((WHOLE_LIFE, returns.mean(-1)), (LAST, returns[..., -1])):
            rows.append(row_of(study, name, metric, bootstrap(scores)))
    for other in (name for name in lives if name != study):
        whole = (lives[study].mean(-1), lives[other].mean(-1))
        rows.append(improvement(study, f"{study} > {other}", *whole, scale=scale))
    return rows
