"""Checkpoints: any pytree of arrays in one file, written whole or not at all, read back to the bit.

A checkpoint is a safetensors file whose arrays are keyed by their path in the tree; random keys are kept as their key
data, and dtypes that the format has no name for as raw bytes. Its header holds the format's version, a checksum of the
arrays and a small JSON value of the caller's.
"""

from __future__ import annotations

import json
import os
import secrets
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree, Shaped
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fledge.core.errors import DataError, ShapeError

FORMAT = 1
KEEP = 2
_NATIVE = {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"} | {
    "float16",
    "float32",
    "float64",
}
_Array = Shaped[np.ndarray, "..."]


class Damaged(DataError):
    """A checkpoint file that is cut short or was changed: the one before it may still be whole."""


@dataclass(frozen=True)
class Checkpoint:
    """What was saved."""

    tree: PyTree
    step: int
    about: dict[str, Any]
    """The caller's JSON."""
    path: Path


def save_checkpoint(
    folder: Path, tree: PyTree, *, step: int, about: Mapping[str, Any] | None = None, keep: int = KEEP
) -> Path:
    """Write `folder/step-…` and delete all but the newest `keep`. A kill at any moment leaves the older ones whole.

    Args:
        folder: made if it is not there.
        tree: a pytree of arrays (random keys included).
        step: orders the checkpoints of a folder.
        about: kept beside the arrays, as JSON.
        keep: how many to keep.

    Raises:
        DataError: a leaf is not an array, or the disk cannot be written.
    """
    folder = Path(folder)
    arrays, kinds = _arrays(tree)
    header = {"format": FORMAT, "step": step, "kinds": kinds, "about": dict(about or {}), "checksum": _checksum(arrays)}
    path = folder / f"step-{step:012d}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(path, save(arrays, metadata={"fledge": json.dumps(header)}))
        for old in _newest_first(folder)[keep:]:
            old.unlink(missing_ok=True)
        for left in folder.glob(".step-*"):
            left.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"The checkpoint {path} cannot be written: {error}. Earlier ones are untouched.") from error
    return path


def load_checkpoint(folder: Path, like: PyTree, *, tell: Callable[[str], None] = lambda line: None) -> Checkpoint:
    """The newest checkpoint that is whole.

    Args:
        folder: where `save_checkpoint` wrote.
        like: a tree of the same structure (arrays or `jax.ShapeDtypeStruct`s): what the leaves are put into.
        tell: called with a sentence if a damaged checkpoint was passed over.

    Raises:
        DataError: there is none that is whole, or it is of another format.
        ShapeError: its arrays are not those of `like`; names every path that differs.
    """
    paths = _newest_first(folder)
    if not paths:
        raise DataError(f"There is no checkpoint in {folder}. Check the folder's name, or run the recipe again.")
    for i, path in enumerate(paths):
        try:
            arrays, header = _read(path)
        except Damaged as error:
            if i + 1 == len(paths):
                raise DataError(f"{error} There is no earlier checkpoint to fall back to: run again.") from None
            tell(f"{error} Going on from the one before it, {paths[i + 1].name}.")
        else:
            return Checkpoint(_restore(arrays, header["kinds"], like, path), header["step"], header["about"], path)
    raise AssertionError("unreachable")


def has_checkpoint(folder: Path) -> bool:
    """Whether there is anything to load."""
    return bool(_newest_first(folder))


def peek(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """Step and JSON of the newest whole checkpoint, without its arrays' structure; None where there is none."""
    for path in _newest_first(folder):
        try:
            header = _read(path)[1]
        except Damaged:
            continue
        return header["step"], header["about"]
    return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted(Path(folder).glob("step-*.safetensors"), reverse=True)


def _write(path: Path, content: bytes) -> None:
    """All of `content` at `path`, or nothing: a temporary file beside it, flushed to the disk, then renamed."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name survives a power cut too
    finally:
        os.close(folder)


def _arrays(tree: PyTree) -> tuple[dict[str, _Array], dict[str, str]]:
    """The leaves by path, and the kind of those that are not plain numbers."""
    arrays, kinds = {}, {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path) or "."
        kind = _kind(leaf, name)
        if kind.startswith("key:"):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf, order="C")
        if kind not in _NATIVE:
            kinds[name] = kind
        if kind.startswith("bits:"):
            array = array[..., None].view(np.uint8)
        arrays[name] = array
    return arrays, kinds


def _kind(leaf: Any, name: str) -> str:
    if not isinstance(leaf, (jax.Array, np.ndarray, np.generic)):
        raise DataError(
            f"The leaf {name} is a {type(leaf).__name__}; only arrays can be saved. Make it a static field."
        )
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return f"key:{jax.random.key_impl(jax.numpy.asarray(leaf))}"
    return str(leaf.dtype) if str(leaf.dtype) in _NATIVE else f"bits:{leaf.dtype}"


def _checksum(arrays: Mapping[str, _Array]) -> int:
    total = 0
    for name in sorted(arrays):
        total = zlib.crc32(arrays[name].tobytes(), zlib.crc32(name.encode(), total))
    return total


def _read(path: Path) -> tuple[dict[str, _Array], dict[str, Any]]:
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: np.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        raise Damaged(f"The checkpoint {path} is damaged ({error}).") from None
    if "fledge" not in metadata:
        raise DataError(f"{path} is a safetensors file, but no checkpoint of Fledge's. Point to a run folder.")
    header = json.loads(metadata["fledge"])
    if header.get("format") != FORMAT:
        raise DataError(
            f"{path} is a checkpoint of format {header.get('format')}, but this Fledge reads format {FORMAT}. "
            "Use the version that wrote it (record.json names it), or run the recipe again."
        )
    if header["checksum"] != _checksum(arrays):
        raise Damaged(f"The checkpoint {path} is damaged (its arrays do not match their checksum).")
    return arrays, header


def _restore(arrays: Mapping[str, _Array], kinds: Mapping[str, str], like: PyTree, path: Path) -> PyTree:
    """The arrays in the structure of `like`."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    wanted = {jax.tree_util.keystr(place) or ".": leaf for place, leaf in leaves}
    faults = [f"{name}: is in the checkpoint, but nothing asks for it" for name in arrays if name not in wanted]
    found = {}
    for name, leaf in wanted.items():
        if name not in arrays:
            faults.append(f"{name}: is not in the checkpoint")
            continue
        array = _revive(arrays[name], kinds.get(name))
        if array.shape != leaf.shape or array.dtype != leaf.dtype:
            faults.append(f"{name}: {array.dtype}{list(array.shape)} came, {leaf.dtype}{list(leaf.shape)} was wanted")
        found[name] = array
    if faults:
        raise ShapeError(
            f"The checkpoint {path} holds other arrays than this program has:\n"
            + "\n".join(f"  {fault}" for fault in sorted(faults))
            + "\nLoad it with the settings that it was made with (config.toml of its run folder)."
        )
    return jax.tree_util.tree_unflatten(structure, [found[name] for name in wanted])


def _revive(array: _Array, kind: str | None) -> Any:
    if kind is None:
        return array if array.dtype in (np.int64, np.uint64, np.float64) else jax.numpy.asarray(array)
    word, _, name = kind.partition(":")
    if word == "key":
        return jax.random.wrap_key_data(jax.numpy.asarray(array), impl=name)
    return jax.numpy.asarray(array.view(jax.numpy.dtype(name))[..., 0])
