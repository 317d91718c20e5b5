"""The training loop: one compiled program, seeds as a `vmap`, metrics leaving in chunks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from fledge.core.contracts import Learner
from fledge.learn.devices import Placement


@dataclass(frozen=True)
class Chunk:
    """What left the program after `chunk_len` updates of all seeds."""

    n_updates: int
    """Updates done so far, this chunk included."""
    env_steps: int
    """Environment steps (per seed) done so far."""
    metrics: dict[str, Float[np.ndarray, "update seed"]]
    seconds: float
    """Wall time of this chunk."""
    state: PyTree
    """The training state after it; every leaf has the leading axis `seed`."""


class Loop:
    """Runs a learner for many updates.

    A chunk of updates is one call of one compiled program (a `lax.scan` over updates, `vmap`ped over seeds); between
    two calls the host may log, draw and save. The program is a pure function of the state, so a run that goes on from
    a saved state is bit for bit the run that never stopped (same machine, same device).

    Args:
        learner: what to run.
        chunk_len: updates per call.
        placement: the devices that share the work; by default one does it all. A learner that shares out minibatches
            has to know of it, see `PPO.split`.
    """

    def __init__(self, learner: Learner, chunk_len: int, placement: Placement | None = None) -> None:
        self.learner = learner
        self.chunk_len = chunk_len
        self.compile_seconds = 0.0
        # Runs once: compiling it without optimisation takes a third of the time.
        self._init = jax.jit(jax.vmap(learner.init), compiler_options={"xla_backend_optimization_level": 0})
        self.placement = placement
        if placement is None:
            self._program = jax.jit(jax.vmap(self._chunk), donate_argnums=0)
        else:
            there, parts = placement.sharding, placement.spread(jax.vmap(self._chunk))
            self._program = jax.jit(parts, donate_argnums=0, in_shardings=there, out_shardings=there)
        self._compiled: Any = None

    def _chunk(self, state: PyTree) -> tuple[PyTree, dict[str, Float[Array, " update"]]]:
        return jax.lax.scan(lambda s, _: self.learner.update(s), state, None, length=self.chunk_len)

    def init(self, keys: Key[Array, " seed"]) -> PyTree:
        """The state of every seed before training."""
        return self._init(keys)

    def compile(self, state: PyTree) -> float:
        """Compile the program ahead of its first call; returns the seconds it took (0 if it was compiled already)."""
        if self._compiled is None:
            started = time.perf_counter()
            self._compiled = self._program.lower(state).compile()
            self.compile_seconds = time.perf_counter() - started
            return self.compile_seconds
        return 0.0

    def run(self, state: PyTree, *, n_chunks: int, done: int = 0) -> Iterator[Chunk]:
        """Chunks number `done` + 1 … `n_chunks`. The given state is consumed (its buffers are reused)."""
        if self.placement is not None:
            state = jax.device_put(state, self.placement.sharding)
        self.compile(state)
        for i in range(done, n_chunks):
            started = time.perf_counter()
            state, metrics = self._compiled(state)
            host = {name: np.asarray(x).T for name, x in metrics.items()}
            seconds = time.perf_counter() - started
            n_updates = (i + 1) * self.chunk_len
            yield Chunk(n_updates, n_updates * self.learner.steps_per_update, host, seconds, state)
