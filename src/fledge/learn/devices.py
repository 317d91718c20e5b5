"""Who computes what when there are several devices, or a CPU's cores stand for some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

ROWS = "rows"
"""Name of the axis along which the unrolls of a minibatch are shared out."""


@dataclass(frozen=True)
class Placement:
    """A grid of devices, (seed, rows): seeds are dealt to its rows, the unrolls of a minibatch to its columns.

    The devices of one row of the grid hold the same state and act alike; of each minibatch every one takes the gradient
    of its share, and all receive the mean. So nothing but gradients has to travel, and a learner that does not know of
    the axis still computes the same on all of them.
    """

    mesh: Mesh

    @property
    def split(self) -> str | None:
        """The axis to average gradients over, or None where there is one column."""
        return ROWS if self.mesh.shape[ROWS] > 1 else None

    @property
    def sharding(self) -> NamedSharding:
        """Where arrays with the leading axis `seed` lie."""
        return NamedSharding(self.mesh, PartitionSpec("seed"))

    def spread(self, program: Callable[..., Any]) -> Callable[..., Any]:
        """`program` on each part; inputs and outputs have the leading axis `seed`."""
        if self.mesh.size == 1:
            return program
        seeds = PartitionSpec("seed")
        return jax.shard_map(program, mesh=self.mesh, in_specs=seeds, out_specs=seeds, check_vma=False)


def place(n_seeds: int, n_rows: int, devices: Sequence[jax.Device] | None = None) -> Placement:
    """As many devices as seeds can be dealt to in equal parts; on a CPU the rest share the unrolls of minibatches.

    Sharing unrolls pays where a device is one core, which is soon busy; an accelerator's gradient is better left whole.

    Args:
        n_seeds: trained side by side.
        n_rows: unrolls of a minibatch, which a number of columns has to divide.
        devices: to choose from; by default those of this process.
    """
    devices = jax.local_devices() if devices is None else devices
    for_seeds = max(n for n in range(1, len(devices) + 1) if n_seeds % n == 0)
    left = len(devices) // for_seeds if devices[0].platform == "cpu" else 1
    columns = max(n for n in range(1, left + 1) if n_rows % n == 0)
    grid = np.array(devices[: for_seeds * columns]).reshape(for_seeds, columns)
    return Placement(Mesh(grid, ("seed", ROWS)))
