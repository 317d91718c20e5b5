"""Scores, baselines, calibration, choice of batches, made-up proteins and files of weights."""

from __future__ import annotations

import numpy as np
import pytest
from protein_cases import WILD, additive

from fledge.core.errors import ConfigError, DataError
from fledge.data.mutations import Variants, parse
from fledge.data.residues import ALPHABET, BLOSUM62
from fledge.protein.baselines import blosum, gaussian_process, mutation_count, one_hot, ridge
from fledge.protein.calibrate import calibrate
from fledge.protein.choose import choose, distance
from fledge.protein.published import MEAN, beside
from fledge.protein.scores import aggregate, ndcg, spearman, top_recall
from fledge.protein.synthetic import Ehrlich, nk, potts, synthetic_assays
from fledge.protein.weights import load_prior

SOME = parse(["K2R", "K2R:A4G", "A4G", "WT", "A4S"], WILD)


def test_spearman_is_scipys():
    scipy = pytest.importorskip("scipy.stats")
    a, b = np.random.default_rng(0).integers(0, 5, (2, 30)).astype(float)
    assert spearman(a, b) == pytest.approx(scipy.spearmanr(a, b).statistic)


def test_a_constant_prediction_is_worth_nothing():
    assert spearman(np.zeros(5), np.arange(5.0)) == 0.0


def test_the_ideal_ranking_has_all_of_the_gain():
    y = np.random.default_rng(0).normal(size=50)
    assert ndcg(y, y) == pytest.approx(1)
    assert ndcg(-y, y) < 0.5
    assert top_recall(y, y) == 1


def test_proteingyms_mean_counts_a_protein_once():
    plain, theirs = aggregate({"a": 1.0, "b": 0.0, "c": 0.5}, {"a": "P", "b": "P", "c": "Q"}, dict.fromkeys("abc", "x"))
    assert (plain, theirs) == (0.5, 0.5)
    assert aggregate({"a": 1.0, "c": 0.0}, {"a": "P", "c": "Q"}, {"a": "x", "c": "y"})[1] == 0.5


def test_ridge_is_numpys():
    assay = additive(1)
    x = one_hot(WILD, assay.variants)
    shown, asked = np.arange(0, 60), np.arange(60, 90)
    centred = x[shown] - x[shown].mean(0)
    mean = assay.scores[shown].mean()
    weights = np.linalg.solve(centred.T @ centred + np.eye(x.shape[1]), centred.T @ (assay.scores[shown] - mean))
    expected = mean + (x[asked] - x[shown].mean(0)) @ weights
    found = ridge(WILD, assay.variants.take(shown), assay.scores[shown], assay.variants.take(asked))
    assert np.allclose(found, expected)


@pytest.mark.parametrize("predictor", [ridge, gaussian_process])
def test_where_effects_add_up_the_ranking_becomes_right_with_labels(predictor):
    assay = additive(2)
    order = np.random.default_rng(0).permutation(len(assay))
    rho = []
    for n in (8, 60, 300):
        shown, asked = order[:n], order[300:]
        v = predictor(WILD, assay.variants.take(shown), assay.scores[shown], assay.variants.take(asked))
        rho.append(spearman(v, assay.scores[asked]))
    assert rho[0] < rho[1] < rho[2]
    assert rho[2] > 0.9


def test_trivial_rankings_are_what_they_say():
    assert mutation_count(WILD, SOME, np.zeros(5), SOME).tolist() == [-1, -2, -1, 0, -1]
    k, r = ALPHABET.index("K"), ALPHABET.index("R")
    assert blosum(WILD, SOME, np.zeros(5), SOME)[[0, 3]].tolist() == [BLOSUM62[k, r] - BLOSUM62[k, k], 0]


def test_distances_count_positions():
    assert distance(SOME, SOME)[1].tolist() == [1, 0, 1, 2, 2]
    assert distance(SOME, SOME)[2, 4] == 1


def test_an_interval_covers_what_it_promises():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(200):
        v, noise = rng.normal(size=(2, 60))
        y = 3 * v + 1 + noise
        made = calibrate(v[:40], y[:40])
        half = made.half_width(20, 0.9)
        covered.append((np.abs(y[40:] - made.value(v[40:])) <= half).mean())
    assert 0.87 < np.mean(covered) < 0.95


def test_values_stay_without_a_unit_when_there_are_few_labels():
    made = calibrate(np.arange(4.0), np.arange(4.0))
    assert not made.has_unit
    assert made.value(np.array([2.0])).tolist() == [2.0]


def test_a_ranking_that_is_wrong_is_not_turned_round():
    made = calibrate(np.arange(10.0), -np.arange(10.0))
    assert made.slope == 0


def test_greedy_takes_the_best_and_a_cap_spreads_the_picks():
    values = np.array([[5.0, 4.0, 3.0, 2.0, 1.0]])
    assert choose(SOME, values, 3).tolist() == [0, 1, 2]
    assert choose(SOME, values, 3, per_site=1).tolist() == [0, 2, 3]


def test_ucb_takes_what_is_unsure():
    values = np.array([[1.0, 0.9, 0.0, 0.0, 0.0], [1.0, 0.9, 0.0, 3.0, 0.0]])
    assert choose(SOME, values, 1).tolist() == [3]
    assert choose(SOME, values - [0, 0, 0, 1, 0], 1, strategy="ucb").tolist() == [3]
    assert choose(SOME, values - [0, 0, 0, 1, 0], 1, strategy="greedy").tolist() == [0]


def test_thompson_follows_one_copy_for_each_pick():
    values = np.array([[9.0, 0, 0, 0, 0], [0, 9.0, 0, 0, 0]])
    picks = {int(choose(SOME, values, 1, strategy="thompson", seed=s)[0]) for s in range(20)}
    assert picks == {0, 1}


def test_diversity_turns_to_other_places():
    variants = Variants.of([[(0, 1)], [(0, 1), (1, 1)], [(9, 2), (8, 2), (7, 2)]])
    values = np.array([[1.0, 0.9, 0.5]])
    assert choose(variants, values, 2).tolist() == [0, 1]
    assert choose(variants, values, 2, diversity=4.0).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"n": 9}, "9 picks were wanted of 5"), ({"n": 5, "per_site": 1}, "At most 1 picks at a position"),
     ({"n": 2, "random_share": 2.0}, "random_share lies in")],
)  # fmt: skip
def test_a_batch_that_cannot_be_is_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        choose(SOME, np.ones((1, 5)), **settings)


def test_a_made_up_protein_is_the_same_for_its_seed():
    assert np.array_equal(potts(3).scores, potts(3).scores)
    assert not np.array_equal(potts(3).scores, potts(4).scores)
    assert len(synthetic_assays("potts", 2)[0]) == 400


def test_a_regression_learns_a_potts_protein():
    assay = potts(0)
    v = ridge(assay.wild_type, assay.variants.take(np.arange(128)), assay.scores[:128], assay.variants)
    assert spearman(v[128:], assay.scores[128:]) > 0.6


def test_neighbours_matter_in_nk():
    assay = nk(0)
    v = ridge(assay.wild_type, assay.variants.take(np.arange(128)), assay.scores[:128], assay.variants)
    assert spearman(v[128:], assay.scores[128:]) < 0.9


def test_an_unknown_family_is_refused():
    with pytest.raises(ConfigError, match="Did you mean 'potts'"):
        synthetic_assays("pots", 1)


def test_an_ehrlich_problem_has_an_optimum_of_one_and_forbidden_neighbours():
    problem = Ehrlich.sample(0, n_states=8)
    grid = np.stack(np.meshgrid(*[np.arange(8)] * 7, indexing="ij"), -1).reshape(-1, 7)[::521]
    values = np.array([problem(x) for x in grid[:4000]])
    assert np.isneginf(values).any()
    assert set(np.round(values[np.isfinite(values)], 6)) <= {0.0, round(1 / 3, 6), round(2 / 3, 6), 1.0}


def test_an_ehrlich_problem_reaches_its_optimum():
    for seed in range(20):
        problem = Ehrlich.sample(seed, n_states=8, length=12, n_motifs=2)
        assert problem(problem.optimum()) == 1.0


def test_motifs_have_to_fit():
    with pytest.raises(ConfigError, match="3 motifs of 3 elements do not fit into 7"):
        Ehrlich.sample(0, n_motifs=3)


def test_an_ehrlich_protein_is_heavily_tied_and_what_is_forbidden_ranks_last():
    [assay] = synthetic_assays("ehrlich", 1)
    problem = Ehrlich.sample(0, n_states=8, length=12, n_motifs=2)
    states = np.array([[ALPHABET.index(x) for x in sequence] for sequence in assay.variants.sequences(assay.wild_type)])
    dead = np.isneginf([problem(x) for x in states])
    assert len(np.unique(assay.scores)) < 12
    assert dead.any() and assay.scores[dead].max() < assay.scores[~dead].min()


def test_published_numbers_stand_beside_ours_where_the_assays_are_the_same():
    rows = beside({0: {"TAT_HV1BR_Fernandes_2016": 0.3, "RL401_YEAST_Roscoe_2013": 0.1, "other": 0.9}, 16: {"x": 0.5}})
    mean = [row for row in rows if (row.method, row.assay) == ("Fledge", MEAN)]
    assert [(row.labels, row.differs) for row in mean] == [(0, "only 2 of the 8 were measured")]
    assert mean[0].spearman == pytest.approx(0.2)
    assert ("ESM-2 8M", "TAT_HV1BR_Fernandes_2016", -0.034) in [(r.method, r.assay, r.spearman) for r in rows]
    assert all(row.differs for row in rows if row.assay == MEAN)
    assert beside({0: {"other": 0.9}}) == []


def test_means_of_single_published_assays_are_the_published_means():
    rows = beside({0: {"TAT_HV1BR_Fernandes_2016": 0.3}})
    each = [row.spearman for row in rows if row.method == "ESM-2 8M" and row.assay != MEAN]
    assert np.mean(each) == pytest.approx(0.116, abs=5e-4)


def test_weights_that_are_not_there_are_told(tmp_path):
    with pytest.raises(DataError, match="fledge protein pretrain"):
        load_prior(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"xx")
    with pytest.raises(DataError, match="is damaged"):
        load_prior(tmp_path / "bad.safetensors")


def test_what_is_saved_is_loaded(weights):
    prior = load_prior(weights)
    assert (prior.n_members, prior.about["train"]) == (2, ["nothing"])


def test_the_shipped_weights_are_small_and_say_what_they_were_trained_on():
    prior = load_prior()
    held_out = set(prior.about["held_out"])
    assert prior.n_members >= 3
    assert len(prior.about["train"]) > 100
    assert not held_out & set(prior.about["train"])
    assert "BLAT_ECOLX_Jacquier_2013" in held_out
