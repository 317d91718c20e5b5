"""Matrix products that are written for speed say what the plain ones say."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import Array, Bool, Float

from fledge.nets.blocks import Linear
from fledge.nets.recurrent import GRUMemory

WIDENING, NARROWING = (3, 7), (7, 3)


def example(n_in: int, n_out: int) -> tuple[Linear, Float[Array, "5 6 n_in"]]:
    keys = jax.random.split(jax.random.key(0), 3)
    layer = Linear(jax.random.normal(keys[0], (n_in, n_out)), jax.random.normal(keys[1], (n_out,)))
    return layer, jax.random.normal(keys[2], (5, 6, n_in))


def written_for_speed(layer: Linear, x: Array) -> Array:
    return jnp.sum(jnp.sin(layer(x)) ** 2)


def plain(layer: Linear, x: Array) -> Array:
    return jnp.sum(jnp.sin(x @ layer.weight + layer.bias) ** 2)


def assert_same(a: object, b: object) -> None:
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert jnp.allclose(left, right, rtol=1e-3, atol=1e-4)  # float32 sums in another order


@pytest.mark.parametrize("sizes", [WIDENING, NARROWING])
def test__linear__several_batch_axes__value_and_gradients_of_the_plain_product(sizes: tuple[int, int]) -> None:
    layer, x = example(*sizes)
    assert_same(*(jax.value_and_grad(f, argnums=(0, 1))(layer, x) for f in (written_for_speed, plain)))


@pytest.mark.parametrize("sizes", [WIDENING, NARROWING])
def test__linear__forward_over_reverse__hessian_vector_product_of_the_plain_product(sizes: tuple[int, int]) -> None:
    layer, x = example(*sizes)
    assert_same(*(jax.jvp(jax.grad(f), (layer, x), (layer, x))[1] for f in (written_for_speed, plain)))


def test__linear__vmap_over_weights__is_the_loop() -> None:
    layers = jax.vmap(lambda key: Linear.init(key, *NARROWING))(jax.random.split(jax.random.key(1), 3))
    x = jax.random.normal(jax.random.key(2), (3, 5, 6, NARROWING[0]))
    loop = jnp.stack([x[i] @ layers.weight[i] + layers.bias[i] for i in range(3)])
    assert_same(jax.vmap(lambda layer, rows: layer(rows))(layers, x), loop)


def test__gru_scan__random_resets__gradients_of_plain_autodiff() -> None:
    keys = jax.random.split(jax.random.key(3), 5)
    memory = GRUMemory.init(keys[0], 4, 5)
    tokens = jax.random.normal(keys[1], (7, 3, 4))
    resets = jax.random.bernoulli(keys[2], 0.3, (7, 3))
    state, weights = jax.random.normal(keys[3], (3, 5)), jax.random.normal(keys[4], (7, 3, 5))

    def scanned(memory: GRUMemory, state: Array, tokens: Array) -> Array:
        return jnp.sum(weights * memory.scan(state, tokens, resets)[1])

    def stepped(memory: GRUMemory, state: Array, tokens: Array) -> Array:
        def step(state: Array, x: tuple[Array, Bool[Array, " batch"]]) -> tuple[Array, Array]:
            token, reset = x
            return memory.step(jnp.where(reset[:, None], 0.0, state), token)

        return jnp.sum(weights * jax.lax.scan(step, state, (tokens, resets))[1])

    assert_same(*(jax.value_and_grad(f, argnums=(0, 1, 2))(memory, state, tokens) for f in (scanned, stepped)))
