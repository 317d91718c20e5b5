"""FiLM: a network whose units are scaled and shifted by a latent (Perez et al. 2018), in any Equinox network."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from fledge.core.errors import unknown
from fledge.nets.blocks import Linear, product
from fledge.nets.hyper import align, is_layer
from fledge.nets.initialise import TANH_GAIN

FILM_INITS = {
    "bias": "scale 1 and shift 0 for every latent: the base network (Beck et al. 2022)",
    "normc": "naive: normc with gain 5/3 on the heads",
    "kaiming": "naive: Kaiming uniform with gain 5/3 on the heads",
    "orthogonal": "naive: orthogonal with gain 5/3 on the heads",
}
"""Name → one line about it."""


class ModulatedLinear(eqx.Module):
    """y = (x W) ⊙ scale + shift, with the scale and shift of each sample.

    The batch axes of scale and shift are the first ones of `x`; further axes of `x` share them.
    """

    weight: Float[Array, "in out"]
    scale: Float[Array, "*batch out"]
    shift: Float[Array, "*batch out"]

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        return product(x, self.weight) * align(self.scale, x) + align(self.shift, x)


class FiLMLinear(eqx.Module):
    """What stands in a FiLM network in place of a linear layer: its weight, and the heads of its scale and shift."""

    weight: Float[Array, "in out"]
    scale: Linear
    shift: Linear

    def modulate(self, z: Float[Array, "*batch latent"]) -> ModulatedLinear:
        """The layer of each latent."""
        return ModulatedLinear(self.weight, self.scale(z), self.shift(z))

    def materialise(self, z: Float[Array, " latent"]) -> Linear:
        """The layer of one latent, as plain weights."""
        return Linear(self.weight * self.scale(z), self.shift(z))


class FiLM(eqx.Module):
    """Feature-wise linear modulation of every linear layer of a network, the last ones included.

    y = (x W) ⊙ s(z) + β(z); s and β are linear in the latent, W is an ordinary parameter without bias. Arrays outside
    linear layers stay as they are. The interface is that of `HyperNetwork`, whose form with the fewest generated
    numbers this is.
    """

    network: PyTree

    @classmethod
    def init(
        cls, key: Key[Array, ""], sample: Callable[[Key[Array, ""]], PyTree], latent_size: int, *, init: str = "bias"
    ) -> FiLM:
        """A network drawn by `sample`, and heads.

        Args:
            key: randomness. Under "bias" the generated network is `sample(key)`, whatever the latent.
            sample: draws a network of the base class with its own initialisers.
            latent_size: number of entries of z.
            init: one of `FILM_INITS`.

        Raises:
            ConfigError: an unknown `init`.
        """
        if init not in FILM_INITS:
            raise unknown("FiLM initialisation", init, FILM_INITS)
        leaves, structure = jax.tree.flatten(sample(key), is_leaf=is_layer)
        keys = jax.random.split(jax.random.fold_in(key, 1), len(leaves))

        def part(key: Key[Array, ""], layer: Linear) -> FiLMLinear:
            n_out = layer.bias.shape[0]
            if init == "bias":
                zeros = jnp.zeros((latent_size, n_out))
                return FiLMLinear(layer.weight, Linear(zeros, jnp.ones(n_out)), Linear(zeros, layer.bias))
            heads = [Linear.init(k, latent_size, n_out, init=init, gain=TANH_GAIN) for k in jax.random.split(key)]
            return FiLMLinear(layer.weight, *heads)

        parts = [part(k, leaf) if is_layer(leaf) else leaf for k, leaf in zip(keys, leaves, strict=True)]
        return cls(jax.tree.unflatten(structure, parts))

    def generate(self, z: Float[Array, "*batch latent"]) -> PyTree:
        """The network of each latent, of the base's class; call it on inputs with the same batch axes."""
        return self._map(lambda layer: layer.modulate(z))

    def materialise(self, z: Float[Array, " latent"]) -> PyTree:
        """The network of one latent with plain weights."""
        return self._map(lambda layer: layer.materialise(z))

    def _map(self, on_layer: Callable[[FiLMLinear], eqx.Module]) -> PyTree:
        def one(leaf: PyTree) -> PyTree:
            return on_layer(leaf) if isinstance(leaf, FiLMLinear) else leaf

        return jax.tree.map(one, self.network, is_leaf=lambda leaf: isinstance(leaf, FiLMLinear))
