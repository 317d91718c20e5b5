"""Episodes and meta-training: nothing that is asked for leaks, chunks can be repeated, and a stopped run goes on."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from protein_cases import SMALL, WILD, additive

from fledge.core.errors import ConfigError, DataError
from fledge.data.assays import Assay
from fledge.protein.episodes import WILD as WILD_ROW
from fledge.protein.episodes import episode, plan, standardised, walk
from fledge.protein.pretrain import begin, chunk_plan, make_chunk
from fledge.protein.tasks import bucket, spans_of, task_arrays
from fledge.run.protein_pretrain import MemberSettings, groups_of, kept_apart, train_members

ASSAYS = [additive(0), additive(1), additive(2, wild_type=WILD[::-1])]
ARRAYS = task_arrays(ASSAYS)
COUNTS = np.asarray(ARRAYS.counts)


@pytest.fixture(scope="module")
def cut():
    def one(key, rows, shots, prob):
        return episode(key, ARRAYS, jnp.array(1), rows, shots, augment_prob=prob)

    compiled = jax.jit(one, static_argnums=3)
    return lambda key, rows, shots, prob=0.0: compiled(key, rows, shots, prob)


def test_an_episode_never_has_a_row_twice():
    rows = plan(COUNTS, 0, n_steps=3, n_tasks=2, n_rows=16, shots=(4,)).rows
    assert all(len(set(part.tolist())) == 16 for part in np.asarray(rows).reshape(-1, 16))


def test_a_chunk_is_the_same_whatever_was_drawn_before():
    a, b = (plan(COUNTS, 7, n_steps=2, n_tasks=2, n_rows=8, shots=(0, 4), seed=3) for _ in range(2))
    assert all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_every_task_comes_once_in_an_epoch():
    assert sorted(walk(5, 5, 10, 0).tolist()) == [0, 1, 2, 3, 4]
    assert np.array_equal(walk(5, 4, 8, 0), walk(5, 12, 0, 0)[8:])


def test_a_small_assay_leaves_rows_empty(cut):
    rows = plan(np.array([5]), 0, n_steps=1, n_tasks=1, n_rows=16, shots=(2,)).rows[0, 0]
    found = cut(jax.random.key(0), jnp.asarray(rows), jnp.array(2))
    assert (found.rows.valid.sum(), found.asked.sum()) == (5, 3)


def test_labels_are_standardised_by_the_support_alone(cut):
    rows = jnp.arange(16)[:, None]
    shown = cut(jax.random.key(0), rows, jnp.array(8)).rows.labels[:8]
    assert float(shown.mean()) == pytest.approx(0, abs=1e-6)
    assert float(shown.std()) == pytest.approx(1, abs=1e-5)


def test_what_is_asked_for_cannot_be_read_off_the_rows(cut):
    """Other queries behind the same support: the support's labels stay as they are."""
    first = cut(jax.random.key(0), jnp.arange(16)[:, None], jnp.array(8)).rows.labels[:8]
    other = cut(jax.random.key(0), jnp.r_[jnp.arange(8), jnp.arange(40, 48)][:, None], jnp.array(8)).rows.labels[:8]
    assert np.array_equal(first, other)


def test_one_label_is_standardised_to_zero():
    assert standardised(jnp.array([3.0, 9.0]), jnp.array([True, False])).tolist() == [0.0, 6.0]


def test_augmentation_changes_targets_where_there_are_labels_only(cut):
    rows = jnp.arange(16)[:, None]
    plain, noisy, blind = (cut(jax.random.key(0), rows, jnp.array(s), p) for s, p in ((8, 0.0), (8, 1.0), (0, 1.0)))
    assert not np.allclose(plain.targets, noisy.targets)
    assert np.array_equal(plain.targets, blind.targets)


def test_parts_are_put_together_and_add_up(cut):
    rows = jnp.array([[0, 25], [0, 1], [WILD_ROW, WILD_ROW], [3, -1]])
    found = cut(jax.random.key(0), rows, jnp.array(0))
    assert (found.rows.sites >= 0).sum(-1).tolist() == [2, 1, 0, 1]  # two of one site clash: the first stays
    assert found.rows.valid.tolist() == [True] * 4


def test_a_constant_assay_is_refused():
    flat = Assay("flat", WILD, ASSAYS[0].variants, np.ones(len(ASSAYS[0])))
    with pytest.raises(DataError, match="flat has fewer than two different scores"):
        task_arrays([flat])


def test_sizes_that_arrays_are_filled_up_to():
    assert [bucket(n) for n in (1, 16, 17, 200, 257, 3000)] == [16, 16, 32, 256, 512, 4096]


def test_training_takes_the_loss_down():
    settings = replace(SMALL, n_steps=160, chunk=40, learning_rate=1e-2, dropout=0.0, augment_prob=0.0)
    chunk, state, losses = make_chunk(settings), begin(0, settings), []
    for number in range(4):
        state, found = chunk(state, (ARRAYS,), chunk_plan([COUNTS], number, settings, 0))
        losses.append(float(found.mean()))
    assert losses[-1] < losses[0] - 0.03


@pytest.mark.parametrize("change", [{"rule": "reptile"}, {"rule": "maml", "context": False}])
def test_other_rules_of_meta_training_change_the_model(change):
    settings = replace(SMALL, chunk=1, inner_steps=1, shots=(8,), **change)
    before = begin(0, settings).model
    chunk, state = make_chunk(settings), begin(0, settings)
    for number in range(2):  # the first step's learning rate is 0
        state, loss = chunk(state, (ARRAYS,), chunk_plan([COUNTS], number, settings, 0))
    assert np.isfinite(loss).all()
    assert not np.allclose(before.additive, state.model.additive)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ConfigError, match="Did you mean 'reptile'"):
        make_chunk(replace(SMALL, rule="reptil"))


def test_a_killed_run_goes_on_bit_for_bit(tmp_path):
    settings = MemberSettings(n_members=2, train=replace(SMALL, n_steps=26))
    whole = train_members(ASSAYS, settings, folder=tmp_path / "a")

    def killed(done, total):
        if done == 26 + 24:  # of the second member, two chunks after its last checkpoint
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_members(ASSAYS, settings, folder=tmp_path / "b", advance=killed)
    steps = []
    again = train_members(ASSAYS, settings, folder=tmp_path / "b", advance=lambda done, total: steps.append(done))
    assert steps == [26, 26 + 20, 26 + 22, 26 + 24, 26 + 26]
    assert all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (whole.members, again.members)), strict=True))


def test_checkpoints_of_another_training_are_refused(tmp_path):
    train_members(ASSAYS, MemberSettings(n_members=1, train=SMALL), folder=tmp_path)
    with pytest.raises(ConfigError, match="of another training"):
        train_members(ASSAYS, MemberSettings(n_members=1, train=replace(SMALL, learning_rate=0.1)), folder=tmp_path)


def test_the_model_that_ranks_the_validation_assays_best_is_taken(monkeypatch):
    told = iter([0.5, 0.2])
    monkeypatch.setattr("fledge.run.protein_pretrain._judge", lambda apart, settings: lambda model: {"x": next(told)})
    settings = MemberSettings(n_members=1, validation=0.25, train=SMALL)
    found = train_members([*ASSAYS, additive(3)], settings)
    assert found.about["validation"]["members"] == [{"step": 4, "agreement": 0.5}]
    assert len(found.about["train"]) == 3


def test_validation_assays_are_alike_to_no_training_assay():
    apart = kept_apart([*ASSAYS, additive(3)], 0.25)
    assert [assay.name for assay in apart] == ["additive-2"]  # the others are of one protein


@pytest.mark.parametrize("change", [{"n_members": 0}, {"train": replace(SMALL, n_steps=1)}])
def test_a_training_of_nothing_is_refused(change):
    with pytest.raises(ConfigError, match="at least 1 member, and steps are a multiple of 2"):
        train_members(ASSAYS, replace(MemberSettings(train=SMALL), **change))


def test_too_few_assays_are_refused():
    with pytest.raises(ConfigError, match="A step takes 2 tasks, but there are 1"):
        train_members(ASSAYS[:1], MemberSettings(train=SMALL))


def test_short_and_long_proteins_are_apart_where_there_are_enough():
    long = [additive(i, wild_type=WILD * 6) for i in (7, 8)]
    assert [len(group) for group in groups_of([*ASSAYS, *long], SMALL)] == [3, 2]
    assert [len(group) for group in groups_of(ASSAYS, SMALL)] == [3]


def test_a_window_shows_only_variants_inside_of_it(cut):
    spans = [spans_of(assay) for assay in ASSAYS]
    drawn = plan(COUNTS, 0, n_steps=4, n_tasks=2, n_rows=200, shots=(4,), spans=spans, window=7)
    for task, rows, start in zip(drawn.tasks.ravel(), drawn.rows.reshape(8, -1), drawn.starts.ravel(), strict=True):
        sites = ASSAYS[task].variants.sites[rows[rows >= 0], 0]
        assert sorted(set(sites.tolist())) == list(range(start, start + 7))


def test_a_window_is_an_episode_of_a_part_of_the_protein():
    rows = jnp.array([[3 * 19], [5 * 19 + 1]])  # at sites 3 and 5
    found = episode(jax.random.key(0), ARRAYS, jnp.array(0), rows, jnp.array(1), jnp.array(3), window=8)
    assert found.rows.sites[:, 0].tolist() == [0, 2]
    assert found.wild_type.tolist() == ARRAYS.wild_types[0, 3:11].tolist()
