"""Gradients taken in pieces: less memory, the same gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import Array, Float, Int

from fledge.core.errors import ConfigError
from fledge.learn.pieces import gradient_in_pieces
from fledge.learn.ppo import PPOSettings

EXAMPLES = jax.random.normal(jax.random.key(0), (12, 3))
ROWS = jax.random.permutation(jax.random.key(1), 12)[:8]


def gradient(rows: Int[Array, " rows"]) -> tuple[Float[Array, 3], dict[str, Array]]:
    def loss(w: Float[Array, 3]) -> tuple[Array, dict[str, Array]]:
        value = jnp.mean(jnp.tanh(EXAMPLES[rows] @ w) ** 2)
        return value, {"loss": value}

    return jax.grad(loss, has_aux=True)(jnp.array([0.5, -1.0, 2.0]))


@pytest.mark.parametrize(("piece_rows", "n_pieces"), [(8, 1), (4, 2), (3, 4), (1, 8)])
def test__gradient_in_pieces__any_piece_size__is_the_gradient_of_all_rows(piece_rows: int, n_pieces: int) -> None:
    whole, metrics = gradient(ROWS)
    mean, by_piece = gradient_in_pieces(gradient, ROWS, piece_rows)
    assert by_piece["loss"].shape == (n_pieces,)
    assert jnp.allclose(jnp.mean(by_piece["loss"]), metrics["loss"], rtol=1e-5)
    assert jnp.allclose(mean, whole, rtol=1e-5, atol=1e-6)


def test__ppo_settings__piece_of_no_rows__says_what_is_wanted() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        PPOSettings(piece_rows=0)
