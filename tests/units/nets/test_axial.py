"""Axial attention: tied maps, and what permutations of rows do."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.core.errors import ConfigError
from fledge.nets.axial import AxialBlock, HeadedAttention, TiedRowAttention

X = jax.random.normal(jax.random.key(1), (5, 6, 8))
BLOCK = AxialBlock.init(jax.random.key(0), 8, 2, 12)
RUN = jax.jit(lambda x, valid=None: BLOCK(x, valid))


def test_equal_rows_are_attended_as_one_row_with_logits_scaled_by_the_root_of_their_number():
    tied = TiedRowAttention(HeadedAttention.init(jax.random.key(2), 8, 2))
    one = X[:1]
    q, k, v = tied.heads.split(one)
    logits = jnp.einsum("rihd,rjhd->hij", q, k) / q.shape[-1] ** 0.5 * 4**0.5
    expected = jnp.einsum("hij,rjhd->rihd", jax.nn.softmax(logits, -1), v).reshape(one.shape)
    assert np.allclose(jax.jit(lambda x: tied(x))(jnp.repeat(one, 4, 0))[0], tied.heads.merge(expected)[0], atol=1e-5)


def test_permuting_rows_permutes_what_comes_out():
    order = jnp.array([3, 0, 4, 1, 2])
    assert np.allclose(RUN(X)[order], RUN(X[order]), atol=1e-5)


def test_a_row_sees_the_others():
    assert not np.allclose(RUN(X)[0], RUN(X.at[4].multiply(-1.0))[0], atol=1e-5)


def test_rows_that_are_not_valid_are_not_seen():
    valid = jnp.array([True, True, True, True, False])
    assert np.allclose(RUN(X, valid)[:4], RUN(X.at[4].multiply(-1.0), valid)[:4], atol=1e-5)


def test_rows_that_only_fill_up_change_nothing():
    valid = jnp.array([True, True, True, False, False])
    assert np.allclose(RUN(X, valid)[:3], RUN(X[:3]), atol=1e-5)


def test_without_context_rows_are_kept_apart():
    alone = jax.jit(lambda x: BLOCK(x, context=False))
    assert np.allclose(alone(X)[0], alone(X.at[1:].multiply(-1.0))[0], atol=1e-5)


def test_heads_have_to_share_the_width():
    with pytest.raises(ConfigError, match="3 attention heads cannot share a width of 8"):
        HeadedAttention.init(jax.random.key(0), 8, 3)
