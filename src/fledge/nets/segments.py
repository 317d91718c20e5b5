"""Running sums and maxima over the segments of a sequence.

A segment starts wherever `resets` holds, and at the sequence's first step, which goes on from a given state. Both are
associative: on an accelerator all steps are computed at once, O(log time) deep (Blelloch 1990, §1.5: segmented scans).
On a CPU the sequential forms are used: the maximum with its gradient is three times faster there (100 steps, a batch of
256, 32 units, one core), the sum as fast, and both compile in a quarter of the time.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fledge.nets.linear_scan import linear_scan

LOW = -999_999.0
"""Lower than anything that is aggregated; finite, so that no 0 · ∞ arises in a gradient."""


def later_maximum(a: Float[Array, "*shape"], b: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """max(a, b), whose gradient goes to `a` alone where they tie (`jnp.maximum` splits it); nan if either is nan.

    So a chain of them is associative in its gradient too: the first of the largest gets it all.
    """
    return jnp.where((b > a) | jnp.isnan(b), b, a)


def segment_sum(
    state: Float[Array, "*batch n"],
    values: Float[Array, "time *batch n"],
    resets: Bool[Array, "time *batch"],
    decay: Float[Array, "time *batch n"] | None = None,
) -> Float[Array, "time *batch n"]:
    """s_t = d_t ⊙ s_{t−1} + v_t, where the d_t of a reset is 0 and otherwise `decay` (1 if there is none).

    `state` is the sum before the first step. Without decay the gradient of a value is the sum of the gradients of all
    later outputs of its segment: a running sum in reverse.
    """
    keep = jnp.broadcast_to(1.0 - resets[..., None].astype(values.dtype), values.shape)
    keep = keep if decay is None else keep * decay
    return jax.lax.platform_dependent(
        keep,
        values,
        state,
        cpu=lambda a, b, h: linear_scan(a, b, h, False),
        default=lambda a, b, h: linear_scan(a, b, h, True),
    )


def segment_max(
    state: Float[Array, "*batch n"],
    values: Float[Array, "time *batch n"],
    resets: Bool[Array, "time *batch"],
    start: float = LOW,
) -> Float[Array, "time *batch n"]:
    """The largest value since the segment began, this one included, and `start` where a reset began it.

    `state` is the maximum before the first step. The gradient goes to the first of the largest values.
    """
    return jax.lax.platform_dependent(
        state,
        values,
        resets[..., None],
        cpu=partial(max_in_sequence, start=start),
        default=partial(max_in_parallel, start=start),
    )


def max_in_sequence(
    state: Float[Array, "*batch n"],
    values: Float[Array, "time *batch n"],
    begun: Bool[Array, "time *batch 1"],
    *,
    start: float,
) -> Float[Array, "time *batch n"]:
    """`segment_max`, step by step."""

    def step(largest: Array, x: tuple[Array, Array]) -> tuple[Array, Array]:
        value, begins = x
        largest = later_maximum(jnp.where(begins, start, largest), value)
        return largest, largest

    return jax.lax.scan(step, state, (values, begun))[1]


def max_in_parallel(
    state: Float[Array, "*batch n"],
    values: Float[Array, "time *batch n"],
    begun: Bool[Array, "time *batch 1"],
    *,
    start: float,
) -> Float[Array, "time *batch n"]:
    """`segment_max`, all steps at once."""
    before = jnp.broadcast_to(jnp.where(begun, start, LOW), values.shape)
    before = before.at[0].set(jnp.where(begun[0], start, state))

    def combine(left: tuple[Array, Array], right: tuple[Array, Array]) -> tuple[Array, Array]:
        return left[0] | right[0], jnp.where(right[0], right[1], later_maximum(left[1], right[1]))

    return jax.lax.associative_scan(combine, (begun, later_maximum(before, values)))[1]


@jax.custom_jvp
def with_gradient_of(value: Float[Array, "*shape"], carrier: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`value` going forward; going backward all of its gradient reaches `carrier`, and none `value`.

    Only gradients need the carrier: without them XLA leaves its computation out.
    """
    return value


@with_gradient_of.defjvp
def _with_gradient_of_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    return primals[0], tangents[1]
