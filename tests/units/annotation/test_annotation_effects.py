"""Prevalence, regressions and mixed models, against hand counts and the libraries where they overlap."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fledge.annotation.effects import contrasts, regress
from fledge.annotation.fieldwork import attrition, attrition_p, deviations
from fledge.annotation.frame import check_frame
from fledge.annotation.mixed import cumulative_design_effects, fit_linear_mixed, fit_logit_mixed
from fledge.annotation.prevalence import bootstrap_mean, clustered_mean, holm, post_stratify, prevalence
from fledge.annotation.simulate import Planted, Simulation, simulate
from fledge.core.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def frame():
    """A simulated study with a planted effect of blocks, drop-out and annotators of different severity."""
    plan = Simulation(n_items=120, batch=20, dropout=0.15, constructs={"q": Planted(0.4, blocked=0.1, severity=0.15)})
    return simulate(plan, 3, texts=False).frame.assign(construct="q")


def test_a_clustered_mean_by_hand():
    # Clusters (1, 1) and (0, 0, 1): mean 0.6, totals 0.8 and -0.8, variance 2 * (0.64 + 0.64) / 25.
    found = clustered_mean(np.array([1.0, 1, 0, 0, 1]), np.array([0, 0, 1, 1, 1]))
    assert (found.value, found.se) == (pytest.approx(0.6), pytest.approx(np.sqrt(2 * 1.28 / 25)))


def test_the_design_effect_of_identical_answers_is_about_the_size_of_a_cluster():
    values = np.repeat(np.random.default_rng(0).integers(2, size=200), 10).astype(float)
    assert clustered_mean(values, np.repeat(np.arange(200), 10)).deff == pytest.approx(10, rel=0.01)


def test_linearised_and_bootstrap_intervals_agree():
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(150), 8)
    values = (rng.random(1200) < rng.uniform(0.2, 0.6, 150)[cluster]).astype(float)
    linear, drawn = clustered_mean(values, cluster), bootstrap_mean(values, [cluster])
    assert drawn.se == pytest.approx(linear.se, rel=0.08)


def test_drawing_items_too_widens_the_interval():
    rng = np.random.default_rng(2)
    who, what = np.repeat(np.arange(60), 20), np.tile(np.arange(20), 60)
    values = (rng.random(1200) < rng.uniform(0.1, 0.9, 20)[what]).astype(float)
    assert bootstrap_mean(values, [who, what]).se > 2 * bootstrap_mean(values, [who]).se


def test_post_stratification_reproduces_the_target_shares_exactly():
    people = pd.DataFrame({"sex": list("ffffmm"), "age": ["old", "young"] * 3})
    weight = post_stratify(people, {"sex": {"f": 0.5, "m": 0.5}, "age": {"old": 0.3, "young": 0.7}})
    shares = [weight[people[c] == v].sum() / weight.sum() for c, v in (("sex", "f"), ("age", "old"))]
    assert shares == pytest.approx([0.5, 0.3])


def test_a_population_group_without_annotators_is_refused():
    with pytest.raises(DataError, match="Nobody in the sample has sex = m"):
        post_stratify(pd.DataFrame({"sex": ["f"]}), {"sex": {"f": 0.5, "m": 0.5}})


def test_holm_is_that_of_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.9])
    assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1])


def test_a_question_not_answered_is_missing_and_never_a_no(frame):
    there = frame[frame["value"].notna()]
    shares = prevalence(frame).set_index("condition")["value"]
    assert shares.to_dict() == pytest.approx(there.groupby("condition")["value"].mean().to_dict())


def test_linear_effects_are_differences_of_shares(frame):
    table = regress(frame, "q").table().set_index("term")["value"]
    share = prevalence(frame).set_index("condition")["value"]
    assert table["condition[D]"] == pytest.approx(share["D"] - share["A"])


def test_two_way_clustering_adds_annotators_and_items_less_their_cells(frame):
    rows = frame[frame["value"].notna()].assign(cell=lambda t: t["annotator"] * 1000 + t["item"])
    both, one, other, cell = (
        np.diag(regress(rows, "q", cluster=columns).cov)
        for columns in (("annotator", "item"), ("annotator",), ("item",), ("cell",))
    )
    assert both == pytest.approx(one + other - cell, rel=0.02)


def test_contrasts_do_not_depend_on_the_reference(frame):
    table = contrasts(frame, "q").set_index(["first", "second"])
    direct = regress(frame, "q", reference="B").table().set_index("term")
    pair = table.loc[("B", "D")]
    assert (pair["value"], pair["se"]) == tuple(pytest.approx(direct.loc["condition[D]", c]) for c in ("value", "se"))


def test_terms_that_say_the_same_twice_are_refused(frame):
    with pytest.raises(DataError, match="say the same thing twice"):
        regress(frame.assign(group=frame["condition"]), "q", terms=("condition", "group"))


def test_a_term_that_is_no_column_names_the_nearest(frame):
    with pytest.raises(ConfigError, match="Did you mean 'position'"):
        regress(frame, "q", terms=("condition", "positon"))


def test_a_planted_interaction_of_position_and_condition_is_found(frame):
    rng = np.random.default_rng(5)
    rows = frame[frame["value"].notna()]
    p = 0.5 + 0.02 * (rows["position"] - 10) * (rows["condition"] == "B")
    fit = regress(
        rows.assign(value=(rng.random(len(rows)) < p).astype(float)), "q", terms=("condition", "condition:position")
    )
    table = fit.table().set_index("term")
    assert table.loc["condition[B]:position", "p"] < 1e-4


@pytest.fixture(scope="module")
def severity():
    """Annotators with a random intercept, all on the same items' average."""
    rng = np.random.default_rng(7)
    rows = [(i, a, "A" if a % 2 else "B", "q", 1.0 * (rng.random() < p)) for a in range(60)
            for p in [rng.uniform(0.2, 0.8)] for i in range(15)]  # fmt: skip
    return check_frame(pd.DataFrame(rows, columns=["item", "annotator", "condition", "construct", "value"]))


def test_the_linear_mixed_model_is_that_of_statsmodels_with_one_grouping(severity):
    library = pytest.importorskip("statsmodels.regression.mixed_linear_model")
    design = np.c_[np.ones(len(severity)), severity["condition"] == "B"].astype(float)
    theirs = library.MixedLM(severity["value"].to_numpy(), design, severity["annotator"].to_numpy()).fit(reml=True)
    ours = fit_linear_mixed(severity, "q", groups=("annotator",))
    assert (ours.variances["annotator"], ours.variances["residual"], ours.log_likelihood) == (
        pytest.approx(float(theirs.cov_re[0, 0]), rel=2e-3),
        pytest.approx(theirs.scale, rel=2e-3),
        pytest.approx(theirs.llf, abs=1e-3),
    )


def test_standard_errors_of_the_mixed_model_are_those_of_statsmodels(severity):
    library = pytest.importorskip("statsmodels.regression.mixed_linear_model")
    design = np.c_[np.ones(len(severity)), severity["condition"] == "B"].astype(float)
    theirs = library.MixedLM(severity["value"].to_numpy(), design, severity["annotator"].to_numpy()).fit(reml=True)
    assert fit_linear_mixed(severity, "q", groups=("annotator",)).se == pytest.approx(theirs.bse_fe, rel=1e-3)


def test_crossed_components_are_recovered():
    rng = np.random.default_rng(8)
    annotator, item = rng.normal(0, 0.5, 80), rng.normal(0, 1.0, 100)
    rows = [(i, a, "A", "q", annotator[a] + item[i] + rng.normal(0, 0.7)) for a in range(80) for i in range(100)
            if rng.random() < 0.3]  # fmt: skip
    table = check_frame(pd.DataFrame(rows, columns=["item", "annotator", "condition", "construct", "value"]))
    found = fit_linear_mixed(table, "q", terms=()).variances
    wanted = {"annotator": annotator.var(ddof=1), "item": item.var(ddof=1), "residual": 0.49}
    assert found == pytest.approx(wanted, rel=0.1)


def test_predicted_effects_follow_the_true_ones(severity):
    effects = fit_linear_mixed(severity, "q", groups=("annotator",)).effects["annotator"]
    means = severity.groupby("annotator")["value"].mean()
    assert np.corrcoef([effects[a] for a in means.index], means)[0, 1] > 0.9


def test_the_logit_mixed_model_maximises_the_laplace_likelihood():
    rng = np.random.default_rng(9)
    who = np.repeat(np.arange(100), 40)
    values = (rng.random(4000) < 1 / (1 + np.exp(-(-0.5 + rng.normal(0, 1.2, 100)[who])))).astype(float)
    rows = pd.DataFrame(
        {"item": np.arange(4000), "annotator": who, "condition": "A", "construct": "q", "value": values}
    )
    fit = fit_logit_mixed(rows, "q", terms=(), groups=("annotator",))
    assert (fit.params[0], np.sqrt(fit.variances["annotator"])) == (
        pytest.approx(-0.5, abs=0.3),
        pytest.approx(1.2, rel=0.2),
    )


def test_cumulative_design_effects_grow(frame):
    found = cumulative_design_effects(frame, "q")
    assert found["simple"] <= found["sampling"] <= found["instrument"]


def test_attrition_counts_the_missing_by_code(frame):
    table = attrition(frame).set_index("condition")
    missing = frame["missing_code"].eq("dropped_out").groupby(frame["condition"]).sum()
    assert (table["dropped_out"].to_dict(), table.loc["D", "answered"] < 360) == (missing.to_dict(), True)


def test_without_drop_out_nothing_differs(frame):
    assert attrition_p(frame[frame["condition"].isin(["A", "B", "C"])], "q") == 1.0


def test_drop_out_in_one_condition_only_is_noticed(frame):
    gone = frame["annotator"] % 3 == 0
    left = frame.assign(value=frame["value"].mask(gone & (frame["condition"] == "E")), missing_code="")
    assert attrition_p(check_frame(left), "q") < 1e-3 and "gave none" in " ".join(deviations(check_frame(left)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"value": "maybe"}, "Code categories as 0, 1, 2"),
        ({"missing_code": "dont_know", "value": np.nan, "item": 0, "annotator": 0, "condition": "A"}, "repeat an item"),
    ],
)
def test_a_wrong_table_is_refused(change, said):
    table = pd.DataFrame({"item": [0, 1], "annotator": [0, 0], "condition": "A", "construct": "q", "value": [1, 0]})
    with pytest.raises(DataError, match=said):
        check_frame(table.assign(**change))


def test_an_unknown_missing_code_names_the_nearest():
    table = pd.DataFrame({"item": [0], "annotator": [0], "condition": "A", "construct": "q", "value": [np.nan]})
    with pytest.raises(DataError, match="Did you mean 'dont_know'"):
        check_frame(table.assign(missing_code="dontknow"))
