"""MuJoCo as a pure function: the C engine behind `jax.pure_callback`, a whole batch to a call.

The state that JAX carries is MuJoCo's *integration* state (time, positions, velocities, the solver's warm start), in
double precision, as bits: pairs of uint32, low word first. So a step depends on nothing but its arguments, to the bit,
whichever `MjData` serves it, and JAX need not be switched to 64 bits. What observations and rewards read is handed out
beside it in single precision.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from fledge.envs.mujoco_body import Body, Models, library

Rows = Float[np.ndarray, "row double"]

N_THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
ALONE = 4
"""Rows that are not worth a second thread."""


class View(eqx.Module):
    """What JAX sees of a physics state (one body; batch with `vmap`)."""

    qpos: Float[Array, " nq"]
    qvel: Float[Array, " nv"]
    moved: Float[Array, "2"]
    """How far the body's place (see `Body.place`) got along the first two axes in the last control step, in metres.
    The difference is taken in double precision."""
    extras: dict[str, Float[Array, " entry"]]
    """The fields of `Body.extras`, flat."""


class Engine:
    """Steps one body (in all its variants). Get it from `engine_of`, which keeps one for each body.

    Any number of callbacks may run at the same time (one for each device): the threads of the pool are shared, an
    `MjData` belongs to one thread while it is used, and results do not depend on which one it is.
    """

    def __init__(self, body: Body) -> None:
        self.body = body
        self.mujoco = library()
        self.models = Models(body)
        nominal = self.models.nominal
        self.nq, self.nv, self.nu = nominal.nq, nominal.nv, nominal.nu
        self.dt = float(nominal.opt.timestep) * body.frame_skip
        """Seconds of one control step."""
        # All of mjSTATE_INTEGRATION that can differ here: forces from outside and moved bodies there are none.
        states = self.mujoco.mjtState
        parts = (states.mjSTATE_FULLPHYSICS, states.mjSTATE_WARMSTART, states.mjSTATE_CTRL)
        self._part = sum(int(part) for part in parts)
        self._free: deque[Any] = deque()
        data = self.mujoco.MjData(nominal)
        self._n_physics = self.mujoco.mj_stateSize(nominal, self._part)
        self._qpos, self._qvel, self._ctrl = (self._find(data, name) for name in ("qpos", "qvel", "ctrl"))
        self.mujoco.mj_resetData(nominal, data)
        self.qpos0 = np.asarray(data.qpos, np.float32)
        self._start = self._read(data)
        self._sizes = {name: int(getattr(data, name).size) for name in body.extras}
        self.n_extras = sum(self._sizes.values())
        self._masses = nominal.body_mass[:, None] / nominal.body_mass.sum()

    # What JAX calls.

    @property
    def n_words(self) -> int:
        """How many uint32 make a state: two for each double; the last two doubles are the body's place."""
        return 2 * (self._n_physics + 2)

    def start(self, qpos: Float[Array, " nq"], qvel: Float[Array, " nv"], variant: Int[Array, ""]) -> tuple[Array, View]:
        """A state at rest but for these positions and velocities, and what is seen of it.

        The physics is asked only if something beyond positions and velocities is to be seen; otherwise a reset is a few
        operations of JAX (it stands in the inner loop of trials, where it is computed at every step).
        """
        words = jnp.asarray(self._start.view(np.uint32))
        place = jnp.zeros(2) if self.body.place == "mass" else qpos[:2]
        for where, values in ((self._qpos, qpos), (self._qvel, qvel), (slice(-2, None), place)):
            span = slice(2 * where.start, None if where.stop is None else 2 * where.stop)
            words = words.at[span].set(double_words(values))
        if not self.n_extras and self.body.place == "root":
            return words, View(qpos, qvel, jnp.zeros(2), {})
        return self._view(jax.pure_callback(self._forward, self._shapes(), words, variant, vmap_method="broadcast_all"))

    def step(
        self, words: UInt32[Array, " word"], action: Float[Array, " nu"], variant: Int[Array, ""]
    ) -> tuple[UInt32[Array, " word"], View]:
        """The state after one control step (`frame_skip` physics steps), and what is seen of it."""
        shapes = self._shapes()
        return self._view(
            jax.pure_callback(self._advance, shapes, words, action, variant, vmap_method="broadcast_all")
        )

    def _shapes(self) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        n_seen = self.nq + self.nv + 2 + self.n_extras
        return jax.ShapeDtypeStruct((self.n_words,), jnp.uint32), jax.ShapeDtypeStruct((n_seen,), jnp.float32)

    def _view(self, out: tuple[Array, Array]) -> tuple[Array, View]:
        words, seen = out
        sizes = [self.nq, self.nv, 2, *self._sizes.values()]
        qpos, qvel, moved, *extras = jnp.split(seen, np.cumsum(sizes)[:-1].tolist())
        return words, View(qpos, qvel, moved, dict(zip(self._sizes, extras, strict=True)))

    # What the host does.

    def _advance(self, words: Any, action: Any, variant: Any) -> tuple[np.ndarray, np.ndarray]:
        """Any number of leading axes, the same for all three."""
        words, action, variant = np.asarray(words), np.asarray(action), np.asarray(variant)
        rows = self._rows(words)
        before = rows[:, -2:].copy()
        rows[:, self._ctrl] = action.reshape(len(rows), self.nu)
        return self._run(rows, before, variant, words.shape[:-1], steps=True)

    def _forward(self, words: Any, variant: Any) -> tuple[np.ndarray, np.ndarray]:
        words = np.asarray(words)
        return self._run(self._rows(words), None, np.asarray(variant), words.shape[:-1], steps=False)

    def _rows(self, words: np.ndarray) -> Rows:
        return np.array(words, order="C").reshape(-1, self.n_words).view(np.float64)

    def _run(
        self, rows: Rows, before: Float[np.ndarray, "row 2"] | None, variant: np.ndarray, lead: tuple[int, ...], *, steps: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Step (or only evaluate) every row in place, then cast what is seen."""
        n = len(rows)
        extras = np.empty((n, self.n_extras))
        models = [self.models[i] for i in variant.reshape(-1).tolist()] if self.body.variation else None
        chunk = max(ALONE, n // (8 * N_THREADS))
        starts = iter(range(0, n, chunk))  # shared by the threads: whoever is free takes the next rows
        helpers = min(N_THREADS, -(-n // chunk)) - 1
        work = (rows, extras, models, starts, chunk, steps)
        futures = [_pool().submit(self._serve, *work) for _ in range(helpers)]
        self._serve(*work)
        for future in futures:
            if not future.cancel():
                future.result()
        if self.body.place == "root":
            rows[:, -2:] = rows[:, self._qpos][:, :2]
        moved = np.zeros((n, 2)) if before is None else rows[:, -2:] - before
        seen = np.concatenate([rows[:, self._qpos], rows[:, self._qvel], moved, extras], axis=1, dtype=np.float32)
        return rows.view(np.uint32).reshape(*lead, -1), seen.reshape(*lead, -1)

    def _serve(
        self, rows: Rows, extras: Float[np.ndarray, "row entry"], models: list[Any] | None, starts: Iterator[int], chunk: int, steps: bool
    ) -> None:
        """Take rows until there are no more. MuJoCo lets go of the interpreter while it steps."""
        mujoco, part, n_physics, frame_skip = self.mujoco, self._part, self._n_physics, self.body.frame_skip
        set_state, step, get_state = mujoco.mj_setState, mujoco.mj_step, mujoco.mj_getState
        model = self.models.nominal
        data = self._take()
        fields = [getattr(data, name).reshape(-1) for name in self.body.extras]
        for low in starts:
            high = min(low + chunk, len(rows))
            for i, row in enumerate(rows[low:high, :n_physics], low):
                if models is not None:
                    model = models[i]
                set_state(model, data, row, part)
                if not steps:
                    mujoco.mj_forward(model, data)
                    self._settle(data)
                else:
                    step(model, data, frame_skip)
                    if fields:
                        mujoco.mj_rnePostConstraint(model, data)
                    get_state(model, data, row, part)
                if fields:
                    np.concatenate(fields, out=extras[i])
                if self.body.place == "mass":
                    rows[i, -2:] = (self._masses * data.xipos).sum(0)[:2]
        self._free.append(data)

    def _settle(self, data: Any) -> None:
        """Before the first step there are no contact forces, whatever the `MjData` did last."""
        data.cfrc_ext[:] = 0.0

    def _take(self) -> Any:
        try:
            return self._free.pop()
        except IndexError:
            return self.mujoco.MjData(self.models.nominal)

    def _read(self, data: Any) -> Float[np.ndarray, " double"]:
        row = np.zeros(self._n_physics + 2)
        self.mujoco.mj_getState(self.models.nominal, data, row[: self._n_physics], self._part)
        return row

    def _find(self, data: Any, name: str) -> slice:
        """Where a field stands in a state."""
        field = getattr(data, name)
        field[:] = np.arange(1, field.size + 1)
        at = int(np.argmax(self._read(data) == 1.0))
        field[:] = 0.0
        return slice(at, at + field.size)


@cache
def engine_of(body: Body) -> Engine:
    """The engine of a body; compiled once."""
    return Engine(body)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(N_THREADS - 1, 1), thread_name_prefix="mujoco")


def double_words(x: Float[Array, " n"]) -> UInt32[Array, " word"]:
    """The bits of finite single-precision numbers as doubles: two uint32 each, low word first. Exact.

    Numbers too small for a full single-precision mantissa (below 1e-38) become zero.
    """
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    sign, exponent, mantissa = bits & np.uint32(1 << 31), (bits >> 23) & 0xFF, bits & 0x7FFFFF
    high = sign | ((exponent + (1023 - 127)) << 20) | (mantissa >> 3)
    low = mantissa << 29
    words = jnp.stack([jnp.where(exponent == 0, 0, low), jnp.where(exponent == 0, sign, high)], axis=-1)
    return words.astype(jnp.uint32).reshape(-1)
