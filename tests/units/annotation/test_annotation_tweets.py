"""The public tweets under five instruments: every count and number that is known of them.

The data are not part of the package. They are looked for in the folder `annotation` of FLEDGE_DATA, or of
`../shared/data` beside the checkout.
"""

from __future__ import annotations

import os
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from fledge.annotation.aggregate import aggregate, wide
from fledge.annotation.agreement import counts_of, krippendorff_alpha, of_counts
from fledge.annotation.backends import TfidfLogistic
from fledge.annotation.crossed import ceilings, draws
from fledge.annotation.effects import regress
from fledge.annotation.frame import answered
from fledge.annotation.load import load_study
from fledge.annotation.matrix import cross_condition
from fledge.annotation.mixed import fit_linear_mixed
from fledge.annotation.prevalence import prevalence

ROOT = Path(__file__).resolve().parents[3]
FOLDER = Path(os.environ.get("FLEDGE_DATA") or ROOT.parent / "shared" / "data") / "annotation"
pytestmark = pytest.mark.skipif(
    not (FOLDER / "full_train_s.csv").exists(),
    reason=f"the public tweets are not in {FOLDER} (set FLEDGE_DATA to the folder above 'annotation')",
)
CONDITIONS = list("ABCDE")
CONSTRUCTS = ("hate_speech", "offensive_language")


@pytest.fixture(scope="module")
def study():
    return load_study(FOLDER)


@pytest.fixture(scope="module")
def shares(study):
    return prevalence(study.frame, pooled=True).set_index(["construct", "condition"])


def test_rows_annotators_and_tweets_are_those_of_the_analysis_set(study):
    shown = study.frame[study.frame["construct"] == "hate_speech"]
    full = shown.groupby("annotator").size().eq(50).sum()
    assert (len(shown), shown["annotator"].nunique(), shown["item"].nunique(), full) == (44_900, 917, 3_000, 879)


def test_rows_and_annotators_of_each_condition(study):
    groups = study.frame[study.frame["construct"] == "hate_speech"].groupby("condition")
    assert (groups.size().tolist(), groups["annotator"].nunique().tolist()) == (
        [9000, 9000, 8950, 8950, 9000],
        [184, 183, 182, 179, 189],
    )


def test_nobody_worked_under_two_conditions(study):
    assert study.frame.groupby("annotator")["condition"].nunique().max() == 1


def test_second_answers_are_missing_in_blocked_conditions_only(study):
    lost = study.frame[study.frame["value"].isna()].groupby(["construct", "condition"]).size()
    assert lost.to_dict() == {("hate_speech", "E"): 311, ("offensive_language", "D"): 39}


def test_fifty_tweets_in_c_and_in_d_have_only_two_labels(study):
    shown = study.frame[study.frame["construct"] == "hate_speech"]
    n = shown.groupby(["condition", "item"]).size()
    assert n[n < 3].groupby("condition").size().to_dict() == {"C": 50, "D": 50}


def test_position_is_the_tweets_place_in_its_batch(study):
    assert ((study.frame["item"] - 1) % 50 + 1 == study.frame["position"]).all()


def test_no_tweet_is_in_both_splits(study):
    train, test = study.items("train"), study.items("test")
    assert (len(train), len(test), set(train) & set(test)) == (2250, 750, set())


def test_training_rows_with_three_labels(study):
    rows = study.frame[study.frame["item"].map(study.split) == "train"]
    rows = rows[rows["value"].notna()]
    kept = rows[rows.groupby(["condition", "construct", "item"])["value"].transform("size") == 3]
    n = kept.groupby(["construct", "condition"]).size().unstack()
    assert n.loc["hate_speech"].tolist() == [6750, 6750, 6645, 6654, 6057]
    assert n.loc["offensive_language"].tolist() == [6750, 6750, 6645, 6555, 6750]


TABLE_1 = {
    "offensive_language": [
        (51.6, 49.9, 53.4, 2.9), (58.8, 57.0, 60.7, 3.3), (58.5, 56.8, 60.3, 2.9), (54.4, 52.3, 56.4, 4.0),
        (59.0, 57.3, 60.6, 2.7),
    ],
    "hate_speech": [
        (26.8, 25.1, 28.4, 3.4), (29.6, 27.7, 31.6, 4.3), (28.2, 26.1, 30.3, 5.1), (33.5, 31.2, 35.7, 5.4),
        (31.8, 29.3, 34.3, 6.6),
    ],
}  # fmt: skip


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_shares_intervals_and_design_effects_are_those_of_table_1(shares, construct):
    own = shares.loc[construct].loc[CONDITIONS]
    found = [tuple(row) for row in np.c_[100 * own[["value", "lo", "hi"]].to_numpy(), own["deff"].to_numpy()].round(1)]
    assert found == TABLE_1[construct]


def test_pooled_shares(shares):
    pooled = [round(100 * shares.loc[(name, "all"), "value"], 1) for name in CONSTRUCTS]
    assert pooled == [30.0, 56.5]


BETWEEN = {
    "offensive_language": [0.653, 0.646, 0.629, 0.655, 0.731, 0.695, 0.740, 0.707, 0.740, 0.724, 0.692],
    "hate_speech": [0.596, 0.545, 0.559, 0.477, 0.536, 0.579, 0.505, 0.539, 0.484, 0.510, 0.533],
}


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_agreement_between_conditions_is_that_of_table_2(study, construct):
    table = wide(aggregate(study.frame, construct, "median"))
    pairs = [table[:, list(pair)] for pair in combinations(range(5), 2)]
    assert [round(krippendorff_alpha(part), 3) for part in (*pairs, table)] == BETWEEN[construct]


WITHIN = {
    "hate_speech": [0.416, 0.430, 0.383, 0.398, 0.349],
    "offensive_language": [0.483, 0.576, 0.570, 0.498, 0.628],
}


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_agreement_inside_conditions(study, construct):
    found = [of_counts(counts_of(answered(study.frame, construct, [name]))) for name in CONDITIONS]
    assert np.round(found, 3).tolist() == WITHIN[construct]


@pytest.mark.parametrize(("construct", "share"), [("hate_speech", 0.39), ("offensive_language", 0.31)])
def test_the_majority_of_many_tweets_depends_on_the_condition(study, construct, share):
    table = wide(aggregate(study.frame, construct, "majority_positive"))
    changes = np.mean(np.nanmax(table, axis=1) != np.nanmin(table, axis=1))
    assert changes == pytest.approx(share, abs=0.0051)


@pytest.mark.parametrize(
    ("construct", "effects", "errors", "joint"),
    [
        ("hate_speech", [0.029, 0.015, 0.067, 0.050], [0.012, 0.013, 0.014, 0.015], 6e-6),
        ("offensive_language", [0.072, 0.069, 0.027, 0.073], [0.012, 0.012, 0.013, 0.011], 1e-12),
    ],
)
def test_the_linear_model_with_two_way_clusters(study, construct, effects, errors, joint):
    fit = regress(study.frame, construct)
    assert (fit.params[1:].round(3).tolist(), fit.se[1:].round(3).tolist()) == (effects, errors)
    assert fit.joint_p() == pytest.approx(joint, rel=0.05)


@pytest.mark.parametrize(("construct", "slope"), [("hate_speech", -0.0027), ("offensive_language", -0.0037)])
def test_the_logit_with_position(study, construct, slope):
    fit = regress(study.frame, construct, model="logit", terms=("condition", "position"), cluster=("annotator",))
    assert (round(float(fit.params[-1]), 4), round(float(fit.se[-1]), 4)) == (slope, 0.0007)


def test_the_mixed_model_of_hate_speech(study):
    fit = fit_linear_mixed(study.frame, "hate_speech", groups=("annotator",))
    assert (
        round(fit.icc["annotator"], 3),
        round(fit.variances["annotator"], 4),
        round(fit.variances["residual"], 4),
    ) == (
        0.082,
        0.0172,
        0.1922,
    )


def test_effects_of_the_mixed_model_are_near_those_of_the_linear_one(study):
    both = [fit_linear_mixed(study.frame, name, groups=("annotator",)).params for name in CONSTRUCTS]
    plain = [regress(study.frame, name).params for name in CONSTRUCTS]
    assert np.abs(np.array(both) - plain)[:, 1:].max() < 0.005


def test_the_mixed_model_of_offensive_language_is_at_its_maximum(study):
    """A moment estimator (one-way analysis of variance) that shares no code with the likelihood."""
    rows = answered(study.frame, "offensive_language")
    rest = rows["value"] - rows.groupby("condition")["value"].transform("mean")
    groups = rest.groupby(rows["annotator"])
    n = groups.size()
    within = ((rest - groups.transform("mean")) ** 2).sum() / (len(rest) - len(n))
    between = (n * groups.mean() ** 2).sum() / (len(n) - 5)
    typical = (n.sum() - (n**2).sum() / n.sum()) / (len(n) - 5)
    fit = fit_linear_mixed(study.frame, "offensive_language", groups=("annotator",))
    moments = (between - within) / typical
    assert fit.variances["annotator"] == pytest.approx(moments, rel=0.05) and fit.variances[
        "residual"
    ] == pytest.approx(within, rel=0.005)


MATRIX = {
    "hate_speech": """.627 .626 .625 .618 .614 | .630 .622 .624 .619 .618 | .624 .604 .615 .603 .597
        | .661 .652 .654 .651 .647 | .656 .643 .637 .623 .622""",
    "offensive_language": """.733 .725 .738 .690 .723 | .705 .732 .746 .715 .747 | .712 .733 .747 .721 .744
        | .698 .718 .737 .720 .738 | .690 .724 .735 .710 .737""",
}
OTHERS = {"hate_speech": [0.80, 0.76, 0.76, 0.76, 0.75], "offensive_language": [0.78, 0.84, 0.84, 0.82, 0.86]}
OWN = {"hate_speech": (0.84, 0.85), "offensive_language": (0.86, 0.90)}


@pytest.fixture(scope="module", params=CONSTRUCTS)
def crossed(study, request):
    return cross_condition(study, request.param, TfidfLogistic())


def test_the_matrix_of_the_portable_baseline(crossed):
    wanted = np.array([[float(cell) for cell in row.split()] for row in MATRIX[crossed.construct].split("|")])
    assert np.abs(draws(crossed, "balanced_accuracy", n_resamples=1).value - wanted).max() <= 0.005


def test_ceilings_of_label_noise(crossed):
    table = ceilings(crossed).set_index(["ceiling", "test"])["value"].round(2)
    low, high = OWN[crossed.construct]
    assert table["other conditions"].tolist() == OTHERS[crossed.construct]
    assert table["own majority"].between(low, high).all()
