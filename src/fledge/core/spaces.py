"""Spaces: what an observation or an action may be."""

from __future__ import annotations

import math
from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped


class Space(eqx.Module):
    """A set of arrays of one shape and dtype. No batch axis."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of one element."""

    @property
    @abstractmethod
    def dtype(self) -> jnp.dtype:
        """The dtype of one element."""

    @property
    @abstractmethod
    def n_features(self) -> int:
        """How many numbers `features` returns."""

    @abstractmethod
    def sample(self, key: Key[Array, ""]) -> Shaped[Array, "..."]:
        """One element, uniformly where the space is bounded."""

    @abstractmethod
    def contains(self, x: Shaped[Array, "..."]) -> Bool[Array, ""]:
        """Whether `x` lies inside (the shape and dtype are checked by the exam, not here)."""

    @abstractmethod
    def features(self, x: Shaped[Array, "*batch_and_shape"]) -> Float[Array, "*batch features"]:
        """`x` as the floats that a network reads: one-hot where discrete, flat where continuous."""

    def zeros(self) -> Shaped[Array, "..."]:
        """The element of zeros, used where there is nothing to say (the action before the first one)."""
        return jnp.zeros(self.shape, self.dtype)


class Discrete(Space):
    """The integers 0 … n-1."""

    n: int = eqx.field(static=True)

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    @property
    def dtype(self) -> jnp.dtype:
        return jnp.dtype(jnp.int32)

    @property
    def n_features(self) -> int:
        return self.n

    def sample(self, key: Key[Array, ""]) -> Int[Array, ""]:
        return jax.random.randint(key, (), 0, self.n)

    def contains(self, x: Int[Array, ""]) -> Bool[Array, ""]:
        return (x >= 0) & (x < self.n)

    def features(self, x: Int[Array, "*batch"]) -> Float[Array, "*batch features"]:
        return jax.nn.one_hot(x, self.n)


class Box(Space):
    """Float vectors between `low` and `high` (the same bounds for each entry)."""

    size: int = eqx.field(static=True)
    low: float = eqx.field(static=True, default=-jnp.inf)
    high: float = eqx.field(static=True, default=jnp.inf)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.size,)

    @property
    def dtype(self) -> jnp.dtype:
        return jnp.dtype(jnp.float32)

    @property
    def n_features(self) -> int:
        return self.size

    def sample(self, key: Key[Array, ""]) -> Float[Array, " size"]:
        if math.isfinite(self.low) and math.isfinite(self.high):
            return jax.random.uniform(key, self.shape, minval=self.low, maxval=self.high)
        return jnp.clip(jax.random.normal(key, self.shape), self.low, self.high)

    def contains(self, x: Float[Array, " size"]) -> Bool[Array, ""]:
        return jnp.all((x >= self.low) & (x <= self.high))

    def features(self, x: Float[Array, "*batch size"]) -> Float[Array, "*batch features"]:
        return x
