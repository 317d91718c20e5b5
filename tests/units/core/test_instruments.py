"""Screens in the compiled order (conditions A to E of Kern et al. 2023), and what an instrument refuses."""

from __future__ import annotations

import pytest

from fledge.core.annotations import Annotation, Item
from fledge.core.errors import ConfigError
from fledge.core.instruments import Ask, Block, Condition, Construct, Instrument

HS, OL = Ask(("HS",)), Ask(("OL",))
FIVE = Instrument(
    "five",
    (Construct("HS", "Hate speech?"), Construct("OL", "Offensive?")),
    (
        Condition("A", (Block((Ask(("HS", "OL"), "multi"),)),)),
        Condition("B", (Block((HS, OL)),)),
        Condition("C", (Block((OL, HS)),)),
        Condition("D", (Block((HS,)), Block((OL,)))),
        Condition("E", (Block((OL,)), Block((HS,)))),
    ),
)
ITEMS = [Item("1", "one"), Item("2", "two")]


@pytest.mark.parametrize(
    ("condition", "order"),
    [
        ("A", ["1HS,OL", "2HS,OL"]),
        ("B", ["1HS", "1OL", "2HS", "2OL"]),
        ("C", ["1OL", "1HS", "2OL", "2HS"]),
        ("D", ["1HS", "2HS", "1OL", "2OL"]),
        ("E", ["1OL", "2OL", "1HS", "2HS"]),
    ],
)
def test_screens_come_in_the_order_of_the_condition(condition, order):
    screens = FIVE.compile(condition, ITEMS)
    assert [screen.items[0].id + ",".join(c.name for c in screen.constructs) for screen in screens] == order


def test_the_second_sweep_asks_second():
    assert [(s.sweep, s.asked_order) for s in FIVE.compile("D", ITEMS)] == [(0, 0), (0, 0), (1, 1), (1, 1)]


def test_another_wording_is_another_version():
    other = Instrument("five", (Construct("HS", "Hateful?"), Construct("OL", "Offensive?")), FIVE.conditions)
    assert other.version != FIVE.version


def test_a_condition_that_asks_for_an_unknown_construct_is_refused():
    with pytest.raises(ConfigError, match="construct"):
        Instrument("one", (Construct("HS", "?"),), (Condition("A", (Block((OL,)),)),))


def test_an_answer_with_a_value_and_a_missing_code_is_refused():
    with pytest.raises(ConfigError, match="either"):
        Annotation("1", "HS", "me", "1", "refused")
