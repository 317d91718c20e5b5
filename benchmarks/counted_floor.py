"""The counted floor: the least time that the arithmetic and the memory traffic of one environment step can take here.

Counted per environment step, from the agent that is actually trained. Every matrix of the agent multiplies one row per
token: once in acting (forward), and in each epoch once forward and twice backward (the gradients of its input and of
itself; the first matrix needs no gradient of its input). Element-wise work is not counted: the floor is optimistic.
Bytes are the arrays that have to pass from a replay's forward to its backward pass, written once and read once.

The machine's rates are measured with JAX itself, in the same process: the best float32 matrix product, the same shapes
that training uses, and a plain copy.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fledge.agents.recurrent import MemoryAgent
from fledge.learn.pieces import count_pieces
from fledge.learn.ppo import PPOSettings


@dataclass(frozen=True)
class Product:
    """`per_step` products of (m, k) by (k, n), per environment step, `shares` of them at a time on as many cores.

    `kind` says which operand lies transposed.
    """

    m: int
    k: int
    n: int
    per_step: float
    kind: str = "nn"
    shares: int = 1

    @property
    def flops(self) -> float:
        """Floating point operations per environment step."""
        return 2.0 * self.m * self.k * self.n * self.per_step


@dataclass(frozen=True)
class Floor:
    """Microseconds per environment step that cannot be undercut, by resource."""

    flops: float
    bytes: float
    us_matrix: float
    """FLOPs over the best rate of a large product."""
    us_shapes: float
    """The same FLOPs, each product at the rate measured for its own shape; shares of a minibatch run side by side."""
    us_memory: float
    """Bytes over the rate of a plain copy of arrays of a piece's size."""

    @property
    def us(self) -> float:
        """The floor: arithmetic and traffic can overlap, so the larger of the two."""
        return max(self.us_matrix, self.us_memory)


def counted_floor(agent: MemoryAgent, settings: PPOSettings, horizon: int, shares: int) -> Floor:
    """The floor of one environment step, learning included. `shares` cores share out each minibatch."""
    products = training_products(agent, settings, horizon, shares)
    flops = sum(p.flops for p in products)
    n_bytes = settings.n_epochs * 2 * 4 * passed_floats(agent)
    piece = piece_rows(settings, shares)
    return Floor(
        flops=flops,
        bytes=n_bytes,
        us_matrix=flops / large_matrix_rate() * 1e6,
        us_shapes=sum(p.flops / p.shares / matrix_rate(p.m, p.k, p.n, p.kind) for p in products) * 1e6,
        us_memory=n_bytes / shares / copy_rate(passed_floats(agent) * piece * horizon) * 1e6,
    )


def piece_rows(settings: PPOSettings, shares: int) -> int:
    """Unrolls whose gradient one of `shares` cores takes at once."""
    rows = settings.n_envs // settings.n_minibatches // shares
    return rows // count_pieces(rows, settings.piece_rows)


def training_products(agent: MemoryAgent, settings: PPOSettings, horizon: int, shares: int) -> list[Product]:
    """Every matrix product of training, by shape."""
    n_envs, piece, epochs = settings.n_envs, piece_rows(settings, shares), settings.n_epochs
    bulk = piece * horizon
    recurrent = getattr(agent.memory, "weight", None)
    first = agent.encoder.layers["joint"].weight
    products = []
    for w in (leaf for leaf in jax.tree.leaves(agent) if leaf.ndim == 2):
        k, n = w.shape
        rows = piece if w is recurrent else bulk
        products += [Product(n_envs, k, n, 1 / n_envs), Product(rows, k, n, epochs / rows, shares=shares)]
        products += [Product(k, bulk, n, epochs / bulk, "tn", shares)]
        if w is not first:
            products += [Product(rows, n, k, epochs / rows, shares=shares)]
    return products


def passed_floats(agent: MemoryAgent) -> int:
    """Floats per token that a replay's backward pass needs from the forward pass, or hands on to the next product.

    Input 11, embedding, and of the GRU (per unit): the input's gates 3, state before and after 2, r z n u 4, and the
    gradients of state 1 and gates 4; of the linear recurrence: projections 3, decay, input, state and gate 4, and the
    gradients of state 1 and projections 3.
    """
    per_unit = 14 if hasattr(agent.memory, "weight") else 11
    n_token, joint = agent.encoder.layers["joint"].weight.shape
    return n_token + 2 * joint + per_unit * agent.memory.out_size


@cache
def large_matrix_rate() -> float:
    """FLOP/s of a 1,536-wide float32 product: what the machine gives when nothing is in the way."""
    return max(matrix_rate.__wrapped__(1536, 1536, 1536, "nn") for _ in range(3))


@cache
def matrix_rate(m: int, k: int, n: int, kind: str) -> float:
    """FLOP/s of a float32 product inside a compiled loop, the way that training meets it."""
    a = jnp.ones((k, m) if kind[0] == "t" else (m, k))
    b = jnp.ones((k, n))
    contract = (((0 if kind[0] == "t" else 1,), (0,)), ((), ()))
    repeats = max(2, min(20_000, int(2e8 / (2.0 * m * k * n))))

    def once(carry: Float[Array, ""], _: None) -> tuple[Float[Array, ""], None]:
        out = jax.lax.dot_general(a.at[0, 0].add(carry), b, contract)  # depends on the carry: cannot leave the loop
        return out[0, 0] * 1e-30, None

    loop = jax.jit(lambda: jax.lax.scan(once, jnp.zeros(()), None, length=repeats)[0])
    return 2.0 * m * k * n * repeats / best_seconds(loop)


@cache
def copy_rate(n_floats: int) -> float:
    """Bytes/s read and written by adding one to an array of this size, over and over in a compiled loop."""
    repeats = max(2, min(20_000, int(2e8 / n_floats)))

    def once(carry: Float[Array, " n"], _: None) -> tuple[Float[Array, " n"], None]:
        return jax.lax.optimization_barrier(carry + 1.0), None

    loop = jax.jit(lambda x: jax.lax.scan(once, x, None, length=repeats)[0])
    x = jnp.zeros(n_floats)
    return 8.0 * n_floats * repeats / best_seconds(lambda: loop(x))


def best_seconds(call: Callable[[], object], seconds: float = 0.05) -> float:
    """The shortest of several calls (after one that compiles)."""
    jax.block_until_ready(call())
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return min(times)
