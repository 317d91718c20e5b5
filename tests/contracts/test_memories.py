"""The exam that every registered memory takes: one story, told step by step, at once, or in pieces."""

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.agents.memories import MEMORIES
from fledge.learn.rollout import select
from fledge.nets.recurrent import LinearMemory

TIME, BATCH, WIDTH, SIZE = 7, 3, 5, 4


class Compiled:
    """A memory whose verbs are compiled once for all tests. `by_steps` tells the story of `scan` with `step` alone."""

    def __init__(self, memory):
        self.memory = memory
        self.scan = jax.jit(lambda *args: memory.scan(*args))
        self.by_steps = jax.jit(lambda *args: by_steps(memory, *args))
        self.gradients = gradients(lambda memory, *args: memory.scan(*args), memory), gradients(by_steps, memory)


@cache
def build(name):
    return Compiled(MEMORIES[name][0](jax.random.key(0), WIDTH, SIZE))


@pytest.fixture(params=sorted(MEMORIES))
def compiled(request):
    return build(request.param)


@pytest.fixture
def tokens():
    return jax.random.normal(jax.random.key(1), (TIME, BATCH, WIDTH))


@pytest.fixture
def resets():
    return jnp.zeros((TIME, BATCH), bool).at[0].set(True).at[4, 1].set(True).at[5, 2].set(True)


def begin(memory):
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (BATCH, *x.shape)), memory.begin())


def by_steps(memory, state, tokens, resets):
    def step(state, x):
        token, reset = x
        return memory.step(select(reset, begin(memory), state), token)

    return jax.lax.scan(step, state, (tokens, resets))


def gradients(tell, memory):
    """Of a weighted sum of sines of the outputs: by the weights, the tokens and the numbers of the initial state."""
    weight = jax.random.normal(jax.random.key(2), (TIME, BATCH, memory.out_size))

    def loss(memory, tokens, numbers, counters, resets):
        return jnp.sum(weight * jnp.sin(tell(memory, eqx.combine(numbers, counters), tokens, resets)[1]))

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    return lambda numbers, counters, tokens, resets: gradient(memory, tokens, numbers, counters, resets)


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), a, b)


def test_steps_and_scan_tell_the_same_story(compiled, tokens, resets):
    start = begin(compiled.memory)
    close(compiled.scan(start, tokens, resets), compiled.by_steps(start, tokens, resets))


def test_a_scan_in_pieces_is_the_whole_scan(compiled, tokens, resets):
    whole_state, whole = compiled.scan(begin(compiled.memory), tokens, resets)
    state, first = compiled.scan(begin(compiled.memory), tokens[:3], resets[:3])
    state, second = compiled.scan(state, tokens[3:], resets[3:])
    close((state, jnp.concatenate([first, second])), (whole_state, whole))


def test_nothing_crosses_a_reset(compiled, tokens, resets):
    changed = tokens.at[:4, 1].add(3.0)
    _, before = compiled.scan(begin(compiled.memory), tokens, resets)
    _, after = compiled.scan(begin(compiled.memory), changed, resets)
    np.testing.assert_array_equal(before[4:, 1], after[4:, 1])


def test_the_future_does_not_reach_the_past(compiled, tokens, resets):
    _, before = compiled.scan(begin(compiled.memory), tokens, resets)
    _, after = compiled.scan(begin(compiled.memory), tokens.at[5:].add(1.0), resets)
    np.testing.assert_allclose(before[:5], after[:5], atol=1e-6)


def test_a_batch_is_its_members_one_by_one(compiled, tokens, resets):
    state, together = compiled.scan(begin(compiled.memory), tokens, resets)
    one, alone = compiled.scan(compiled.memory.begin(), tokens[:, 1], resets[:, 1])
    close((one, alone), (jax.tree.map(lambda x: x[1], state), together[:, 1]))


def test_gradients_of_the_scan_are_those_of_the_steps(compiled, tokens, resets):
    start = eqx.partition(begin(compiled.memory), eqx.is_inexact_array)
    by_scan, by_step = (gradient(*start, tokens, resets) for gradient in compiled.gradients)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), by_scan, by_step)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(by_scan))


def test_the_initial_state_gets_its_gradient(compiled, tokens):
    no_resets = jnp.zeros((TIME, BATCH), bool)
    state, _ = compiled.scan(begin(compiled.memory), tokens[:3], no_resets[:3])
    numbers, counters = eqx.partition(state, eqx.is_inexact_array)
    numbers = jax.tree.map(lambda x: x + 0.3, numbers)
    by_scan, by_step = (gradient(numbers, counters, tokens, no_resets)[2] for gradient in compiled.gradients)
    close(by_scan, by_step)


def test_the_output_has_the_promised_width_and_the_state_its_shape(compiled, tokens, resets):
    memory = compiled.memory
    state, outputs = compiled.scan(begin(memory), tokens, resets)
    assert outputs.shape == (TIME, BATCH, memory.out_size)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(
        lambda x: (x.shape, x.dtype), begin(memory)
    )


def test_the_parallel_and_the_sequential_linear_scan_agree(tokens, resets):
    sequential = LinearMemory.init(jax.random.key(0), WIDTH, SIZE)
    parallel = LinearMemory.init(jax.random.key(0), WIDTH, SIZE, parallel=True)

    def loss(memory, tokens):
        state, out = memory.scan(begin(memory), tokens, resets)
        return jnp.sum(jnp.cos(out)) + jnp.sum(state**2), out

    (_, a), grad_a = jax.value_and_grad(loss, argnums=1, has_aux=True)(sequential, tokens)
    (_, b), grad_b = jax.value_and_grad(loss, argnums=1, has_aux=True)(parallel, tokens)
    close((a, grad_a), (b, grad_b))
