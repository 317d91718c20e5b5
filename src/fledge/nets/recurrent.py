"""Memories that carry a state: GRU, LSTM, a gated linear recurrence, and none at all."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from fledge.core.contracts import Memory
from fledge.nets.blocks import Linear
from fledge.nets.gru_scan import gru_cell, gru_scan
from fledge.nets.initialise import orthogonal
from fledge.nets.linear_scan import linear_scan


def _kept(resets: Bool[Array, "time *batch"]) -> Float[Array, "time *batch 1"]:
    return 1.0 - resets[..., None].astype(jnp.float32)


class GRUMemory(Memory):
    """A gated recurrent unit; orthogonal weights, zero biases, zero initial state (Cho et al. 2014; RL² and VariBAD).

    In `scan` the input projection of all steps is one matrix product, and so is the weight gradient
    (`fledge.nets.gru_scan`).
    """

    project: Linear
    weight: Float[Array, "hidden gates"]
    bias: Float[Array, " hidden"]

    @classmethod
    def init(cls, key: Key[Array, ""], n_in: int, size: int, *, stacked: bool = False) -> GRUMemory:
        """Random weights for tokens of width `n_in` and `size` hidden units.

        Each gate's matrix is orthogonal by itself. With `stacked` the three together are one orthogonal matrix, as in
        the published meta-RL code, which hands PyTorch's stacked weights to the initialiser: each gate's are then
        smaller by √3, and what is past fades sooner.
        """
        key_in, key_h = jax.random.split(key)
        if stacked:
            weight, w_in = orthogonal(key_h, size, 3 * size), orthogonal(key_in, n_in, 3 * size)
        else:
            weight = jnp.concatenate([orthogonal(k, size, size) for k in jax.random.split(key_h, 3)], axis=1)
            w_in = jnp.concatenate([orthogonal(k, n_in, size) for k in jax.random.split(key_in, 3)], axis=1)
        return cls(Linear(w_in, jnp.zeros(3 * size)), weight, jnp.zeros(size))

    @property
    def out_size(self) -> int:
        return self.bias.shape[0]

    def begin(self) -> Float[Array, " hidden"]:
        return jnp.zeros_like(self.bias)

    def step(
        self, state: Float[Array, "*batch hidden"], token: Float[Array, "*batch token"]
    ) -> tuple[Float[Array, "*batch hidden"], Float[Array, "*batch hidden"]]:
        state, _ = gru_cell(self.weight, self.bias, state, self.project(token))
        return state, state

    def scan(
        self,
        state: Float[Array, "*batch hidden"],
        tokens: Float[Array, "time *batch token"],
        resets: Bool[Array, "time *batch"],
    ) -> tuple[Float[Array, "*batch hidden"], Float[Array, "time *batch hidden"]]:
        outputs = gru_scan(self.weight, self.bias, state, self.project(tokens), _kept(resets))
        return outputs[-1], outputs


class LSTMMemory(Memory):
    """A long short-term memory; orthogonal weights, zero biases, forget bias 1 (Hochreiter & Schmidhuber 1997)."""

    project: Linear
    weight: Float[Array, "hidden gates"]

    @classmethod
    def init(cls, key: Key[Array, ""], n_in: int, size: int, *, forget_bias: float = 1.0) -> LSTMMemory:
        """Random weights for tokens of width `n_in` and `size` hidden units."""
        key_in, key_h = jax.random.split(key)
        weight = jnp.concatenate([orthogonal(k, size, size) for k in jax.random.split(key_h, 4)], axis=1)
        w_in = jnp.concatenate([orthogonal(k, n_in, size) for k in jax.random.split(key_in, 4)], axis=1)
        bias = jnp.zeros(4 * size).at[size : 2 * size].set(forget_bias)
        return cls(Linear(w_in, bias), weight)

    @classmethod
    def invariant(cls, key: Key[Array, ""], n_in: int, size: int, *, epsilon: float = 1e-4) -> LSTMMemory:
        """Weights with which the order of the tokens hardly matters at first: InvInit of Beck et al. (2024).

        Input and forget gate are open, whatever comes in (no weights, bias 2 ln((1−ε)/ε)); candidate and output gate
        see the token alone. So h_t = σ(W_o x_t) ⊙ tanh(Σ_i tanh(W_g x_i)): a sum, read through an output gate.

        The 2 stands for the two biases of the published code's LSTM. With ε = 1e-4 both gates are 1 − 1e-8, which is 1
        in single precision: their gradient is exactly 0 and they stay open however long one trains. A larger ε (0.01:
        1 − 1e-4) leaves them something to learn.
        """
        w_in = orthogonal(key, n_in, 4 * size).at[:, : 2 * size].set(0.0)  # of all gates together, as published
        bias = jnp.zeros(4 * size).at[: 2 * size].set(2 * (jnp.log1p(-epsilon) - jnp.log(epsilon)))
        return cls(Linear(w_in, bias), jnp.zeros((size, 4 * size)))

    @property
    def out_size(self) -> int:
        return self.weight.shape[0]

    def begin(self) -> tuple[Float[Array, " hidden"], Float[Array, " hidden"]]:
        zeros = jnp.zeros(self.out_size)
        return zeros, zeros

    def step(
        self, state: tuple[Array, Array], token: Float[Array, "*batch token"]
    ) -> tuple[tuple[Array, Array], Float[Array, "*batch hidden"]]:
        return self._cell(state, self.project(token))

    def scan(
        self,
        state: tuple[Array, Array],
        tokens: Float[Array, "time *batch token"],
        resets: Bool[Array, "time *batch"],
    ) -> tuple[tuple[Array, Array], Float[Array, "time *batch hidden"]]:
        def step(state: tuple[Array, Array], x: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
            gates, kept = x
            return self._cell((state[0] * kept, state[1] * kept), gates)

        return jax.lax.scan(step, state, (self.project(tokens), _kept(resets)))

    def _cell(self, state: tuple[Array, Array], gates_x: Array) -> tuple[tuple[Array, Array], Array]:
        h, c = state
        i, f, g, o = jnp.split(gates_x + h @ self.weight, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h


class LinearMemory(Memory):
    """A gated linear recurrence: gates see the token only, so that all steps can be computed in parallel.

    z_t = σ(W_z x_t + b_z), h_t = (1 − z_t) ⊙ h_{t−1} + z_t ⊙ W_h x_t, out_t = h_t ⊙ silu(W_o x_t + b_o). It is the
    minimal GRU of Feng et al. (2024, "Were RNNs All We Needed?") with the output gate of the gated state-space models.
    The b_z are spread so that the units start with time constants from 1 to about `horizon` steps.
    """

    project: Linear
    parallel: bool = eqx.field(static=True)

    @classmethod
    def init(
        cls, key: Key[Array, ""], n_in: int, size: int, *, horizon: int = 100, parallel: bool = False
    ) -> LinearMemory:
        """Random weights. `parallel` chooses the associative scan (accelerators, long trials) over the sequential."""
        linear = Linear.init(key, n_in, 3 * size)
        rates = jnp.geomspace(0.5, 1.0 / horizon, size)
        bias = linear.bias.at[:size].set(jnp.log(rates) - jnp.log1p(-rates))
        return cls(Linear(linear.weight, bias), parallel)

    @property
    def out_size(self) -> int:
        return self.project.bias.shape[0] // 3

    def begin(self) -> Float[Array, " hidden"]:
        return jnp.zeros(self.out_size)

    def step(
        self, state: Float[Array, "*batch hidden"], token: Float[Array, "*batch token"]
    ) -> tuple[Float[Array, "*batch hidden"], Float[Array, "*batch hidden"]]:
        a, b, gate = self._parts(token)
        state = a * state + b
        return state, state * gate

    def scan(
        self,
        state: Float[Array, "*batch hidden"],
        tokens: Float[Array, "time *batch token"],
        resets: Bool[Array, "time *batch"],
    ) -> tuple[Float[Array, "*batch hidden"], Float[Array, "time *batch hidden"]]:
        a, b, gate = self._parts(tokens)
        hs = linear_scan(a * _kept(resets), b, state, self.parallel)
        return hs[-1], hs * gate

    def _parts(self, tokens: Float[Array, "*batch token"]) -> tuple[Array, Array, Array]:
        z, candidate, gate = jnp.split(self.project(tokens), 3, axis=-1)
        z = jax.nn.sigmoid(z)
        return 1.0 - z, z * candidate, jax.nn.silu(gate)


class NoMemory(Memory):
    """Remembers nothing: the output is the token. With it an agent is a plain feed-forward policy."""

    size: int = eqx.field(static=True)

    @property
    def out_size(self) -> int:
        return self.size

    def begin(self) -> tuple[()]:
        return ()

    def step(
        self, state: tuple[()], token: Float[Array, "*batch token"]
    ) -> tuple[tuple[()], Float[Array, "*batch token"]]:
        return (), token

    def scan(
        self, state: tuple[()], tokens: Float[Array, "time *batch token"], resets: Bool[Array, "time *batch"]
    ) -> tuple[tuple[()], Float[Array, "time *batch token"]]:
        return (), tokens
