"""Gradients of large minibatches, in pieces that stay in a CPU's cache."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

CPU_PIECE = 32
"""Unrolls per gradient piece on a CPU: of 16, 32, 64, 128 and all, the fastest or level with it wherever measured."""


def count_pieces(n_rows: int, piece_rows: int | None) -> int:
    """The fewest equal pieces of at most `piece_rows` rows; None stands for what suits the device."""
    if piece_rows is None:
        piece_rows = CPU_PIECE if jax.default_backend() == "cpu" else n_rows
    return next(n for n in range(1, n_rows + 1) if n_rows % n == 0 and n_rows // n <= piece_rows)


def gradient_in_pieces(
    gradient: Callable[[Int[Array, " rows"]], tuple[PyTree[Array], dict[str, Array]]],
    rows: Int[Array, " rows"],
    piece_rows: int | None,
    split: str | None = None,
) -> tuple[PyTree[Array], dict[str, Float[Array, " piece"]]]:
    """The mean gradient over equal pieces of `rows`, computed one after another, and the metrics of each piece.

    For losses that are means over rows it is the gradient on all rows at once, with the memory of one piece.

    Args:
        gradient: gradient and metrics on some rows.
        rows: of one minibatch.
        piece_rows: most rows of a piece; see `PPOSettings`.
        split: a mapped axis whose members (devices) take the gradient of a share of the rows each; all get the mean.
    """
    if split is not None:
        shares = rows.reshape(jax.lax.axis_size(split), -1)
        mine = gradient_in_pieces(gradient, shares[jax.lax.axis_index(split)], piece_rows)
        return jax.lax.pmean(mine[0], split), jax.lax.all_gather(mine[1], split, tiled=True)

    def piece(total: PyTree[Array], rows: Int[Array, " rows"]) -> tuple[PyTree[Array], dict[str, Array]]:
        part, metrics = gradient(rows)
        return jax.tree.map(jnp.add, total, part), metrics

    n_pieces = count_pieces(rows.shape[0], piece_rows)
    pieces = rows.reshape(n_pieces, -1)
    shapes, _ = jax.eval_shape(gradient, pieces[0])
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    total, metrics = jax.lax.scan(piece, zeros, pieces)
    return jax.tree.map(lambda leaf: leaf / n_pieces, total), metrics
