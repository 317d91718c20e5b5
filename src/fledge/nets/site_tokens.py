"""A context of variants as a set of tokens that look at each other through what their mutations have in common.

Every variant is one token made of its mutated sites; the labels of the support are part of its tokens. What one variant
takes from another depends on learnt features of the pair (same site, same residue, distance): a learnt kernel.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from fledge.nets.blocks import Linear
from fledge.nets.transformer import LayerNorm

N_RESIDUES = 20
N_KINDS = 2
N_PAIR = 4
"""Features of a pair: same site, same mutant residue, same wild-type residue, closeness in the sequence."""
REACH = 3.0
"""Sites over which closeness falls by e."""
_KERNEL = 9


class Rows(eqx.Module):
    """Variants of one wild type, as far as a model sees them."""

    sites: Int[Array | np.ndarray, "*batch row mutation"]
    """−1 where there is no mutation."""
    residues: Int[Array | np.ndarray, "*batch row mutation"]
    """Mutant residues; −1 where there is no mutation."""
    labels: Float[Array | np.ndarray, "*batch row"]
    """Standardised; 0 where unknown."""
    known: Bool[Array | np.ndarray, "*batch row"]
    """Whether the label is."""
    valid: Bool[Array | np.ndarray, "*batch row"]
    """False for rows that only fill up an array."""


class SequenceEncoder(eqx.Module):
    """The wild type as one vector per site: residue, position, and two residual convolutions over 9 sites."""

    residue: Float[Array, "code width"]
    convolutions: tuple[Linear, ...]

    @classmethod
    def init(cls, key: Key[Array, ""], width: int, features: Float[np.ndarray, "residue feature"]) -> SequenceEncoder:
        """Embeddings that begin as a random projection of what is known about the residues."""
        key_residue, *keys = jax.random.split(key, 3)
        table = jnp.concatenate([embedding(key_residue, width, features), jnp.zeros((1, width))])
        return cls(table, tuple(Linear.init(k, _KERNEL * width, width) for k in keys))

    def __call__(self, wild_type: Int[Array, " site"]) -> Float[Array, "site width"]:
        """`wild_type` has 20 after its end."""
        inside = (wild_type < N_RESIDUES)[:, None]
        x = self.residue[wild_type] + 0.1 * sinusoids(wild_type.shape[0], self.residue.shape[1])
        x = jnp.where(inside, x, 0.0)
        for layer in self.convolutions:
            x = jnp.where(inside, x + jax.nn.gelu(layer(_windows(x))), 0.0)
        return x


def embedding(key: Key[Array, ""], width: int, features: Float[np.ndarray, "residue feature"]) -> Array:
    """A table for the twenty residues, of variance about 1: a random projection of their features, and noise."""
    key_project, key_own = jax.random.split(key)
    project = jax.random.normal(key_project, (features.shape[1], width)) / features.shape[1] ** 0.5
    own = jax.random.normal(key_own, (features.shape[0], width))
    return (jnp.asarray(features, jnp.float32) @ project + 0.5 * own) / 1.25**0.5


def sinusoids(length: int, width: int) -> Float[np.ndarray, "site width"]:
    """Positions as sines and cosines (Vaswani et al. 2017, §3.5)."""
    angles = np.arange(length)[:, None] * 10_000.0 ** (-np.arange(0, width, 2) / width)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, -1)[:, :width].astype(np.float32)


def _windows(x: Float[Array, "site width"]) -> Float[Array, "site wide"]:
    """Each site beside its four neighbours on either side, so that a convolution is one matrix product."""
    half = _KERNEL // 2
    padded = jnp.pad(x, ((half, half), (0, 0)))
    return jnp.concatenate([padded[i : i + x.shape[0]] for i in range(_KERNEL)], axis=-1)


class Profile(eqx.Module):
    """What pairs are compared by: for each row its sites, and how often it gains and loses each residue."""

    sites: Int[Array, "row mutation"]
    gained: Float[Array, "row residue"]
    lost: Float[Array, "row residue"]
    size: Float[Array, " row"]
    """√ of the number of mutations: what sums over mutations are divided by."""


def profile(wild_type: Int[Array, " site"], rows: Rows) -> Profile:
    """The profile of rows."""
    real = rows.sites >= 0
    gained = jax.nn.one_hot(rows.residues, N_RESIDUES)  # −1 gives zeros
    lost = jax.nn.one_hot(jnp.where(real, wild_type[rows.sites], -1), N_RESIDUES)
    size = jnp.sqrt(jnp.maximum(real.sum(-1), 1).astype(jnp.float32))
    scale = size[:, None]
    return Profile(jnp.asarray(rows.sites), gained.sum(-2) / scale, lost.sum(-2) / scale, size)


def pair_features(a: Profile, b: Profile) -> Float[Array, "feature row other"]:
    """Features of each pair, summed over pairs of mutations and divided by √(n m): with one mutation each, 0 … 1."""
    here, there = a.sites[:, None, :, None], b.sites[None, :, None, :]
    both = (here >= 0) & (there >= 0)
    scale = a.size[:, None] * b.size[None, :]
    same_site = jnp.sum(both & (here == there), axis=(-2, -1)) / scale
    near = jnp.sum(jnp.where(both, jnp.exp(-jnp.abs(here - there) / REACH), 0.0), axis=(-2, -1)) / scale
    return jnp.stack([same_site, a.gained @ b.gained.T, a.lost @ b.lost.T, near])


class PairBias(eqx.Module):
    """What is added to each head's logits for a pair of variants."""

    weight: Float[Array, "head feature"]
    mutants: Float[Array, "head residue residue"]
    """For the residues that are put in."""

    @classmethod
    def init(cls, key: Key[Array, ""], n_heads: int) -> PairBias:
        """Heads that begin by looking at different features."""
        weight = jax.random.normal(key, (n_heads, N_PAIR)) * 0.5
        return cls(weight, jnp.zeros((n_heads, N_RESIDUES, N_RESIDUES)))

    def __call__(self, a: Profile, b: Profile, features: Float[Array, "feature row other"]) -> Array:
        gained = jnp.einsum("ra,hab,sb->hrs", a.gained, self.mutants, b.gained)
        return jnp.einsum("hf,frs->hrs", self.weight, features) + gained


class SetBlock(eqx.Module):
    """Pre-LN attention over a set, with a bias for each pair, and an MLP."""

    norm_attention: LayerNorm
    project: Linear
    merge: Linear
    norm_mlp: LayerNorm
    widen: Linear
    narrow: Linear
    n_heads: int = eqx.field(static=True)

    @classmethod
    def init(cls, key: Key[Array, ""], width: int, n_heads: int) -> SetBlock:
        """PyTorch's default scale."""
        keys = jax.random.split(key, 4)
        layers = (
            Linear.init(keys[0], width, 3 * width),
            Linear.init(keys[1], width, width),
            Linear.init(keys[2], width, 2 * width),
            Linear.init(keys[3], 2 * width, width),
        )
        return cls(LayerNorm.init(width), *layers[:2], LayerNorm.init(width), *layers[2:], n_heads)

    def split(self, x: Float[Array, "row width"]) -> tuple[Array, Array, Array]:
        """Queries, keys and values (row, head, part)."""
        parts = self.project(self.norm_attention(x)).reshape(x.shape[0], 3, self.n_heads, -1)
        return parts[:, 0], parts[:, 1], parts[:, 2]

    def after(self, x: Float[Array, "row width"], attended: Float[Array, "row width"]) -> Array:
        """The stream after what was attended to is added, and the MLP."""
        x = x + self.merge(attended)
        return x + self.narrow(jax.nn.gelu(self.widen(self.norm_mlp(x))))


class SiteTokenModel(eqx.Module):
    """Ranks variants in the context of labelled and unlabelled ones (after Beck et al. 2025; the token is our own).

    Token z = Σ over mutations of MLP[H_site; mutant; wild type]; u = z + Linear(label, known); blocks of attention
    over the context with a learnt bias for pairs; v = w · z + MLP[LN(u); z / √n]. The sum makes w · z additive.
    Rows that are to be predicted look at the context and at themselves, never at each other: a prediction does not
    depend on what else is asked for.
    """

    encoder: SequenceEncoder
    kind: Float[Array, "kind width"]
    """What kind of measurement it is (stability, or anything else), added to the encoding."""
    mutant: Float[Array, "residue part"]
    wild: Float[Array, "residue part"]
    token: tuple[Linear, Linear]
    label: Linear
    biases: tuple[PairBias, ...]
    blocks: tuple[SetBlock, ...]
    norm: LayerNorm
    head: tuple[Linear, Linear]
    additive: Float[Array, " width"]

    @classmethod
    def init(
        cls,
        key: Key[Array, ""],
        features: Float[np.ndarray, "residue feature"],
        *,
        width: int = 64,
        n_layers: int = 2,
        n_heads: int = 4,
    ) -> SiteTokenModel:
        """Random weights.

        Args:
            key: randomness.
            features: what is known about the twenty residues, standardised.
            width: of tokens.
            n_layers: blocks of attention.
            n_heads: of each block.
        """
        keys = jax.random.split(key, 9)
        part = width // 2
        block_keys, bias_keys = jax.random.split(keys[6], n_layers), jax.random.split(keys[7], n_layers)
        return cls(
            SequenceEncoder.init(keys[0], width, features),
            jnp.zeros((N_KINDS, width)),
            embedding(keys[1], part, features),
            embedding(keys[2], part, features),
            (Linear.init(keys[3], width + 2 * part, width), Linear.init(keys[4], width, width)),
            Linear.framework(keys[5], 2, width),
            tuple(PairBias.init(k, n_heads) for k in bias_keys),
            tuple(SetBlock.init(k, width, n_heads) for k in block_keys),
            LayerNorm.init(width),
            (Linear.init(keys[8], 2 * width, width), Linear(jnp.zeros((width, 1)), jnp.zeros(1))),
            jax.random.normal(keys[8], (width,)) / width**0.5,
        )

    def tokens(self, encoded: Float[Array, "site width"], wild_type: Int[Array, " site"], rows: Rows) -> Array:
        """The sum over mutations of what each of them is (row, width)."""
        real = rows.sites >= 0
        sites = jnp.where(real, rows.sites, 0)
        lost = jnp.where(real, wild_type[sites], 0)
        gained = jnp.where(real, rows.residues, 0)
        parts = jnp.concatenate([encoded[sites], self.mutant[gained], self.wild[lost]], axis=-1)
        each = self.token[1](jax.nn.gelu(self.token[0](parts)))
        return jnp.sum(jnp.where(real[..., None], each, 0.0), axis=-2)

    def context(
        self,
        wild_type: Int[Array, " site"],
        rows: Rows,
        kind: Int[Array, ""] | int = 0,
        *,
        dropout: tuple[Key[Array, ""], float] | None = None,
    ) -> tuple[Context, Float[Array, " row"]]:
        """What later rows can look at, and predictions for the context's own rows, which look at each other.

        Args:
            wild_type: residue codes; 20 after the end.
            rows: the context.
            kind: of the measurement.
            dropout: key and rate for the wild type's encoding; None but in training.
        """
        encoded = self.encoder(wild_type) + self.kind[kind]
        if dropout is not None:
            key, rate = dropout
            encoded = jnp.where(jax.random.bernoulli(key, 1 - rate, encoded.shape), encoded / (1 - rate), 0.0)
        z = self.tokens(encoded, wild_type, rows)
        mine = profile(wild_type, rows)
        features = pair_features(mine, mine)
        u = self._labelled(z, rows, mine)
        keys, values = [], []
        for block, bias in zip(self.blocks, self.biases, strict=True):
            q, k, v = block.split(u)
            logits = jnp.einsum("rhd,shd->hrs", q, k) / q.shape[-1] ** 0.5 + bias(mine, mine, features)
            weights = jax.nn.softmax(jnp.where(rows.valid, logits, -1e9), axis=-1)
            u = block.after(u, jnp.einsum("hrs,shd->rhd", weights, v).reshape(u.shape))
            keys.append(k)
            values.append(v)
        found = Context(wild_type, encoded, mine, jnp.stack(keys), jnp.stack(values), jnp.asarray(rows.valid))
        return found, self._read(u, z, mine)

    def predict(self, context: Context, rows: Rows) -> Float[Array, " row"]:
        """Predictions of rows that look at the context and at themselves."""
        z = self.tokens(context.encoded, context.wild_type, rows)
        mine = profile(context.wild_type, rows)
        features = pair_features(mine, context.profile)
        own = jax.vmap(lambda row: pair_features(row, row)[:, 0, 0])(jax.tree.map(lambda leaf: leaf[:, None], mine))
        u = self._labelled(z, rows, mine)
        for layer, (block, bias) in enumerate(zip(self.blocks, self.biases, strict=True)):
            q, k, v = block.split(u)
            scale = q.shape[-1] ** 0.5
            there = jnp.einsum("rhd,shd->hrs", q, context.keys[layer]) / scale + bias(mine, context.profile, features)
            there = jnp.where(context.valid, there, -1e9)
            self_bias = bias.weight @ own.T + jnp.einsum("ra,hab,rb->hr", mine.gained, bias.mutants, mine.gained)
            here = jnp.einsum("rhd,rhd->hr", q, k) / scale + self_bias
            weights = jax.nn.softmax(jnp.concatenate([there, here[..., None]], axis=-1), axis=-1)
            attended = jnp.einsum("hrs,shd->rhd", weights[..., :-1], context.values[layer])
            attended = attended + jnp.moveaxis(weights[..., -1], 0, 1)[..., None] * v
            u = block.after(u, attended.reshape(u.shape))
        return self._read(u, z, mine)

    def without_context(
        self, wild_type: Int[Array, " site"], rows: Rows, kind: Int[Array, ""] | int = 0
    ) -> Float[Array, " row"]:
        """Predictions of rows that see nothing but themselves: the arm without context."""
        empty = jax.tree.map(lambda leaf: leaf[:1], rows)
        empty = eqx.tree_at(lambda r: r.valid, empty, jnp.zeros(1, bool))
        blank = eqx.tree_at(
            lambda r: (r.labels, r.known), rows, (jnp.zeros_like(rows.labels), jnp.zeros_like(rows.known))
        )
        return self.predict(self.context(wild_type, empty, kind)[0], blank)

    def _labelled(self, z: Float[Array, "row width"], rows: Rows, mine: Profile) -> Array:
        label = jnp.stack([jnp.where(rows.known, rows.labels, 0.0), (~rows.known).astype(jnp.float32)], axis=-1)
        return z / mine.size[:, None] + self.label(label)

    def _read(self, u: Float[Array, "row width"], z: Float[Array, "row width"], mine: Profile) -> Array:
        both = jnp.concatenate([self.norm(u), z / mine.size[:, None]], axis=-1)
        return z @ self.additive + self.head[1](jax.nn.gelu(self.head[0](both)))[:, 0]


class Context(eqx.Module):
    """Support and unlabelled rows after they have looked at each other: what predictions are made from."""

    wild_type: Int[Array, " site"]
    encoded: Float[Array, "site width"]
    profile: Profile
    keys: Float[Array, "layer row head part"]
    values: Float[Array, "layer row head part"]
    valid: Bool[Array, " row"]
