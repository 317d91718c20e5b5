"""A causal transformer as a memory: a cache of the trial while acting, one pass over all steps while learning."""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from fledge.core.contracts import Memory
from fledge.core.errors import ConfigError
from fledge.nets.blocks import Linear

_BLOCK = 32
"""Queries that are not worth a block of their own."""
_N_BLOCKS = 6


class Cache(eqx.Module):
    """The keys and values of the last tokens, for each layer, and how many tokens the trial had so far.

    The token at position p (counted from the trial's start) lies in slot p mod `slot`.
    """

    keys: Float[Array, "*batch layer slot width"]
    values: Float[Array, "*batch layer slot width"]
    position: Int[Array, "*batch 1"]


class LayerNorm(eqx.Module):
    """Mean 0 and variance 1 over the last axis, then a learnt scale and shift (Ba et al. 2016)."""

    scale: Float[Array, " width"]
    shift: Float[Array, " width"]

    @classmethod
    def init(cls, width: int) -> LayerNorm:
        """Scale 1, shift 0."""
        return cls(jnp.ones(width), jnp.zeros(width))

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(centred**2, axis=-1, keepdims=True)
        return centred * jax.lax.rsqrt(variance + 1e-5) * self.scale + self.shift


class Block(eqx.Module):
    """Pre-LN: x + attention(LN(x)), then x + W₂ gelu(W₁ LN(x)) (Xiong et al. 2020)."""

    norm_attention: LayerNorm
    project: Linear
    merge: Linear
    norm_mlp: LayerNorm
    widen: Linear
    narrow: Linear

    @classmethod
    def init(cls, key: Key[Array, ""], width: int, *, n_layers: int) -> Block:
        """PyTorch's default weights; what is added to the stream starts smaller by √(2 · layers)."""
        keys = jax.random.split(key, 4)
        gain = (2 * n_layers) ** -0.5
        return cls(
            LayerNorm.init(width),
            Linear.init(keys[0], width, 3 * width),
            Linear.init(keys[1], width, width, gain=gain),
            LayerNorm.init(width),
            Linear.init(keys[2], width, 4 * width),
            Linear.init(keys[3], 4 * width, width, gain=gain),
        )

    def queries(self, x: Float[Array, "*batch width"], angle: Array, n_heads: int) -> tuple[Array, Array, Array]:
        """Queries, keys (both turned by their positions) and values, each (*batch, width)."""
        q, k, v = jnp.split(self.project(self.norm_attention(x)), 3, axis=-1)
        return turned(q, angle, n_heads), turned(k, angle, n_heads), v

    def after(self, x: Float[Array, "*batch width"], attended: Float[Array, "*batch width"]) -> Array:
        """The stream after what was attended to is added, and the MLP."""
        x = x + self.merge(attended)
        return x + self.narrow(jax.nn.gelu(self.widen(self.norm_mlp(x))))


class TransformerMemory(Memory):
    """A causal transformer over the tokens of the running trial (Vaswani et al. 2017; pre-LN; rotary positions).

    Each token attends to the last `horizon` tokens of its trial, itself included. With `horizon` the most tokens that
    a trial has, that is all of them; in a longer trial the window slides. Positions enter as rotations of queries and
    keys (Su et al. 2021), counted from the trial's start, so that only distances matter and none is unheard of.

    The transformer of Beck et al.'s released code (2024) is another thing: it keeps the *transformed* slots as its
    memory, transforms all of them again at every step, and has no positions. It is order-aware only through that
    repetition, and attends to later tokens when it transforms earlier ones again. Here a token's keys and values are
    computed once, from what was known then.
    """

    embed: Linear
    blocks: tuple[Block, ...]
    norm: LayerNorm
    n_heads: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)

    @classmethod
    def init(
        cls, key: Key[Array, ""], n_in: int, size: int, *, horizon: int = 128, n_layers: int = 2, n_heads: int = 2
    ) -> TransformerMemory:
        """Random weights.

        Args:
            key: randomness.
            n_in: width of a token.
            size: width of the stream and of the output.
            horizon: tokens that can be attended to: the most that a trial has.
            n_layers: blocks.
            n_heads: attention heads.

        Raises:
            ConfigError: the heads cannot share the width in pairs, or the cache has no slot.
        """
        if n_heads < 1 or size % (2 * n_heads):
            raise ConfigError(
                f"{n_heads} attention heads share the width in pairs of numbers, so it is a multiple of "
                f"{2 * max(n_heads, 1)}; got {size}."
            )
        if horizon < 1:
            raise ConfigError(f"A transformer's horizon is the most tokens of a trial, at least 1; got {horizon}.")
        key_embed, *keys = jax.random.split(key, n_layers + 1)
        blocks = tuple(Block.init(k, size, n_layers=n_layers) for k in keys)
        return cls(Linear.init(key_embed, n_in, size), blocks, LayerNorm.init(size), n_heads, horizon)

    @property
    def out_size(self) -> int:
        return self.norm.scale.shape[0]

    def begin(self) -> Cache:
        shape = (len(self.blocks), self.horizon, self.out_size)
        return Cache(jnp.zeros(shape), jnp.zeros(shape), jnp.zeros(1, jnp.int32))

    def step(self, state: Cache, token: Float[Array, "*batch token"]) -> tuple[Cache, Float[Array, "*batch out"]]:
        position = state.position[..., 0]
        mask = (jnp.arange(self.horizon) <= state.position)[..., None, :]
        angle, slot = self._angle(position), position % self.horizon
        x, keys, values = self.embed(token), state.keys, state.values
        for layer, block in enumerate(self.blocks):
            q, k, v = block.queries(x, angle, self.n_heads)
            keys, values = written(keys, layer, slot, k), written(values, layer, slot, v)
            attended = attend(q[..., None, :], keys[..., layer, :, :], values[..., layer, :, :], mask, self.n_heads)
            x = block.after(x, attended[..., 0, :])
        return Cache(keys, values, state.position + 1), self.norm(x)

    def scan(
        self, state: Cache, tokens: Float[Array, "time *batch token"], resets: Bool[Array, "time *batch"]
    ) -> tuple[Cache, Float[Array, "time *batch out"]]:
        x = self.embed(jnp.moveaxis(tokens, 0, -2))
        layout = Layout.of(state.position, jnp.moveaxis(resets, 0, -1), self.horizon)
        # Chunks of whole trials see nothing of the cache, and need not pay for it.
        looks_back = anywhere(layout.mask[..., : self.horizon])
        x, keys, values = jax.lax.cond(
            looks_back, partial(self._attended, cached=True), partial(self._attended, cached=False), x, state, layout
        )
        state = Cache(layout.kept(state.keys, keys), layout.kept(state.values, values), layout.position[..., -1:] + 1)
        return state, jnp.moveaxis(self.norm(x), -2, 0)

    def _attended(
        self, x: Float[Array, "*batch time width"], state: Cache, layout: Layout, *, cached: bool
    ) -> tuple[Array, Array, Array]:
        """The stream after all blocks, and the keys and values of the chunk, each (*batch, layer, time, width)."""
        angle, keys, values = self._angle(layout.position), [], []
        mask = layout.mask if cached else layout.mask[..., self.horizon :]
        for layer, block in enumerate(self.blocks):
            q, k, v = block.queries(x, angle, self.n_heads)
            all_k, all_v = k, v
            if cached:
                all_k = jnp.concatenate([state.keys[..., layer, :, :], k], axis=-2)
                all_v = jnp.concatenate([state.values[..., layer, :, :], v], axis=-2)
            x = block.after(x, attend_causally(q, all_k, all_v, mask, self.n_heads))
            keys.append(k)
            values.append(v)
        return x, jnp.stack(keys, axis=-3), jnp.stack(values, axis=-3)

    def _angle(self, position: Int[Array, "*batch"]) -> Float[Array, "*batch pair"]:
        """By how much each pair is turned: frequencies fall from one radian a token towards 1/10,000."""
        pairs = self.out_size // self.n_heads // 2
        return position[..., None] * 10_000.0 ** (-jnp.arange(pairs) / pairs)


class Layout(eqx.Module):
    """Who may attend to whom when a chunk of tokens comes after a cache, and what the cache holds afterwards.

    The keys are the slots of the cache and then the tokens of the chunk, in order of time.
    """

    position: Int[Array, "*batch time"]
    """Of each token, counted from its trial's start."""
    mask: Bool[Array, "*batch time key"]
    source: Int[Array, "*batch slot"]
    """Which key each slot of the cache holds after the chunk."""
    filled: Bool[Array, "*batch slot"]

    @classmethod
    def of(cls, before: Int[Array, "*batch 1"], resets: Bool[Array, "*batch time"], horizon: int) -> Layout:
        """The layout of a chunk that begins at position `before`, unless reset."""
        time, slots = jnp.arange(resets.shape[-1]), jnp.arange(horizon)
        started = jax.lax.cummax(jnp.where(resets, time, -1), axis=resets.ndim - 1)
        position = jnp.where(started < 0, before + time, time - started)
        # A slot's age: tokens since the one that it holds, the last one having age 0. Older than the trial: empty.
        age = (before - 1 - slots) % horizon
        in_cache = (age < before)[..., None, :] & (started < 0)[..., None]
        in_cache &= age[..., None, :] + 1 + time[:, None] < horizon
        lag = time[:, None] - time
        in_chunk = (lag >= 0) & (lag < horizon) & (lag <= position[..., None])
        last = position[..., -1:]
        age = (last - slots) % horizon
        source = jnp.where(age < resets.shape[-1], horizon + resets.shape[-1] - 1 - age, slots)
        return cls(position, jnp.concatenate([in_cache, in_chunk], axis=-1), source, age <= last)

    def kept(
        self, before: Float[Array, "*batch layer slot width"], chunk: Float[Array, "*batch layer time width"]
    ) -> Float[Array, "*batch layer slot width"]:
        """What the cache holds after the chunk; zero where nothing is."""
        kept = jnp.take_along_axis(jnp.concatenate([before, chunk], axis=-2), self.source[..., None, :, None], axis=-2)
        return jnp.where(self.filled[..., None, :, None], kept, 0.0)


def turned(x: Float[Array, "*batch width"], angle: Float[Array, "*batch pair"], n_heads: int) -> Array:
    """Rotary positions: the pairs of each head turned by the angles (RoFormer, Su et al. 2021, §3.4)."""
    a, b = jnp.moveaxis(x.reshape(*x.shape[:-1], n_heads, 2, -1), -2, 0)
    cos, sin = jnp.cos(angle)[..., None, :], jnp.sin(angle)[..., None, :]
    return jnp.stack([a * cos - b * sin, a * sin + b * cos], axis=-2).reshape(x.shape)


@jax.custom_batching.custom_vmap
def anywhere(mask: Bool[Array, "*shape"]) -> Bool[Array, ""]:
    """Whether a mask holds anywhere. Under `vmap` one answer serves all: a branch on it stays a branch."""
    return jnp.any(mask)


@anywhere.def_vmap
def _anywhere_of_all(axis_size: int, in_batched: list[bool], mask: Array) -> tuple[Array, bool]:
    return anywhere(mask), False


def written(
    cache: Float[Array, "*batch layer slot width"], layer: int, slot: Int[Array, "*batch"], new: Array
) -> Array:
    """The cache with one more token of a layer. In a loop it is written in place."""

    def one(cache: Array, slot: Array, new: Array) -> Array:
        return cache.at[layer, slot].set(new)

    return jnp.vectorize(one, signature="(l,s,w),(),(w)->(l,s,w)")(cache, slot, new)


def attend_causally(
    queries: Float[Array, "*batch query width"],
    keys: Float[Array, "*batch key width"],
    values: Float[Array, "*batch key width"],
    mask: Bool[Array, "*batch query key"],
    n_heads: int,
) -> Float[Array, "*batch query width"]:
    """`attend` where the last keys are those of the queries, and none sees a later one: block by block, so that keys
    which come after a whole block cost nothing."""
    n, before = queries.shape[-2], keys.shape[-2] - queries.shape[-2]
    size = max(_BLOCK, -(-n // _N_BLOCKS))
    parts = []
    for low in range(0, n, size):
        high = min(low + size, n)
        seen = slice(0, before + high)
        part = attend(
            queries[..., low:high, :], keys[..., seen, :], values[..., seen, :], mask[..., low:high, seen], n_heads
        )
        parts.append(part)
    return jnp.concatenate(parts, axis=-2)


def attend(
    queries: Float[Array, "*batch query width"],
    keys: Float[Array, "*batch key width"],
    values: Float[Array, "*batch key width"],
    mask: Bool[Array, "*batch query key"],
    n_heads: int,
) -> Float[Array, "*batch query width"]:
    """softmax(q kᵀ / √d) v for each head, over the keys that the mask allows (at least one for each query)."""
    q, k, v = (x.reshape(*x.shape[:-1], n_heads, -1) for x in (queries, keys, values))
    scores = jnp.einsum("...qhd,...khd->...hqk", q, k) / q.shape[-1] ** 0.5
    weights = jax.nn.softmax(jnp.where(mask[..., None, :, :], scores, -jnp.inf), axis=-1)
    return jnp.einsum("...hqk,...khd->...qhd", weights, v).reshape(queries.shape)
