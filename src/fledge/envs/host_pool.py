"""Environments that live on the host, and the episodes that they walk through: what a pure interface needs of them."""

from __future__ import annotations

import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from fledge.core.errors import ContractError


class Result(NamedTuple):
    """What a host environment answers to an action (or to a reset: then reward 0 and no end)."""

    observation: np.ndarray
    reward: float
    terminated: bool
    truncated: bool
    extras: tuple[float, ...]


class HostEnv(Protocol):
    """One environment object of the host."""

    def reset(self, seed: int, task: Any) -> Result: ...

    def step(self, action: np.ndarray) -> Result: ...


@dataclass
class Run:
    """One episode, as it can be walked again: its seed, its task, its actions so far, and the last answer."""

    seed: int
    task: Any
    last: Result
    actions: list[np.ndarray] = field(default_factory=list)


class HostPool:
    """Host environments behind a functional face: `begin` gives a number, `advance` needs number, clock and action.

    A state is (number of a run, steps taken). A run keeps its seed, task and actions, so an old state can be stepped
    again, also with another action: its episode is walked anew on an environment that is free. Where states are stepped
    once, in turn, as rollouts do, every step is one step of one live environment.

    The pool holds three times as many environments as were ever asked for at once: those that walk, those that begin
    another episode of their trial, and those that begin a new trial (a rollout may begin one everywhere and keep only
    some). Those used longest ago are taken first. It remembers the `n_kept` runs used last.

    What it cannot do: inside an episode a state means nothing in another process, nor after its run was forgotten. Both
    are errors that say so. And it assumes that seed, task and actions determine the episode.

    Args:
        make: a new environment.
        n_kept: runs to remember. A forgotten run cannot be continued.
    """

    def __init__(self, make: Callable[[], HostEnv], n_kept: int = 16_384) -> None:
        self.make = make
        self.n_kept = n_kept
        self.birth = int.from_bytes(os.urandom(4), "little")
        """Tells the states of this pool from those of any other."""
        self._numbers = itertools.count()
        self._runs: OrderedDict[int, Run] = OrderedDict()
        self._envs: list[HostEnv] = []
        self._used: OrderedDict[int, tuple[int, int] | None] = OrderedDict()
        """Environment → the state (run, steps) it is in; the one used longest ago comes first."""
        self._where: dict[tuple[int, int], int] = {}
        """The same, the other way round."""
        self._lock = threading.RLock()

    def __enter__(self) -> HostPool:
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def grow(self, batch: int) -> None:
        """See that there are environments for `batch` live states, and twice as many fresh starts."""
        while len(self._envs) < 3 * batch:
            self._used[len(self._envs)] = None
            self._used.move_to_end(len(self._envs), last=False)
            self._envs.append(self.make())

    def begin(self, seed: int, task: Any) -> tuple[int, Result]:
        """Start an episode; returns the number of its run and what is seen first."""
        env = next(iter(self._used))
        start = self._envs[env].reset(seed, task)
        number = self._keep(Run(seed, task, start))
        self._mark(env, (number, 0))
        return number, start

    def knows(self, birth: int, number: int) -> bool:
        """Whether this run is one of this pool's, and not forgotten."""
        return birth == self.birth and number in self._runs

    def advance(self, birth: int, number: int, clock: int, action: np.ndarray) -> tuple[int, Result]:
        """The number of the run that goes on from the state (`number`, `clock`) by `action`, and the answer to it."""
        run = self._recall(birth, number)
        if clock < len(run.actions):
            if clock == len(run.actions) - 1 and np.array_equal(run.actions[clock], action):
                return number, run.last
            run = Run(run.seed, run.task, run.last, run.actions[:clock])
            number = self._keep(run)
        env = self._where.get((number, clock))
        if env is None:
            env = self._walk_again(number, run)
        run.last = self._envs[env].step(action)
        run.actions.append(np.array(action))
        self._mark(env, (number, clock + 1))
        return number, run.last

    def last(self, birth: int, number: int) -> Result:
        """The newest answer of a run."""
        return self._recall(birth, number).last

    def _walk_again(self, number: int, run: Run) -> int:
        env = next(iter(self._used))
        self._envs[env].reset(run.seed, run.task)
        for action in run.actions:
            self._envs[env].step(action)
        self._mark(env, (number, len(run.actions)))
        return env

    def _mark(self, env: int, state: tuple[int, int]) -> None:
        before = self._used[env]
        if before is not None:
            self._where.pop(before, None)
        self._used[env] = state
        self._used.move_to_end(env)
        self._where[state] = env

    def _keep(self, run: Run) -> int:
        number = next(self._numbers)
        self._runs[number] = run
        if len(self._runs) > self.n_kept:
            self._runs.popitem(last=False)
        return number

    def _recall(self, birth: int, number: int) -> Run:
        if birth != self.birth:
            raise ContractError(
                "This state belongs to an environment of another process (or to another environment object), in the "
                "middle of an episode. Host environments can be continued from the start of an episode only: start new "
                "trials."
            )
        if number not in self._runs:
            raise ContractError(
                f"The episode of this state was forgotten: {self.n_kept} others were begun or stepped since. "
                "Start a new trial, or keep more with n_kept."
            )
        self._runs.move_to_end(number)
        return self._runs[number]
