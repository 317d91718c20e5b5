"""Hypernetworks: any Equinox network whose weights are chosen by a latent.

A linear hypernetwork that ends in z ∈ R^K gives every weight as w(z) = a + Σ_k z_k A_k. So it *is* K + 1 networks of
one class, stacked, and [1, z] mixes them; initialising it is choosing those networks. The latent's own embedding
z = tanh(W e + b) belongs to whoever calls (`fledge.nets.conditioned`).

References: Ha et al. 2017 (hypernetworks); Beck et al. 2022 (Bias-HyperInit, Weight-HyperInit) and 2023 (recurrent
hypernetworks); Chang et al. 2020 (hyperfan-in).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from fledge.core.errors import ConfigError, ShapeError, unknown
from fledge.nets.blocks import Linear, product
from fledge.nets.initialise import TANH_GAIN, initialiser

HYPER_INITS = {
    "bias": "Bias-HyperInit: one network of the base's own initialiser, the same for every latent (Beck et al. 2022)",
    "weight": "Weight-HyperInit: one such network for each entry of the latent (Beck et al. 2022)",
    "both": "half of each (Beck et al. 2022)",
    "hfi": "hyperfan-in: variance of a fan-in initialiser, shared by weights and biases (Chang et al. 2020)",
    "normc": "naive: normc with gain 5/3 on the hypernetwork's own matrices",
    "kaiming": "naive: Kaiming uniform with gain 5/3 on the hypernetwork's own matrices",
    "orthogonal": "naive: orthogonal with gain 5/3 on the hypernetwork's own matrices",
}
"""Name → one line about it."""

SHARES = {"bias": (1.0, 0.0), "weight": (0.0, 1.0), "both": (0.5, 0.5)}
"""HyperInit → factors of the shared sample `a` and of the samples `A_k`."""


WIDENING = 8
"""See `MixedLinear`."""


class MixedLinear(eqx.Module):
    """A generated linear layer: y = Σ_m mixture_m (x W_m + b_m), without ever forming the weights of one sample.

    The batch axes of `mixture` are the first ones of `x`; further axes of `x` share a network.

    Nothing of size batch × in × out exists: x meets all networks in one wide product, and the mixture contracts the
    (batch, mix, out) that comes of it; a layer that widens more than `WIDENING` times is one product of the outer
    product of x and mixture, (batch, in, mix), instead. Measured on a CPU (batch 960, 26 networks; forward / gradient
    in ms), first form, second form, weights of each sample, a loop over the networks: 256 → 128: 8.5 / 28, 13 / 54,
    44 / 122, 8.9 / 39; 25 → 256: 2.2 / 24, 2.0 / 4.5, 2.6 / 24. Under a `vmap` over seeds the second form loses more
    (25 → 32: 0.2 / 1.5 against 0.5 / 12), so it has to have much to win. The stored order (in, mix, out) makes both
    one product without a copy: with (mix, in, out) the first form took 9.1 / 41.
    """

    weight: Float[Array, "in mix out"]
    bias: Float[Array, "mix out"]
    mixture: Float[Array, "*batch mix"]

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        n_in, n_mix, n_out = self.weight.shape
        mixture = align(self.mixture, x)
        if x.shape[-1] != n_in:
            raise ShapeError(
                f"A generated layer with {n_in} inputs was given an array of shape {x.shape}; its last axis must be "
                f"{n_in}."
            )
        if n_out <= WIDENING * n_in:
            parts = product(x, self.weight.reshape(n_in, n_mix * n_out)).reshape(*x.shape[:-1], n_mix, n_out)
            y = jnp.einsum("...mo,...m->...o", parts, jnp.broadcast_to(mixture, parts.shape[:-1]))
        else:
            outer = (x[..., :, None] * mixture[..., None, :]).reshape(*x.shape[:-1], n_in * n_mix)
            y = product(outer, self.weight.reshape(n_in * n_mix, n_out))
        return y + mixture @ self.bias


def align(latent: Float[Array, "..."], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The latent with an axis of one for each batch axis that only `x` has.

    Raises:
        ShapeError: the batch axes of the latent are not the first ones of `x`.
    """
    n = latent.ndim - 1
    if x.shape[:-1][:n] != latent.shape[:-1]:
        raise ShapeError(
            f"A network generated for latents with batch axes {latent.shape[:-1]} was given an array of shape "
            f"{x.shape}; its first axes must be {latent.shape[:-1]}. For one network on many inputs use `materialise`."
        )
    return latent.reshape(*latent.shape[:-1], *(1,) * (x.ndim - 1 - n), latent.shape[-1])


class LinearStack(eqx.Module):
    """What stands in a hypernetwork in place of a linear layer: that layer of all its networks."""

    weight: Float[Array, "in mix out"]
    bias: Float[Array, "mix out"]

    def mix(self, mixture: Float[Array, "*batch mix"]) -> MixedLinear:
        """The layer of each mixture, factored."""
        return MixedLinear(self.weight, self.bias, mixture)

    def materialise(self, mixture: Float[Array, " mix"]) -> Linear:
        """The layer of one mixture, as plain weights."""
        return Linear(jnp.einsum("imo,m->io", self.weight, mixture), mixture @ self.bias)


class ArrayStack(eqx.Module):
    """What stands in a hypernetwork in place of any other array (a scale, a bias of its own)."""

    values: Float[Array, "mix *shape"]

    def mix(self, mixture: Float[Array, "*batch mix"]) -> Float[Array, "..."]:
        """The array of each mixture: batch axes first."""
        return jnp.tensordot(mixture, self.values, axes=1)

    materialise = mix


def is_layer(leaf: Any) -> bool:
    """Linear layers are generated whole, everything else array by array."""
    return isinstance(leaf, Linear)


def is_stack(leaf: Any) -> bool:
    """Whether this is generated."""
    return isinstance(leaf, (LinearStack, ArrayStack))


class HyperNetwork(eqx.Module):
    """Generates a network of any Equinox class from a latent; every sample of a batch gets its own.

    `network` is the generated class with a stack in place of every generated part. What is not generated is an
    ordinary parameter, shared by all samples.

    Example:
        >>> from fledge.nets.blocks import MLP
        >>> key = jax.random.key(0)
        >>> hyper = HyperNetwork.init(key, lambda key: MLP.init(key, 3, (8, 8), 2), latent_size=5)
        >>> z, x = jnp.ones((10, 5)), jnp.ones((10, 3))
        >>> hyper.generate(z)(x).shape
        (10, 2)
        >>> hyper.materialise(z[0])(x[0]).shape
        (2,)

    With `constant=False` there is no shared part `a`: then a one-hot latent picks one of K independent networks. With
    "weight" that is a network per task (multi-net), and with `only` the last layer a head per task (multi-head): the
    degenerate hypernetworks of Beck et al. (2022).
    """

    network: PyTree
    constant: bool = eqx.field(static=True, default=True)

    @classmethod
    def init(
        cls,
        key: Key[Array, ""],
        sample: Callable[[Key[Array, ""]], PyTree],
        latent_size: int,
        *,
        init: str = "bias",
        only: Sequence[str] = (),
        gains: Mapping[str, float] | None = None,
        constant: bool = True,
    ) -> HyperNetwork:
        """A hypernetwork for the networks that `sample` draws.

        "bias", "weight" and "both" take their networks from `sample`, so every layer keeps its own initialiser and
        gain, its bias included. (The released code of Beck et al. draws the critic's last bias from U(−1, 1), because
        its fan-in is read off a (128, 1) tensor, and ignores the gains that were asked for with Kaiming: G10, G11.)
        Naive initialisers ignore `sample` but for its shapes, as in the paper.

        Args:
            key: randomness. Under "bias" the generated network is `sample(key)`, whatever the latent.
            sample: draws a network of the base class with its own initialisers (`partial(MLP.init, n_in=…, …)`).
            latent_size: K, the number of entries of z.
            init: one of `HYPER_INITS`.
            only: paths of the parts to generate (`layers.2`, or `actor` for all below it); () for all.
            gains: path → gain of that layer under "hfi"; where it has none, tanh's 5/3.
            constant: whether there is a part `a` that the latent has no say in.

        Raises:
            ConfigError: an unknown `init`, a path that does not exist, or no constant for an `init` that needs one.
        """
        if init not in HYPER_INITS:
            raise unknown("hypernetwork initialisation", init, HYPER_INITS)
        if not constant and init in ("bias", "both"):
            raise ConfigError(f"The initialisation '{init}' needs a constant part. Use 'weight', or constant=True.")
        base = sample(key)
        flat, structure = jax.tree_util.tree_flatten_with_path(base, is_leaf=is_layer)
        paths = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in flat]
        leaves = [leaf for _, leaf in flat]
        chosen = _chosen(paths, leaves, only)
        draw = _sampled if init in SHARES else _computed
        drawn = draw(jax.random.fold_in(key, 1), sample, base, paths, latent_size, init, dict(gains or {}))
        stacks = [_stack(new, constant) if pick else old for pick, new, old in zip(chosen, drawn, leaves, strict=True)]
        return cls(jax.tree.unflatten(structure, stacks), constant)

    @property
    def latent_size(self) -> int:
        """K, the number of entries of z."""
        stack = next(leaf for leaf in jax.tree.leaves(self.network, is_leaf=is_stack) if is_stack(leaf))
        n_mix = stack.bias.shape[0] if isinstance(stack, LinearStack) else stack.values.shape[0]
        return n_mix - self.constant

    def generate(self, z: Float[Array, "*batch latent"]) -> PyTree:
        """The network of each latent, of the base's class; call it on inputs with the same batch axes."""
        mixture = self._mixture(z)
        return jax.tree.map(lambda leaf: leaf.mix(mixture) if is_stack(leaf) else leaf, self.network, is_leaf=is_stack)

    def materialise(self, z: Float[Array, " latent"]) -> PyTree:
        """The network of one latent with plain weights: no hypernetwork is left in it (to export it, to look at it)."""
        mixture = self._mixture(z)
        return jax.tree.map(
            lambda leaf: leaf.materialise(mixture) if is_stack(leaf) else leaf, self.network, is_leaf=is_stack
        )

    def _mixture(self, z: Float[Array, "*batch latent"]) -> Float[Array, "*batch mix"]:
        if z.shape[-1] != self.latent_size:
            raise ShapeError(
                f"A hypernetwork for latents of {self.latent_size} entries was given an array of shape {z.shape}; its "
                f"last axis must be {self.latent_size}."
            )
        return jnp.concatenate([jnp.ones_like(z[..., :1]), z], axis=-1) if self.constant else z


def _chosen(paths: list[str], leaves: list[Any], only: Sequence[str]) -> list[bool]:
    """Which parts are generated."""
    possible = [is_layer(leaf) or eqx.is_inexact_array(leaf) for leaf in leaves]
    known = [path for path, can in zip(paths, possible, strict=True) if can]
    strange = [name for name in only if not any(_below(path, name) for path in known)]
    if strange or not known:
        what = (
            f"There is nothing at {', '.join(map(repr, strange))} to generate." if strange else "Nothing to generate."
        )
        raise ConfigError(f"{what} The network has: {', '.join(known) or 'no arrays'}.")
    return [
        can and (not only or any(_below(path, name) for name in only))
        for path, can in zip(paths, possible, strict=True)
    ]


def _below(path: str, name: str) -> bool:
    return path == name or path.startswith(f"{name}.")


def _sampled(
    key: Key[Array, ""], sample: Callable[..., PyTree], base: PyTree, paths: list[str], n: int, init: str, _: Any
) -> list[PyTree]:
    """HyperInit: each part of the shared network and of `n` further ones, stacked along a leading axis."""
    shared, each = SHARES[init]

    def blank(leaf: Any) -> Any:
        return jnp.zeros((n, *leaf.shape)) if eqx.is_inexact_array(leaf) else leaf

    def stack(first: Any, rest: Any) -> Any:
        return jnp.concatenate([shared * first[None], each * rest]) if eqx.is_inexact_array(first) else first

    more = eqx.filter_vmap(sample)(jax.random.split(key, n)) if each else jax.tree.map(blank, base)
    return jax.tree.leaves(jax.tree.map(stack, base, more), is_leaf=is_layer)


def _computed(
    key: Key[Array, ""],
    sample: Callable[..., PyTree],
    base: PyTree,
    paths: list[str],
    n: int,
    init: str,
    gains: dict[str, float],
) -> list[PyTree]:
    """Hyperfan-in and the naive initialisers: each part of `n` networks, after one of zeros."""

    def array(key: Key[Array, ""], leaf: Array, fan_in: int, gain: float) -> Array:
        if init == "hfi":
            bound = gain * (3.0 / (2 * n * fan_in)) ** 0.5
            drawn = jax.random.uniform(key, (n, leaf.size), minval=-bound, maxval=bound)
        else:
            drawn = initialiser(init)(key, n, leaf.size, TANH_GAIN)
        return jnp.concatenate([jnp.zeros((1, leaf.size)), drawn]).reshape(n + 1, *leaf.shape)

    def part(key: Key[Array, ""], path: str, leaf: Any) -> Any:
        gain = gains.get(path, TANH_GAIN)
        if is_layer(leaf):
            key_weight, key_bias = jax.random.split(key)
            stacked = array(key_weight, leaf.weight, leaf.weight.shape[0], gain), array(key_bias, leaf.bias, 1, gain)
            return eqx.tree_at(lambda layer: (layer.weight, layer.bias), leaf, stacked)
        return array(key, leaf, 1, gain) if eqx.is_inexact_array(leaf) else leaf

    leaves = jax.tree.leaves(base, is_leaf=is_layer)
    keys = jax.random.split(key, len(leaves))
    return [part(k, path, leaf) for k, path, leaf in zip(keys, paths, leaves, strict=True)]


def _stack(part: Any, constant: bool) -> LinearStack | ArrayStack:
    """A part with a leading axis as a stack; without a constant, its first entry is left out."""
    part = part if constant else jax.tree.map(lambda leaf: leaf[1:], part)
    return LinearStack(jnp.moveaxis(part.weight, 0, 1), part.bias) if is_layer(part) else ArrayStack(part)
