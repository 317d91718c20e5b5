"""One ring of rows per task, all in one pytree: the replay buffers of off-policy meta-learners."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key, PyTree

from fledge.core.errors import ConfigError


class TaskRings(eqx.Module):
    """For each of some tasks the last `capacity` rows, first in, first out.

    A `Ring` with a leading axis of tasks, whose rows are written and read in place: some tasks at a time, without
    taking the others' rows into the hand.
    """

    rows: PyTree[Array]
    """Every leaf has the leading axes (task, capacity)."""
    n_written: Int[Array, " task"]
    """Rows ever written, or since a ring was emptied; those beyond `capacity` overwrote older ones."""

    @classmethod
    def init(cls, row: PyTree, n_tasks: int, capacity: int) -> TaskRings:
        """Empty rings for rows like `row` (arrays, or their shapes and dtypes).

        Raises:
            ConfigError: no task, or no room for a single row.
        """
        if n_tasks < 1 or capacity < 1:
            raise ConfigError(f"Rings need a task and room for a row at least; got {n_tasks} tasks of {capacity} rows.")
        rows = jax.tree.map(lambda leaf: jnp.zeros((n_tasks, capacity, *leaf.shape), leaf.dtype), row)
        return cls(rows, jnp.zeros(n_tasks, jnp.int32))

    @property
    def capacity(self) -> int:
        """Rows that are kept of each task."""
        return jax.tree.leaves(self.rows)[0].shape[1]

    def insert(self, tasks: Int[Array, " chosen"], rows: PyTree[Array]) -> TaskRings:
        """The rings with more rows (chosen, row, …) of *different* tasks; of more than `capacity` the last stay."""
        n = jax.tree.leaves(rows)[0].shape[1]
        kept = min(n, self.capacity)
        places = (self.n_written[tasks][:, None] + jnp.arange(n - kept, n)) % self.capacity
        at = tasks[:, None], places
        written = jax.tree.map(lambda old, new: old.at[at].set(new[:, n - kept :]), self.rows, rows)
        return TaskRings(written, self.n_written.at[tasks].add(n))

    def emptied(self, tasks: Int[Array, " chosen"]) -> TaskRings:
        """The rings without the rows of these tasks."""
        return TaskRings(self.rows, self.n_written.at[tasks].set(0))

    def draw(self, key: Key[Array, ""], tasks: Int[Array, "*batch"], n: int) -> PyTree[Array]:
        """`n` rows of each of these tasks (*batch, n, …), uniformly and with replacement. Zeros if there are none."""
        size = jnp.minimum(self.n_written, self.capacity)[tasks]
        places = jax.random.randint(key, (*tasks.shape, n), 0, jnp.maximum(size, 1)[..., None])
        return jax.tree.map(lambda leaf: leaf[tasks[..., None], places], self.rows)
