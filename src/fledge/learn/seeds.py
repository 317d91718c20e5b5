"""The same program for many seeds: a `vmap`, dealt out to the devices there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Key, PyTree


def keys_of(seeds: Sequence[int]) -> Key[Array, " seed"]:
    """One key for each seed, which does not depend on the others."""
    return jax.vmap(jax.random.key)(jnp.asarray(list(seeds), jnp.uint32))


def over_seeds(program: Callable[..., PyTree], keys: Key[Array, " seed"], data: PyTree, settings: Any) -> PyTree:
    """`program(key, data, settings)` for every key; leaves get the leading axis `seed`.

    Keys are dealt out evenly to the local devices (padded by repeating the first). One compilation for each program,
    settings, and shape of data; seed i alone is seed i among many, up to the order of floating-point sums.

    Args:
        program: pure; its settings are hashable.
        keys: one for each seed.
        data: the same for all seeds.
        settings: what is fixed when the program is compiled.
    """
    devices = tuple(jax.local_devices())[: keys.shape[0]]
    n = keys.shape[0]
    padded = keys[jnp.arange(-(-n // len(devices)) * len(devices)) % n]
    found = _compiled(program, settings, devices)(padded, data)
    return jax.tree.map(lambda leaf: leaf[:n], found)


@lru_cache(maxsize=64)
def _compiled(program: Callable[..., PyTree], settings: Any, devices: tuple[Any, ...]) -> Callable[..., PyTree]:
    def side_by_side(keys: Key[Array, " seed"], data: PyTree) -> PyTree:
        return jax.vmap(lambda key: program(key, data, settings))(keys)

    if len(devices) == 1:
        return jax.jit(side_by_side)
    mesh = Mesh(np.array(devices), ("seed",))
    dealt, whole = PartitionSpec("seed"), PartitionSpec()
    spread = jax.shard_map(side_by_side, mesh=mesh, in_specs=(dealt, whole), out_specs=dealt, check_vma=False)
    return jax.jit(spread)
