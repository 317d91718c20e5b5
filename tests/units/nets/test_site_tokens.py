"""The site-token model: who may see whom, and what must not matter."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.nets.site_tokens import Rows, SiteTokenModel

KEY = np.random.default_rng(0)
FEATURES = KEY.normal(size=(20, 5))
WILD = jnp.asarray(np.r_[KEY.integers(0, 20, 12), [20] * 4], jnp.int32)
ROWS = 10


def rows(n: int = ROWS, shots: int = 5, width: int = 2) -> Rows:
    sites = KEY.integers(0, 12, (n, width))
    sites[:, 1] = np.where(sites[:, 1] == sites[:, 0], -1, sites[:, 1])
    residues = np.where(sites >= 0, KEY.integers(0, 20, (n, width)), -1)
    known = np.arange(n) < shots
    labels = np.where(known, KEY.normal(size=n), 0.0)
    made = (jnp.asarray(sites, jnp.int32), jnp.asarray(residues, jnp.int32), jnp.asarray(labels, jnp.float32))
    return Rows(*made, jnp.asarray(known), jnp.ones(n, bool))


@pytest.fixture(scope="module")
def model():
    fresh = SiteTokenModel.init(jax.random.key(0), FEATURES, width=8, n_heads=2)
    noise = jax.random.normal(jax.random.key(1), fresh.head[1].weight.shape)
    fresh = eqx.tree_at(lambda m: m.head[1].weight, fresh, noise)
    tables = tuple(jax.random.normal(jax.random.key(2), b.mutants.shape) for b in fresh.biases)
    return eqx.tree_at(lambda m: tuple(b.mutants for b in m.biases), fresh, tables)


@pytest.fixture(scope="module")
def run(model):
    return jax.jit(lambda r: model.context(WILD, r)[1])


@pytest.fixture(scope="module")
def later(model):
    return jax.jit(lambda context, queries: model.predict(model.context(WILD, context)[0], queries))


def permuted(data: Rows, order) -> Rows:
    return jax.tree.map(lambda leaf: leaf[jnp.asarray(order)], data)


def test_permuting_queries_permutes_predictions(run):
    data, order = rows(), [0, 1, 2, 3, 4, 9, 7, 5, 8, 6]
    assert np.allclose(run(data)[jnp.asarray(order)], run(permuted(data, order)), atol=1e-5)


def test_the_order_of_the_support_does_not_matter(run):
    data, order = rows(), [4, 2, 0, 1, 3, 5, 6, 7, 8, 9]
    assert np.allclose(run(data)[5:], run(permuted(data, order))[5:], atol=1e-5)


def test_the_order_of_mutations_in_a_variant_does_not_matter(run):
    data = rows()
    turned = eqx.tree_at(lambda r: (r.sites, r.residues), data, (data.sites[:, ::-1], data.residues[:, ::-1]))
    assert np.allclose(run(data), run(turned), atol=1e-5)


def test_a_label_that_is_not_shown_changes_nothing(run):
    data = rows()
    changed = eqx.tree_at(lambda r: r.labels, data, data.labels.at[5:].set(100.0))
    assert np.array_equal(run(data), run(changed))


def test_a_label_that_is_shown_does(run):
    data = rows()
    changed = eqx.tree_at(lambda r: r.labels, data, data.labels.at[0].add(3.0))
    assert not np.allclose(run(data)[5:], run(changed)[5:], atol=1e-3)


def test_rows_that_only_fill_up_change_nothing(run):
    data = rows()
    filled = eqx.tree_at(lambda r: r.valid, data, jnp.arange(ROWS) < 8)
    other = permuted(filled, [*range(8), 0, 1])
    other = eqx.tree_at(lambda r: r.valid, other, jnp.arange(ROWS) < 8)
    assert np.allclose(run(filled)[:8], run(other)[:8], atol=1e-5)


def test_a_later_row_is_predicted_as_if_it_had_been_the_only_one(later):
    context, queries = rows(), rows(6, 0)
    alone = [later(context, permuted(queries, [i] * 6))[0] for i in range(6)]
    assert np.allclose(later(context, queries), np.array(alone), atol=1e-5)


def test_a_later_row_sees_what_a_row_of_the_context_sees(run, later):
    """A context with one query more than another: the query's prediction in it is the later one from the other."""
    data = rows()
    last = permuted(data, [9] * 6)
    fewer = eqx.tree_at(lambda r: r.valid, data, jnp.arange(ROWS) < 9)
    first_layer_only = jnp.abs(run(data)[9] - later(fewer, last)[0])
    assert float(first_layer_only) < 0.2 * float(jnp.std(run(data)))


def test_the_arm_without_context_sees_no_label_and_no_row(model):
    data = rows()
    alone = jax.jit(lambda r: model.without_context(WILD, r))
    changed = eqx.tree_at(lambda r: r.labels, permuted(data, [0, *range(9, 0, -1)]), -data.labels)
    assert np.allclose(alone(data)[0], alone(changed)[0], atol=1e-6)


def test_what_stands_after_the_end_of_the_protein_does_not_matter(model, run):
    data = rows()
    longer = jax.jit(lambda r: model.context(jnp.concatenate([WILD, jnp.full(8, 20, jnp.int32)]), r)[1])
    assert np.allclose(run(data), longer(data), atol=1e-5)
