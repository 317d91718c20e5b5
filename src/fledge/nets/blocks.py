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
    """y = x W + b."""

    weight: Float[Array, "in out"]
    bias: Float[Array, " out"]

    @classmethod
    def init(
        cls, key: Key[Array, ""], n_in: int, n_out: int, *, init: str = "uniform_fan_in", gain: float = 1.0
    ) -> Linear:
        """Weights from the named initialiser, zero bias (the paper's hidden layers have zero biases too)."""
        return cls(initialiser(init)(key, n_in, n_out, gain), jnp.zeros(n_out))

    @classmethod
    def framework(cls, key: Key[Array, ""], n_in: int, n_out: int) -> Linear:
        """Weights and biases uniform in ± 1 / √n_in: PyTorch's default, which the papers leave their embeddings at."""
        key_weight, key_bias = jax.random.split(key)
        bound = n_in**-0.5
        bias = jax.random.uniform(key_bias, (n_out,), minval=-bound, maxval=bound)
        return cls(initialiser("uniform_fan_in")(key_weight, n_in, n_out, 1.0), bias)

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        if x.shape[-1] != self.weight.shape[0]:
            raise ShapeError(
                f"A linear layer with {self.weight.shape[0]} inputs was given an array of shape {x.shape}; "
                f"its last axis must be {self.weight.shape[0]}."
            )
        return product(x, self.weight) + self.bias


def product(x: Float[Array, "*batch in"], weight: Float[Array, "in out"]) -> Float[Array, "*batch out"]:
    """x W, written such that the gradient of W reaches XLA's fast matrix kernel on a CPU.

    Two things keep it away, both measured: several batch axes (it transposes and copies the cotangent first: three
    times slower), and a W that narrows (it transposes the wide operand: two to three times slower for thin heads). So
    the axes are flattened, and a narrowing W is multiplied as its transpose; the barrier keeps XLA from undoing that.
    """
    if x.ndim <= 2:
        return x @ weight
    rows = x.reshape(-1, x.shape[-1])
    if weight.shape[1] < weight.shape[0]:
        product = rows @ jax.lax.optimization_barrier(weight.T).T
    else:
        product = rows @ weight
    return product.reshape(*x.shape[:-1], -1)


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
