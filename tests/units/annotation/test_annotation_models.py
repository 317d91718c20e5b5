"""The train × test matrix, its decomposition and intervals, learning curves, back-ends and resuming."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fledge.annotation.backends import EmbeddingLogistic, TfidfLogistic
from fledge.annotation.crossed import (
    Draws,
    auc,
    balanced_accuracy,
    ceilings,
    compare_predictions,
    decompose,
    draws,
    effects_table,
    matrix_table,
)
from fledge.annotation.curves import as_curves, fit_power_law, learning_curves
from fledge.annotation.frame import Study
from fledge.annotation.matrix import Crossed, cross_condition, equal_labels, training_rows
from fledge.annotation.simulate import FIVE_CONDITIONS, Planted, Simulation, permute_conditions, simulate
from fledge.core.errors import ConfigError, DataError

CONDITIONS = {name: FIVE_CONDITIONS[name] for name in "ABD"}


@pytest.fixture(scope="module")
def study():
    plan = Simulation(
        n_items=160, dropout=0.3, constructs={"hate_speech": Planted(0.35), "offensive_language": Planted(0.5)},
        conditions=CONDITIONS,
    )  # fmt: skip
    return simulate(plan, 1)


@pytest.fixture(scope="module")
def crossed(study):
    return cross_condition(study, "hate_speech", TfidfLogistic(), seeds=(0, 1))


def perfect(training, texts):
    """A back-end that knows the answer: the number of training labels plays no part."""
    return np.linspace(0, 1, len(texts))


def nonsense(training, texts):
    """A back-end that returns what is no probability."""
    return np.full(len(texts), 2.0)


def test_every_condition_is_trained_for_every_seed(crossed):
    assert crossed.scores.shape == (2, 3, len(crossed.items))


def test_models_beat_chance_on_texts_that_carry_the_construct(crossed):
    assert draws(crossed, "auc", n_resamples=2).value.min() > 0.52


def test_balanced_accuracy_and_auc_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores, up, down = rng.random(50).round(1), rng.integers(3, size=50) * 1.0, rng.integers(3, size=50) * 1.0
    score = np.r_[np.repeat(scores, up.astype(int)), np.repeat(scores, down.astype(int))]
    label = np.repeat([1, 0], [int(up.sum()), int(down.sum())])
    ours = [float(np.ravel(how(scores, up[None], down[None]))[0]) for how in (balanced_accuracy, auc)]
    theirs = [metrics.balanced_accuracy_score(label, score > 0.5), metrics.roc_auc_score(label, score)]
    assert ours == pytest.approx(theirs)


def test_item_weights_are_the_same_as_repeated_items():
    rng = np.random.default_rng(1)
    scores, up, down = rng.random(30), rng.integers(3, size=30) * 1.0, rng.integers(3, size=30) * 1.0
    copies = rng.integers(3, size=30)
    again = np.repeat(np.arange(30), copies)
    weighted = auc(scores, up[None], down[None], copies[None].astype(float))
    assert weighted == pytest.approx(auc(scores[again], up[again][None], down[again][None]))


def test_the_decomposition_adds_up_to_an_additive_matrix():
    train, test = np.array([0.02, -0.01, -0.01]), np.array([0.03, 0.0, -0.03])
    parts = decompose(0.7 + train[:, None] + test + 0.05 * np.eye(3))
    found = (parts["own"], parts["train"].tolist(), parts["test"].tolist())
    assert found == (pytest.approx(0.05), pytest.approx(train.tolist()), pytest.approx(test.tolist()))


def test_renaming_conditions_permutes_the_matrix(study):
    names = {"A": "z", "B": "y", "D": "x"}
    renamed = Study(study.frame.assign(condition=study.frame["condition"].map(names)), study.texts, study.split)
    value = draws(cross_condition(study, "hate_speech", TfidfLogistic()), "auc", n_resamples=1).value
    other = draws(cross_condition(renamed, "hate_speech", TfidfLogistic()), "auc", n_resamples=1).value
    assert other == pytest.approx(value[::-1, ::-1])


def test_a_cell_and_its_interval_are_one_row(crossed):
    table = matrix_table(crossed, "auc", draws(crossed, "auc", n_resamples=100))
    assert len(table) == 9 and ((table["lo"] <= table["value"]) & (table["value"] <= table["hi"])).all()


def test_more_test_items_narrow_the_interval():
    rng = np.random.default_rng(2)
    width = []
    for n in (60, 960):
        score = rng.random((1, 2, n))
        up = (rng.random((2, n)) < score[0]).astype(float)
        one = Crossed("q", ("A", "B"), (0,), tuple(range(n)), score, up, 1 - up, {})
        table = matrix_table(one, "auc", draws(one, "auc", n_resamples=200))
        width.append((table["hi"] - table["lo"]).mean())
    assert width[1] < 0.5 * width[0]


def test_dealing_out_conditions_anew_takes_the_effect_of_the_training_condition_away():
    two = {name: FIVE_CONDITIONS[name] for name in "AB"}
    planted = simulate(Simulation(n_items=300, constructs={"q": Planted(0.5, split=-0.2)}, conditions=two), 4)

    def gap(frame):
        """How much lower the models of B score the same items."""
        crossed = cross_condition(Study(frame, planted.texts, planted.split), "q", TfidfLogistic())
        return float(np.subtract(*crossed.scores[0].mean(axis=1)))

    dealt = np.array([gap(permute_conditions(planted.frame, seed)) for seed in range(10)])
    assert gap(planted.frame) > dealt.max() and abs(dealt.mean()) < 3 * dealt.std(ddof=1) / np.sqrt(10)


def test_effects_of_identical_conditions_hold_zero():
    rng = np.random.default_rng(3)
    score = np.tile(rng.random((1, 1, 400)), (1, 3, 1))
    up = (rng.random((3, 400)) < score[0]).astype(float)
    one = Crossed("q", ("A", "B", "C"), (0,), tuple(range(400)), score, up, 1 - up, {})
    table = effects_table(one, "balanced_accuracy", draws(one, "balanced_accuracy", n_resamples=300))
    own = table[table["effect"].isin(["own", "train"])]
    assert ((own["lo"] <= 1e-12) & (own["hi"] >= -1e-12)).all()


def test_a_matrix_of_one_seed_and_of_its_copies_are_the_same():
    one = Draws(np.eye(2), np.eye(2)[None])
    assert decompose(one.value)["own"] == 1.0


def test_equal_size_gives_every_item_as_many_labels_in_every_condition(study):
    rows = study.frame[(study.frame["construct"] == "offensive_language") & study.frame["value"].notna()]
    kept = equal_labels(rows, list("ABD"), 0)
    n = kept.groupby(["item", "condition"]).size().unstack().fillna(0)
    assert n.nunique(axis=1).eq(1).all() and len(kept) < len(rows)


@pytest.mark.parametrize(("mode", "labels", "weights"), [
    ("rows", [1, 1, 0, 0], [1, 1, 1, 1]),
    ("majority", [1, 0], [1, 1]),
    ("soft", [1, 0, 0], [2 / 3, 1 / 3, 1]),
])  # fmt: skip
def test_training_labels_are_what_the_mode_says(mode, labels, weights):
    rows = pd.DataFrame({"item": [1, 1, 1, 2], "value": [1.0, 1, 0, 0]})
    training = training_rows(rows, mode, {1: "a", 2: "b"}, 0)
    assert (training.label.tolist(), training.weight.tolist()) == (labels, pytest.approx(weights))


def test_the_majority_of_own_labels_is_the_ceiling():
    up = np.array([[3.0, 0, 2, 1]])
    one = Crossed("q", ("A",), (0,), (1, 2, 3, 4), np.zeros((1, 1, 4)), up, 3 - up, {})
    assert ceilings(one)["value"].tolist() == pytest.approx([(5 / 6 + 5 / 6) / 2])


def test_predictions_of_the_same_model_agree(study):
    table, alpha = compare_predictions(cross_condition(study, "hate_speech", perfect))
    assert alpha == 1.0 and table["score_difference"].max() == 0.0


def test_any_callable_is_a_back_end_and_is_checked(study):
    with pytest.raises(DataError, match="one probability for each of 40 texts"):
        cross_condition(study, "hate_speech", nonsense)


def test_an_embedding_is_handed_in(study):
    def embed(texts):
        return np.array([[len(text), text.count("a")] for text in texts], float)

    crossed = cross_condition(study, "hate_speech", EmbeddingLogistic(embed, "letters"))
    assert np.isfinite(crossed.scores).all()


def test_finished_cells_are_read_and_not_trained_again(study, tmp_path):
    calls = []

    def counted(training, texts):
        calls.append(training.seed)
        return np.full(len(texts), 0.25)

    first = cross_condition(study, "hate_speech", counted, folder=tmp_path)
    (next(iter(sorted(tmp_path.glob("*.npy"))))).unlink()
    again = cross_condition(study, "hate_speech", counted, folder=tmp_path)
    assert len(calls) == 3 + 1 and np.array_equal(first.scores, again.scores)


def test_a_damaged_cell_is_trained_again(study, tmp_path):
    cross_condition(study, "hate_speech", perfect, folder=tmp_path)
    broken = next(iter(tmp_path.glob("*.npy")))
    broken.write_bytes(b"half a fi")
    cross_condition(study, "hate_speech", perfect, folder=tmp_path)
    assert np.load(broken).shape == (40,)


def test_other_labels_are_another_cell(study, tmp_path):
    cross_condition(study, "hate_speech", perfect, folder=tmp_path)
    flipped = Study(study.frame.assign(value=1 - study.frame["value"]), study.texts, study.split)
    cross_condition(flipped, "hate_speech", perfect, folder=tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 6


def test_progress_counts_every_cell(study):
    told = []
    cross_condition(study, "hate_speech", perfect, seeds=(0, 1), progress=lambda *at: told.append(at))
    assert told == [(i, 6) for i in range(1, 7)]


def test_processes_give_the_same_scores(study):
    two = {"conditions": ["A", "B"]}
    alone, together = (cross_condition(study, "hate_speech", TfidfLogistic(), n_jobs=n, **two).scores for n in (1, 2))
    assert np.array_equal(alone, together)


def test_an_item_in_both_splits_is_refused():
    rows = {"item": [1, 1], "annotator": [1, 2], "condition": "A", "construct": "q", "value": [1, 0]}
    with pytest.raises(DataError, match="in several splits"):
        Study.of(pd.DataFrame(rows | {"split": ["train", "test"]}))


@pytest.fixture(scope="module")
def curve(study):
    return learning_curves(study, "hate_speech", TfidfLogistic(), fractions=(0.25, 0.5, 1.0), repeats=2)


def test_subsets_of_a_learning_curve_are_nested(study):
    seen: dict[int, list[set[str]]] = {}

    def remember(training, texts):
        seen.setdefault(training.seed, []).append(set(training.texts))
        return np.full(len(texts), 0.5)

    learning_curves(study, "hate_speech", remember, fractions=(0.25, 0.5, 1.0), repeats=2, conditions=["A"])
    assert all(a < b < c for a, b, c in seen.values()) and seen[0][0] != seen[1][0]


def test_a_learning_curve_has_a_row_for_each_size_test_and_metric(curve):
    assert len(curve) == 3 * 2 * 3 * 2 * 2 and set(curve["test"]) == {"own", "pooled"}


def test_its_rows_fit_into_curves_csv(curve):
    rows = as_curves(curve)
    assert (len(rows), set(rows.x_unit), set(rows.adapt)) == (len(curve), {"label"}, {"own", "pooled"})


def test_a_fraction_beyond_all_is_refused(study):
    with pytest.raises(ConfigError, match="Fractions in"):
        learning_curves(study, "hate_speech", TfidfLogistic(), fractions=(0.5, 1.5))


def test_a_power_law_is_recovered_and_inverted():
    x = np.array([50.0, 100, 400, 1600, 6400])
    law = fit_power_law(np.tile(x, 2), np.tile(0.9 - 1.5 * x**-0.5, 2), np.repeat([0, 1], 5))
    assert (law.limit, law.gap, law.labels_needed(0.85)) == (
        pytest.approx(0.9), pytest.approx(1.5), pytest.approx(900),
    )  # fmt: skip


def test_no_number_of_labels_reaches_more_than_the_limit():
    x = np.array([50.0, 100, 400])
    assert fit_power_law(x, 0.8 - x**-0.5, np.zeros(3)).labels_needed(0.9) == float("inf")
