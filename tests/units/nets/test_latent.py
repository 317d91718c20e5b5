from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.core.spaces import Box, Discrete
from fledge.core.types import Token
from fledge.nets.blocks import MLP, Linear
from fledge.nets.decoders import CellRewardDecoder, PairMLP, StateDecoder, TaskDecoder
from fledge.nets.latent import chain_kl, posterior

# q_0 = N(1, 1), q_1 = N(1, 4) of one latent number, as mean and log-variance
CHAIN = jnp.asarray([[[1.0, 0.0]], [[1.0, np.log(4.0)]]])


def test__posterior__second_half__is_the_log_variance():
    assert float(jnp.exp(posterior(CHAIN[1]).log_std)[0, 0]) == pytest.approx(2.0)


def test__chain_kl__two_normals__is_what_the_formula_gives_by_hand():
    # KL(N(1,1) ‖ N(0,1)) = ½; KL(N(1,4) ‖ N(1,1)) = ½ (4 − 1 − log 4)
    np.testing.assert_allclose(chain_kl(CHAIN)[:, 0], [0.5, 0.5 * (3 - np.log(4))], rtol=1e-6)


def test__chain_kl__to_the_standard_normal__is_what_the_formula_gives_by_hand():
    # KL(N(1,4) ‖ N(0,1)) = ½ (4 + 1 − 1 − log 4)
    np.testing.assert_allclose(chain_kl(CHAIN, to_standard=True)[:, 0], [0.5, 0.5 * (4 - np.log(4))], rtol=1e-6)


def test__chain_kl__gradient__reaches_the_earlier_posterior_too():
    gradient = jax.grad(lambda first: chain_kl(CHAIN.at[0].set(first))[1, 0])(CHAIN[0])
    np.testing.assert_allclose(gradient[0, 1], -1.5, rtol=1e-5)  # ∂/∂logσ₀² of ½ (4/σ₀² + log σ₀²) at σ₀² = 1


@pytest.fixture(scope="module")
def steps():
    """Three steps of two trials on a 2×2 grid: cells (0,1), (1,1), (1,1) and (1,0) thrice; the last of each pays."""
    cells = jnp.asarray([[[0, 1], [1, 0]], [[1, 1], [1, 0]], [[1, 1], [1, 0]]], jnp.float32)
    reward = jnp.asarray([[-0.1, -0.1], [-0.1, -0.1], [1.0, 1.0]])
    no = jnp.zeros((3, 2), bool)
    return Token(cells, cells, jnp.zeros((3, 2), jnp.int32), reward, no, cells, no)


def test__cell_decoder__error__is_the_cross_entropy_of_each_entered_cell(steps):
    decoder = CellRewardDecoder.init(jax.random.key(0), 2, 2, 2, (4,))
    latents = jax.random.normal(jax.random.key(1), (4, 2, 2))
    weights = jnp.asarray([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    p = np.asarray(decoder.probabilities(latents))
    expected = np.zeros((4, 2))
    for (i, b), weight in np.ndenumerate(np.asarray(weights)):
        x, y = np.asarray(steps.final_observation[i, b], int)
        chance = p[:, b, 2 * x + y]
        expected[:, b] -= weight * np.log(chance if steps.reward[i, b] == 1 else 1 - chance)
    np.testing.assert_allclose(decoder(latents, steps, weights), expected, rtol=1e-5)


def test__pair_mlp__every_pair__is_the_network_on_latent_and_step_side_by_side():
    pair = PairMLP.init(jax.random.key(0), 2, 3, (5,), 1)
    latents, steps = jax.random.normal(jax.random.key(1), (4, 2, 2)), jax.random.normal(jax.random.key(2), (3, 2, 3))
    first = Linear(jnp.concatenate([pair.of_latent.weight, pair.of_step]), pair.of_latent.bias)
    whole = MLP((first, *pair.rest.layers), "relu")
    for t in range(4):
        for i in range(3):
            wanted = whole(jnp.concatenate([latents[t], steps[i]], axis=-1))
            np.testing.assert_allclose(pair(latents, steps)[t, i], wanted, atol=1e-5)


def test__state_decoder__error__vanishes_where_the_prediction_is_right(steps):
    decoder = StateDecoder.init(jax.random.key(0), 2, Box(2), Discrete(5), (4,))
    constant = jax.tree.map(jnp.zeros_like, decoder)
    still = Token(*(jax.tree.map(jnp.zeros_like, getattr(steps, f)) for f in ("observation",) * 2), *[
        steps.action, steps.reward, steps.done, jnp.zeros_like(steps.final_observation), steps.start
    ])  # fmt: skip
    assert float(jnp.max(constant(jnp.zeros((4, 2, 2)), still, jnp.ones((3, 2))))) == 0.0


def test__task_decoder__ids__are_held_against_by_cross_entropy():
    decoder = jax.tree.map(jnp.zeros_like, TaskDecoder.init(jax.random.key(0), 2, (), 4))
    errors = decoder(jnp.zeros((3, 2, 2)), jnp.asarray([0, 3]))
    np.testing.assert_allclose(errors, np.log(4.0), rtol=1e-6)


def test__task_decoder__many_outputs__errs_as_if_it_had_decoded_them():
    keys = jax.random.split(jax.random.key(1), 3)
    decoder = TaskDecoder.init(keys[0], 2, (4,), 50)
    latents, target = jax.random.normal(keys[1], (3, 2, 2)), jax.random.normal(keys[2], (2, 50))
    wanted = jnp.mean((decoder.net(latents) - target) ** 2, axis=-1)
    np.testing.assert_allclose(decoder(latents, target), wanted, rtol=1e-5)


def test__task_decoder__wide_ids__are_a_cross_entropy():
    decoder = jax.tree.map(jnp.zeros_like, TaskDecoder.init(jax.random.key(0), 2, (2,), 50))
    found = decoder(jnp.ones((3, 2, 2)), jnp.asarray([1, 49]))
    np.testing.assert_allclose(found, np.full((3, 2), np.log(50)), rtol=1e-6)
