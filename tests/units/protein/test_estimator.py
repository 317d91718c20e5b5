"""`FitnessEstimator`: scikit-learn's manners, and a right answer or one clear message for everything that comes."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
from protein_cases import WILD, additive

from fledge.core.errors import ConfigError, DataError
from fledge.data.mutations import Variants, all_singles
from fledge.protein.adapt import _context, adapt
from fledge.protein.estimator import FitnessEstimator
from fledge.protein.ranking import COLUMNS
from fledge.protein.scores import spearman
from fledge.protein.weights import Prior, load_prior, save_prior

ASSAY = additive(5)
NAMES = ASSAY.variants.names(WILD)
ORDER = np.random.default_rng(0).permutation(len(ASSAY))
SHOWN, HIDDEN = ORDER[:40], ORDER[40:120]


@pytest.fixture(scope="module")
def fitted(weights):
    model = FitnessEstimator(WILD, weights=weights, n_steps=2)
    return model.fit([NAMES[i] for i in SHOWN], ASSAY.scores[SHOWN])


@pytest.fixture(scope="module")
def blank(weights):
    return FitnessEstimator(WILD, weights=weights).fit()


def test_fit_returns_itself_and_predict_one_number_each(fitted):
    assert fitted.predict([NAMES[i] for i in HIDDEN]).shape == (80,)


def test_no_label_is_enough(blank):
    assert np.isfinite(blank.predict(NAMES)).all()
    assert (blank.n_labels_, blank.n_steps_) == (0, 0)


def test_predictions_do_not_depend_on_what_else_is_asked_for(fitted):
    together = fitted.predict([NAMES[i] for i in HIDDEN[:5]])
    alone = np.array([fitted.predict([NAMES[i]])[0] for i in HIDDEN[:5]])
    assert np.allclose(together, alone, atol=1e-4)


def test_the_order_of_the_labels_changes_no_ranking_without_fine_tuning(weights):
    pairs = [(NAMES[i], ASSAY.scores[i]) for i in SHOWN[:10]]
    both = []
    for part in (pairs, pairs[::-1]):
        model = FitnessEstimator(WILD, weights=weights, n_steps=0).fit(*map(list, zip(*part, strict=True)))
        both.append(model.adapted_.predict(ASSAY.variants.take(HIDDEN)))
    assert np.allclose(*both, atol=1e-4)


def test_labels_on_another_scale_give_the_same_ranking(weights, fitted):
    names = [NAMES[i] for i in SHOWN]
    other = FitnessEstimator(WILD, weights=weights, n_steps=2).fit(names, 7 * ASSAY.scores[SHOWN] - 3)
    assert np.allclose(fitted.adapted_.predict(ASSAY.variants), other.adapted_.predict(ASSAY.variants), atol=1e-3)


def test_fitting_again_gives_the_same_and_leaves_the_weights_as_they_were(weights, fitted):
    before = np.asarray(fitted.prior_.members.additive).copy()
    again = FitnessEstimator(WILD, weights=weights, n_steps=2).fit([NAMES[i] for i in SHOWN], ASSAY.scores[SHOWN])
    assert np.array_equal(again.adapted_.predict(ASSAY.variants), fitted.adapted_.predict(ASSAY.variants))
    assert np.array_equal(before, again.prior_.members.additive)


def test_fine_tuning_learns_from_the_labels(weights):
    shown = [(ASSAY.variants.take(SHOWN), ASSAY.scores[SHOWN])]
    before, after = (
        adapt(load_prior(weights).members, WILD, shown, n_steps=n, learning_rate=1e-2).predict(
            ASSAY.variants.take(HIDDEN)
        )
        for n in (0, 40)
    )
    rho = [spearman(v.mean(axis=0), ASSAY.scores[HIDDEN]) for v in (before, after)]
    assert rho[1] > rho[0] + 0.1


def test_uncertainty_is_in_the_units_of_the_labels(fitted):
    values, std = fitted.predict([NAMES[i] for i in HIDDEN], return_std=True)
    assert ((std > 0.05) & (std < 5)).all()
    assert abs(values.mean() - ASSAY.scores.mean()) < 1


def test_intervals_grow_with_what_they_promise(fitted):
    names = [NAMES[i] for i in HIDDEN]
    low, high = fitted.predict_interval(names, 0.5)
    lower, higher = fitted.predict_interval(names, 0.9)
    assert (lower < low).all() and (low < high).all() and (high < higher).all()


def test_intervals_take_thirty_labels(blank):
    with pytest.raises(ConfigError, match="at least 30 labels that differ; there are 0"):
        blank.predict_interval(NAMES[:3])


def test_a_ranking_has_everything_a_person_needs(fitted):
    found = fitted.rank()
    first = next(iter(found))
    assert len(found) == 19 * len(WILD) - 40
    assert tuple(first) == COLUMNS
    assert np.all(np.diff(found.columns["predicted"]) <= 0)


def test_a_ranking_can_stay_in_the_order_of_the_candidates(fitted):
    names = [NAMES[i] for i in HIDDEN]
    found = fitted.rank(names, in_place=True)
    assert found.mutants == names
    assert np.array_equal(np.argsort(found.columns["rank"]), np.argsort(-np.array(found.columns["predicted"])))


@pytest.mark.parametrize("strategy", ["greedy", "ucb", "thompson"])
def test_a_batch_has_no_candidate_twice(fitted, strategy):
    found = fitted.suggest(12, strategy=strategy, diversity=0.3, per_site=2)
    sites = found.variants.sites[:, 0]
    assert len(set(found.mutants)) == 12
    assert np.bincount(sites).max() <= 2


def test_an_unknown_strategy_is_refused(fitted):
    with pytest.raises(ConfigError, match="Did you mean 'greedy'"):
        fitted.suggest(3, strategy="greedi")


def test_parameters_are_read_and_set_like_in_scikit_learn(weights):
    sklearn = pytest.importorskip("sklearn.base")
    copy = sklearn.clone(FitnessEstimator(WILD, weights=weights, n_steps="cv"))
    assert copy.get_params()["n_steps"] == "cv"
    assert copy.set_params(seed=3).seed == 3
    with pytest.raises(ConfigError, match=r"no parameter 'n_step'\. Did you mean 'n_steps'"):
        copy.set_params(n_step=1)


def test_scikit_learn_cross_validates_it(weights):
    selection = pytest.importorskip("sklearn.model_selection")
    model = FitnessEstimator(WILD, weights=weights, n_steps=0)
    scores = selection.cross_val_score(model, np.array(NAMES)[SHOWN], ASSAY.scores[SHOWN], cv=2)
    assert np.isfinite(scores).all()


def test_replicates_are_averaged_and_counted(weights):
    model = FitnessEstimator(WILD, weights=weights).fit(["K2R", "K2R", "A4G"], [1.0, 3.0, 0.5])
    assert (model.scores_.tolist(), model.replicates_.tolist()) == ([2.0, 0.5], [2, 1])


def test_missing_and_censored_scores_are_understood(weights):
    model = FitnessEstimator(WILD, weights=weights).fit(["K2R", "A4G", "T3S", "V7A"], ["1.5", "<LOD", "", "0.5"])
    assert model.scores_.tolist() == [1.5, 0.5, 0.5]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_one_label_and_a_few_are_enough(weights, n):
    model = FitnessEstimator(WILD, weights=weights).fit(NAMES[:n], list(range(n)))
    values, std = model.predict(NAMES[:9], return_std=True)
    assert np.isfinite(values).all() and np.isfinite(std).all()


def test_constant_scores_are_told_and_change_nothing(weights, blank):
    with pytest.warns(UserWarning, match="All 6 scores are 2: they say nothing about an order"):
        model = FitnessEstimator(WILD, weights=weights, n_steps=5).fit(NAMES[:6], [2.0] * 6)
    assert np.array_equal(model.predict(NAMES[:9]), blank.predict(NAMES[:9]))
    assert np.isfinite(model.predict(NAMES[:9], return_std=True)[1]).all()


def test_the_wild_type_can_be_labelled_and_ranked(weights):
    model = FitnessEstimator(WILD, weights=weights).fit(["WT", "K2R"], [1.0, 0.0])
    assert np.isfinite(model.predict(["WT", WILD])).all()


def test_variants_with_many_mutations_are_ranked(fitted):
    many = Variants.concat([all_singles(WILD).take(np.arange(0, 300, 31)), ASSAY.variants.take(np.arange(3))])
    doubles = ["K2R:A4G", "K2R:A4G:V7A", "M1A:K2R:T3S:A4G:Y5F"]
    assert np.isfinite(fitted.predict(doubles)).all()
    assert np.isfinite(fitted.predict(many)).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((["K2R"], [1.0, 2.0]), "1 variants came with 2 scores"),
        (("K2R", [1.0]), "A list of variants was wanted"),
        ((["K2R"], None), "1 variants came with 0 scores"),
        ((["A4_Y5insG"], [1.0]), "'A4_Y5insG' is an insertion or a deletion"),
        ((["MKTAYLVCAGDEFHIKLNP"], [1.0]), "a sequence of 19 residues, but the wild type has 20"),
        ((["R2K"], [1.0]), "row 1: R2K says R at 2, but the wild type has K"),
        ((["K1R", "T2S"], [1.0, 2.0]), r"All letters fit if \+1 is added"),
        ((["K2del"], [1.0]), "insertion or a deletion"),
        ((["K2X"], [1.0]), "none of the twenty"),
        ((["K2R"], ["x"]), "1 of 1 scores are not numbers"),
        ((["K2R"], [np.inf]), "Score 1 is infinite"),
        ((["K2R", "A4G"], ["<LOD", "<LOD"]), "All scores are below detection"),
    ],
)
def test_bad_input_is_one_clear_message(weights, arguments, said):
    with pytest.raises(DataError, match=said):
        FitnessEstimator(WILD, weights=weights).fit(*arguments)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [({}, "There is no wild type"), ({"wild_type": WILD, "n_steps": "some"}, "n_steps is a number, 'rule' or 'cv'")],
)
def test_a_bad_parameter_is_one_clear_message(weights, parameters, said):
    with pytest.raises(ConfigError, match=said):
        FitnessEstimator(weights=weights, **parameters).fit(["K2R"], [1.0])


@pytest.mark.parametrize("call", ["predict", "rank", "predict_interval"])
def test_asking_before_fitting_is_told(call):
    with pytest.raises(ConfigError, match="Call fit first"):
        getattr(FitnessEstimator(WILD), call)(["K2R"])


SKLEARN_CHECKS = (
    "check_estimator_cloneable", "check_estimator_repr", "check_estimator_tags_renamed", "check_valid_tag_types",
    "check_no_attributes_set_in_init", "check_parameters_default_constructible", "check_get_params_invariance",
    "check_set_params", "check_mixin_order", "check_estimators_unfitted",
)  # fmt: skip
"""Those that hand no numbers as X. All others do, and a variant is a string: see the next test."""


@pytest.mark.parametrize("check", SKLEARN_CHECKS)
def test_the_checks_of_scikit_learn_that_can_apply_hold(check):
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    if not hasattr(checks, check):
        pytest.skip(f"this version of scikit-learn has no {check}")
    getattr(checks, check)("FitnessEstimator", FitnessEstimator(WILD))


def test_a_table_of_numbers_is_no_list_of_variants(weights):
    with pytest.raises(DataError, match="2 of the mutations of 2 variants cannot be used"):
        FitnessEstimator(WILD, weights=weights).fit(np.array([[0.5], [1.0]]), [1.0, 2.0])


def test_a_fitted_estimator_survives_pickling(fitted):
    names = [NAMES[i] for i in HIDDEN[:9]]
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict(names), fitted.predict(names))


def test_a_nan_label_is_left_out(weights):
    model = FitnessEstimator(WILD, weights=weights).fit(["K2R", "A4G"], [np.nan, 1.0])
    assert model.n_labels_ == 1


def test_parts_of_the_labels_use_the_programs_of_the_whole(weights, fitted):
    """What compiles takes longest by far at the first call."""
    before = _context._cache_size()
    fitted.cross_validated_spearman()
    FitnessEstimator(WILD, weights=weights, n_steps=0).fit(NAMES[:3], [1.0, 2.0, 3.0]).predict(NAMES[:2])
    assert _context._cache_size() == before


def test_a_model_without_context_learns_by_fine_tuning_alone(weights, tmp_path):
    prior = load_prior(weights)
    settings = {**prior.about["settings"], "context": False}
    path = save_prior(tmp_path / "alone.safetensors", Prior(prior.members, {**prior.about, "settings": settings}))
    names, scores = [NAMES[i] for i in SHOWN[:10]], ASSAY.scores[SHOWN[:10]]
    models = [FitnessEstimator(WILD, weights=path, n_steps=n).fit(names, y) for n, y in ((0, scores), (0, -scores))]
    assert np.array_equal(*(m.adapted_.predict(ASSAY.variants) for m in models))
    tuned = FitnessEstimator(WILD, weights=path).fit(names, scores)
    assert tuned.n_steps_ == 20
    assert not np.allclose(tuned.adapted_.predict(ASSAY.variants), models[0].adapted_.predict(ASSAY.variants))


def test_steps_follow_the_rule(weights):
    assert FitnessEstimator(WILD, weights=weights).fit(NAMES[:31], ASSAY.scores[:31]).n_steps_ == 0


def test_a_protein_of_three_thousand_residues_is_ranked(weights):
    long = WILD * 150
    model = FitnessEstimator(long, weights=weights).fit(["K2R", "Q3000A"], [0.0, 1.0])
    found = model.rank(["K2R", "K1502A", "Q3000W"])
    assert np.isfinite(found.columns["predicted"]).all()
    assert set(found.columns["sequence"][0]) <= set(WILD + "AW")


def test_a_hundred_thousand_candidates_are_ranked(weights, fitted):
    rng = np.random.default_rng(0)
    sites = np.sort(rng.permuted(np.tile(np.arange(len(WILD)), (100_000, 1)), axis=1)[:, :2], axis=1)
    many = Variants(sites.astype(np.int32), rng.integers(0, 20, sites.shape).astype(np.int32))
    values = fitted.adapted_.predict(many)
    assert values.shape == (2, 100_000)
    assert np.isfinite(values).all()


def test_nothing_is_warned_about_when_nothing_is_wrong(weights):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        FitnessEstimator(WILD, weights=weights).fit(["K2R", "A4G"], [0.0, 1.0]).predict(["T3S"])
