"""The program of meta-ascents: estimators of the meta-gradient train η by plain SGD, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tomli_w
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key
from rich.console import Console
from rich.table import Table

from fledge.core.contracts import GradientEstimator
from fledge.core.errors import ConfigError, FledgeError, unknown
from fledge.core.files import write_text
from fledge.core.metrics import metrics_line
from fledge.core.records import Curves, Result, write_curves, write_record, write_results
from fledge.core.stats import bootstrap
from fledge.core.stats import mean as mean_over
from fledge.learn.estimator_problems import Grid, Problem, make_problem
from fledge.learn.lifetimes import unroll
from fledge.learn.surrogates import PolicyGradient
from fledge.report.page import write_report
from fledge.run.estimator_arms import EstimatorArm, arms_of
from fledge.run.estimator_settings import EstimatorCardSettings
from fledge.run.job import Clock, Job, begin_record
from fledge.run.judge import UNTESTED, improvement, row_of
from fledge.run.settings import Scalar
from fledge.run.study import table_of

RETURN = "return/life"
LIVES_AT_ONCE = 1_000
BEST = " @ best"
"""Behind an arm's name in a claim: at its best point on the way, not at the end."""


@dataclass(frozen=True)
class AscentSettings:
    """From one start, η ← η + rate · estimate; what lives earn with it is measured with the same luck for all."""

    problem: str = "bandit"
    """golden, tabular, bandit, maze or maze-5."""
    problem_settings: dict[str, Scalar] = field(default_factory=dict)
    """Of the lifetime: n_updates, batch_size …"""
    start: tuple[float, ...] = ()
    """η at the start, all its numbers in a row; empty: 0 everywhere."""
    arms: dict[str, dict[str, Scalar]] = field(default_factory=dict)
    """Arm → `estimator` and its settings (`n_lifetimes`: how many an estimate averages)."""
    only: tuple[str, ...] = ()
    """Arms to run; empty: all of them."""
    learning_rate: float = 0.01
    """Of plain SGD, ascending."""
    n_updates: int = 10_000
    """Of η."""
    n_points: int = 20
    """Measurements after the first (which comes before any update)."""
    n_lives: int = 10_000
    """Lifetimes of a measurement."""
    expected: bool = False
    """Measure expected returns given θ_n, where the lifetime knows them: the same number with less noise."""
    objective: str = "auc"
    """auc or final; what is measured is the whole life (auc)."""
    seeds: int = 3
    seed: int = 0
    claims: tuple[str, ...] = ()
    """Order of arms by what lives earn, "A > B"; "A @ best" is the best point of A on the way, A its end."""
    published: dict[str, float] = field(default_factory=dict)
    """Arm (or "arm @ best") → the published number."""


@dataclass(frozen=True)
class AscentRun:
    """A finished run."""

    dir: Path
    name: str
    returns: Mapping[str, Float[np.ndarray, "seed point"]]
    results: Sequence[Result]

    def show(self, console: Console) -> None:
        """Print what lives earned on the way, what became of the claims, and where everything lies."""
        table = Table(title=f"{self.name}: return of a lifetime's batches", caption="mean over seeds")
        table.add_column("arm")
        n_points = len(next(iter(self.returns.values()))[0])
        shown = sorted({round(x) for x in np.linspace(0, n_points - 1, 6)})
        for i in shown:
            table.add_column("start" if i == 0 else f"{i / (n_points - 1):.0%}", justify="right")
        for name, values in self.returns.items():
            table.add_row(name, *(f"{x:.4f}" for x in values.mean(0)[shown]))
        console.print(table)
        console.print(table_of(self.results))
        console.print(f"report: {self.dir / 'report.html'}", highlight=False, soft_wrap=True)


class AscentProgram:
    """Runs the arms one after the other. A kill loses what came after the last point of one arm."""

    def faults(self, config: AscentSettings) -> list[str]:
        """Everything that is wrong with the settings, those of the arms included."""
        counts = ("n_updates", "n_points", "n_lives", "seeds")
        found = [f"{name} is at least 1, not {getattr(config, name)}." for name in counts if getattr(config, name) < 1]
        if not found and config.n_updates % config.n_points:
            found.append(f"n_points = {config.n_points} does not divide n_updates = {config.n_updates}.")
        if config.objective not in ("auc", "final"):
            return [*found, f"objective is auc or final, not {config.objective!r}."]
        try:
            problem = problem_of(config)
            begin(problem, config)
            for arm in arms_of(as_card(config)):
                arm.make(problem, config.objective)
            names = [arm.name for arm in arms_of(as_card(config, only=False))]
            for text in (*config.claims, *(f"{name} > {names[0]}" for name in config.published)):
                claim_of(text, names)
        except FledgeError as error:
            found.append(str(error))
        return found

    def seeded(self, config: AscentSettings, seeds: int) -> Mapping[str, Any]:
        """The change that runs so many seeds."""
        return {"seeds": seeds}

    def run(self, job: Job) -> AscentRun:
        """Climb where it has not been climbed yet, then judge and report."""
        config: AscentSettings = job.config
        clock = Clock(job.folder.record, begin_record(job, tuple(range(config.seeds))))
        problem, arms = problem_of(config), arms_of(as_card(config))
        folders = [job.folder.path / arm.name for arm in arms]
        returns = {arm.name: _climb(job, clock, problem, arm, own) for arm, own in zip(arms, folders, strict=True)}
        results = compare(job.recipe.name, job.scale, config, returns)
        write_results(job.folder.results, results)
        write_report(folders, job.folder.report, results=results)
        clock.note(finished=True)
        return AscentRun(job.folder.path, job.recipe.name, returns, results)


PROGRAM = AscentProgram()


def as_card(config: AscentSettings, *, only: bool = True) -> EstimatorCardSettings:
    """The same arms, to be read as those of an estimator card are."""
    return EstimatorCardSettings(
        problem=config.problem,
        problem_settings=config.problem_settings,
        arms=config.arms,
        only=config.only if only else (),
        n_estimates=1,
        batch=1,
    )


def problem_of(config: AscentSettings) -> Problem:
    """The problem; of its points only the shape of η and the task are used."""
    return make_problem(config.problem, config.problem_settings, Grid(0.0, 0.0, 1))


def begin(problem: Problem, config: AscentSettings) -> Float[np.ndarray, " eta"]:
    """η at the start, raveled.

    Raises:
        ConfigError: `start` has another number of entries than η.
    """
    flat = ravel_pytree(problem.points[0].eta)[0]
    if config.start and len(config.start) != flat.size:
        raise ConfigError(f"start has {len(config.start)} numbers, and η of '{config.problem}' has {flat.size}.")
    return np.asarray(config.start or np.zeros(flat.size), np.float32)


def _climb(
    job: Job, clock: Clock, problem: Problem, arm: EstimatorArm, folder: Path
) -> Float[np.ndarray, "seed point"]:
    """What lives earn at each point; from the arm's folder as far as it goes, then by climbing on."""
    config: AscentSettings = job.config
    archive = folder / "climbed.npz"
    etas = [np.tile(begin(problem, config), (config.seeds, 1))]
    dropped = np.zeros(config.seeds, int)
    if archive.exists():
        with np.load(archive) as kept:
            etas, dropped = [*kept["etas"]], kept["dropped"]
    climb = _climber(problem, arm.make(problem, config.objective), config)
    key_climb, key_measure = jax.random.split(jax.random.key(config.seed))
    measure = _measurer(problem, config, key_measure)
    returns = [np.asarray(measure(jnp.asarray(eta)), float) for eta in etas]
    for point in range(len(etas), config.n_points + 1):
        keys = jnp.stack([jax.random.fold_in(jax.random.fold_in(key_climb, i), point) for i in range(config.seeds)])
        eta, lost = climb(jnp.asarray(etas[-1]), keys)
        etas, dropped = [*etas, np.asarray(eta)], dropped + np.asarray(lost)
        returns.append(np.asarray(measure(eta), float))
        folder.mkdir(parents=True, exist_ok=True)
        beside = archive.with_suffix(".part.npz")
        np.savez(beside, etas=np.stack(etas), dropped=dropped)
        beside.replace(archive)
        clock.note()
        job.tell(f"{arm.name}: {point} of {config.n_points} points, a batch returns {returns[-1].mean():.4f}")
    found = np.stack(returns, axis=1)
    _write(job, clock, problem, arm, folder, found, np.stack(etas, axis=1), dropped)
    return found


def _climber(problem: Problem, estimator: GradientEstimator, config: AscentSettings) -> Callable[..., Any]:
    """Some updates of every seed's η, and how many of them were dropped because something was no number."""
    point = problem.points[0]
    unravel = ravel_pytree(point.eta)[1]

    def update(eta: Float[Array, " eta"], key: Key[Array, ""]) -> tuple[Float[Array, " eta"], Array]:
        gradient = ravel_pytree(estimator.estimate(key, unravel(eta), point.task)[0])[0]
        finite = jnp.all(jnp.isfinite(gradient))
        return eta + config.learning_rate * jnp.where(finite, gradient, 0.0), ~finite

    def some(eta: Float[Array, " eta"], key: Key[Array, ""]) -> tuple[Float[Array, " eta"], Array]:
        eta, lost = jax.lax.scan(update, eta, jax.random.split(key, config.n_updates // config.n_points))
        return eta, jnp.sum(lost)

    return jax.jit(jax.vmap(some))


def _measurer(
    problem: Problem, config: AscentSettings, key: Key[Array, ""]
) -> Callable[[Float[Array, "seed eta"]], Float[Array, " seed"]]:
    """J of every seed's η: the mean over many lifetimes, which are the same for all arms and points."""
    lifetime, point = problem.lifetime, problem.points[0]
    unravel = ravel_pytree(point.eta)[1]
    keys = jax.random.split(key, (-(-config.n_lives // LIVES_AT_ONCE), min(config.n_lives, LIVES_AT_ONCE)))

    def one(flat: Float[Array, " eta"]) -> Float[Array, ""]:
        eta = unravel(flat)

        def life(key: Key[Array, ""]) -> Float[Array, ""]:
            return jnp.mean(unroll(lifetime, key, eta, point.task, PolicyGradient(), expected=config.expected))

        return jnp.mean(jax.lax.map(lambda some: jnp.mean(jax.vmap(life)(some)), keys))

    return jax.jit(jax.vmap(one))


def _write(
    job: Job,
    clock: Clock,
    problem: Problem,
    arm: EstimatorArm,
    folder: Path,
    returns: Float[np.ndarray, "seed point"],
    etas: Float[np.ndarray, "seed point eta"],
    dropped: np.ndarray,
) -> None:
    """The files of an arm's folder, as of a training run: metrics.jsonl is its curve over environment steps."""
    config: AscentSettings = job.config
    each = config.n_updates // config.n_points
    steps = int(str(arm.settings.get("n_lifetimes", 2))) * problem.lifetime.steps
    lines = []
    for point in range(returns.shape[1]):
        for seed in range(config.seeds):
            numbers = {f"meta/eta_{i}": x for i, x in enumerate(etas[seed, point][:8], 1)}
            values = {RETURN: returns[seed, point], "meta/dropped": dropped[seed], **numbers}
            lines.append(metrics_line(point * each, point * each * steps, seed, values))
    write_text(folder / "metrics.jsonl", "".join(lines))
    write_text(folder / "config.toml", tomli_w.dumps({"name": arm.name, "estimator": arm.estimator, **arm.settings}))
    write_curves(folder / "curves.csv", Curves.empty())
    write_record(
        folder / "record.json",
        replace(clock.record, recipe=arm.name, env_steps=config.n_updates * steps, finished=True),
    )


def claim_of(text: str, names: Sequence[str]) -> tuple[str, str]:
    """The two sides of "A > B".

    Raises:
        ConfigError: it is not of that form, or names no arm.
    """
    more, sign, less = (part.strip() for part in text.partition(" > "))
    if not sign:
        raise ConfigError(f"'{text}' is not of the form \"A > B\".")
    for side in (more, less):
        if side.removesuffix(BEST) not in names:
            raise unknown("arm", side.removesuffix(BEST), names)
    return more, less


def compare(
    study: str, scale: str, config: AscentSettings, returns: Mapping[str, Float[np.ndarray, "seed point"]]
) -> list[Result]:
    """The rows of results.csv: what lives earned at the end and at best, and what became of the claims."""
    sides = {}
    for name, values in returns.items():
        sides[name] = values[:, -1:]
        sides[name + BEST] = values[:, [int(values.mean(0).argmax())]]
    rows = []
    for name, scores in sides.items():
        row = row_of(study, name, "return of a lifetime's batches", bootstrap(scores, mean_over))
        if name in config.published:
            row = replace(row, published=config.published[name], verdict=UNTESTED)
        rows.append(row)
    for more, less in (claim_of(text, [*returns]) for text in config.claims if {*_arms(text)} <= {*returns}):
        rows.append(improvement(study, f"{more} > {less}", sides[more], sides[less], scale))
    return rows


def _arms(text: str) -> list[str]:
    return [part.strip().removesuffix(BEST) for part in text.split(" > ")]
