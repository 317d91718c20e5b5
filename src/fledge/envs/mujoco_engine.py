"""MuJoCo as a pure function: the C engine on the host, a whole batch to a call.

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
from functools import cache, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from fledge.envs.host import Once, call_host
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
        self._advance = Once(partial(self._run, steps=True))
        self._forward = Once(partial(self._run, steps=False))
        data = self.mujoco.MjData(nominal)
        self._n_physics = self.mujoco.mj_stateSize(nominal, self._part)
        self._place = slice(self._n_physics, self._n_physics + 2)
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
        """How many uint32 make a state: two for each double of the physics and of the body's place, two for the
        variant. So all that a step needs is one array (each array handed to the host costs as much as stepping a body).
        """
        return 2 * (self._n_physics + 3)

    def start(
        self, qpos: Float[Array, " nq"], qvel: Float[Array, " nv"], variant: Int[Array, ""]
    ) -> tuple[Array, View]:
        """A state at rest but for these positions and velocities, and what is seen of it.

        The physics is asked only if something beyond positions and velocities is to be seen; otherwise a reset is a few
        operations of JAX (it stands in the inner loop of trials, where it is computed at every step).
        """
        words = jnp.asarray(self._start.view(np.uint32)).at[-2].set(variant.astype(jnp.uint32))
        place = jnp.zeros(2) if self.body.place == "mass" else qpos[:2]
        for where, values in ((self._qpos, qpos), (self._qvel, qvel), (self._place, place)):
            words = words.at[2 * where.start : 2 * where.stop].set(double_words(values))
        if not self.n_extras and self.body.place == "root":
            return words, View(qpos, qvel, jnp.zeros(2), {})
        return self._view(call_host(self._forward, self._shapes(), words))

    def step(self, words: UInt32[Array, " word"], action: Float[Array, " nu"]) -> tuple[UInt32[Array, " word"], View]:
        """The state after one control step (`frame_skip` physics steps), and what is seen of it."""
        words = words.at[2 * self._ctrl.start : 2 * self._ctrl.stop].set(double_words(action))
        return self._view(call_host(self._advance, self._shapes(), words))

    def _shapes(self) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        n_seen = self.nq + self.nv + 2 + self.n_extras
        return jax.ShapeDtypeStruct((self.n_words,), jnp.uint32), jax.ShapeDtypeStruct((n_seen,), jnp.float32)

    def _view(self, out: tuple[Array, ...]) -> tuple[Array, View]:
        words, seen = out
        sizes = [self.nq, self.nv, 2, *self._sizes.values()]
        qpos, qvel, moved, *extras = jnp.split(seen, np.cumsum(sizes)[:-1].tolist())
        return words, View(qpos, qvel, moved, dict(zip(self._sizes, extras, strict=True)))

    # What the host does.

    def _run(self, words: np.ndarray, *, steps: bool) -> tuple[np.ndarray, np.ndarray]:
        """Step (or only evaluate) every row, whatever its leading axes, then cast what is seen."""
        rows: Rows = np.array(words, order="C").reshape(-1, self.n_words).view(np.float64)
        n, before = len(rows), rows[:, self._place].copy()
        extras = np.empty((n, self.n_extras))
        models = None
        if self.body.variation:
            models = [self.models[i] for i in rows.view(np.uint32)[:, -2].tolist()]
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
            rows[:, self._place] = rows[:, self._qpos][:, :2]
        moved = rows[:, self._place] - before if steps else np.zeros((n, 2))
        seen = np.concatenate([rows[:, self._qpos], rows[:, self._qvel], moved, extras], axis=1, dtype=np.float32)
        lead = words.shape[:-1]
        return rows.view(np.uint32).reshape(*lead, -1), seen.reshape(*lead, -1)

    def _serve(
        self,
        rows: Rows,
        extras: Float[np.ndarray, "row entry"],
        models: list[Any] | None,
        starts: Iterator[int],
        chunk: int,
        steps: bool,
    ) -> None:
        """Take rows until there are no more. MuJoCo lets go of the interpreter while it steps."""
        mujoco, part, frame_skip, model = self.mujoco, self._part, self.body.frame_skip, self.models.nominal
        set_state, step, get_state = mujoco.mj_setState, mujoco.mj_step, mujoco.mj_getState
        data = self._take()
        fields = [getattr(data, name).reshape(-1) for name in self.body.extras]
        for low in starts:
            for i, row in enumerate(rows[low : low + chunk, : self._n_physics], low):
                if models is not None:
                    model = models[i]
                set_state(model, data, row, part)
                if steps:
                    step(model, data, frame_skip)
                    if fields:
                        mujoco.mj_rnePostConstraint(model, data)
                    get_state(model, data, row, part)
                else:
                    mujoco.mj_forward(model, data)
                    self._settle(data)
                if fields:
                    np.concatenate(fields, out=extras[i])
                if self.body.place == "mass":
                    rows[i, self._place] = (self._masses * data.xipos).sum(0)[:2]
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
        row = np.zeros(self._n_physics + 3)
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
    """The bits of single-precision numbers as doubles: two uint32 each, low word first. Exact.

    Only numbers too small for a full single-precision mantissa (below 1e-38) become zero.
    """
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    sign, exponent, mantissa = bits & np.uint32(1 << 31), (bits >> 23) & 0xFF, bits & 0x7FFFFF
    wide = jnp.where(exponent == 255, np.uint32(2047), exponent + np.uint32(1023 - 127))
    high, low = sign | (wide << 20) | (mantissa >> 3), mantissa << 29
    tiny = exponent == 0
    return jnp.stack([jnp.where(tiny, np.uint32(0), low), jnp.where(tiny, sign, high)], axis=-1).reshape(-1)
