"""A ring of rows that lives in the training state: the newest rows push out the oldest."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree

from fledge.core.errors import ConfigError


class Ring(eqx.Module):
    """The last `capacity` rows, first in, first out. A row is a pytree: one trial, padded, say.

    Pure: it is an ordinary value in a compiled program, where rows are written in place as long as nobody keeps the
    ring of before.
    """

    rows: PyTree[Array]
    """Every leaf has the leading axis `capacity`."""
    n_written: Int[Array, ""]
    """Rows ever written; those beyond `capacity` overwrote older ones."""

    @classmethod
    def init(cls, row: PyTree, capacity: int) -> Ring:
        """An empty ring for rows like `row` (arrays, or their shapes and dtypes).

        Raises:
            ConfigError: no room for a single row.
        """
        if capacity < 1:
            raise ConfigError(f"A ring keeps at least one row; got a capacity of {capacity}.")
        rows = jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape), leaf.dtype), row)
        return cls(rows, jnp.asarray(0, jnp.int32))

    @property
    def capacity(self) -> int:
        """Rows that it can keep."""
        return jax.tree.leaves(self.rows)[0].shape[0]

    @property
    def size(self) -> Int[Array, ""]:
        """Rows that it keeps now."""
        return jnp.minimum(self.n_written, self.capacity)

    def insert(self, rows: PyTree[Array]) -> Ring:
        """The ring with more rows (a leading axis); of more than `capacity` the last stay."""
        n = jax.tree.leaves(rows)[0].shape[0]
        kept = min(n, self.capacity)
        places = (self.n_written + jnp.arange(n - kept, n)) % self.capacity
        written = jax.tree.map(lambda old, new: old.at[places].set(new[n - kept :]), self.rows, rows)
        return Ring(written, self.n_written + n)

    def insert_first(self, rows: PyTree[Array], n: Int[Array, ""]) -> Ring:
        """The ring with the first `n` of some rows, a number that is known in the running program only.

        Raises:
            ConfigError: there are more rows than the ring keeps.
        """
        most = jax.tree.leaves(rows)[0].shape[0]
        if most > self.capacity:
            raise ConfigError(f"A ring that keeps {self.capacity} rows was handed {most}; enlarge its capacity.")
        places = jnp.arange(most)
        places = jnp.where(places < n, (self.n_written + places) % self.capacity, self.capacity)
        written = jax.tree.map(lambda old, new: old.at[places].set(new, mode="drop"), self.rows, rows)
        return Ring(written, self.n_written + n)

    def emptied(self) -> Ring:
        """The ring without rows (what they were is still in memory, but is never drawn)."""
        return Ring(self.rows, jnp.zeros_like(self.n_written))

    def sample(self, key: Key[Array, ""], n: int) -> tuple[PyTree[Array], Bool[Array, " n"]]:
        """`n` different rows, every set of them equally likely, and which of them are real.

        If the ring keeps fewer than `n`, each of its rows comes once and the rest is marked False.
        """
        places, real = self.places(key, n)
        return jax.tree.map(lambda leaf: leaf[places], self.rows), real

    def draw(self, key: Key[Array, ""], n: int) -> PyTree[Array]:
        """`n` rows, uniformly and with replacement: the minibatch of an off-policy learner. Zeros if there are none."""
        places = jax.random.randint(key, (n,), 0, jnp.maximum(self.size, 1))
        return jax.tree.map(lambda leaf: leaf[places], self.rows)

    def places(self, key: Key[Array, ""], n: int) -> tuple[Int[Array, " n"], Bool[Array, " n"]]:
        """Where the rows of `sample` stand: Floyd's algorithm, whose cost does not depend on the capacity.

        Reference: Bentley and Floyd, Programming Pearls: A sample of brilliance, 1987.
        """
        last = jnp.maximum(self.size - n, 0) + jnp.arange(n)
        drawn = jax.random.randint(key, (n,), 0, last + 1)

        def choose(chosen: Int[Array, " n"], i: Int[Array, ""]) -> tuple[Int[Array, " n"], None]:
            taken = jnp.any((chosen == drawn[i]) & (jnp.arange(n) < i))
            return chosen.at[i].set(jnp.where(taken, last[i], drawn[i])), None

        chosen, _ = jax.lax.scan(choose, jnp.zeros(n, jnp.int32), jnp.arange(n))
        real = jnp.arange(n) < self.size
        return jnp.where(real, chosen, 0), real
