"""Action distributions. Parameters may carry leading batch axes; `log_prob` and `entropy` keep those axes."""

from __future__ import annotations

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

LOG_2PI = 1.8378770664093453


class Distribution(eqx.Module):
    """A distribution over actions whose randomness is handed in, so that it can be drawn in bulk beforehand."""

    @abstractmethod
    def sample(self, noise: Float[Array, "*batch act"]) -> Shaped[Array, "..."]:
        """The action that this noise (from the class's `noise`) stands for."""

    @abstractmethod
    def mode(self) -> Shaped[Array, "..."]:
        """The most likely action."""

    @abstractmethod
    def log_prob(self, action: Shaped[Array, "..."]) -> Float[Array, "*batch"]:
        """Log probability (density) of an action, in nats."""

    @abstractmethod
    def entropy(self) -> Float[Array, "*batch"]:
        """Entropy in nats."""


class Categorical(Distribution):
    """Softmax over `logits`."""

    logits: Float[Array, "*batch act"]

    @staticmethod
    def noise(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
        """Gumbel noise: argmax(logits + noise) is a sample (the Gumbel-max trick)."""
        return jax.random.gumbel(key, shape)

    def sample(self, noise: Float[Array, "*batch act"]) -> Int[Array, "*batch"]:
        return jnp.argmax(self.logits + noise, axis=-1).astype(jnp.int32)

    def mode(self) -> Int[Array, "*batch"]:
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    def log_prob(self, action: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
        log_p = jax.nn.log_softmax(self.logits)
        return jnp.sum(log_p * jax.nn.one_hot(action, self.logits.shape[-1]), axis=-1)

    def entropy(self) -> Float[Array, "*batch"]:
        log_p = jax.nn.log_softmax(self.logits)
        return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)

    def kl(self, other: Categorical) -> Float[Array, "*batch"]:
        """KL(self ‖ other) in nats."""
        log_p, log_q = jax.nn.log_softmax(self.logits), jax.nn.log_softmax(other.logits)
        return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


class DiagonalNormal(Distribution):
    """Independent normals; `log_std` has the shape of `mean`."""

    mean: Float[Array, "*batch act"]
    log_std: Float[Array, "*batch act"]

    @staticmethod
    def noise(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
        """Standard normal noise."""
        return jax.random.normal(key, shape)

    def sample(self, noise: Float[Array, "*batch act"]) -> Float[Array, "*batch act"]:
        return self.mean + jnp.exp(self.log_std) * noise

    def mode(self) -> Float[Array, "*batch act"]:
        return self.mean

    def log_prob(self, action: Float[Array, "*batch act"]) -> Float[Array, "*batch"]:
        z = (action - self.mean) * jnp.exp(-self.log_std)
        return -0.5 * jnp.sum(z**2 + 2 * self.log_std + LOG_2PI, axis=-1)

    def entropy(self) -> Float[Array, "*batch"]:
        return jnp.sum(self.log_std + 0.5 * (1 + LOG_2PI), axis=-1)

    def kl(self, other: DiagonalNormal) -> Float[Array, "*batch"]:
        """KL(self ‖ other) in nats."""
        ratio = jnp.exp(2 * (self.log_std - other.log_std))
        shift = ((self.mean - other.mean) * jnp.exp(-other.log_std)) ** 2
        return 0.5 * jnp.sum(ratio + shift - 1 - 2 * (self.log_std - other.log_std), axis=-1)
