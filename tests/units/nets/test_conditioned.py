"""Generated policies: the published sizes, the statistics at the start, what the latent can do there."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from fledge.core.spaces import Box, Discrete, Space
from fledge.nets.blocks import MLP, Linear
from fledge.nets.conditioned import ConditionedActorCritic
from fledge.nets.hyper import HyperNetwork
from fledge.nets.policy import ActorCritic

XL = {"hidden": (256, 128), "latent_embedding": 25}
CHEETAH, T_MAZE = (Box(20), Box(6, -1.0, 1.0)), (Box(5), Discrete(4))
D_LAT = 12


def size(cls: type, spaces: tuple[Space, Space], **more: object) -> int:
    shapes = jax.eval_shape(lambda key: cls.init(key, 2 * D_LAT, *spaces, **XL, **more), jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize(
    ("spaces", "rnn", "rnn_s", "rnn_hn", "film"),
    [(CHEETAH, 80_638, 217_086, 5_161_261, 243_817), (T_MAZE, 80_374, 212_982, 5_150_707, 239_609)],
    ids=["Cheetah-Dir", "T-LN-P1"],
)
def test_the_published_policies_have_the_published_numbers_of_parameters(
    spaces: tuple[Space, Space], rnn: int, rnn_s: int, rnn_hn: int, film: int
) -> None:
    """FiLM of the released code has one redundant bias more for each action: its actor's last layer keeps one of its
    own beside the generated shift."""
    found = (
        size(ActorCritic, spaces),
        size(ActorCritic, spaces, state_embedding=256),
        size(ConditionedActorCritic, spaces, state_embedding=256),
        size(ConditionedActorCritic, spaces, state_embedding=256, conditioning="film") + spaces[1].n_features,
    )
    assert found == (rnn, rnn_s, rnn_hn, film)


# Initial statistics of the published networks. The released critic draws its last layer from Kaiming uniform with gain
# √2 (√6 times wider than ours), and its last bias, under Bias-HyperInit, from U(−1, 1), not seen in V's spread.

N = 512
released_critic = partial(MLP.init, n_in=256, hidden=(256, 128), n_out=1, out_init="kaiming", out_gain=2.0**0.5)
our_critic = partial(MLP.init, n_in=256, hidden=(256, 128), n_out=1)


@pytest.fixture(scope="module")
def inputs() -> tuple[Array, Array]:
    """Embedded latents and states, from standard normal ones."""
    keys = jax.random.split(jax.random.key(1), 4)
    z = jnp.tanh(Linear.init(keys[0], 2 * D_LAT, 25)(jax.random.normal(keys[1], (N, 2 * D_LAT))))
    return z, jnp.tanh(Linear.init(keys[2], 20, 256)(jax.random.normal(keys[3], (N, 20))))


def statistics(init: str, sample: partial, inputs: tuple[Array, Array]) -> tuple[float, ...]:
    """Spread of first-layer weights, of one weight over latents, of first-layer biases, and of V."""
    z, x = inputs
    draw = jax.jit(lambda key: HyperNetwork.init(key, sample, 25, init=init, gains={"layers.2": 1.0}))
    hyper = draw(jax.random.key(2))
    first, mixture = hyper.network.layers[0], np.concatenate([np.ones((32, 1)), z[:32]], axis=1)
    weights = np.tensordot(mixture, np.asarray(first.weight)[:64], (1, 1))  # of 64 input units
    biases = mixture @ np.asarray(first.bias)
    values = hyper.generate(z)(x)
    return float(weights.std()), float(weights.std(axis=0).mean()), float(biases.std()), float(jnp.std(values))


@pytest.mark.parametrize(
    ("init", "weights", "over_latents", "biases", "values"),
    [
        ("bias", 0.104, 0.0, 0.0, 0.7),
        ("weight", 0.239, 0.23, 0.0, 2.8),
        ("both", 0.131, 0.116, 0.0, 1.2),
        ("normc", 0.77, 0.74, 0.77, 8.0),
        ("kaiming", 0.76, 0.74, 0.76, 8.0),
        ("orthogonal", 0.015, 0.014, 0.24, 1.5),
        ("hfi", 0.034, 0.033, 0.53, 0.35),
    ],
)
def test_the_initial_statistics_are_those_of_the_released_code(
    init: str, weights: float, over_latents: float, biases: float, values: float, inputs: tuple[Array, Array]
) -> None:
    """Measured there with one seed: 15 % for spreads of many numbers, 50 % for V (a single last layer)."""
    found = statistics(init, released_critic, inputs)
    np.testing.assert_allclose(found[:3], (weights, over_latents, biases), rtol=0.15, atol=1e-6)
    np.testing.assert_allclose(found[3], values, rtol=0.5)


def test_our_critic_under_bias_hyperinit_spreads_like_the_base_network(inputs: tuple[Array, Array]) -> None:
    assert 0.15 < statistics("bias", our_critic, inputs)[3] < 0.55


@pytest.fixture(scope="module", params=["bias", "weight"])
def policy(request: pytest.FixtureRequest) -> tuple[str, ConditionedActorCritic]:
    made = ConditionedActorCritic.init(
        jax.random.key(0), 6, *T_MAZE, hidden=(8,), latent_embedding=4, state_embedding=5, hyper_init=request.param
    )
    return request.param, made


def test_under_bias_hyperinit_the_latent_says_nothing_at_first_and_otherwise_it_does(policy) -> None:
    init, made = policy
    latents, state = jax.random.normal(jax.random.key(1), (9, 6)), jnp.ones((9, 5))
    distribution, values = made(latents, state)
    assert bool(jnp.all(values == values[0]) & jnp.all(distribution.logits == distribution.logits[0])) == (
        init == "bias"
    )


def test_under_bias_hyperinit_the_gradient_of_the_value_by_the_latent_is_exactly_zero(policy) -> None:
    init, made = policy
    latents, state = jax.random.normal(jax.random.key(1), (9, 6)), jnp.ones((9, 5))
    gradient = jax.grad(lambda e: jnp.sum(made(e, state)[1]))(latents)
    assert bool(jnp.all(gradient == 0)) == (init == "bias")


def test_under_bias_hyperinit_the_hypernetwork_learns_from_the_first_step(policy) -> None:
    _, made = policy
    latents, state = jax.random.normal(jax.random.key(1), (9, 6)), jnp.ones((9, 5))
    gradient = jax.grad(lambda policy: jnp.sum(policy(latents, state)[1]))(made)
    assert all(jnp.any(layer.weight[:, 1:] != 0) for layer in gradient.critic.network.layers)


def test_the_embedding_of_the_state_learns_from_actor_and_critic(policy) -> None:
    _, made = policy
    latents, state = jax.random.normal(jax.random.key(1), (9, 6)), jnp.ones((9, 5))
    by_actor = jax.grad(lambda policy: jnp.sum(policy(latents, state)[0].logits[:, 0]))(made)
    by_critic = jax.grad(lambda policy: jnp.sum(policy(latents, state)[1]))(made)
    assert all(jnp.any(gradient.embed_state.weight != 0) for gradient in (by_actor, by_critic))
