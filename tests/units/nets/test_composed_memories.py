"""Memories made of memories: order, splits, sizes, and how they begin."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.agents.analyse import latent_memory
from fledge.agents.memories import MEMORIES, make_memory
from fledge.core.errors import ConfigError
from fledge.nets.aggregate import MaxAggregator
from fledge.nets.memories import AggregatedMemory, PerStepMemory
from fledge.nets.recurrent import GRUMemory, LSTMMemory

TOKEN, SIZE, LENGTH = 5, 8, 12
SETS = ("amrl-nornn", "cnp", "pearl", "splagger-nornn")


def last(memory, tokens):
    return jax.jit(lambda tokens: memory.scan(memory.begin(), tokens, jnp.zeros(len(tokens), bool))[1][-1])(tokens)


def change_by_order(name):
    memory = MEMORIES[name][0](jax.random.key(0), TOKEN, SIZE)
    tokens = jax.random.normal(jax.random.key(1), (LENGTH, TOKEN))
    both = jnp.stack([tokens, jax.random.permutation(jax.random.key(2), tokens)], axis=1)
    begin = jax.tree.map(lambda x: jnp.broadcast_to(x, (2, *x.shape)), memory.begin())
    outputs = jax.jit(lambda *args: memory.scan(*args)[1])(begin, both, jnp.zeros((LENGTH, 2), bool))
    return float(jnp.max(jnp.abs(outputs[-1, 0] - outputs[-1, 1])))


@pytest.mark.parametrize("name", SETS)
def test_memories_of_sets_do_not_know_the_order_of_their_tokens(name):
    assert change_by_order(name) < 1e-6


@pytest.mark.parametrize("name", sorted({*MEMORIES} - {*SETS}))
def test_all_other_memories_know_the_order_of_their_tokens(name):
    assert change_by_order(name) > 1e-3


@pytest.mark.parametrize("name", ["splagger", "amrl"])
def test_a_split_memory_shows_half_of_its_encoder_and_the_maximum_of_the_other_half(name):
    memory = make_memory(name, jax.random.key(0), TOKEN, SIZE, horizon=LENGTH)
    tokens = jax.random.normal(jax.random.key(1), (LENGTH, TOKEN))
    h = memory.encoder.scan(memory.encoder.begin(), tokens, jnp.zeros(LENGTH, bool))[1]
    wanted = jnp.concatenate([h[-1, :4], jnp.maximum(jnp.max(h[:, 4:], axis=0), 0.0)])
    np.testing.assert_allclose(last(memory, tokens), wanted, atol=1e-6)


def test_a_split_of_an_odd_width_is_refused_with_the_cure():
    with pytest.raises(ConfigError, match=r"A split memory cuts 7 values into two equal halves, and 7 is odd\. Use"):
        make_memory("splagger", jax.random.key(0), TOKEN, 7, horizon=LENGTH)


def test_an_aggregator_of_another_width_than_its_encoder_is_refused():
    with pytest.raises(ConfigError, match="reads 3 values, but the encoder hands it 8"):
        AggregatedMemory(PerStepMemory.init(jax.random.key(0), TOKEN, SIZE), MaxAggregator(3), False)


@pytest.mark.parametrize(
    ("name", "published", "fewer"),
    [
        # PyTorch's cells have two biases where one is enough: all of them for an LSTM (4 · 256), those of the reset and
        # update gates for a GRU (2 · 256; behind the reset gate both are needed). And each of its aggregators owns a
        # temperature, used or not.
        ("rnn", 265_752, 512),
        ("splagger", 265_752 + 1, 512 + 1),
        ("amrl", 265_752 + 1, 512 + 1),
        ("splagger-softmax", 265_752 + 1, 512),
        ("splagger-nornn", 26_905, 1),
        ("cnp", 26_905, 1),
        ("lstm", 352_280, 1024),
        ("inv-init", 352_280, 1024),
    ],
)
def test_encoders_have_the_published_number_of_parameters_but_for_pytorchs_spare_ones(name, published, fewer):
    memory = jax.eval_shape(latent_memory(name, 80, 256, 12), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(memory)) == published - fewer


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("rnn", 256),
        ("splagger", 384),
        ("amrl", 384),
        ("splagger-avg", 385),
        ("splagger-nosplit", 512),
        ("splagger-nornn", 256),
        ("cnp", 257),
        ("lstm", 512),
    ],
)
def test_states_have_the_published_size(name, size):
    begin = jax.eval_shape(lambda key: make_memory(name, key, 80, 256, horizon=10).begin(), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(begin)) == size


def test_inv_init__as_published__is_a_sum_read_through_an_output_gate():
    memory = LSTMMemory.invariant(jax.random.key(0), TOKEN, SIZE)
    tokens = jax.random.normal(jax.random.key(1), (LENGTH, TOKEN))
    gates = tokens @ memory.project.weight
    wanted = jax.nn.sigmoid(gates[-1, 3 * SIZE :]) * jnp.tanh(jnp.sum(jnp.tanh(gates[:, 2 * SIZE : 3 * SIZE]), axis=0))
    np.testing.assert_allclose(last(memory, tokens), wanted, atol=1e-5)


@pytest.mark.parametrize(("epsilon", "learns"), [(1e-4, False), (1e-2, True)])
def test_inv_init__gates_so_open_that_single_precision_calls_them_one__never_learn(epsilon, learns):
    memory = LSTMMemory.invariant(jax.random.key(0), TOKEN, SIZE, epsilon=epsilon)
    tokens = jax.random.normal(jax.random.key(1), (LENGTH, TOKEN))
    gradient = jax.grad(lambda memory: jnp.sum(last(memory, tokens)))(memory)
    assert bool(jnp.any(gradient.project.bias[: 2 * SIZE] != 0)) == learns


def test_gru__stacked__the_gates_together_are_orthogonal():
    memory = GRUMemory.init(jax.random.key(0), TOKEN, SIZE, stacked=True)
    for weight in (memory.weight, memory.project.weight):
        np.testing.assert_allclose(weight @ weight.T, np.eye(len(weight)), atol=1e-5)
