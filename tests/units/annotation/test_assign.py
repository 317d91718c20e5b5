"""Assignment: exact fills, probabilities that are true, time-outs, counterbalance; and what the audit finds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from fledge.annotation.assign import METHODS, Assignment, Plan, arms_of, assign, expired, parts, revivable
from fledge.annotation.audit import audit
from fledge.core.errors import ConfigError

FIVE = arms_of("ABCDE")


def plan(**changes) -> Plan:
    settings = {"arms": FIVE, "batches": ("b1", "b2"), "labels": 2, "strata": ("age",)} | changes
    return Plan(**settings)


def everybody(of: Plan, n: int, outcome: str = "completed") -> list[Assignment]:
    """The log of `n` annotators who come one after the other, and of whom each finishes."""
    log: list[Assignment] = []
    for i in range(n):
        row = assign(of, log, f"a{i}", now=float(i), attributes={"age": "old" if i % 3 else "young"})
        if row is not None:
            log.append(replace(row, outcome=outcome, outcome_time=float(i)))
    return log


@pytest.mark.parametrize("method", METHODS)
def test_every_cell_is_filled_exactly_and_nobody_more_is_taken(method):
    log = everybody(plan(method=method), 30)
    assert Counter((row.arm, row.batch) for row in log) == {(a, b): 2 for a in "ABCDE" for b in ("b1", "b2")}


def test_the_same_seed_repeats_the_randomisation_and_another_does_not():
    assert everybody(plan(seed=1), 20) == everybody(plan(seed=1), 20)
    assert [r.arm for r in everybody(plan(seed=1), 20)] != [r.arm for r in everybody(plan(seed=2), 20)]


def test_least_filled_never_lets_arms_differ_by_more_than_one():
    log = everybody(plan(labels=20, batches=("b",)), 63)
    for n in range(1, 64):
        sizes = Counter(row.arm for row in log[:n])
        assert max(sizes.values()) - min(sizes[a] for a in "ABCDE") <= 1


def test_permuted_blocks_hold_each_arm_equally_often():
    log = everybody(plan(method="blocked", block=2, labels=20, batches=("b",)), 40)
    for start in range(0, 40, 10):
        assert set(Counter(row.arm for row in log[start : start + 10]).values()) == {2}


def test_a_stratified_assignment_is_balanced_within_each_stratum():
    log = everybody(plan(method="stratified", labels=20, batches=("b",)), 45)
    young = Counter(row.arm for row in log if row.stratum == "young")
    assert sorted(young.values()) == [3, 3, 3, 3, 3]


def test_the_logged_probabilities_are_those_of_the_draw():
    chosen, promised = Counter(), Counter()
    for seed in range(400):
        row = everybody(plan(method="simple", weights={"A": 3.0}, seed=seed), 1)[0]
        chosen[row.arm] += 1
        promised.update(row.probabilities)
    assert promised["A"] == pytest.approx(400 * 3 / 7)
    assert abs(chosen["A"] - promised["A"]) < 4 * np.sqrt(400 * 3 / 7 * 4 / 7)  # four standard errors


def test_a_reservation_that_ran_out_gives_its_place_away():
    of = plan(arms=arms_of("A"), batches=("b",), labels=1, timeout=10.0)
    first = assign(of, [], "slow", now=0.0)
    assert assign(of, [first], "next", now=9.0) is None
    assert assign(of, [first], "next", now=10.0) is not None
    assert expired([first], 10.0) == [first]


def test_who_comes_back_late_goes_on_only_while_the_place_is_free():
    of = plan(arms=arms_of("A"), batches=("b",), labels=1, timeout=10.0)
    late = assign(of, [], "slow", now=0.0)
    assert revivable(of, [late], late, 20.0)
    log = [late, assign(of, [late], "next", now=15.0)]
    assert not revivable(of, log, late, 20.0)


def test_a_place_is_filled_again_after_somebody_withdrew():
    log = everybody(plan(labels=1), 10, outcome="withdrawn")
    assert assign(plan(labels=1), log, "new", now=99.0) is not None


@pytest.mark.parametrize("k", [2, 3, 4, 5, 6])
def test_within_subjects_every_part_meets_every_condition_once(k):
    arms = arms_of("ABCDEF"[:k], within=True)
    for place in range(k):
        assert sorted(arm.sequence[place] for arm in arms) == list("ABCDEF"[:k])


@pytest.mark.parametrize("k", [2, 4, 6])
def test_an_even_square_balances_what_comes_before(k):
    follows = Counter(
        pair for arm in arms_of("ABCDEF"[:k], within=True) for pair in zip(arm.sequence, arm.sequence[1:], strict=False)
    )
    assert set(follows.values()) == {1}
    assert len(follows) == k * (k - 1)


def test_the_parts_of_a_batch_cover_it_once():
    assert [list(part) for part in parts(7, 3)] == [[0, 1], [2, 3, 4], [5, 6]]


def test_stratifying_by_nothing_is_refused():
    with pytest.raises(ConfigError, match="names the attributes"):
        plan(method="stratified", strata=())


def attributes(log, planted: bool):
    """Age by annotator; where planted, arm A is 20 years older."""
    draw = np.random.default_rng(1)
    ages = {row.annotator: draw.integers(20, 60) + 20 * (planted and row.arm == "A") for row in log}
    return {name: {"age": str(age), "device": draw.choice(["phone", "desk"])} for name, age in ages.items()}


def test_the_audit_counts_every_cell_and_finds_nothing_wrong_with_a_good_assignment():
    of = plan(labels=10)
    log = everybody(of, 120)
    found = audit(of, log, attributes(log, planted=False))
    assert found.exact
    assert found.overfilled == 0
    assert [row.attribute for row in found.balance] == ["age", "device"]
    assert min(row.p for row in found.balance) > 0.05
    assert found.shares_p > 0.9


def test_the_audit_finds_a_planted_imbalance():
    of = plan(labels=10)
    log = everybody(of, 100)
    age = audit(of, log, attributes(log, planted=True)).balance[0]
    assert (age.kind, age.p < 0.01, age.largest_difference > 1) == ("anova", True, True)


def test_the_audit_finds_attrition_that_depends_on_the_arm():
    of = plan(labels=20)
    log = [
        replace(row, outcome="withdrawn") if row.arm == "E" and i % 2 else row
        for i, row in enumerate(everybody(of, 200))
    ]
    found = audit(of, log)
    assert found.attrition_p < 0.01
    assert {arm.arm: arm.attrition > 0 for arm in found.arms} == {a: a == "E" for a in "ABCDE"}


def test_the_audit_finds_cells_that_hold_too_many():
    of = plan(labels=1)
    log = everybody(of, 10)
    assert audit(of, [*log, replace(log[0], annotator="one more")]).overfilled == 1
