"""Metalic as published (Beck et al. 2025): axial attention over the sequences and positions of a context."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from fledge.learn.ranking import bradley_terry
from fledge.nets.axial import AxialBlock
from fledge.nets.blocks import Linear
from fledge.nets.site_tokens import embedding, sinusoids
from fledge.nets.transformer import LayerNorm
from fledge.protein.tasks import FEATURES


@dataclass(frozen=True)
class AxialSettings:
    """Sizes. Defaults are the published ones (Beck et al. 2025 and its public code)."""

    embedding: int = 320
    """Of ESM-2 8M."""
    width: int = 768
    n_blocks: int = 5
    n_heads: int = 4
    hidden: int = 400
    head_layers: int = 4
    dropout: float = 0.1
    """After the activation of the feed-forward. (The attention's rate is 0 in effect.)"""
    auxiliary: bool = True
    """Whether there is a layer for a zero-shot score of another model; the published model has it, used or not."""


TINY = AxialSettings(embedding=48, width=48, n_blocks=2, hidden=96, head_layers=2, dropout=0.0, auxiliary=False)
"""The small one that is trained from scratch, with an encoder of its own."""


class AxialModel(eqx.Module):
    """Sequences as rows, positions as columns, a label column at the end; ranks the rows without a label.

    Without positions beyond those in the embeddings, and without any code for rows: permuting queries permutes
    predictions, permuting the support changes nothing. Predictions depend on which queries stand together.
    """

    project: Linear | None
    label: Linear
    auxiliary: Linear | None
    norm_in: LayerNorm
    blocks: tuple[AxialBlock, ...]
    norm_out: LayerNorm
    head: tuple[Linear, ...]
    dropout: float = eqx.field(static=True)

    @classmethod
    def init(cls, key: Key[Array, ""], settings: AxialSettings = AxialSettings()) -> AxialModel:
        """PyTorch's default weights."""
        width = settings.width
        key_project, key_label, key_aux, key_blocks, key_head = jax.random.split(key, 5)
        sizes = [2 * width, *[width] * settings.head_layers, 1]
        head_keys = jax.random.split(key_head, len(sizes) - 1)
        return cls(
            Linear.framework(key_project, settings.embedding, width) if settings.embedding != width else None,
            Linear.framework(key_label, 2, width),
            Linear.framework(key_aux, 1, width) if settings.auxiliary else None,
            LayerNorm.init(width),
            tuple(
                AxialBlock.init(k, width, settings.n_heads, settings.hidden)
                for k in jax.random.split(key_blocks, settings.n_blocks)
            ),
            LayerNorm.init(width),
            tuple(Linear.framework(k, a, b) for k, a, b in zip(head_keys, sizes[:-1], sizes[1:], strict=True)),
            settings.dropout,
        )

    def __call__(
        self,
        embedded: Float[Array, "row column part"],
        labels: Float[Array, " row"],
        known: Bool[Array, " row"],
        *,
        valid: Bool[Array, " row"] | None = None,
        columns: Bool[Array, " column"] | None = None,
        auxiliary: Float[Array, " row"] | None = None,
        context: bool = True,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, " row"]:
        """Predictions for all rows; those of labelled rows mean nothing.

        Args:
            embedded: residues of each sequence, CLS and EOS among them where the encoder makes them.
            labels: standardised; ignored where not known.
            known: whether a row's label is shown.
            valid: rows that others may look at.
            columns: positions that do not only fill up; all by default.
            auxiliary: a zero-shot score for each row, standardised.
            context: False keeps rows apart.
            key: of dropout; None while predicting.
        """
        x = embedded if self.project is None else self.project(embedded)
        shown = jnp.stack([jnp.where(known, labels, 0.0), jnp.where(known, 0.0, 1.0)], axis=-1)
        parts = [x, self.label(shown)[:, None]]
        if auxiliary is not None and self.auxiliary is not None:
            parts.append(self.auxiliary(auxiliary[:, None])[:, None])
        length, there = x.shape[1], None
        if columns is not None:
            there = jnp.concatenate([columns, jnp.ones(len(parts) - 1, bool)])
        x = self.norm_in(jnp.concatenate(parts, axis=1))
        for i, block in enumerate(self.blocks):
            drop = None if key is None or self.dropout == 0 else (jax.random.fold_in(key, i), self.dropout)
            x = block(x, valid, columns=there, context=context, dropout=drop)
        x = self.norm_out(x)
        share = jnp.full(length, 1 / length) if columns is None else columns / jnp.sum(columns)
        h = jnp.concatenate([jnp.einsum("rcw,c->rw", x[:, :length], share), x[:, length]], axis=-1)
        for layer in self.head[:-1]:
            h = jax.nn.relu(layer(h))
        return self.head[-1](h)[:, 0]


class ScratchEncoder(eqx.Module):
    """Residues without a language model: mutant and wild-type residue, a convolution over 7 sites, the position."""

    mutant: Float[Array, "residue width"]
    wild: Float[Array, "residue width"]
    convolution: Linear

    @classmethod
    def init(cls, key: Key[Array, ""], width: int) -> ScratchEncoder:
        """Embeddings that begin as a random projection of what is known about the residues."""
        keys = jax.random.split(key, 3)
        return cls(
            embedding(keys[0], width, FEATURES),
            embedding(keys[1], width, FEATURES),
            Linear.init(keys[2], 7 * width, width),
        )

    def __call__(
        self, sequences: Int[Array, "row site"], wild_type: Int[Array, " site"]
    ) -> Float[Array, "row site width"]:
        x = self.mutant[sequences] + self.wild[wild_type]
        padded = jnp.pad(x, ((0, 0), (3, 3), (0, 0)))
        wide = jnp.concatenate([padded[:, i : i + x.shape[1]] for i in range(7)], axis=-1)
        return x + self.convolution(wide) + 0.3 * sinusoids(x.shape[1], x.shape[2])


class TinyAxial(eqx.Module):
    """The axial model with the scratch encoder: the faithful shape at a size for laptops."""

    encoder: ScratchEncoder
    axial: AxialModel

    @classmethod
    def init(cls, key: Key[Array, ""], settings: AxialSettings = TINY) -> TinyAxial:
        """Random weights."""
        key_encoder, key_axial = jax.random.split(key)
        return cls(ScratchEncoder.init(key_encoder, settings.embedding), AxialModel.init(key_axial, settings))

    def __call__(
        self,
        sequences: Int[Array, "row site"],
        wild_type: Int[Array, " site"],
        labels: Float[Array, " row"],
        known: Bool[Array, " row"],
        *,
        columns: Bool[Array, " site"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, " row"]:
        return self.axial(self.encoder(sequences, wild_type), labels, known, columns=columns, key=key)


def count_parameters(settings: AxialSettings = AxialSettings()) -> int:
    """Trainable numbers of the model: 29,930,961 in the published setting."""
    shapes = jax.eval_shape(lambda: AxialModel.init(jax.random.key(0), settings))
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))


def axial_loss(
    model: AxialModel,
    embedded: Float[Array, "row column part"],
    labels: Float[Array, " row"],
    known: Bool[Array, " row"],
    key: Key[Array, ""] | None = None,
) -> Float[Array, ""]:
    """The preference loss over the strictly ordered pairs of rows without a label."""
    return bradley_terry(model(embedded, labels, known, key=key), labels, ~known)
