"""The program of meta-RL recipes: train all seeds side by side, measure, report. It can be killed at any moment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree
from rich.console import Console

from fledge.core.errors import DataError
from fledge.core.records import Curves, write_curves, write_paths
from fledge.envs.trial import Trial
from fledge.learn.loop import Chunk, Loop
from fledge.run import build, checkpoint
from fledge.run.curve import AdaptationCurve
from fledge.run.job import Clock, Job, begin_record
from fledge.run.measure import episodes_per_step, measure, measure_beliefs, measure_references, walks
from fledge.run.settings import LoopSettings, TrainedSettings, TrainSettings
from fledge.run.track import ConsoleTracker, JSONLTracker, Point, Trackers, extra_trackers, forget_after

SILENT = ("return/trial",)
"""Metrics that are NaN where there is nothing to say (no trial ended)."""


@dataclass(frozen=True)
class MetaRLRun:
    """A finished run."""

    dir: Path
    curve: AdaptationCurve

    def show(self, console: Console) -> None:
        """Print the adaptation curve and where everything lies."""
        console.print(self.curve.table())
        console.print(f"report: {self.dir / 'report.html'}", highlight=False, soft_wrap=True)


class MetaRLProgram:
    """Trains an agent that adapts inside a trial over a family of tasks."""

    def faults(self, config: TrainedSettings) -> list[str]:
        """Everything that is wrong with the settings."""
        return build.faults_of(config)

    def seeded(self, config: TrainedSettings, seeds: int) -> Mapping[str, Any]:
        """The change that trains so many seeds."""
        return {"train": {"seeds": seeds}}

    def run(self, job: Job) -> MetaRLRun:
        """Train from the last checkpoint (or from the beginning) to the end, then measure and report."""
        trial = build.make_trial(job.config.env)
        seeds = seeds_of(job.config.train)
        clock = Clock(job.folder.record, begin_record(job, seeds))
        with promising(job):
            state = train(job, trial, clock)
            learner = build.make_learner(job.config, trial)
            beliefs = measure_beliefs(learner, state, seeds, trial, job.config.evaluation, recipe=job.recipe.name)
            curves = _measure(job, learner.agent(state), trial, clock, beliefs)
            clock.note(finished=True)
            write_run_report(job)
        return MetaRLRun(job.folder.path, AdaptationCurve(job.recipe.name, job.config.evaluation.split, curves))


PROGRAM = MetaRLProgram()


def seeds_of(train: TrainSettings) -> tuple[int, ...]:
    """The numbers of the seeds."""
    return tuple(range(train.first_seed, train.first_seed + train.seeds))


def seed_keys(seeds: tuple[int, ...]) -> Key[Array, " seed"]:
    """One key per seed, which does not depend on the other seeds: seed 3 alone is seed 3 among ten."""
    return jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))


def state_like(loop: Loop, seeds: tuple[int, ...]) -> PyTree:
    """Shapes and dtypes of the training state, for loading."""
    return jax.eval_shape(jax.vmap(loop.learner.init), seed_keys(seeds))


@contextmanager
def promising(job: Job) -> Iterator[None]:
    """Answers ctrl-C and SIGTERM with one sentence that says how to go on."""

    def stop(signum: int, frame: Any) -> None:
        raise KeyboardInterrupt

    here = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if here else None
    try:
        yield
    except KeyboardInterrupt:
        job.tell(f"Stopped. Go on with: {job.resumed_by}")
        raise
    finally:
        if here:
            signal.signal(signal.SIGTERM, before)


def train(job: Job, trial: Trial, clock: Clock) -> PyTree:
    """The state after the last update, on one device."""
    config: LoopSettings = job.config
    plan, seeds = build.plan_of(config, trial), seeds_of(config.train)
    loop = build.make_loop(config, trial)
    state, done = _start(job, loop, seeds)
    if done == plan.n_chunks:
        return state
    console = ConsoleTracker(job.recipe.name, plan.env_steps, done=done * plan.steps_per_chunk, console=job.console)
    settings = {"recipe": job.recipe.name, "scale": job.scale}
    extra = extra_trackers(job.track, job.folder.path, job.folder.path.name, seeds, settings)
    with Trackers([console, JSONLTracker(job.folder.metrics), *extra]) as trackers:
        seconds = 0.0
        for i, chunk in enumerate(loop.run(state, n_chunks=plan.n_chunks, done=done), done + 1):
            _refuse_nan(job, chunk, plan.chunk_len, seeds, config.train.checkpoint_every)
            trackers.log(_point(chunk, plan, seeds))
            state, seconds = chunk.state, seconds + chunk.seconds
            if i % config.train.checkpoint_every == 0 or i == plan.n_chunks:
                about = {"chunks": i, "update": chunk.n_updates, "env_steps": chunk.env_steps}
                checkpoint.save_checkpoint(job.folder.checkpoints, state, step=chunk.n_updates, about=about)
                speed = round((i - done) * plan.steps_per_chunk * len(seeds) / seconds, 1)
                compile_s = round(loop.compile_seconds, 3)
                clock.note(env_steps=chunk.env_steps, compile_s=compile_s, steps_per_s=speed)
    return jax.device_put(state, jax.local_devices()[0])


def _start(job: Job, loop: Loop, seeds: tuple[int, ...]) -> tuple[PyTree, int]:
    """The state to go on from, and how many chunks are behind it."""
    if not checkpoint.has_checkpoint(job.folder.checkpoints):
        forget_after(job.folder.metrics, 0)
        return loop.init(seed_keys(seeds)), 0
    found = checkpoint.load_checkpoint(job.folder.checkpoints, state_like(loop, seeds), tell=job.tell)
    forget_after(job.folder.metrics, found.about["update"])
    return jax.tree.map(jnp.asarray, found.tree), found.about["chunks"]


def _point(chunk: Chunk, plan: build.Plan, seeds: tuple[int, ...]) -> Point:
    means = {name: _mean(x) for name, x in chunk.metrics.items()}
    return Point(chunk.n_updates, chunk.env_steps, _speed(chunk, plan, seeds), seeds, means)


def _speed(chunk: Chunk, plan: build.Plan, seeds: tuple[int, ...]) -> float:
    """Environment steps of all seeds per second."""
    return round(plan.steps_per_chunk * len(seeds) / chunk.seconds, 1)


def _mean(x: np.ndarray) -> np.ndarray:
    """Means over updates of what is not NaN."""
    there = ~np.isnan(x)
    return np.where(there, x, 0.0).sum(0) / np.where(there.any(0), there.sum(0), np.nan)


def _refuse_nan(job: Job, chunk: Chunk, chunk_len: int, seeds: tuple[int, ...], every: int) -> None:
    """Nothing, as long as every metric is a number.

    Raises:
        DataError: names the first metric that is not, its update and seed, and what to do.
    """
    first: tuple[int, int, str, int] | None = None
    for name, x in chunk.metrics.items():
        bad = np.argwhere(np.isinf(x) if name in SILENT else ~np.isfinite(x))
        if len(bad):
            update, seed = bad[0]
            found = (int(update), 0 if name.startswith("return/") else 1, name, int(seed))
            first = min(first, found) if first else found
    if first is None:
        return
    update = chunk.n_updates - chunk_len + first[0] + 1
    cure = (
        "The environment paid a reward that is not a number: 'fledge check' examines environments."
        if first[1] == 0
        else "Lower learner.learning_rate or learner.max_grad_norm, and look at the last lines of metrics.jsonl."
    )
    kept = checkpoint.peek(job.folder.checkpoints)
    rest = f"The last good checkpoint is that of update {kept[0]}" if kept else "No checkpoint had been written yet"
    raise DataError(
        f"Training stopped: {first[2]} of seed {seeds[first[3]]} is not a finite number at update {update}. {cure} "
        f"{rest} (checkpoints are written every {every} chunks); everything in {job.folder.path} was kept."
    )


def _measure(job: Job, agents: Any, trial: Trial, clock: Clock, more: Curves) -> Curves:
    """Write curves.csv and paths.json; a run that was killed while measuring measures again."""
    config: TrainedSettings = job.config
    seeds, split = seeds_of(config.train), config.evaluation.split
    with job.console.status("measuring …") if job.console.is_terminal else _nothing():
        own = measure(agents, seeds, trial, config.evaluation, recipe=job.recipe.name, split=split)
        by = episodes_per_step(agents)
        beside = measure_references(trial, config.evaluation, seeds, split=split, episodes_per_step=by)
        curves = Curves.concat([own, more, beside])
        write_curves(job.folder.curves, curves)
        walked = walks(agents, seeds, trial, config.evaluation, recipe=job.recipe.name, split=split)
        if walked:
            write_paths(job.folder.paths, walked)
    clock.note()
    return curves


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def write_run_report(job: Job) -> None:
    """The page of a run."""
    from fledge.report.page import write_report

    write_report([job.folder.path], job.folder.report)
