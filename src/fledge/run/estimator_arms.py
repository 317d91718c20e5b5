"""The arms of an estimator card: which estimators, how they are drawn, and how each is measured at a point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from fledge.core.contracts import EstimatorCard, GradientEstimator
from fledge.core.errors import ConfigError, unknown
from fledge.learn.estimator_bench import Measure, Moments, paired_sampler, parts_sampler, sampler
from fledge.learn.estimator_problems import Grid, Point, Problem, make_problem
from fledge.learn.estimators import make_estimator, refuse_shaped, require_card
from fledge.learn.metagrad import MetaGrad
from fledge.learn.metagrad_truth import Enumerated
from fledge.run.estimator_settings import EstimatorCardSettings
from fledge.run.settings import Scalar

OWN = ("estimator", "n_estimates", "batch", "share_task", "sweep")
"""Settings of an arm that are not the estimator's."""


@dataclass(frozen=True)
class EstimatorArm:
    """An estimator as it is measured."""

    name: str
    estimator: str
    settings: Mapping[str, Scalar]
    n_estimates: int
    batch: int
    share_task: bool = False
    sweep: tuple[float, ...] = ()
    twin: EstimatorArm | None = None
    reference: EstimatorArm | None = None
    """Unbiased, and drawn with the same luck; the bias is the mean of the difference."""

    @property
    def names(self) -> dict[str, float | None]:
        """The arms that it stands for: name → λ (None: the estimator as it is)."""
        return {f"{self.name} λ={coef:g}": coef for coef in self.sweep} or {self.name: None}

    def make(self, problem: Problem, objective: str) -> Any:
        """Its estimator.

        Raises:
            ConfigError: a wrong setting, or shaped fitness.
            ContractError: one's own estimator that keeps no contract.
        """
        known = {} if ":" in self.estimator else {"objective": objective}
        made = make_estimator(self.estimator, problem.lifetime, {**known, **self.settings})
        refuse_shaped(made, self.name)
        if self.sweep and not isinstance(made, MetaGrad):
            raise ConfigError(f"{self.name}: sweep goes over λ of sampling corrections; {self.estimator} has none.")
        return made

    def card(self, problem: Problem, objective: str) -> EstimatorCard:
        """What its estimator says of itself."""
        return require_card(self.make(problem, objective), self.name)

    def check_reference(self, problem: Problem, objective: str) -> None:
        """Nothing, if what its bias is measured against is unbiased by its own card.

        Raises:
            ConfigError: it is not.
        """
        if self.reference is None:
            return
        card = self.reference.card(problem, objective)
        faults = list(card.biased_by) if card.estimand == "lifetime" else [f"its estimand is {card.estimand}"]
        if faults:
            raise ConfigError(
                f"paired: a bias is measured against an unbiased estimator, and this one is not: {'; '.join(faults)}. "
                'Take one that is, as paired.sc_coef = 1 and paired.baseline = "loo".'
            )

    def measure(self, problem: Problem, objective: str) -> Measure:
        """What draws it."""
        made = self.make(problem, objective)
        if self.reference is not None:
            other = self.reference.make(problem, objective)
            draw = paired_sampler(made, other, problem.lifetime, share_task=self.share_task)
        else:
            draw = (parts_sampler if self.sweep else sampler)(made, problem.lifetime, share_task=self.share_task)
        return Measure(draw, self.batch)


def arms_of(config: EstimatorCardSettings) -> list[EstimatorArm]:
    """All arms.

    Raises:
        ConfigError: none, or one that names no estimator.
    """
    plain: dict[str, dict[str, Scalar]] = {name: {"estimator": name} for name in config.estimators}
    every = {**plain, **config.arms}
    for name in config.only:
        if name not in every:
            raise unknown("arm", name, every)
    found = [_arm(name, own, config) for name, own in every.items() if not config.only or name in config.only]
    if not found:
        raise ConfigError("estimators and arms are both empty: name at least one estimator.")
    return found


def _arm(name: str, own: Mapping[str, Scalar], config: EstimatorCardSettings) -> EstimatorArm:
    if not isinstance(own.get("estimator"), str):
        raise ConfigError(f'arms.{name}: an arm names its estimator: estimator = "sc".')
    mine, twin, paired = (_part(own, prefix) for prefix in ("", "twin.", "paired."))
    arm = _plain(name, mine, config)
    if not twin and not paired:
        return arm
    other = _plain(f"{name} (twin)", {**mine, **twin}, config)
    if paired:
        if other.sweep:
            raise ConfigError(f"arms.{name}: sweep and paired do not go together: give each λ an arm of its own.")
        other = replace(other, reference=_plain(f"{name} (reference)", {**mine, **twin, **paired}, config))
    return replace(arm, twin=other)


def _part(own: Mapping[str, Scalar], prefix: str) -> dict[str, Scalar]:
    """The settings with this prefix, without it; for "" those that have none."""
    cut = {key: key[: key.find(".") + 1] for key in own}
    return {key.removeprefix(prefix): value for key, value in own.items() if cut[key] == prefix}


def _plain(name: str, own: Mapping[str, Scalar], config: EstimatorCardSettings) -> EstimatorArm:
    settings = {key: value for key, value in own.items() if key not in OWN}
    counts = {key: own.get(key, getattr(config, key)) for key in ("n_estimates", "batch")}
    for key, value in counts.items():
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"arms.{name}: {key} is a whole number above 0, not {value!r}.")
    sweep = config.sc_coefs if own.get("sweep") else ()
    n, batch = limited(config, int(str(counts["n_estimates"]))), int(str(counts["batch"]))
    return EstimatorArm(name, str(own["estimator"]), settings, n, min(batch, n), bool(own.get("share_task")), sweep)


def limited(config: EstimatorCardSettings, n: int) -> int:
    """So many estimates, or what the settings allow at most."""
    return min(n, config.most_estimates) if config.most_estimates else n


@dataclass
class Bench:
    """A problem and its arms, ready to be measured."""

    config: EstimatorCardSettings
    problem: Problem = field(init=False)
    arms: list[EstimatorArm] = field(init=False)

    def __post_init__(self) -> None:
        grid = Grid(self.config.grid.low, self.config.grid.high, self.config.grid.size)
        self.problem = make_problem(self.config.problem, self.config.problem_settings, grid)
        self.arms = arms_of(self.config)
        self._programs: dict[str, Any] = {}

    def key(self, name: str, i: int) -> Any:
        """Randomness of an arm at point i: no arm's depends on which others there are."""
        label = sum((j + 1) * ord(c) for j, c in enumerate(name)) % 2**31
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(self.config.seed), label), i)

    def draw(self, arm: EstimatorArm, i: int) -> Moments:
        """Moments of an arm at point i."""
        if arm.name not in self._programs:
            self._programs[arm.name] = arm.measure(self.problem, self.config.objective)
        point: Point = self.problem.points[i]
        return self._programs[arm.name](self.key(arm.name, i), point.eta, point.task, arm.n_estimates)

    def truth(self, i: int) -> Moments:
        """The gradient at point i: exact, or measured."""
        point = self.problem.points[i]
        if self.problem.truth == "enumerated":
            exact = Enumerated(self.problem.lifetime, objective=self.config.objective)  # type: ignore[arg-type]
            if "exact" not in self._programs:
                draw = sampler(exact, self.problem.lifetime)
                self._programs["exact"] = jax.jit(draw)
            found = np.asarray(self._programs["exact"](jax.random.key(0), point.eta, point.task), float)
            return Moments(0, found, np.zeros((len(found), len(found))))
        how = self.config.truth
        n = limited(self.config, how.n_estimates)
        if "truth" not in self._programs:
            draw = sampler(self.reference(), self.problem.lifetime)
            self._programs["truth"] = Measure(draw, min(how.batch, n))
        return self._programs["truth"](self.key("truth", i), point.eta, point.task, n)

    def reference(self) -> GradientEstimator:
        """The estimator whose mean is the truth, where not every outcome can be listed."""
        how, objective = self.config.truth, self.config.objective
        common = {"n_lifetimes": how.n_lifetimes, "expected": how.expected, "objective": objective}
        if how.estimator:
            return make_estimator(how.estimator, self.problem.lifetime, common)
        own = {"step": how.step, "richardson": how.richardson}
        return make_estimator("finite-differences", self.problem.lifetime, {**common, **own})
