"""The transformer's window, its cache and its positions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.agents.build import MemoryAgentSettings, memory_agent
from fledge.core.errors import ConfigError
from fledge.envs.gridnav import GridNav
from fledge.envs.trial import Trial
from fledge.nets.transformer import TransformerMemory, attend, turned

TOKEN, SIZE, HORIZON, LENGTH = 3, 4, 4, 11


@pytest.fixture(scope="module")
def one_layer():
    """One layer, so that what a token is shown is exactly what it attends to."""
    return TransformerMemory.init(jax.random.key(0), TOKEN, SIZE, horizon=HORIZON, n_layers=1)


@pytest.fixture(scope="module")
def memory():
    return TransformerMemory.init(jax.random.key(0), TOKEN, SIZE, horizon=HORIZON)


@pytest.fixture(scope="module")
def tokens():
    return jax.random.normal(jax.random.key(1), (LENGTH, TOKEN))


def scan(memory, tokens, resets=None, state=None):
    resets = jnp.zeros(len(tokens), bool) if resets is None else resets
    state = memory.begin() if state is None else state
    return jax.jit(lambda *args: memory.scan(*args))(state, tokens, resets)


def by_steps(memory, tokens):
    def step(state, token):
        return memory.step(state, token)

    return jax.jit(lambda tokens: jax.lax.scan(step, memory.begin(), tokens))(tokens)


def test_window__each_token_is_felt_for_as_many_tokens_as_the_horizon(one_layer, tokens):
    changed = np.abs(scan(one_layer, tokens.at[2].add(1.0))[1] - scan(one_layer, tokens)[1]).max(axis=1) > 1e-6
    assert changed.tolist() == [2 <= t < 2 + HORIZON for t in range(LENGTH)]


def test_trial_longer_than_the_cache__steps_and_scan_tell_the_same_story(memory, tokens):
    a, b = scan(memory, tokens), by_steps(memory, tokens)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), a, b)


@pytest.mark.parametrize("cut", [1, 3, 8])
def test_trial_longer_than_the_cache__pieces_of_any_length_are_the_whole(memory, tokens, cut):
    resets = jnp.zeros(LENGTH, bool).at[7].set(True)
    whole_state, whole = scan(memory, tokens, resets)
    state, first = scan(memory, tokens[:cut], resets[:cut])
    state, second = scan(memory, tokens[cut:], resets[cut:], state)
    np.testing.assert_allclose(jnp.concatenate([first, second]), whole, atol=2e-6)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), state, whole_state)


def test_positions__are_counted_from_the_trials_start(memory, tokens):
    resets = jnp.zeros(LENGTH, bool).at[5].set(True)
    state, _ = scan(memory, tokens, resets)
    assert state.position.tolist() == [LENGTH - 5]


def test_positions__only_distances_matter():
    q, k = jax.random.normal(jax.random.key(0), (2, 8))
    rates = jnp.array([1.0, 0.1])

    def product(i, j):
        return jnp.dot(turned(q, i * rates, 2), turned(k, j * rates, 2))

    np.testing.assert_allclose(product(3.0, 1.0), product(10.0, 8.0), rtol=1e-5)
    assert abs(product(3.0, 1.0) - product(3.0, 2.0)) > 1e-2


def test_attention__one_head__is_the_softmax_of_scaled_products_over_what_is_allowed():
    q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 4))
    scores = np.exp(q @ k.T / 2.0)
    wanted = scores / scores.sum(axis=1, keepdims=True) @ v
    np.testing.assert_allclose(attend(q, k, v, jnp.ones((2, 2), bool), 1), wanted, atol=1e-5)
    causal = attend(q, k, v, jnp.array([[True, False], [True, True]]), 1)
    np.testing.assert_allclose(causal[0], v[0], atol=1e-6)


def test_agent__a_transformer_has_room_for_a_whole_trial():
    make = memory_agent(MemoryAgentSettings(memory="transformer", memory_size=8), Trial(GridNav(horizon=5), 3))
    assert jax.eval_shape(make, jax.random.key(0)).memory.horizon == 15


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 6}, "share the width in pairs of numbers, so it is a multiple of 4; got 6"),
        ({"size": 8, "n_heads": 0}, "0 attention heads"),
        ({"size": 8, "horizon": 0}, "the most tokens of a trial, at least 1; got 0"),
    ],
)
def test_impossible_sizes_are_refused_with_the_cure(settings, message):
    with pytest.raises(ConfigError, match=message):
        TransformerMemory.init(jax.random.key(0), TOKEN, **settings)
