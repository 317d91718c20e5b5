"""What a memory does before it has learnt anything: how far gradients reach, and how much the order of tokens matters.

The analysis of Beck et al. (SplAgger, 2024; AMRL, 2020) at random initialisation, on tokens drawn from U(−1, 1).
"""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from fledge.agents.memories import make_memory
from fledge.core.contracts import Memory
from fledge.nets.blocks import MLP, Linear
from fledge.nets.memories import MappedMemory


class MemoryStatistics(eqx.Module):
    """Norms over one random sequence for each initialisation; t counts tokens from 0, T is the number of the last."""

    first_input: Float[Array, "init time"]
    """‖∂ Σ_j out_t[j] / ∂ x_0‖₂ at each t: how much of the first token is felt at t."""
    each_input: Float[Array, "init time"]
    """‖∂ Σ_j out_T[j] / ∂ x_i‖₂ at each i: how much of token i is felt at the end."""
    parameters: Float[Array, "init time"]
    """‖∂ Σ_j out_t[j] / ∂ all parameters‖₂ at each t."""
    order: Float[Array, "init time"]
    """Distance of the outputs at t, each of norm 1, for tokens 0 … t as they are and permuted at random (mean)."""
    signal: Float[Array, "init time"]
    """‖out_t‖₂² after a first token of ones and then zeros, without biases: what is left of a signal."""
    noise: Float[Array, "init time"]
    """‖out_t‖₂² on the random tokens, without biases. The mean of `signal` by that of `noise` is AMRL's SNR."""


def memory_statistics(
    make: Callable[[Key[Array, ""]], Memory],
    key: Key[Array, ""],
    n_tokens: int = 100,
    token_size: int = 80,
    n_inits: int = 10,
    *,
    n_permutations: int = 2,
) -> MemoryStatistics:
    """The statistics of freshly initialised memories, one at a time (so that memory does not grow with `n_inits`).

    Args:
        make: a fresh memory from a key, output layer included (`latent_memory`).
        key: randomness; the same key deals the same sequences to all memories.
        n_tokens: length of the sequences.
        token_size: width of a token.
        n_inits: initialisations, with one sequence each.
        n_permutations: permutations of each beginning of the sequence.
    """

    def one(key: Key[Array, ""]) -> tuple[Array, ...]:
        key_tokens, key_permute, key_make = jax.random.split(key, 3)
        memory = make(key_make)
        tokens = jax.random.uniform(key_tokens, (n_tokens, token_size), minval=-1.0, maxval=1.0)
        keys = jax.random.split(key_permute, n_permutations)
        order = jnp.mean(_order(memory, tokens, keys), axis=0)
        return *_gradients(memory, tokens), order, *_powers(memory, tokens)

    return MemoryStatistics(*jax.jit(lambda keys: jax.lax.map(one, keys))(jax.random.split(key, n_inits)))


def latent_memory(
    name: str, n_in: int, size: int, n_latent: int = 12, *, horizon: int = 128
) -> Callable[[Key[Array, ""]], Memory]:
    """A function from a key to a fresh memory with a linear layer to a latent's mean and log-variance on its output.

    The layer begins as PyTorch's do, its bias in ± 1/√(width) too: a constant part of the output, which takes its share
    of what the order of the tokens changes.

    Args:
        name: a row of the table of memories.
        n_in: width of a token.
        size: number of units.
        n_latent: d_lat; the output is twice as wide. 0 for no layer (the output of `pearl` already is both).
        horizon: the most tokens of a trial.
    """

    def make(key: Key[Array, ""]) -> Memory:
        key_memory, key_out = jax.random.split(key)
        memory = make_memory(name, key_memory, n_in, size, horizon=horizon)
        if n_latent == 0:
            return memory
        return MappedMemory(memory, MLP((Linear.framework(key_out, memory.out_size, 2 * n_latent),), "tanh"))

    return make


def _outputs(memory: Memory, tokens: Float[Array, "time *batch token"]) -> Float[Array, "time *batch out"]:
    """All outputs of sequences that begin with a trial."""
    batch = tokens.shape[1:-1]
    state = jax.tree.map(lambda x: jnp.broadcast_to(x, (*batch, *x.shape)), memory.begin())
    return memory.scan(state, tokens, jnp.zeros(tokens.shape[:-1], bool))[1]


def _gradients(
    memory: Memory, tokens: Float[Array, "time token"]
) -> tuple[Float[Array, " time"], Float[Array, " time"], Float[Array, " time"]]:
    """Norms of the gradients of Σ_j out_t[j] by x_0 at each t, by each x_i at the last t, by parameters at each t."""
    numbers, rest = eqx.partition(memory, eqx.is_inexact_array)

    def totals(numbers: PyTree[Array], tokens: Float[Array, "time token"]) -> Float[Array, " time"]:
        return jnp.sum(_outputs(eqx.combine(numbers, rest), tokens), axis=-1)

    _, pull = jax.vjp(totals, numbers, tokens)

    def at(chosen: Float[Array, " time"]) -> tuple[Array, Array, Array]:
        by_parameters, by_tokens = pull(chosen)
        flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(by_parameters)])
        return norm(by_tokens[0]), norm(by_tokens), norm(flat)

    first, each, parameters = jax.lax.map(at, jnp.eye(tokens.shape[0]), batch_size=20)
    return first, each[-1], parameters


def _order(
    memory: Memory, tokens: Float[Array, "time token"], keys: Key[Array, " permutation"]
) -> Float[Array, "permutation time"]:
    """Distance at each t between the outputs for tokens 0 … t as they are and in another order."""
    time = jnp.arange(tokens.shape[0])
    straight = _outputs(memory, tokens)

    def permuted(key: Key[Array, ""]) -> Float[Array, " time"]:
        # Row t: a random order of 0 … t, then the rest, which comes after the output that is looked at.
        draws = jax.random.uniform(key, (time.size, time.size))
        rows = jnp.argsort(jnp.where(time <= time[:, None], draws, 1.0 + time), axis=-1)
        outputs = _outputs(memory, jnp.moveaxis(tokens[rows], 0, 1))
        return norm(_unit(outputs[time, time]) - _unit(straight))

    return jax.vmap(permuted)(keys)


def _powers(memory: Memory, tokens: Float[Array, "time token"]) -> tuple[Float[Array, " time"], Float[Array, " time"]]:
    """‖out_t‖² of a signal (ones, then zeros) and of the tokens, without the biases of output and per-step layers.

    A gate's bias stays: what an LSTM or a linear recurrence forgets is what it is.
    """
    plain = jax.tree.map(_without_bias, memory, is_leaf=lambda x: isinstance(x, MLP))
    signal = jnp.zeros_like(tokens).at[0].set(1.0)
    outputs = _outputs(plain, jnp.stack([signal, tokens], axis=1))
    powers = jnp.sum(outputs**2, axis=-1)
    return powers[:, 0], powers[:, 1]


def _without_bias(part: PyTree) -> PyTree:
    if not isinstance(part, MLP):
        return part
    biases = [jnp.zeros_like(layer.bias) for layer in part.layers]
    return eqx.tree_at(lambda mlp: [layer.bias for layer in mlp.layers], part, biases)


def _unit(x: Float[Array, "time out"]) -> Float[Array, "time out"]:
    return x / norm(x)[..., None]


def norm(x: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    """The Euclidean norm of numbers whose squares may vanish in single precision (a GRU's gradients of 1e-20 do)."""
    scale = jnp.max(jnp.abs(x), axis=-1, keepdims=True)
    scale = jnp.where(scale > 0, scale, 1.0)
    return scale[..., 0] * jnp.sqrt(jnp.sum((x / scale) ** 2, axis=-1))
