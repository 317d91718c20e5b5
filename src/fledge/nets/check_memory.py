"""Whether a memory keeps the shapes that it promised: asked once, when it is made, at no cost to training."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from fledge.core.contracts import Memory
from fledge.core.errors import ContractError


def require_shapes(memory: Memory, token_size: int) -> None:
    """Nothing, if state and output keep their shapes and dtypes, in `step` and in `scan`. Nothing is computed.

    Args:
        memory: any.
        token_size: width of its tokens.

    Raises:
        ContractError: names what changed, from what to what, and the cure.
    """
    name = type(memory).__name__
    batch, time = 2, 3
    begin = jax.eval_shape(lambda: jax.tree.map(lambda x: jnp.broadcast_to(x, (batch, *jnp.shape(x))), memory.begin()))
    tokens = jax.ShapeDtypeStruct((time, batch, token_size), jnp.float32)
    token, resets = jax.ShapeDtypeStruct(tokens.shape[1:], tokens.dtype), jax.ShapeDtypeStruct((time, batch), bool)
    state, out = jax.eval_shape(memory.step, begin, token)
    _require_state(f"{name}.step", begin, state)
    _require_width(f"{name}.step", out, (batch, memory.out_size))
    state, outs = jax.eval_shape(memory.scan, begin, tokens, resets)
    _require_state(f"{name}.scan", begin, state)
    _require_width(f"{name}.scan", outs, (time, batch, memory.out_size))


def _require_state(verb: str, before: PyTree, after: PyTree) -> None:
    wanted, found = _said(before), _said(after)
    if found != wanted:
        raise ContractError(
            f"{verb} was handed a state of {wanted} and returned one of {found} (batch axis first). A state keeps its "
            "structure, shapes and dtypes from begin() on: return it as it came, or let begin() have the final shape."
        )


def _require_width(verb: str, out: Any, wanted: tuple[int, ...]) -> None:
    if out.shape != wanted:
        raise ContractError(
            f"{verb} puts out an array of shape {out.shape}, but out_size promises {wanted}. Make out_size the width "
            "of the output."
        )


def _said(state: PyTree) -> str:
    """Structure, shapes and dtypes in a person's words: `float32[2, 8]`, `(float32[2, 8], int32[2])`."""
    flat, structure = jax.tree.flatten(state)
    leaves = [f"{leaf.dtype}{list(leaf.shape)}" for leaf in flat]
    if flat and flat[0] is state:
        return leaves[0]
    return str(jax.tree.unflatten(structure, leaves)).replace("'", "")
