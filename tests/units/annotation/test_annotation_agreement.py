"""Agreement against hand-made tables, libraries and published examples; aggregation rules against small cases."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fledge.annotation.aggregate import aggregate, wide
from fledge.annotation.agreement import (
    agreement,
    cohen_kappa,
    counts,
    fleiss_kappa,
    gwet_ac,
    icc,
    item_entropy,
    krippendorff_alpha,
    of_counts,
    percent_agreement,
)
from fledge.core.consensus import dawid_skene
from fledge.core.errors import ConfigError, ShapeError

_ = np.nan
# Krippendorff 2013, ch. 12 (the four-observer example with missing answers).
KRIPPENDORFF = np.array(
    [
        [1, 1, _, 1],
        [2, 2, 3, 2],
        [3, 3, 3, 3],
        [3, 3, 3, 3],
        [2, 2, 2, 2],
        [1, 2, 3, 4],
        [4, 4, 4, 4],
        [1, 1, 2, 1],
        [2, 2, 2, 2],
        [_, 5, 5, 5],
        [_, _, 1, 1],
        [_, _, 3, _],
    ],
    float,
)
# Shrout & Fleiss 1979, table 2.
SHROUT = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)


def long(table: np.ndarray, condition: str = "A") -> object:
    """A table of items by raters as a long frame."""
    rows = [(i, r, condition, "q", v) for (i, r), v in np.ndenumerate(table) if not np.isnan(v)]
    return pd.DataFrame(rows, columns=["item", "annotator", "condition", "construct", "value"])


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorffs_own_example_gives_his_alpha(level, published):
    assert krippendorff_alpha(KRIPPENDORFF, level) == pytest.approx(published, abs=5e-4)


def test_fleiss_kappa_is_that_of_statsmodels():
    rater = pytest.importorskip("statsmodels.stats.inter_rater")
    table = np.random.default_rng(0).integers(3, size=(40, 4)).astype(float)
    assert fleiss_kappa(table) == pytest.approx(rater.fleiss_kappa(rater.aggregate_raters(table)[0]))


@pytest.mark.parametrize(("weights", "name"), [("nominal", None), ("interval", "quadratic")])
def test_cohen_kappa_is_that_of_scikit_learn(weights, name):
    metrics = pytest.importorskip("sklearn.metrics")
    a, b = np.random.default_rng(1).integers(4, size=(2, 60)).astype(float)
    assert cohen_kappa(a, b, weights) == pytest.approx(metrics.cohen_kappa_score(a, b, weights=name))


def test_gwets_coefficient_of_two_raters_by_hand():
    # 10 items: both yes 7, both no 1, split 2. p_a = 0.8, pi = 0.8, p_e = 2 * 0.8 * 0.2 = 0.32.
    table = np.array([[1, 1]] * 7 + [[0, 0]] + [[1, 0]] * 2, float)
    assert gwet_ac(table) == pytest.approx((0.8 - 0.32) / (1 - 0.32))


@pytest.mark.parametrize(("kind", "published"), [("1", 0.17), ("2", 0.29), ("3", 0.71)])
def test_intraclass_correlations_are_those_of_shrout_and_fleiss(kind, published):
    assert icc(SHROUT, kind) == pytest.approx(published, abs=0.006)


def test_a_two_way_intraclass_correlation_refuses_a_table_with_gaps():
    with pytest.raises(ShapeError, match="1 answers are missing"):
        icc(np.where(SHROUT == 10, np.nan, SHROUT), "2")


def test_percent_agreement_counts_pairs_item_by_item():
    assert percent_agreement(np.array([[1, 1, 0], [1, 1, _], [0, _, _]])) == pytest.approx((1 / 3 + 1) / 2)


def test_entropy_is_one_bit_where_answers_split_evenly():
    assert item_entropy(np.array([[1, 0], [1, 1], [_, _]])).tolist() == pytest.approx([1, 0, _], nan_ok=True)


def test_agreement_is_undefined_where_everybody_says_the_same():
    assert np.isnan(krippendorff_alpha(np.ones((5, 3))))


@pytest.mark.parametrize("measure", ["percent", "alpha", "fleiss", "gwet", "entropy"])
def test_a_measure_does_not_care_about_the_order_of_items_and_raters(measure):
    table = np.where(
        np.random.default_rng(2).random((30, 4)) < 0.2, np.nan, np.random.default_rng(9).integers(2, size=(30, 4))
    )
    moved = np.random.default_rng(3).permutation(table)[:, ::-1]
    assert of_counts(counts(table), measure) == pytest.approx(of_counts(counts(moved), measure))


def test_copies_of_an_annotator_are_never_compared_with_themselves():
    # Two annotators who always disagree: doubling one of them must not create agreement.
    table = np.array([[0, 1], [1, 0], [0, 1]], float)
    from fledge.annotation.agreement import counts_of

    doubled = counts_of(long(table), np.array([2.0, 1.0]))
    assert of_counts(doubled, "percent") == 0.0


@pytest.mark.parametrize("over", ["items", "annotators"])
def test_the_interval_holds_the_value(over):
    rng = np.random.default_rng(4)
    truth = rng.random((80, 1)) < 0.5
    table = (truth ^ (rng.random((80, 5)) < 0.15)).astype(float)
    found = agreement(long(table), "q", over=over, n_resamples=100)
    assert found.lo < found.value < found.hi


def test_more_items_narrow_the_interval():
    rng = np.random.default_rng(5)
    table = ((rng.random((400, 1)) < 0.5) ^ (rng.random((400, 3)) < 0.2)).astype(float)
    few, many = (agreement(long(table[:n]), "q", n_resamples=200) for n in (50, 400))
    assert many.hi - many.lo < 0.6 * (few.hi - few.lo)


def test_an_unknown_measure_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'alpha'"):
        agreement(long(KRIPPENDORFF), "q", measure="alhpa")


@pytest.mark.parametrize(
    ("rule", "labels"),
    [
        ("median", [1, 0, 0.5]),
        ("majority_positive", [1, 0, 1]),
        ("majority_negative", [1, 0, 0]),
        ("majority_drop", [1, 0, _]),
    ],
)
def test_each_rule_treats_a_tie_as_it_says(rule, labels):
    table = np.array([[1, 1, 0], [0, 0, 1], [1, 0, _]], float)
    assert aggregate(long(table), "q", rule)["value"].tolist() == pytest.approx(labels, nan_ok=True)


def test_dawid_and_skene_listen_to_the_reliable_annotators():
    rng = np.random.default_rng(6)
    truth = rng.integers(2, size=200)
    wrong = np.array([0.05, 0.05, 0.45, 0.45, 0.45])
    said = truth[:, None] ^ (rng.random((200, 5)) < wrong)
    item, annotator = np.divmod(np.arange(1000), 5)
    guess = dawid_skene(item, annotator, said.ravel().astype(int)).argmax(axis=1)
    majority = (said.mean(axis=1) > 0.5).astype(int)
    assert (guess == truth).mean() > (majority == truth).mean() + 0.05


def test_aggregated_conditions_make_a_table_of_items_by_conditions():
    frame = pd.concat([long(np.array([[1.0], [0.0]]), "A"), long(np.array([[1.0]]), "B")])
    assert wide(aggregate(frame, "q", "median")).tolist() == [[1, 1], pytest.approx([0, _], nan_ok=True)]
