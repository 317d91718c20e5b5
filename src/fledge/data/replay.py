"""A replay buffer as a pytree: what happened, to be drawn from again."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key, PyTree


class Replay(eqx.Module):
    """A ring of `capacity` rows: the newest overwrite the oldest. One per task with `vmap`."""

    rows: PyTree[Array]
    """Leaves with a leading axis of `capacity`."""
    added: Int[Array, ""]
    """Rows ever added."""

    @classmethod
    def init(cls, example: PyTree[Array], capacity: int) -> Replay:
        """An empty buffer for rows shaped like `example` (one row; arrays or their abstract shapes)."""
        rows = jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape), leaf.dtype), example)
        return cls(rows, jnp.asarray(0, jnp.int32))

    @property
    def capacity(self) -> int:
        """The most rows that are kept."""
        return jax.tree.leaves(self.rows)[0].shape[0]

    @property
    def size(self) -> Int[Array, ""]:
        """Rows that are there now."""
        return jnp.minimum(self.added, self.capacity)

    def add(self, rows: PyTree[Array]) -> Replay:
        """The buffer after some more rows (a leading axis of at most `capacity`)."""
        n = jax.tree.leaves(rows)[0].shape[0]
        places = (self.added + jnp.arange(n)) % self.capacity
        kept = jax.tree.map(lambda buffer, new: buffer.at[places].set(new), self.rows, rows)
        return Replay(kept, self.added + n)

    def sample(self, key: Key[Array, ""], n: int) -> PyTree[Array]:
        """`n` rows, uniformly and with replacement. From an empty buffer: rows of zeros."""
        places = jax.random.randint(key, (n,), 0, jnp.maximum(self.size, 1))
        return jax.tree.map(lambda buffer: buffer[places], self.rows)
