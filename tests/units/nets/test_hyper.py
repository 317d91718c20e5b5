"""Networks that are generated from a latent: what they are at the start, and that factoring changes nothing."""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float, Key

from fledge.core.errors import ConfigError, ShapeError
from fledge.nets.blocks import MLP, Linear
from fledge.nets.film import FILM_INITS, FiLM
from fledge.nets.hyper import HYPER_INITS, HyperNetwork, MixedLinear

N_Z, N_IN, N_OUT, BATCH = 5, 3, 2, 7
# 3 → 30 widens enough for the other form of the product.
sample_mlp = partial(MLP.init, n_in=N_IN, hidden=(30, 4), n_out=N_OUT)


class Residual(eqx.Module):
    """A network of one's own: two linear layers, a scale, an integer, a function."""

    first: Linear
    second: Linear
    scale: Float[Array, "..."]
    count: Array
    function: object

    @classmethod
    def init(cls, key: Key[Array, ""]) -> Residual:
        keys = jax.random.split(key)
        layers = [Linear.init(k, a, b) for k, a, b in zip(keys, (N_IN, 8), (8, N_IN), strict=True)]
        return cls(*layers, jnp.full(N_IN, 2.0), jnp.asarray(3), jnp.tanh)

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch in"]:
        return x * self.scale + self.second(self.function(self.first(x)))


def noisy(network: HyperNetwork | FiLM) -> HyperNetwork | FiLM:
    """The same with every parameter moved: as if it had been trained."""
    leaves, structure = jax.tree.flatten(network)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    moved = [
        leaf + 0.3 * jax.random.normal(k, leaf.shape) if eqx.is_inexact_array(leaf) else leaf
        for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, moved)


GENERATORS = {
    "hyper": lambda: noisy(HyperNetwork.init(jax.random.key(0), sample_mlp, N_Z)),
    "hyper of another class": lambda: noisy(HyperNetwork.init(jax.random.key(0), Residual.init, N_Z, init="hfi")),
    "hyper, one layer": lambda: noisy(HyperNetwork.init(jax.random.key(0), sample_mlp, N_Z, only=["layers.1"])),
    "hyper without constant": lambda: noisy(
        HyperNetwork.init(jax.random.key(0), sample_mlp, N_Z, init="weight", constant=False)
    ),
    "film": lambda: noisy(FiLM.init(jax.random.key(0), sample_mlp, N_Z)),
    "film of another class": lambda: noisy(FiLM.init(jax.random.key(0), Residual.init, N_Z, init="normc")),
}
LATENTS = jax.random.normal(jax.random.key(1), (BATCH, N_Z))
INPUTS = jax.random.normal(jax.random.key(2), (BATCH, N_IN))


def materialised(generator: HyperNetwork | FiLM, z: Array, x: Array) -> Array:
    return jax.lax.map(lambda pair: generator.materialise(pair[0])(pair[1]), (z, x))


@pytest.mark.parametrize("name", GENERATORS)
def test__generate__a_latent_per_sample__is_the_network_of_plain_weights_of_each(name: str) -> None:
    generator = GENERATORS[name]()
    found = generator.generate(LATENTS)(INPUTS)
    np.testing.assert_allclose(found, materialised(generator, LATENTS, INPUTS), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["hyper", "film"])
def test__generate__gradients__are_those_of_plain_weights(name: str) -> None:
    def loss(forward, generator, z, x):
        return jnp.sum(jnp.sin(forward(generator, z, x)))

    generator = GENERATORS[name]()
    factored, plain = (
        jax.jit(jax.grad(partial(loss, forward), argnums=(0, 1, 2)))(generator, LATENTS[:2], INPUTS[:2])
        for forward in (lambda g, z, x: g.generate(z)(x), materialised)
    )
    for a, b in zip(jax.tree.leaves(factored), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4)  # sums in another order


@pytest.mark.parametrize("name", ["hyper", "film"])
def test__generate__further_batch_axes_of_the_input__share_a_network(name: str) -> None:
    generator = GENERATORS[name]()
    x = jnp.stack([INPUTS, -INPUTS], axis=1)
    apart = jnp.stack([generator.generate(LATENTS)(x[:, i]) for i in range(2)], axis=1)
    np.testing.assert_allclose(generator.generate(LATENTS)(x), apart, atol=1e-5)


def test__generate__vmap__is_the_batch() -> None:
    generator = GENERATORS["hyper"]()
    mapped = jax.vmap(lambda z, x: generator.generate(z)(x))(LATENTS, INPUTS)
    np.testing.assert_allclose(mapped, generator.generate(LATENTS)(INPUTS), atol=1e-5)


def test__generate__no_array_of_batch_times_weights__is_formed() -> None:
    layer = MixedLinear(jnp.zeros((40, 3, 30)), jnp.zeros((3, 30)), jnp.zeros((50, 3)))
    jaxpr = jax.make_jaxpr(jax.grad(lambda layer, x: jnp.sum(layer(x) ** 2), argnums=(0, 1)))(
        layer, jnp.zeros((50, 40))
    )
    assert max(v.aval.size for equation in jaxpr.eqns for v in equation.outvars) < 50 * 40 * 30


@pytest.mark.parametrize("name", [*HYPER_INITS, *(f"film {name}" for name in FILM_INITS)])
def test__init__bias__is_the_base_network_for_every_latent_and_no_other_is(name: str) -> None:
    if name.startswith("film "):
        generator = FiLM.init(jax.random.key(3), sample_mlp, N_Z, init=name.removeprefix("film "))
    else:
        generator = HyperNetwork.init(jax.random.key(3), sample_mlp, N_Z, init=name)
    distance = jnp.max(jnp.abs(generator.generate(LATENTS)(INPUTS) - sample_mlp(jax.random.key(3))(INPUTS)))
    assert (distance < 1e-6) == (name in ("bias", "film bias"))


@pytest.mark.parametrize("constant", [True, False])
def test__init__weight__picks_independent_networks_of_the_base_by_one_hot(constant: bool) -> None:
    hyper = HyperNetwork.init(jax.random.key(3), sample_mlp, N_Z, init="weight", constant=constant)
    weights = [hyper.materialise(z).layers[0].weight for z in jnp.eye(N_Z)]
    np.testing.assert_allclose([jnp.linalg.norm(w, axis=0) for w in weights], 5 / 3, rtol=1e-5)
    assert float(jnp.max(jnp.abs(jnp.corrcoef(jnp.stack(weights).reshape(N_Z, -1)) - jnp.eye(N_Z)))) < 0.9


def test__init__only__leaves_the_rest_ordinary_parameters() -> None:
    hyper = HyperNetwork.init(jax.random.key(3), sample_mlp, N_Z, only=["layers.2"])
    kinds = [type(layer).__name__ for layer in hyper.network.layers]
    assert kinds == ["Linear", "Linear", "LinearStack"]


def test__init__only__unknown_paths__one_error_names_the_paths_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"at 'third', 'scal' .* has: first, second, scale\."):
        HyperNetwork.init(jax.random.key(0), Residual.init, N_Z, only=["first", "third", "scal"])


def test__init__only__a_parent__takes_all_below_it() -> None:
    hyper = HyperNetwork.init(jax.random.key(0), sample_mlp, N_Z, only=["layers"])
    assert {type(layer).__name__ for layer in hyper.network.layers} == {"LinearStack"}


@pytest.mark.parametrize(
    ("make", "cure"),
    [
        (lambda: HyperNetwork.init(jax.random.key(0), sample_mlp, N_Z, init="biass"), "Did you mean 'bias'"),
        (lambda: HyperNetwork.init(jax.random.key(0), sample_mlp, N_Z, constant=False), "Use 'weight'"),
        (lambda: FiLM.init(jax.random.key(0), sample_mlp, N_Z, init="hfi"), "There is no FiLM initialisation 'hfi'"),
    ],
)
def test__init__wrong_settings__are_refused_with_the_cure(make, cure: str) -> None:
    with pytest.raises(ConfigError, match=cure):
        make()


@pytest.mark.parametrize(
    ("z", "x", "cure"),
    [
        (jnp.zeros((BATCH, N_Z + 1)), INPUTS, "its last axis must be 5"),
        (LATENTS[:3], INPUTS, r"its first axes must be \(3,\)"),
        (LATENTS, jnp.zeros((BATCH, N_IN + 1)), "its last axis must be 3"),
    ],
)
def test__generate__wrong_shapes__are_refused_with_the_cure(z: Array, x: Array, cure: str) -> None:
    with pytest.raises(ShapeError, match=cure):
        HyperNetwork.init(jax.random.key(0), sample_mlp, N_Z).generate(z)(x)


def test_a_network_without_constant_on_a_one_hot_is_a_network_for_each_task() -> None:
    """Values and gradients of the mask over separate networks (multi-net of Beck et al. 2022)."""
    networks = jax.vmap(sample_mlp)(jax.random.split(jax.random.key(4), N_Z))
    hyper = HyperNetwork.init(jax.random.key(0), sample_mlp, N_Z, init="weight", constant=False)
    for i in range(3):
        stack = jnp.moveaxis(networks.layers[i].weight, 0, 1), networks.layers[i].bias
        hyper = eqx.tree_at(lambda h, i=i: (h.network.layers[i].weight, h.network.layers[i].bias), hyper, stack)
    tasks = jax.nn.one_hot(jnp.arange(BATCH) % (N_Z - 1), N_Z)  # the last task never comes

    def masked(networks: MLP, x: Array) -> Array:
        each = jax.vmap(lambda network: network(x))(networks)
        return jnp.sum(jnp.sin(jnp.einsum("kbo,bk->bo", each, tasks)))

    def generated(hyper: HyperNetwork, x: Array) -> Array:
        return jnp.sum(jnp.sin(hyper.generate(tasks)(x)))

    (value, gradient), (value_h, gradient_h) = (
        jax.value_and_grad(f)(g, INPUTS) for f, g in ((masked, networks), (generated, hyper))
    )
    np.testing.assert_allclose(value, value_h, rtol=1e-5)
    for layer, stack in zip(gradient.layers, gradient_h.network.layers, strict=True):
        np.testing.assert_allclose(jnp.moveaxis(layer.weight, 0, 1), stack.weight, atol=1e-5)
        np.testing.assert_allclose(layer.bias, stack.bias, atol=1e-5)


def test_only_the_last_layer_on_a_one_hot_is_a_head_for_each_task() -> None:
    hyper = HyperNetwork.init(jax.random.key(0), sample_mlp, N_Z, init="weight", constant=False, only=["layers.2"])
    one, other = (hyper.materialise(z) for z in jnp.eye(N_Z)[:2])
    shared = [bool(jnp.all(one.layers[i].weight == other.layers[i].weight)) for i in range(3)]
    assert shared == [True, True, False]
