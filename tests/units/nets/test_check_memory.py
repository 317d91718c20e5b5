"""A memory that does not keep the shapes it promised is refused when it is made, with the cure."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from fledge.agents.memories import MEMORIES, make_memory
from fledge.core.contracts import Memory
from fledge.core.errors import ContractError
from fledge.nets.check_memory import require_shapes


class Growing(Memory):
    """Keeps every token it ever saw: its state grows by one row each step."""

    @property
    def out_size(self):
        return 3

    def begin(self):
        return jnp.zeros(3)

    def step(self, state, token):
        return jnp.concatenate([state, token], axis=-1), token

    def scan(self, state, tokens, resets):
        return state, tokens


class Counting(Growing):
    """Its state turns from whole numbers into floats, and only in `scan`."""

    def begin(self):
        return {"count": jnp.zeros((), jnp.int32)}

    def step(self, state, token):
        return state, token

    def scan(self, state, tokens, resets):
        return {"count": state["count"] + 0.5}, tokens


class Wide(Growing):
    """Promises another width than it puts out."""

    @property
    def out_size(self):
        return 4

    def step(self, state, token):
        return state, token


@pytest.mark.parametrize(
    ("memory", "message"),
    [
        (
            Growing(),
            r"Growing\.step was handed a state of float32\[2, 3\] and returned one of float32\[2, 6\] .* let begin",
        ),
        (Counting(), r"Counting\.scan was handed a state of {count: int32\[2\]} and returned one of {count: float32"),
        (Wide(), r"Wide\.step puts out an array of shape \(2, 3\), but out_size promises \(2, 4\)\. Make out_size"),
    ],
)
def test_a_memory_that_breaks_its_promise_is_refused_with_the_cure(memory, message):
    with pytest.raises(ContractError, match=message):
        require_shapes(memory, 3)


def test_a_row_of_the_table_is_examined_when_a_memory_is_made(monkeypatch):
    monkeypatch.setitem(MEMORIES, "growing", (lambda key, n_in, size: Growing(), "grows"))
    with pytest.raises(ContractError, match=r"returned one of float32\[2, 6\]"):
        make_memory("growing", jax.random.key(0), 3, 3, horizon=5)


@pytest.mark.parametrize("name", MEMORIES)
def test_every_shipped_memory_keeps_its_shapes(name):
    require_shapes(make_memory(name, jax.random.key(0), 5, 8, horizon=4), 5)
