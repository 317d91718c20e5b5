"""Meta-World's ML1 and ML10 (Yu et al. 2020), through `GymnasiumEnv`: a Sawyer arm, with the goal hidden.

The environments are the v3 ones of the package `metaworld`; the published runs of the papers here used v2 (and, for ML1
reach and push, v1), whose rewards and reset differ. Success rates of the two are not the same quantity.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from fledge.core.errors import ConfigError, need
from fledge.envs.gymnasium import GymnasiumEnv

HORIZON = 500
N_OBSERVED = 39
"""18 numbers now, the same 18 one step before, and three zeros where the goal would be."""


def ml1(name: str = "pick-place-v3", *, seed: int = 0, ends_on_success: bool = False) -> GymnasiumEnv:
    """One kind of task with 50 goals to train on and 50 others to test on; episodes of 500 steps.

    The task vector is the goal (3 numbers). Rewards are Meta-World's shaped ones, 0 … 10 a step.

    Raises:
        ConfigError: there is no task of that name.
        MissingExtra: metaworld is not installed.
    """
    benchmarks = need("metaworld", "metaworld")
    if name not in benchmarks.ML1.ENV_NAMES:
        raise ConfigError(f"Meta-World has no task '{name}'. There is: {', '.join(sorted(benchmarks.ML1.ENV_NAMES))}.")
    return _env(benchmarks.ML1(name, seed=seed), ends_on_success)


def ml10(*, seed: int = 0, ends_on_success: bool = True) -> GymnasiumEnv:
    """Ten kinds of tasks to train on, five others to test on, 50 goals each.

    An episode ends as soon as it succeeds (as in the published runs): a faster policy collects *less* shaped reward, so
    compare success rates (the curve `success`), not returns. The task vector is the kind, one-hot, zeros for the test
    kinds, and the goal: 10 + 3 numbers.

    Raises:
        MissingExtra: metaworld is not installed.
    """
    return _env(need("metaworld", "metaworld").ML10(seed=seed), ends_on_success)


def _env(benchmark: Any, ends_on_success: bool) -> GymnasiumEnv:
    rows = [*benchmark.train_tasks, *benchmark.test_tasks]
    kinds = list(benchmark.train_classes)
    classes = {**benchmark.train_classes, **benchmark.test_classes}
    n_train = len(benchmark.train_tasks)
    tasks = {"train": _stack(rows, range(n_train), kinds), "test": _stack(rows, range(n_train, len(rows)), kinds)}
    return GymnasiumEnv(
        lambda: _Arm(classes, rows, ends_on_success),
        tasks,
        lambda env, task: env.set_task(int(task["index"])),
        horizon=HORIZON,
        info=("success",),
        fixed_length=not ends_on_success,
        splits_disjoint=True,
        describe_task=lambda task: _describe(rows[int(task["index"])]),
        task_vector_of=_vector,
    )


def _goal(row: Any) -> np.ndarray:
    """The last three numbers of what Meta-World draws for a task: the goal, or where the object is, by kind."""
    return np.asarray(pickle.loads(row.data)["rand_vec"], np.float32)[-3:]


def _stack(rows: Sequence[Any], of: range, kinds: Sequence[str]) -> dict[str, np.ndarray]:
    one_hot = [[float(rows[i].env_name == kind) for kind in kinds] for i in of]
    stacked = {"index": np.array(of, np.int32), "goal": np.array([_goal(rows[i]) for i in of], np.float32)}
    return stacked | ({"kind": np.array(one_hot, np.float32)} if len(kinds) > 1 else {})


def _vector(task: Mapping[str, Any]) -> Any:
    return jnp.concatenate([task["kind"], task["goal"]]) if "kind" in task else task["goal"]


def _describe(row: Any) -> str:
    return f"{row.env_name}, goal ({', '.join(f'{x:.2f}' for x in _goal(row))})"


class _Arm:
    """One arm for every kind of task; the bodies of a kind are loaded when it is met for the first time."""

    def __init__(self, classes: Mapping[str, Any], rows: Sequence[Any], ends_on_success: bool) -> None:
        spaces = need("gymnasium.spaces", "gymnasium")
        self.observation_space = spaces.Box(-np.inf, np.inf, (N_OBSERVED,), np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.classes, self.rows, self.ends_on_success = classes, rows, ends_on_success
        self.bodies: dict[str, Any] = {}
        self.body: Any = None

    def set_task(self, index: int) -> None:
        row = self.rows[index]
        if row.env_name not in self.bodies:
            self.bodies[row.env_name] = self.classes[row.env_name]()
        self.body = self.bodies[row.env_name]
        self.body.set_task(row)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.body.reset(seed=seed)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        seen, reward, terminated, truncated, info = self.body.step(action)
        ends = self.ends_on_success and bool(info.get("success", 0.0))
        return seen, reward, bool(terminated) or ends, bool(truncated) and not ends, info
