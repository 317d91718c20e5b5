"""Memories made of memories: an encoder, perhaps a split, an aggregator, perhaps a linear layer on top."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from fledge.core.contracts import Memory
from fledge.core.errors import ConfigError
from fledge.nets.aggregate import Aggregator, half_of
from fledge.nets.blocks import MLP, activate


class PerStepMemory(Memory):
    """No memory: each token by itself goes through linear layers, each followed by tanh, and perhaps a last plain one.

    The encoder of the "noRNN" models (Beck et al. 2024): what stands behind it sees a set of tokens. For a plain
    pass-through use `NoMemory`.
    """

    layers: MLP
    bounded: bool = eqx.field(static=True)

    @classmethod
    def init(cls, key: Key[Array, ""], n_in: int, size: int, *, n_out: int | None = None) -> PerStepMemory:
        """tanh(Linear) of `size` units; with `n_out`, one more linear layer without tanh. PyTorch's default weights."""
        hidden, last = ((), size) if n_out is None else ((size,), n_out)
        return cls(MLP.init(key, n_in, hidden, last, init="uniform_fan_in", gain=1.0), n_out is None)

    @property
    def out_size(self) -> int:
        return self.layers.layers[-1].bias.shape[0]

    def begin(self) -> tuple[()]:
        return ()

    def step(
        self, state: tuple[()], token: Float[Array, "*batch token"]
    ) -> tuple[tuple[()], Float[Array, "*batch out"]]:
        out = self.layers(token)
        return (), activate("tanh", out) if self.bounded else out

    def scan(
        self, state: tuple[()], tokens: Float[Array, "time *batch token"], resets: Bool[Array, "time *batch"]
    ) -> tuple[tuple[()], Float[Array, "time *batch out"]]:
        return self.step(state, tokens)


class AggregatedMemory(Memory):
    """h_t = encoder(x_t, …); out_t = [u_t, aggregate(v_0 … v_t)] with h = [u, v] (split), or aggregate(h_0 … h_t).

    With a recurrent encoder, a split and the maximum it is SplAgger (Beck et al. 2024): u carries what depends on
    order, the maximum what is far back. With straight-through gradients besides, AMRL (Beck et al. 2020). With a
    per-step encoder and no split, what comes out does not depend on the order of the tokens.
    """

    encoder: Memory
    aggregator: Aggregator
    split: bool = eqx.field(static=True)

    @classmethod
    def of(cls, encoder: Memory, make: Callable[[int], Aggregator], *, split: bool = False) -> AggregatedMemory:
        """An encoder and an aggregator of fitting width.

        Args:
            encoder: any memory.
            make: the aggregator from the width of its input (a row of `AGGREGATORS`, a class).
            split: the first half of the encoder's output bypasses the aggregator.

        Raises:
            ConfigError: the encoder's output is to be split, and of odd width.
        """
        width = encoder.out_size
        return cls(encoder, make(half_of(width, "A split memory") if split else width), split)

    def __check_init__(self) -> None:
        wanted = self.encoder.out_size // (1 + self.split)
        if self.aggregator.in_size != wanted:
            raise ConfigError(
                f"The aggregator reads {self.aggregator.in_size} values, but the encoder hands it {wanted}. "
                "Build both with AggregatedMemory.of."
            )

    @property
    def out_size(self) -> int:
        return self.encoder.out_size - self.aggregator.in_size + self.aggregator.out_size

    def begin(self) -> tuple[Any, Any]:
        return self.encoder.begin(), self.aggregator.begin()

    def step(
        self, state: tuple[Any, Any], token: Float[Array, "*batch token"]
    ) -> tuple[tuple[Any, Any], Float[Array, "*batch out"]]:
        encoded, h = self.encoder.step(state[0], token)
        short, long = self._cut(h)
        aggregated, out = self.aggregator.step(state[1], long)
        return (encoded, aggregated), jnp.concatenate([short, out], axis=-1)

    def scan(
        self, state: tuple[Any, Any], tokens: Float[Array, "time *batch token"], resets: Bool[Array, "time *batch"]
    ) -> tuple[tuple[Any, Any], Float[Array, "time *batch out"]]:
        encoded, h = self.encoder.scan(state[0], tokens, resets)
        short, long = self._cut(h)
        aggregated, out = self.aggregator.scan(state[1], long, resets)
        return (encoded, aggregated), jnp.concatenate([short, out], axis=-1)

    def _cut(
        self, h: Float[Array, "*batch hidden"]
    ) -> tuple[Float[Array, "*batch short"], Float[Array, "*batch long"]]:
        n_short = h.shape[-1] - self.aggregator.in_size
        return h[..., :n_short], h[..., n_short:]


class MappedMemory(Memory):
    """A memory with a network on its output: the linear layer to a latent's mean and log-variance, for one."""

    memory: Memory
    layers: MLP

    @property
    def out_size(self) -> int:
        return self.layers.layers[-1].bias.shape[0]

    def begin(self) -> Any:
        return self.memory.begin()

    def step(self, state: Any, token: Float[Array, "*batch token"]) -> tuple[Any, Float[Array, "*batch out"]]:
        state, out = self.memory.step(state, token)
        return state, self.layers(out)

    def scan(
        self, state: Any, tokens: Float[Array, "time *batch token"], resets: Bool[Array, "time *batch"]
    ) -> tuple[Any, Float[Array, "time *batch out"]]:
        state, out = self.memory.scan(state, tokens, resets)
        return state, self.layers(out)
