"""What the exam for environments promises to look at, and how it says what it found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

CHECKS: dict[str, str] = {
    "properties": "horizon, spaces and flags are what the contract says",
    "runs": "no method raises",
    "traces": "every method works on traced arrays (under jit)",
    "tasks": "tasks of all splits are arrays of one structure, shape and dtype",
    "describe": "describe returns a line of text",
    "listed": "enumerate stacks tasks, and sample draws only from them",
    "disjoint": "no task of test or ood is in train, if the family promises so",
    "observation": "observations have the shape and dtype of their space",
    "inside": "observations lie inside their space",
    "action": "the action space draws actions that it contains",
    "timestep": "step returns a state and a TimeStep of scalars (float32 reward, bool flags)",
    "state": "the state keeps its structure, shapes and dtypes from step to step",
    "pure": "the same key gives the same result",
    "jit": "compiled and plain Python agree",
    "vmap": "a batch and one by one agree",
    "compiles once": "a second call does not compile again",
    "reward": "rewards are finite",
    "horizon": "episodes end after `horizon` steps at the latest",
    "fixed length": "if fixed_length, every episode takes exactly `horizon` steps",
    "no reset": "step neither resets nor ends trials by itself",
    "trial": "a trial ends after exactly its episodes, and keeps terminal and start observations apart",
    "task vector": "task_vector is a finite float vector of one size",
    "optimum": "optimal_return has one entry per episode, and random play does not beat it",
    "picture": "position is an (x, y) and scene can be written as JSON",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One broken promise: which check, what came, what was wanted, what to do."""

    check: str
    """A key of `CHECKS`."""
    came: str
    wanted: str
    cure: str

    def __str__(self) -> str:
        return f"[{self.check}] {self.came}; wanted {self.wanted}. {self.cure}"


@dataclasses.dataclass(frozen=True)
class Failure:
    """A call that raised, in place of its result."""

    finding: Finding


def attempt(what: str, call: Callable[[], Any]) -> Any:
    """What `call` returns, or the `Failure` that says how it raised (an exam must survive whatever it examines)."""
    try:
        return call()
    except jax.errors.JAXTypeError as error:
        cure = "Branch on arrays with jnp.where or jax.lax.cond, and let no array become a Python number."
        return Failure(Finding("traces", f"{what} raised {_brief(error)}", "a function of traced arrays", cure))
    except Exception as error:
        return Failure(Finding("runs", f"{what} raised {_brief(error)}", "a result", "Run it alone to see where."))


def _brief(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def quick_jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` that spends no time on making the program fast: an exam runs it once or twice."""
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(function, compiler_options=options)


def host(tree: PyTree) -> PyTree:
    """The tree in NumPy (random keys as their data), to slice and compare without compiling."""
    return jax.tree.map(lambda leaf: np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf), tree)


def head(tree: PyTree, n: int | None = None) -> PyTree:
    """The first row of stacked trees, or the first `n`, as JAX arrays."""
    rows = 0 if n is None else slice(n)
    return jax.tree.map(lambda leaf: leaf[rows] if _is_key(leaf) else jnp.asarray(np.asarray(leaf)[rows]), tree)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)


def spell(x: Any) -> str:
    """Shape and dtype of an array (or of its abstract twin), as in `float32[2]`; else its type."""
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return f"{x.dtype}[{','.join(map(str, x.shape))}]"
    return f"a {type(x).__name__}"


def leaves(tree: PyTree) -> dict[str, Any]:
    """The leaves by their path, `the value` itself where the tree is one leaf."""
    return {
        jax.tree_util.keystr(path) or "the value": leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def structure_changes(before: PyTree, after: PyTree) -> Iterator[tuple[str, str]]:
    """Pairs (what came, what was wanted) wherever two trees differ in structure, shape or dtype."""
    old, new = leaves(before), leaves(after)
    shape_before: Any = jax.tree.structure(before)
    shape_after: Any = jax.tree.structure(after)
    if shape_before != shape_after:
        if old.keys() != new.keys():
            yield f"entries {', '.join(new) or 'none'}", f"entries {', '.join(old) or 'none'}"
        else:
            yield str(shape_after), str(shape_before)
        return
    for path, leaf in new.items():
        if spell(leaf) != spell(old[path]):
            yield f"{path} {spell(leaf)}", f"{spell(old[path])}"


def value_change(a: PyTree, b: PyTree) -> str | None:
    """Where two trees of one structure differ in value beyond rounding (1e-4 relative); None if they agree."""
    other = leaves(host(b))
    for path, x in leaves(host(a)).items():
        y = other[path]
        same = (
            np.allclose(x, y, rtol=1e-4, atol=1e-5, equal_nan=True)
            if np.issubdtype(x.dtype, np.floating)
            else np.array_equal(x, y)
        )
        if not same:
            return f"{path} {_short(x)} and {_short(y)}"
    return None


def _short(x: np.ndarray) -> str:
    return np.array2string(x, precision=4, threshold=6).replace("\n", " ")
