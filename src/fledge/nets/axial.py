"""Attention over a table of sequences: along positions with one map for all rows, and down each column.

Rows are the sequences of a context, columns their positions (and label columns). Beck et al. 2025 (Metalic), §3; the
tied map is that of the MSA Transformer (Rao et al. 2021, eq. 1).
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from fledge.core.errors import ConfigError
from fledge.nets.blocks import Linear
from fledge.nets.transformer import LayerNorm


class HeadedAttention(eqx.Module):
    """Queries, keys, values and the output of multi-head attention, all with biases."""

    query: Linear
    key: Linear
    value: Linear
    merge: Linear
    n_heads: int = eqx.field(static=True)

    @classmethod
    def init(cls, key: Key[Array, ""], width: int, n_heads: int) -> HeadedAttention:
        """PyTorch's default weights.

        Raises:
            ConfigError: the heads cannot share the width.
        """
        if n_heads < 1 or width % n_heads:
            raise ConfigError(f"{n_heads} attention heads cannot share a width of {width}: it must be a multiple.")
        q, k, v, merge = (Linear.framework(part, width, width) for part in jax.random.split(key, 4))
        return cls(q, k, v, merge, n_heads)

    def split(self, x: Float[Array, "*batch width"]) -> tuple[Array, Array, Array]:
        """Queries, keys and values (*batch, head, part)."""
        parts = (layer(x) for layer in (self.query, self.key, self.value))
        q, k, v = (part.reshape(*part.shape[:-1], self.n_heads, -1) for part in parts)
        return q, k, v


class TiedRowAttention(eqx.Module):
    """A_ij = softmax_j(Σ_r q_ri · k_rj / (√d_h √R)) for all rows; out_ri = W_o Σ_j A_ij v_rj."""

    heads: HeadedAttention

    def __call__(
        self,
        x: Float[Array, "row column width"],
        valid: Bool[Array, " row"] | None = None,
        columns: Bool[Array, " column"] | None = None,
    ) -> Float[Array, "row column width"]:
        q, k, v = self.heads.split(x)
        count = x.shape[0] if valid is None else jnp.maximum(jnp.sum(valid), 1)
        if valid is not None:
            q = jnp.where(valid[:, None, None, None], q, 0.0)
        scores = jnp.einsum("rihd,rjhd->hij", q, k) / jnp.sqrt(q.shape[-1] * count)
        if columns is not None:
            scores = jnp.where(columns, scores, -jnp.inf)
        out = jnp.einsum("hij,rjhd->rihd", jax.nn.softmax(scores, axis=-1), v)
        return self.heads.merge(out.reshape(x.shape))

    def alone(
        self, x: Float[Array, "row column width"], columns: Bool[Array, " column"] | None = None
    ) -> Float[Array, "row column width"]:
        """Each row with a map of its own: what is left when rows must not see each other."""
        return jax.vmap(lambda row: self(row[None], columns=columns)[0])(x)


class ColumnAttention(eqx.Module):
    """In each column, ordinary attention over the rows."""

    heads: HeadedAttention

    def __call__(
        self, x: Float[Array, "row column width"], valid: Bool[Array, " row"] | None = None
    ) -> Float[Array, "row column width"]:
        q, k, v = self.heads.split(x)
        scores = jnp.einsum("rchd,schd->hcrs", q, k) / q.shape[-1] ** 0.5
        if valid is not None:
            scores = jnp.where(valid, scores, -jnp.inf)
        out = jnp.einsum("hcrs,schd->rchd", jax.nn.softmax(scores, axis=-1), v)
        return self.heads.merge(out.reshape(x.shape))

    def alone(self, x: Float[Array, "row column width"]) -> Float[Array, "row column width"]:
        """Each row attends to itself only."""
        return self.heads.merge(self.heads.value(x))


class AxialBlock(eqx.Module):
    """Row attention, column attention, feed-forward; each behind a layer norm and added to the stream."""

    norms: tuple[LayerNorm, LayerNorm, LayerNorm]
    rows: TiedRowAttention
    columns: ColumnAttention
    widen: Linear
    narrow: Linear

    @classmethod
    def init(cls, key: Key[Array, ""], width: int, n_heads: int, hidden: int) -> AxialBlock:
        """PyTorch's default weights."""
        keys = jax.random.split(key, 4)
        return cls(
            (LayerNorm.init(width), LayerNorm.init(width), LayerNorm.init(width)),
            TiedRowAttention(HeadedAttention.init(keys[0], width, n_heads)),
            ColumnAttention(HeadedAttention.init(keys[1], width, n_heads)),
            Linear.framework(keys[2], width, hidden),
            Linear.framework(keys[3], hidden, width),
        )

    def __call__(
        self,
        x: Float[Array, "row column width"],
        valid: Bool[Array, " row"] | None = None,
        *,
        columns: Bool[Array, " column"] | None = None,
        context: bool = True,
        dropout: tuple[Key[Array, ""], float] | None = None,
    ) -> Float[Array, "row column width"]:
        """The stream after the block.

        Args:
            x: the table.
            valid: rows that others may look at; all by default.
            columns: positions that are there and do not only fill up; all by default.
            context: False keeps rows apart altogether (the arm without context).
            dropout: key and rate after the activation of the feed-forward; None while predicting.
        """
        row_norm, column_norm, mlp_norm = self.norms
        if context:
            x = x + self.rows(row_norm(x), valid, columns)
            x = x + self.columns(column_norm(x), valid)
        else:
            x = x + self.rows.alone(row_norm(x), columns)
            x = x + self.columns.alone(column_norm(x))
        hidden = jax.nn.gelu(self.widen(mlp_norm(x)), approximate=False)
        if dropout is not None:
            key, rate = dropout
            hidden = jnp.where(jax.random.bernoulli(key, 1 - rate, hidden.shape), hidden / (1 - rate), 0.0)
        return x + self.narrow(hidden)
