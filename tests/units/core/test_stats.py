from __future__ import annotations

import time

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fledge.core.errors import ConfigError, DataError, ShapeError
from fledge.core.stats import (
    bootstrap,
    iqm,
    mean,
    median,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
)

tables = hnp.arrays(
    float, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-1e6, 1e6, allow_subnormal=False)
)


def test__iqm__eight_scores__is_the_mean_of_the_middle_four():
    scores = np.array([[100.0, 1, 2, 3], [4, 5, 6, -50]])
    assert iqm(scores) == pytest.approx((2 + 3 + 4 + 5) / 4)


def test__iqm__along_x__reduces_seeds_and_tasks_only():
    scores = np.arange(24.0).reshape(2, 3, 4)
    assert np.allclose(iqm(scores), [iqm(scores[..., k]) for k in range(4)])


def test__iqm__missing_scores__are_left_out():
    assert iqm(np.array([[1.0, np.nan, 3.0], [np.nan, 2.0, np.nan]])) == pytest.approx(2.0)


def test__iqm__no_score_at_all__is_nan():
    assert np.isnan(iqm(np.full((3, 2), np.nan)))


@given(tables)
def test_the_iqm_is_scipys_trimmed_mean(scores):
    assert iqm(scores) == pytest.approx(scipy.stats.trim_mean(scores.ravel(), 0.25), rel=1e-9, abs=1e-6)


@given(tables)
def test_the_iqm_lies_between_least_and_most(scores):
    assert scores.min() - 1e-6 <= iqm(scores) <= scores.max() + 1e-6


@given(tables, st.randoms(use_true_random=False))
def test_the_iqm_ignores_the_order_of_seeds_and_tasks(scores, random):
    rows, columns = list(range(scores.shape[0])), list(range(scores.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    assert iqm(scores[rows][:, columns]) == pytest.approx(iqm(scores), rel=1e-9, abs=1e-6)


def test__mean_median_gap__small_table__by_hand():
    scores = np.array([[0.0, 1.0, 5.0], [2.0, np.nan, 7.0]])  # means over seeds: 1, 1, 6
    assert mean(scores) == pytest.approx(3.0)
    assert median(scores) == pytest.approx(1.0)
    assert optimality_gap(scores, 2.0) == pytest.approx(2 - (0 + 1 + 2 + 2 + 2) / 5)


def test__median__even_number_of_tasks__is_halfway():
    assert median(np.array([[1.0, 2.0, 10.0, 20.0]])) == pytest.approx(6.0)


def test__bootstrap__two_seeds_one_task__is_the_exact_distribution():
    """The mean of two draws from {0, 1} is 0, ½, ½ or 1: the 95 % bounds are 0 and 1."""
    estimate = bootstrap(np.array([[0.0], [1.0]]), mean)
    assert (float(estimate.value), float(estimate.lo), float(estimate.hi)) == (0.5, 0.0, 1.0)


def test__bootstrap__seeds_agree_within_each_task__has_no_width_however_tasks_differ():
    """Tasks are strata: the difference between tasks must not enter the interval."""
    estimate = bootstrap(np.array([[1.0, 100.0], [1.0, 100.0], [1.0, 100.0]]), mean)
    assert (float(estimate.lo), float(estimate.hi)) == (50.5, 50.5)


def test__bootstrap__same_scores__same_interval():
    scores = np.random.default_rng(0).normal(size=(4, 3))
    assert bootstrap(scores) == bootstrap(scores)


def test__bootstrap__value_of_x__stays_with_its_seed():
    """The second x is the first plus 1, so the bounds must be too: x of one seed are drawn together."""
    scores = np.random.default_rng(0).normal(size=(5, 3, 1))
    estimate = bootstrap(np.concatenate([scores, scores + 1], axis=-1))
    assert np.allclose(estimate.lo[1], estimate.lo[0] + 1)


def _coverage(draw, *, n=150, **options):
    hits = 0
    for seed in range(n):
        estimate = bootstrap(draw(np.random.default_rng(seed)), mean, n_resamples=400, **options)
        hits += float(estimate.lo) <= 0 <= float(estimate.hi)
    return hits / n


def test_the_interval_covers_the_truth_about_95_times_in_100():
    """150 draws: a share near 0.95 has a standard error of 0.018; percentile bounds of 20 seeds run a little narrow."""
    assert 0.89 <= _coverage(lambda rng: rng.normal(size=(20, 5))) <= 0.99


def test_whole_seeds_cover_where_all_tasks_of_a_seed_rise_and_fall_together():
    def shared(rng):
        return rng.normal(size=(20, 1)) + 0.3 * rng.normal(size=(20, 5))

    assert _coverage(shared, whole_seeds=True) >= 0.88
    assert _coverage(shared) <= 0.75  # what drawing each task apart would claim


def test__bootstrap__two_of_five_seeds_missing__is_wider():
    widths = np.zeros(2)
    for seed in range(30):
        scores = np.random.default_rng(seed).normal(size=(5, 4))
        holed = scores.copy()
        holed[3:] = np.nan
        widths += [float(e.hi - e.lo) for e in (bootstrap(scores), bootstrap(holed))]
    assert widths[1] > 1.1 * widths[0]


def test__bootstrap__one_task_left_with_one_seed__is_wider():
    widths = np.zeros(2)
    for seed in range(30):
        scores = np.random.default_rng(seed).normal(size=(5, 4))
        holed = scores.copy()
        holed[1:, 0] = np.nan
        widths += [float(e.hi - e.lo) for e in (bootstrap(scores), bootstrap(holed))]
    assert widths[1] > 1.1 * widths[0]


def test__bootstrap__one_seed__has_a_value_and_no_bounds():
    estimate = bootstrap(np.ones((1, 3, 2)))
    assert np.allclose(estimate.value, 1)
    assert np.isnan(estimate.lo).all()
    assert np.isnan(estimate.hi).all()


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(
        float,
        hnp.array_shapes(min_dims=2, max_dims=3, max_side=5),
        elements=st.one_of(st.just(np.nan), st.floats(-100, 100)),
    ),
    st.booleans(),
)
def test_missing_scores_never_crash_the_bootstrap(scores, whole_seeds):
    estimate = bootstrap(scores, n_resamples=20, whole_seeds=whole_seeds)
    bounded = ~np.isnan(estimate.lo)
    assert np.all(estimate.lo[bounded] <= estimate.hi[bounded])


def test__bootstrap__two_thousand_resamples_of_5_by_21_by_4__takes_well_under_a_second():
    scores = np.random.default_rng(0).normal(size=(5, 21, 4))
    begin = time.process_time()
    bootstrap(scores, n_resamples=2000)
    assert time.process_time() - begin < 0.7


def test__bootstrap__counts__what_was_there():
    scores = np.ones((3, 4))
    scores[2] = scores[:, 1] = np.nan
    estimate = bootstrap(scores)
    assert (estimate.n_seeds, estimate.n_tasks) == (2, 3)


def test__improvement__by_hand__counts_ties_half():
    x, y = np.array([[1.0], [2.0]]), np.array([[1.0], [0.0]])
    assert float(probability_of_improvement(x, y).value) == pytest.approx((0.5 + 1 + 1 + 1) / 4)


def test__improvement__is_averaged_over_tasks():
    x, y = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert float(probability_of_improvement(x, y).value) == pytest.approx(0.5)


@given(tables.flatmap(lambda x: st.tuples(st.just(x), hnp.arrays(float, x.shape, elements=st.floats(-5, 5)))))
@settings(max_examples=30)
def test_x_beats_y_as_often_as_y_does_not_beat_x(pair):
    x, y = pair
    there = probability_of_improvement(x, y, n_resamples=2).value
    back = probability_of_improvement(y, x, n_resamples=2).value
    assert float(there + back) == pytest.approx(1.0)


def test__improvement__interval__holds_the_exact_resamples():
    """x seeds {0, 2}, y seeds {1, 1}: P is the share of 2 among two draws: 0, ½, ½ or 1."""
    estimate = probability_of_improvement(np.array([[0.0], [2.0]]), np.array([[1.0], [1.0]]))
    assert (float(estimate.value), float(estimate.lo), float(estimate.hi)) == (0.5, 0.0, 1.0)


def test__improvement__tasks_that_only_one_has__are_left_out():
    x, y = np.array([[1.0, np.nan], [1.0, 5.0]]), np.array([[0.0, np.nan]])
    estimate = probability_of_improvement(x, y)
    assert (float(estimate.value), estimate.n_tasks) == (1.0, 1)


def test__improvement__no_common_task__is_nan():
    assert np.isnan(probability_of_improvement(np.array([[1.0, np.nan]]), np.array([[np.nan, 1.0]])).value)


def test__improvement__other_number_of_tasks__names_both_shapes():
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(2, 4\)"):
        probability_of_improvement(np.ones((2, 3)), np.ones((2, 4)))


def test__profile__by_hand():
    profile = performance_profile(np.array([[1.0, 2.0], [3.0, np.nan]]), np.array([0.0, 1.0, 2.5, 3.0]))
    assert np.allclose(profile.value, [1, 2 / 3, 1 / 3, 0])


def test__profile__never_rises():
    scores = np.random.default_rng(0).normal(size=(5, 4))
    assert np.all(np.diff(performance_profile(scores, np.linspace(-2, 2, 30)).value) <= 0)


@pytest.mark.parametrize("scores", [np.ones(3), np.ones((0, 3)), np.ones((2, 0, 1))])
def test__bootstrap__no_seed_and_task_axes__says_what_came(scores):
    with pytest.raises(ShapeError, match="seed, task"):
        bootstrap(scores)


def test__bootstrap__infinite_score__names_the_place():
    with pytest.raises(DataError, match=r"\(1, 0\) is infinite"):
        bootstrap(np.array([[1.0], [np.inf]]))


@pytest.mark.parametrize("options", [{"level": 95.0}, {"n_resamples": 0}])
def test__bootstrap__senseless_option__is_refused_by_name(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        bootstrap(np.ones((2, 2)), **options)
