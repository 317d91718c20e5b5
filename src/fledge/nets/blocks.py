"""Linear layers and MLPs. Weights are (in, out) and every call takes leading batch axes."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from fledge.core.errors import ShapeError, unknown
from fledge.nets.initialise import TANH_GAIN, initialiser

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "silu": jax.nn.silu, "gelu": jax.nn.gelu}


def activate(name: str, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Apply the activation of that name.

    Raises:
        ConfigError: nobody registered it.
    """
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name](x)


class Linear(eqx.Module):
    """y = x W + b.

    Several batch axes are flattened into one first: only then is the weight gradient a product that XLA hands to its
    fast matrix kernel on a CPU (with two batch axes it is transposed, copied and multiplied about three times slower).
    """

    weight: Float[Array, "in out"]
    bias: Float[Array, " out"]

    @classmethod
    def init(
        cls, key: Key[Array, ""], n_in: int, n_out: int, *, init: str = "uniform_fan_in", gain: float = 1.0
    ) -> Linear:
        """Weights from the named initialiser, zero bias (the paper's hidden layers have zero biases too)."""
        return cls(initialiser(init)(key, n_in, n_out, gain), jnp.zeros(n_out))

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        if x.shape[-1] != self.weight.shape[0]:
            raise ShapeError(
                f"A linear layer with {self.weight.shape[0]} inputs was given an array of shape {x.shape}; "
                f"its last axis must be {self.weight.shape[0]}."
            )
        rows = x.reshape(-1, x.shape[-1]) if x.ndim > 2 else x
        return (rows @ self.weight).reshape(*x.shape[:-1], -1) + self.bias


class MLP(eqx.Module):
    """Hidden layers with an activation after each, then a linear layer. `hidden=()` leaves just the linear layer.

    Defaults are the policy networks of VariBAD and its successors: tanh, normc with gain 5/3, zero biases.
    """

    layers: tuple[Linear, ...]
    activation: str = eqx.field(static=True)

    @classmethod
    def init(
        cls,
        key: Key[Array, ""],
        n_in: int,
        hidden: Sequence[int],
        n_out: int,
        *,
        activation: str = "tanh",
        init: str = "normc",
        gain: float = TANH_GAIN,
        out_init: str = "uniform_fan_in",
        out_gain: float = 1.0,
    ) -> MLP:
        """Hidden layers from (`init`, `gain`), the last from (`out_init`, `out_gain`)."""
        sizes = [n_in, *hidden, n_out]
        keys = jax.random.split(key, len(sizes) - 1)
        kinds = [(init, gain)] * len(hidden) + [(out_init, out_gain)]
        layers = tuple(
            Linear.init(k, a, b, init=kind, gain=g)
            for k, a, b, (kind, g) in zip(keys, sizes[:-1], sizes[1:], kinds, strict=True)
        )
        return cls(layers, activation)

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        for layer in self.layers[:-1]:
            x = activate(self.activation, layer(x))
        return self.layers[-1](x)
