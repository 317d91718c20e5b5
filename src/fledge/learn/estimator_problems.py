"""The problems that estimators are measured on: a lifetime, points (η and task), and where the truth comes from."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fledge.core.errors import ConfigError, nearest, unknown
from fledge.core.types import Task
from fledge.envs.goalmaze import GoalMaze
from fledge.envs.tabular import TabularMDP
from fledge.learn.lifetime_actor_critic import ActorCriticLifetime, layers
from fledge.learn.lifetime_bandit import BanditLifetime, golden_bandit
from fledge.learn.lifetime_mdp import TabularLifetime
from fledge.learn.lifetimes import Lifetime


@dataclass(frozen=True)
class Point:
    """Where a gradient is measured."""

    label: str
    eta: PyTree
    task: Task
    """None: every lifetime draws its own."""


@dataclass(frozen=True)
class Problem:
    """A lifetime and its points."""

    lifetime: Lifetime
    points: Sequence[Point]
    truth: Literal["enumerated", "differences"]
    """Every outcome listed, or central differences of many lifetimes."""


@dataclass(frozen=True)
class Grid:
    """Points of a scalar η, or of each of its coordinates."""

    low: float
    high: float
    size: int

    @property
    def values(self) -> np.ndarray:
        """The grid's numbers along one axis."""
        return np.linspace(self.low, self.high, self.size)


def _golden(settings: Mapping[str, Any], grid: Grid) -> Problem:
    lifetime, eta, task = golden_bandit()
    return Problem(lifetime, [Point("golden", eta, task)], "enumerated")


def _tabular(settings: Mapping[str, Any], grid: Grid) -> Problem:
    lifetime = _build(TabularLifetime, {"env": TabularMDP(2, 2, 2, reward_noise=0.0), **settings}, "tabular")
    points = []
    for i, log_step in enumerate(grid.values):
        key_task, key_logits = jax.random.split(jax.random.key(i))
        eta = lifetime.starting_eta(float(log_step))
        eta["logits"] = jax.random.normal(key_logits, eta["logits"].shape)
        points.append(Point(f"process {i}, log step {log_step:.2g}", eta, lifetime.sample_task(key_task)))
    return Problem(lifetime, points, "enumerated")


def _bandit(settings: Mapping[str, Any], grid: Grid) -> Problem:
    lifetime = _build(BanditLifetime, settings, "bandit")
    points = [
        Point(f"eta ({a:g}, {b:g})", jnp.array([a, b]), None) for a, b in itertools.product(grid.values, repeat=2)
    ]
    return Problem(lifetime, points, "differences")


def _maze(settings: Mapping[str, Any], grid: Grid) -> Problem:
    lifetime = _build(ActorCriticLifetime, {"env": GoalMaze(), **settings}, "maze")
    return Problem(lifetime, [Point(f"eta {x:.3g}", jnp.asarray(x), None) for x in grid.values], "differences")


def _maze_5(settings: Mapping[str, Any], grid: Grid) -> Problem:
    usual = {"env": GoalMaze(5, 16), "batch_size": 5, "eta": "context", "flip_every": 80, "n_updates": 159}
    lifetime = _build(ActorCriticLifetime, {**usual, **settings}, "maze-5")
    nets = [layers(jax.random.key(i), (10, 32, 1)) for i in range(grid.size)]
    return Problem(lifetime, [Point(f"context network {i}", net, None) for i, net in enumerate(nets)], "differences")


PROBLEMS: dict[str, Callable[[Mapping[str, Any], Grid], Problem]] = {
    "golden": _golden,
    "tabular": _tabular,
    "bandit": _bandit,
    "maze": _maze,
    "maze-5": _maze_5,
}
"""Name → how it is built from a lifetime's settings and a grid."""


def make_problem(name: str, settings: Mapping[str, Any], grid: Grid) -> Problem:
    """The problem of this name.

    Raises:
        ConfigError: there is no such problem or setting, or a wrong grid.
    """
    if name not in PROBLEMS:
        raise unknown("problem", name, PROBLEMS)
    if grid.size < 1:
        raise ConfigError(f"A grid has one point or more along an axis, not {grid.size}.")
    return PROBLEMS[name](settings, grid)


def _build(cls: type, settings: Mapping[str, Any], name: str) -> Any:
    known = [key for key, f in cls.__dataclass_fields__.items() if f.init]  # type: ignore[attr-defined]
    for key in settings:
        if key not in known:
            raise ConfigError(f"The problem '{name}' has no setting '{key}'. {nearest(key, known)}")
    return cls(**settings)
