"""Aggregators: memories that put together what they are fed without regard to its order.

Each is a `Memory` whose state is a running statistic, so all of them are computed for whole segments at once
(`fledge.nets.segments`) and can stand behind any encoder (`fledge.nets.memories`).
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fledge.core.contracts import Memory
from fledge.core.errors import ConfigError
from fledge.nets.segments import LOW, later_maximum, segment_max, segment_sum, with_gradient_of

# No `from __future__ import annotations` in this file: Equinox has to see abstract properties as objects.

Token = Float[Array, "*batch in"]
Tokens = Float[Array, "time *batch in"]
Out = Float[Array, "*batch out"]
Outs = Float[Array, "time *batch out"]
Statistic = Float[Array, "*batch n"]
Resets = Bool[Array, "time *batch"]


class Aggregator(Memory):
    """A memory without weights that mix its inputs: the output is a statistic of what the segment has fed it."""

    @property
    @abc.abstractmethod
    def in_size(self) -> int:
        """The width of what is aggregated."""


class SumAggregator(Aggregator):
    """out_t = Σ v_i (SUM of Beck et al., AMRL, 2020)."""

    size: int = eqx.field(static=True)

    @property
    def in_size(self) -> int:
        return self.size

    @property
    def out_size(self) -> int:
        return self.size

    def begin(self) -> Float[Array, " n"]:
        return jnp.zeros(self.size)

    def step(self, state: Statistic, token: Token) -> tuple[Statistic, Out]:
        state = state + token
        return state, state

    def scan(self, state: Statistic, tokens: Tokens, resets: Resets) -> tuple[Statistic, Outs]:
        sums = segment_sum(state, tokens, resets)
        return sums[-1], sums


class MeanAggregator(Aggregator):
    """out_t = Σ v_i / t: the mean of neural processes (CNP, Garnelo et al. 2018) and AMRL-Avg (Beck et al. 2020).

    With `straight_through` the gradient is AMRL's: the division is ignored, ∂out_t/∂v_i = I for all i ≤ t.
    """

    size: int = eqx.field(static=True)
    straight_through: bool = eqx.field(static=True, default=False)

    @property
    def in_size(self) -> int:
        return self.size

    @property
    def out_size(self) -> int:
        return self.size

    def begin(self) -> tuple[Float[Array, " n"], Float[Array, "1"]]:
        return jnp.zeros(self.size), jnp.zeros(1)

    def step(self, state: tuple[Statistic, Array], token: Token) -> tuple[tuple[Statistic, Array], Out]:
        state = state[0] + token, state[1] + 1.0
        return state, self._mean(*state)

    def scan(
        self, state: tuple[Statistic, Array], tokens: Tokens, resets: Resets
    ) -> tuple[tuple[Statistic, Array], Outs]:
        sums = segment_sum(state[0], tokens, resets)
        counts = segment_sum(state[1], jnp.ones_like(tokens[..., :1]), resets)
        return (sums[-1], counts[-1]), self._mean(sums, counts)

    def _mean(self, total: Statistic, count: Array) -> Statistic:
        mean = total / count
        return with_gradient_of(mean, total) if self.straight_through else mean


class MaxAggregator(Aggregator):
    """out_t = max(start, v_0 … v_t), element by element: SplAgger (Beck et al. 2024) and AMRL-Max (Beck et al. 2020).

    Args:
        size: width.
        straight_through: AMRL's gradient: ∂out_t/∂v_i = I for all i ≤ t, as if it were a sum. Otherwise the gradient
            goes to the first of the largest values (and is lost where that is the start).
        low_init: start from −999999, so that the output is the largest of the values; otherwise from 0, as published.
        normalised: divide the output by max(‖out‖₂, 0.1), through which no gradient flows.
    """

    size: int = eqx.field(static=True)
    straight_through: bool = eqx.field(static=True, default=False)
    low_init: bool = eqx.field(static=True, default=False)
    normalised: bool = eqx.field(static=True, default=False)

    @property
    def in_size(self) -> int:
        return self.size

    @property
    def out_size(self) -> int:
        return self.size

    @property
    def start(self) -> float:
        """The maximum of nothing."""
        return LOW if self.low_init else 0.0

    def begin(self) -> Float[Array, " n"]:
        return jnp.full(self.size, self.start)

    def step(self, state: Statistic, token: Token) -> tuple[Statistic, Out]:
        largest = later_maximum(state, token)
        state = with_gradient_of(largest, state + token) if self.straight_through else largest
        return state, self._scaled(state)

    def scan(self, state: Statistic, tokens: Tokens, resets: Resets) -> tuple[Statistic, Outs]:
        largest = segment_max(state, tokens, resets, self.start)
        if self.straight_through:
            largest = with_gradient_of(largest, segment_sum(state, tokens, resets))
        return largest[-1], self._scaled(largest)

    def _scaled(self, largest: Statistic) -> Statistic:
        if not self.normalised:
            return largest
        norm = jnp.sqrt(jnp.sum(jax.lax.stop_gradient(largest) ** 2, axis=-1, keepdims=True))
        return largest / jnp.maximum(norm, 0.1)


class WeightedMeanAggregator(Aggregator):
    """out_t = Σ ω_i x_i / max(Σ ω_i, 0.1) with v = [x, w], ω = softplus(w): the output is half as wide as the input."""

    size: int = eqx.field(static=True)
    floor: float = eqx.field(static=True, default=0.1)

    @property
    def in_size(self) -> int:
        return 2 * self.size

    @property
    def out_size(self) -> int:
        return self.size

    def begin(self) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        return jnp.zeros(self.size), jnp.zeros(self.size)

    def step(self, state: tuple[Statistic, Statistic], token: Token) -> tuple[tuple[Statistic, Statistic], Out]:
        weighted, weight = _weighted(token)
        state = state[0] + weighted, state[1] + weight
        return state, state[0] / jnp.maximum(state[1], self.floor)

    def scan(
        self, state: tuple[Statistic, Statistic], tokens: Tokens, resets: Resets
    ) -> tuple[tuple[Statistic, Statistic], Outs]:
        weighted, weight = _weighted(tokens)
        totals, weights = segment_sum(state[0], weighted, resets), segment_sum(state[1], weight, resets)
        return (totals[-1], weights[-1]), totals / jnp.maximum(weights, self.floor)


class GaussianAggregator(Aggregator):
    """The product of one Gaussian factor per input, as its mean and log-variance (PEARL, Rakelly et al. 2019, eq. 2).

    v = [μ, p], precision λ = softplus(p); out = [Σ λ_i μ_i / B, −ln B] with B = max(Σ λ_i, 0.1). It must come last:
    what follows would not read a mean and a log-variance any more.
    """

    size: int = eqx.field(static=True)
    floor: float = eqx.field(static=True, default=0.1)

    @property
    def in_size(self) -> int:
        return 2 * self.size

    @property
    def out_size(self) -> int:
        return 2 * self.size

    def begin(self) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        return jnp.zeros(self.size), jnp.zeros(self.size)

    def step(self, state: tuple[Statistic, Statistic], token: Token) -> tuple[tuple[Statistic, Statistic], Out]:
        weighted, precision = _weighted(token)
        state = state[0] + weighted, state[1] + precision
        return state, self._product(*state)

    def scan(
        self, state: tuple[Statistic, Statistic], tokens: Tokens, resets: Resets
    ) -> tuple[tuple[Statistic, Statistic], Outs]:
        weighted, precision = _weighted(tokens)
        totals, precisions = segment_sum(state[0], weighted, resets), segment_sum(state[1], precision, resets)
        return (totals[-1], precisions[-1]), self._product(totals, precisions)

    def _product(self, weighted: Statistic, precision: Statistic) -> Out:
        precision = jnp.maximum(precision, self.floor)
        return jnp.concatenate([weighted / precision, -jnp.log(precision)], axis=-1)


def _weighted(token: Token) -> tuple[Statistic, Statistic]:
    """[x, w] as ω x and ω, ω = softplus(w)."""
    x, w = jnp.split(token, 2, axis=-1)
    weight = jax.nn.softplus(w)
    return weight * x, weight


class SoftmaxAggregator(Aggregator):
    """out_t = Σ ω_i x_i / max(Σ ω_i, e^{−3/T}) with ω = exp((w − 2)/T) and a learnt temperature T.

    What is weighted is its own weight (w = x = v), or, with `separate`, the halves of v = [x, w]. The sums are kept as
    multiples of e^m, m the largest exponent so far, so that no temperature overflows or underflows; T is kept as its
    logarithm and so stays positive. In the released code every aggregator owns a temperature, used or not, and on a GPU
    none of them is a leaf, so that none is trained: here it is a parameter like any other, of this class alone.
    """

    log_temperature: Float[Array, ""]
    size: int = eqx.field(static=True)
    separate: bool = eqx.field(static=True, default=False)

    @classmethod
    def init(cls, size: int, *, temperature: float = 0.1, separate: bool = False) -> "SoftmaxAggregator":
        """An aggregator with `size` outputs.

        Raises:
            ConfigError: the temperature is not positive.
        """
        if not temperature > 0:
            raise ConfigError(f"A temperature is positive; got {temperature}. As it goes to 0 the largest value wins.")
        return cls(jnp.log(jnp.asarray(temperature)), size, separate)

    @property
    def in_size(self) -> int:
        return self.size * (1 + self.separate)

    @property
    def out_size(self) -> int:
        return self.size

    def begin(self) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, " n"]]:
        """Σ ω x / e^m, Σ ω / e^m, and m."""
        return jnp.zeros(self.size), jnp.zeros(self.size), jnp.full(self.size, LOW)

    def step(self, state: tuple[Array, Array, Array], token: Token) -> tuple[tuple[Array, Array, Array], Out]:
        x, exponent, floor = self._exponents(token)
        largest = jax.lax.stop_gradient(jnp.maximum(state[2], jnp.maximum(exponent, floor)))
        decay, weight = jnp.exp(state[2] - largest), jnp.exp(exponent - largest)
        state = decay * state[0] + weight * x, decay * state[1] + weight, largest
        return state, state[0] / jnp.maximum(state[1], jnp.exp(floor - largest))

    def scan(
        self, state: tuple[Array, Array, Array], tokens: Tokens, resets: Resets
    ) -> tuple[tuple[Array, Array, Array], Outs]:
        x, exponent, floor = self._exponents(tokens)
        largest = segment_max(state[2], jnp.maximum(exponent, floor), resets)
        largest = jax.lax.stop_gradient(largest)
        before = jnp.concatenate([state[2][None], largest[:-1]])
        # Where a reset forgets what was before, its scale may be any; kept at 1, it cannot overflow.
        decay = jnp.exp(jnp.where(resets[..., None], 0.0, before - largest))
        weight = jnp.exp(exponent - largest)
        totals = segment_sum(state[0], weight * x, resets, decay)
        weights = segment_sum(state[1], weight, resets, decay)
        out = totals / jnp.maximum(weights, jnp.exp(floor - largest))
        return (totals[-1], weights[-1], largest[-1]), out

    def _exponents(self, token: Token) -> tuple[Statistic, Statistic, Float[Array, ""]]:
        """x, the exponent of its weight, and the least exponent that the sum of weights may have."""
        x, w = jnp.split(token, 2, axis=-1) if self.separate else (token, token)
        sharpness = jnp.exp(-self.log_temperature)
        return x, (w - 2.0) * sharpness, -3.0 * sharpness


class HalvesAggregator(Aggregator):
    """The first half of the input goes to one aggregator, the second to another, and their outputs are joined."""

    first: Aggregator
    second: Aggregator

    def __check_init__(self) -> None:
        if self.first.in_size != self.second.in_size:
            raise ConfigError(
                f"The halves of an input are equally wide, but the aggregators read {self.first.in_size} and "
                f"{self.second.in_size} values. Make the sizes equal."
            )

    @property
    def in_size(self) -> int:
        return self.first.in_size + self.second.in_size

    @property
    def out_size(self) -> int:
        return self.first.out_size + self.second.out_size

    def begin(self) -> tuple[Any, Any]:
        return self.first.begin(), self.second.begin()

    def step(self, state: tuple[Any, Any], token: Token) -> tuple[tuple[Any, Any], Out]:
        a, b = jnp.split(token, 2, axis=-1)
        first, out_a = self.first.step(state[0], a)
        second, out_b = self.second.step(state[1], b)
        return (first, second), jnp.concatenate([out_a, out_b], axis=-1)

    def scan(self, state: tuple[Any, Any], tokens: Tokens, resets: Resets) -> tuple[tuple[Any, Any], Outs]:
        a, b = jnp.split(tokens, 2, axis=-1)
        first, out_a = self.first.scan(state[0], a, resets)
        second, out_b = self.second.scan(state[1], b, resets)
        return (first, second), jnp.concatenate([out_a, out_b], axis=-1)


def half_of(width: int, what: str) -> int:
    """Half of a width.

    Raises:
        ConfigError: it is odd.
    """
    if width % 2:
        raise ConfigError(
            f"{what} cuts {width} values into two equal halves, and {width} is odd. Use a size that divides evenly."
        )
    return width // 2


def mean_and_max(width: int, *, straight_through: bool = False) -> HalvesAggregator:
    """The mean of the first half, the maximum of the second ("avgmax" of Beck et al. 2024)."""
    half = half_of(width, "Aggregating by mean and maximum")
    return HalvesAggregator(MeanAggregator(half, straight_through), MaxAggregator(half, straight_through))


AGGREGATORS: dict[str, Callable[[int], Aggregator]] = {
    "sum": SumAggregator,
    "avg": MeanAggregator,
    "avg-st": lambda width: MeanAggregator(width, straight_through=True),
    "max": MaxAggregator,
    "max-st": lambda width: MaxAggregator(width, straight_through=True),
    "max-low": lambda width: MaxAggregator(width, low_init=True),
    "max-norm": lambda width: MaxAggregator(width, normalised=True),
    "avgmax": mean_and_max,
    "avgmax-st": lambda width: mean_and_max(width, straight_through=True),
    "wavg": lambda width: WeightedMeanAggregator(half_of(width, "Weighing")),
    "softmax": SoftmaxAggregator.init,
    "wsoftmax": lambda width: SoftmaxAggregator.init(half_of(width, "Weighing"), separate=True),
    "gauss": lambda width: GaussianAggregator(half_of(width, "A mean and a precision")),
}
"""Name → constructor from the width of the input."""
