"""Planted effects are found at the rate that intervals promise, and none is found where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from fledge.annotation.effects import regress
from fledge.annotation.prevalence import prevalence
from fledge.annotation.simulate import Planted, Simulation, faults, permute_conditions, power, simulate
from fledge.core.errors import ConfigError

N_STUDIES = 200


def plan(**effects: float) -> Simulation:
    return Simulation(n_items=200, constructs={"hate_speech": Planted(0.3, **effects)})


@pytest.fixture(scope="module")
def planted():
    return power(plan(blocked=0.05), "hate_speech", n_studies=N_STUDIES)


@pytest.fixture(scope="module")
def null():
    return power(plan(), "hate_speech", n_studies=N_STUDIES, seed=10_000)


def test_intervals_hold_a_planted_block_effect_in_95_percent_of_studies(planted):
    assert list(planted.coverage.values()) == pytest.approx([0.95] * 4, abs=0.03)


def test_estimates_of_a_planted_effect_have_no_bias(planted):
    assert np.abs(list(planted.bias.values())).max() < 0.005  # three standard errors of the mean of 200 studies


def test_a_planted_effect_is_found_more_often_than_chance(planted):
    assert min(planted.detected["D"], planted.detected["E"]) > 0.3


def test_without_an_effect_each_test_keeps_its_level(null):
    assert list(null.detected.values()) == pytest.approx([0.05] * 4, abs=0.03)


def test_without_an_effect_the_joint_test_keeps_its_level(null):
    assert null.joint == pytest.approx(0.05, abs=0.03)


def test_shares_are_what_was_planted():
    effects = Planted(0.4, split=0.05, blocked=0.04, second=-0.06)
    big = Simulation(n_items=3000, batch=5, constructs={"hate_speech": effects})
    found = prevalence(simulate(big, 1, texts=False).frame).set_index("condition")["value"]
    assert found.to_dict() == pytest.approx(big.truth("hate_speech"), abs=0.02)


def test_fatigue_shows_in_the_position():
    frame = simulate(Simulation(n_items=600, constructs={"q": Planted(0.4, fatigue=-0.005)}), 2, texts=False).frame
    table = regress(frame, "q", terms=("condition", "position")).table().set_index("term").loc["position"]
    assert table["lo"] <= -0.005 <= table["hi"] and table["hi"] < 0


def test_drop_out_takes_the_second_construct_of_blocked_conditions_only():
    frame = simulate(Simulation(n_items=100, dropout=0.4), 3, texts=False).frame
    lost = frame[frame["value"].isna()]
    assert set(zip(lost["condition"], lost["construct"], strict=True)) == {
        ("D", "offensive_language"),
        ("E", "hate_speech"),
    }


def test_every_item_has_its_labels_in_every_condition():
    frame = simulate(Simulation(n_items=50, labels=2), 4, texts=False).frame
    assert set(frame.groupby(["item", "condition", "construct"]).size()) == {2}


def test_an_annotator_works_under_one_condition():
    frame = simulate(Simulation(n_items=50), 5, texts=False).frame
    assert frame.groupby("annotator")["condition"].nunique().max() == 1


def test_the_same_seed_is_the_same_study():
    one, two = (simulate(Simulation(n_items=30), 6) for _ in range(2))
    assert one.frame.equals(two.frame) and one.texts == two.texts


def test_a_plan_without_room_for_its_effects_is_refused():
    wrong = Simulation(constructs={"q": Planted(0.05, second=-0.1)})
    with pytest.raises(ConfigError, match="leaves no room for its effects"):
        simulate(wrong)


def test_a_good_plan_has_no_faults():
    assert faults(plan(blocked=0.05)) == []


def test_dealing_out_conditions_keeps_the_answers():
    frame = simulate(plan(blocked=0.2), 7, texts=False).frame
    dealt = permute_conditions(frame, 1)
    assert dealt["value"].equals(frame["value"]) and not dealt["condition"].equals(frame["condition"])
