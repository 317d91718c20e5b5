"""Annotators without a network: people, noise, scores, ensembles."""

from __future__ import annotations

import numpy as np
import pytest

from fledge.core.annotations import Annotation, Item
from fledge.core.consensus import dawid_skene
from fledge.core.errors import ConfigError, DataError
from fledge.core.instruments import Ask, Block, Condition, Construct, Instrument
from fledge.data.annotators import EmbeddingAnnotator, NoisyAnnotator, PeopleAnnotator, goal_baseline_score, logistic
from fledge.data.ensembles import EnsembleAnnotator

UP = Instrument("up", (Construct("up", "?"),), (Condition("A", (Block((Ask(("up",)),)),)),))
ITEMS = [Item(str(i)) for i in range(400)]


def people(values, name="ann", probability=None):
    """Somebody who answers item i with values[i]; None is "don't know"."""
    return PeopleAnnotator(
        Annotation(str(i), "up", name, v, "" if v else "dont_know", probability if v else None)
        for i, v in enumerate(values)
    )


def values(annotator, items=ITEMS):
    return [answer.value for answer in annotator.annotate(items, UP)]


TRUTH = ["1" if i % 3 else "0" for i in range(400)]


def test_flips_come_as_often_as_asked_for():
    noisy = values(NoisyAnnotator(people(TRUTH), flip=0.2))
    assert sum(a != b for a, b in zip(noisy, TRUTH, strict=True)) / 400 == pytest.approx(0.2, abs=0.06)


def test_noise_belongs_to_the_item_and_not_to_the_order_of_asking():
    noisy = NoisyAnnotator(people(TRUTH), flip=0.5)
    assert values(noisy, ITEMS[::-1])[::-1] == values(noisy)


def test_another_seed_is_other_noise():
    assert values(NoisyAnnotator(people(TRUTH), flip=0.5, seed=1)) != values(NoisyAnnotator(people(TRUTH), flip=0.5))


def test_a_flip_takes_its_probability_along():
    (answer,) = NoisyAnnotator(people(["1"], probability={"1": 0.9, "0": 0.1}), flip=1.0).annotate(ITEMS[:1], UP)
    assert (answer.value, answer.probability) == ("0", pytest.approx({"1": 0.1, "0": 0.9}))


def test_heat_makes_answers_less_certain():
    (answer,) = NoisyAnnotator(people(["1"], probability={"1": 0.9, "0": 0.1}), temperature=2.0).annotate(ITEMS[:1], UP)
    assert answer.probability["1"] == pytest.approx(0.75)  # odds of 9 become 3


def test_abstentions_are_refusals():
    assert {a.missing for a in NoisyAnnotator(people(TRUTH), abstain=1.0).annotate(ITEMS, UP)} == {"refused"}


def test_more_jitter_agrees_less():
    def agreement(jitter):
        return np.mean(
            [a == b for a, b in zip(values(NoisyAnnotator(people(TRUTH), jitter=jitter)), TRUTH, strict=True)]
        )

    assert 1.0 == agreement(0.1) > agreement(6.0) > agreement(60.0) > 0.4


def test_jitter_is_the_deviation_of_the_log_odds():
    given = NoisyAnnotator(people(["1"] * 400, probability={"1": 0.5, "0": 0.5}), jitter=2.0).annotate(ITEMS, UP)
    odds = [np.log(a.probability["1"] / a.probability["0"]) for a in given]
    assert (np.mean(odds), np.std(odds)) == pytest.approx((0.0, 2.0), abs=0.25)


def test_what_is_missing_stays_missing():
    (answer,) = NoisyAnnotator(people([None]), flip=1.0).annotate(ITEMS[:1], UP)
    assert answer.missing == "dont_know"


def test_an_item_that_nobody_was_asked_about_is_not_asked():
    (answer,) = people([]).annotate(ITEMS[:1], UP)
    assert answer.missing == "not_asked"


def test_people_are_read_from_a_table(tmp_path):
    (tmp_path / "t.csv").write_text("item,construct,value,annotator,missing_code\n0,up,1,ann,\n0,up,,bob,refused\n")
    found = PeopleAnnotator.read(tmp_path / "t.csv").annotate(ITEMS[:1], UP)
    assert [(a.annotator, a.value, a.missing) for a in found] == [("ann", "1", ""), ("bob", None, "refused")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item,value,annotator\n0,1,ann\n", "construct"),
        ("item,construct,value,annotator,missing_code\n0,up,,ann,lost\n", "line 2.*missing code"),
    ],
)
def test_a_broken_table_of_people_is_refused(text, message, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        PeopleAnnotator.read(tmp_path / "t.csv")


def test_an_answer_that_is_no_option_is_refused():
    with pytest.raises(DataError, match="options"):
        people(["yes"]).annotate(ITEMS[:1], UP)


# --- ensembles ---


def three(*answers, combine, **settings):
    members = [people([answer], f"p{i}", **settings) for i, answer in enumerate(answers)]
    (answer,) = EnsembleAnnotator(members, combine=combine).annotate(ITEMS[:1], UP)
    return answer


def test_a_vote_counts_answers():
    answer = three("1", "1", "0", combine="vote")
    assert (answer.value, answer.probability) == ("1", pytest.approx({"1": 2 / 3, "0": 1 / 3}))


def test_a_missing_answer_does_not_vote():
    assert three("0", None, None, combine="vote").value == "0"


def test_a_tie_is_dont_know():
    assert three("1", "0", combine="vote").missing == "dont_know"


def test_where_nobody_knows_the_ensemble_does_not():
    assert three(None, None, combine="mean").missing == "dont_know"


def test_the_mean_is_of_probabilities():
    members = [people(["1"], probability={"1": 0.9, "0": 0.1}), people(["0"], probability={"1": 0.3, "0": 0.7})]
    (answer,) = EnsembleAnnotator(members).annotate(ITEMS[:1], UP)
    assert answer.probability == pytest.approx({"1": 0.6, "0": 0.4})


def test_annotators_errors_are_found_and_outvote_a_careless_majority():
    careful = [NoisyAnnotator(people(TRUTH), flip=0.05, seed=s) for s in (0, 1)]
    careless = [NoisyAnnotator(people(TRUTH), flip=0.45, seed=s) for s in (2, 3, 4)]
    right = {
        combine: np.mean(
            [a == b for a, b in zip(values(EnsembleAnnotator(careful + careless, combine=combine)), TRUTH, strict=True)]
        )
        for combine in ("vote", "dawid_skene")
    }
    assert right["dawid_skene"] > right["vote"] + 0.05


def test_one_honest_annotator_is_believed():
    truth = dawid_skene(np.arange(4), np.zeros(4, int), np.array([0, 1, 1, 0]), n_categories=2)
    assert truth.argmax(axis=1).tolist() == [0, 1, 1, 0]


# --- scores ---


def test_a_calibrated_score_recovers_the_curve_it_was_drawn_from():
    rng = np.random.default_rng(0)
    score = rng.normal(size=4000) * 5 + 2
    yes = rng.random(4000) < 1 / (1 + np.exp(-(0.7 * score - 1)))
    assert logistic(score, yes) == pytest.approx((0.7, -1.0), abs=0.15)


def test_labels_that_a_threshold_separates_give_a_finite_slope():
    slope, _ = logistic(np.array([-1.0, -0.5, 0.5, 1.0]), np.array([False, False, True, True]))
    assert 0 < slope < 20


def test_a_score_becomes_a_probability_after_a_few_labels():
    annotator = EmbeddingAnnotator(lambda items: np.array([float(item.id) for item in items]))
    calibrated = annotator.calibrate(ITEMS[:20], [i >= 10 for i in range(20)])
    p = [answer.probability["1"] for answer in calibrated.annotate([ITEMS[0], ITEMS[10], ITEMS[19]], UP)]
    assert p[0] < 0.2 < 0.4 < p[1] < p[2]


def test_labels_of_one_kind_calibrate_nothing():
    with pytest.raises(ConfigError, match="both answers"):
        EmbeddingAnnotator(lambda items: np.zeros(len(items))).calibrate(ITEMS[:3], [True] * 3)


def test_the_goal_itself_scores_one_and_the_baseline_less():
    goal, baseline = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    scores = goal_baseline_score(np.stack([goal, baseline]), goal, baseline)
    assert scores == pytest.approx([1.0, 0.0])
