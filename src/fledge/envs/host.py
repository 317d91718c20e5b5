"""Functions of the host inside compiled programs: cheap calls, and one answer to a question that is asked twice."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Shaped

try:
    from jax.experimental.buffer_callback import buffer_callback
except ImportError:  # an experiment of JAX: `pure_callback` does the same, but takes longer
    buffer_callback = None  # type: ignore[assignment]

Answer = tuple[np.ndarray, ...]
N_KEPT = 16


def call_host(
    function: Callable[[np.ndarray], Answer], shapes: tuple[jax.ShapeDtypeStruct, ...], x: Shaped[Array, "..."]
) -> tuple[Array, ...]:
    """`function(x)` on the host, as a pure function of JAX.

    Under `vmap` it is called once with all leading axes. On a CPU it reads and writes JAX's own memory (about 5 µs a
    call here); elsewhere it is a `jax.pure_callback` (about 60 µs here).

    Args:
        function: pure, of an array with any leading axes; its results have the same ones. Several threads may call it.
        shapes: of the results for one `x`.
        x: one argument, because each costs.
    """

    def through_arrays(x: Array) -> tuple[Array, ...]:
        return tuple(jax.pure_callback(lambda x: function(np.asarray(x)), shapes, x, vmap_method="broadcast_all"))

    def through_memory(x: Array) -> tuple[Array, ...]:
        def fill(context: Any, out: tuple[Any, ...], x: Any) -> None:
            for buffer, values in zip(out, function(np.asarray(x)), strict=True):
                np.asarray(buffer)[...] = values

        return tuple(buffer_callback(fill, shapes, vmap_method="broadcast_all")(x))

    if buffer_callback is None:
        return through_arrays(x)
    return jax.lax.platform_dependent(x, cpu=through_memory, default=through_arrays)


class Once:
    """A pure function that works out once what several devices ask at about the same time.

    Devices that share out the gradients of one seed walk the same rollout each (`fledge.learn.devices`): to a compiled
    environment that costs nothing, to one on the host the work of each. The last few answers are kept.
    """

    def __init__(self, function: Callable[[np.ndarray], Answer]) -> None:
        self.function = function
        self._lock = threading.Lock()
        self._answers: OrderedDict[tuple[tuple[int, ...], bytes], Future[Answer]] = OrderedDict()

    def __call__(self, x: np.ndarray) -> Answer:
        if jax.local_device_count() == 1:
            return self.function(x)
        question = (x.shape, x.tobytes())
        with self._lock:
            answer = self._answers.get(question)
            if mine := answer is None:
                answer = self._answers[question] = Future()
                while len(self._answers) > N_KEPT:
                    self._answers.popitem(last=False)
        if mine:
            try:
                answer.set_result(self.function(x))
            except BaseException as error:
                answer.set_exception(error)
        return answer.result()
