"""What a recipe that measures gradient estimators can set."""

from __future__ import annotations

from dataclasses import dataclass, field

from fledge.run.settings import Scalar


@dataclass(frozen=True)
class GridSettings:
    """Where the gradient is measured: equally spaced values of η, or of each of its coordinates."""

    low: float = 0.5
    high: float = 2.5
    size: int = 3


@dataclass(frozen=True)
class TruthSettings:
    """How the gradient is known where not every outcome can be listed: central differences, common random numbers."""

    estimator: str = ""
    """Empty: differences. Or the estimator whose mean stands for the truth, where η has too many numbers for them."""

    arm: str = ""
    """Or an arm with `paired` settings: its unbiased reference is the truth, and nothing more has to be drawn."""
    n_estimates: int = 20_000
    step: float = 0.2
    richardson: bool = True
    """Combine the steps ε and 2ε, so that the error is O(ε⁴)."""
    expected: bool = False
    """Measure expected returns given θ_n, where the lifetime knows them: the same gradient with less noise."""
    n_lifetimes: int = 2
    batch: int = 500


@dataclass(frozen=True)
class EstimatorCardSettings:
    """Measure bias, variance and cosine of gradient estimators against a known gradient."""

    problem: str = "tabular"
    """golden, tabular, bandit, maze or maze-5."""
    problem_settings: dict[str, Scalar] = field(default_factory=dict)
    """Of the lifetime: n_updates, batch_size …"""
    grid: GridSettings = field(default_factory=GridSettings)
    truth: TruthSettings = field(default_factory=TruthSettings)
    estimators: tuple[str, ...] = ()
    """Names of the table of estimators, or `module:Name` for one's own."""
    arms: dict[str, dict[str, Scalar]] = field(default_factory=dict)
    """Arm → `estimator` and its settings. `n_estimates` and `batch` of its own; `share_task`: one task for all
    lifetimes of an estimate; `twin.…`: settings of a twin with the same mean but less variance, which the mean is
    taken from (`twin.n_estimates`, `twin.share_task` …); `paired.…`: settings (laid over the twin's) of an unbiased
    estimator that is drawn with the same luck: the bias is then the mean of the difference, which has much less noise
    than the difference of two means that were measured apart."""
    only: tuple[str, ...] = ()
    """Arms to measure; empty: all of them."""
    sc_coefs: tuple[float, ...] = ()
    """Arms with `sweep = true` stand for one arm with each of these λ (they share their samples)."""
    n_estimates: int = 4_000
    """Estimates of each arm at each point."""
    batch: int = 500
    """Estimates drawn at once."""
    most_estimates: int = 0
    """No arm, twin or truth draws more than so many at a point; 0: no limit. For trying things out."""
    objective: str = "auc"
    """auc or final."""
    claims: tuple[str, ...] = ()
    """Order of arms, as "metric: A > B" with metric bias2, variance or cosine."""
    published: dict[str, float] = field(default_factory=dict)
    """"arm: metric" → the published number."""
    tolerance: float = 0.05
    """How far a cosine may lie from the published one."""
    variance_factor: float = 1.5
    """How many times larger or smaller a variance may be than the published one."""
    seed: int = 0
