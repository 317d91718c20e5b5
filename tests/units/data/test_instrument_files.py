"""Instruments in YAML: the compiled order of the shipped ones, and errors that list everything."""

from __future__ import annotations

import pytest

from fledge.core.annotations import Item
from fledge.core.errors import ConfigError, FledgeError
from fledge.core.instruments import as_stored
from fledge.data.instrument_files import parse_instrument, read_instrument, shipped

pytest.importorskip("yaml", reason="needs the extra 'annotate'")
TWO = [Item("1", "one"), Item("2", "two")]


def order(screens):
    """The screens as `1HS,OL 2HS,OL`."""
    return " ".join(",".join(i.id for i in s.items) + ",".join(c.name for c in s.constructs) for s in screens)


@pytest.mark.parametrize(
    ("name", "condition", "wanted"),
    [
        ("kern-2023", "A", "1HS,OL 2HS,OL"),
        ("kern-2023", "B", "1HS 1OL 2HS 2OL"),
        ("kern-2023", "C", "1OL 1HS 2OL 2HS"),
        ("kern-2023", "D", "1HS 2HS 1OL 2OL"),
        ("kern-2023", "E", "1OL 2OL 1HS 2HS"),
        ("beck-2022", "A", "1HS,OL 2HS,OL"),
        ("beck-2022", "D", "1HS 1OL 2HS 2OL"),
        ("beck-2022", "F", "1OL 1HS 2OL 2HS"),
        ("reiter-2026", "joint_OL_first-single-label", "1OL,HS 2OL,HS"),
        ("reiter-2026", "joint_HS_first-six-label", "1,2HS,OL"),
        ("reiter-2026", "separate-single-confidence", "1OL 1HS 2OL 2HS"),
        ("reiter-2026", "separate-six-confidence", "1,2OL 1,2HS"),
    ],
)
def test_a_shipped_instrument_compiles_in_the_order_of_its_paper(name, condition, wanted):
    assert order(read_instrument(name).compile(condition, TWO)) == wanted


def test_the_shipped_designs_are_five_conditions_three_by_two_and_three_by_two_by_two():
    assert [len(read_instrument(name).conditions) for name in ("kern-2023", "beck-2022", "reiter-2026")] == [5, 6, 12]


def test_the_five_conditions_take_fewer_than_25_lines():
    assert len(shipped()["kern-2023"].read_text().splitlines()) < 25


@pytest.mark.parametrize(("condition", "label"), [("A", ""), ("B", "Don't know"), ("D", "Don't know"), ("E", "")])
def test_half_of_the_three_by_two_design_offers_dont_know(condition, label):
    assert {s.ask.dont_know for s in read_instrument("beck-2022").compile(condition, TWO)} == {label}


def test_confidence_is_a_factor():
    instrument = read_instrument("reiter-2026")
    assert [s.confidence for s in instrument.compile("separate-six-confidence", TWO)] == [True, True]
    assert not instrument.compile("separate-six-label", TWO)[0].confidence


def test_everything_wrong_is_listed_with_the_nearest_key():
    text = """
constructs:
  HS: {question: 'Hate?', optoins: yesno}
  OL: {label: Offensive}
  R: {question: 'How bad?', options: likret}
conditions:
  A: {per_itm: [HS]}
  B: {per_item: [HS, LO], shuffle: [item], batch: 0}
instruction: Read.
"""
    with pytest.raises(ConfigError) as caught:
        parse_instrument(text, "wrong.yaml")
    said = str(caught.value)
    for part in (
        "constructs.HS.optoins: there is no such key. Did you mean 'options'?",
        "constructs.OL.question: this text is missing.",
        "constructs.R.options: there is no 'likret'. Did you mean 'likert'?",
        "conditions.A.per_itm: there is no such key. Did you mean 'per_item'?",
        "conditions.B.per_item: there is no construct 'LO'. Did you mean 'OL'?",
        "conditions.B.shuffle: there is no 'item' to shuffle. Did you mean 'items'?",
        "conditions.B.batch: a number of at least 1",
        "instruction: there is no such key. Did you mean 'instructions'?",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "line 1: this is not YAML"),
        ("constructs: {a: q}\nconstructs: {b: q}", "line 2: the key 'constructs' comes twice"),
        ("- 1", "a mapping of names to values was wanted, not a list"),
        ("!!python/object/apply:os.system ['true']", "this is not YAML"),
        ("", "has 2 faults"),
    ],
)
def test_what_is_no_instrument_is_refused(text, said):
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        parse_instrument(text, "wrong.yaml")


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ("yesno", ["1", "0"]),
        ("text", []),
        ("pair", ["first", "second"]),
        ("{pair: No difference}", ["first", "second", "tie"]),
        ("{likert: 3, low: not at all, high: very}", ["1", "2", "3"]),
        ("[red, green]", ["red", "green"]),
        ("{r: Red, g: Green}", ["r", "g"]),
        ("{Yes: Sure, No: Never}", ["Yes", "No"]),
    ],
)
def test_options_can_be_named_listed_or_spelled_out(options, values):
    text = f"constructs: {{c: {{question: 'q?', options: {options}}}}}\nconditions: {{A: [[c]]}}"
    assert [option.value for option in parse_instrument(text).constructs[0].options] == values


def shuffled(how):
    text = f"constructs: {{c: 'q?'}}\nconditions: {{A: {{per_item: [c], shuffle: {how}}}}}"
    instrument, items = parse_instrument(text), [Item(str(i)) for i in range(20)]
    return [[s.items[0].id for s in instrument.compile("A", items, seed)] for seed in ("ann", "bob")]


def test_items_are_shuffled_anew_for_each_annotator():
    ann, bob = shuffled("[items]")
    assert ann != bob
    assert sorted(ann) == sorted(bob)


def test_a_fixed_seed_shuffles_alike_for_everybody():
    ann, bob = shuffled("{what: [items], by: none, seed: 3}")
    assert ann == bob
    assert ann != [str(i) for i in range(20)]


def test_a_choice_between_swapped_sides_is_stored_for_the_pair_as_it_is():
    assert as_stored(Item("p", meta={"swapped": True}), "first") == "second"
    assert as_stored(Item("p"), "first") == "first"


KERN = """
name: five
constructs: {HS: "Hate speech?", OL: "Offensive?"}
conditions:
  A: {per_item: [{multi: [HS, OL]}]}
  B: {per_item: [HS, OL]}
  D: {blocked: [HS, OL]}
"""


def test_an_instrument_of_yaml_and_of_toml_are_the_same(tmp_path):
    (tmp_path / "i.yaml").write_text(KERN)
    (tmp_path / "i.toml").write_text(
        'name = "five"\nconstructs = {HS = "Hate speech?", OL = "Offensive?"}\n'
        'conditions.A.per_item = [{multi = ["HS", "OL"]}]\nconditions.B.per_item = ["HS", "OL"]\n'
        'conditions.D.blocked = ["HS", "OL"]\n'
    )
    assert read_instrument(tmp_path / "i.yaml") == read_instrument(tmp_path / "i.toml")


def test_an_instrument_of_one_question_needs_no_condition(tmp_path):
    (tmp_path / "i.toml").write_text('constructs.up = {question = "Up?", options = {u = "Up", d = "Down"}}')
    instrument = read_instrument(tmp_path / "i.toml")
    assert [s.constructs[0].options[1].label for s in instrument.compile("A", [Item("1")])] == ["Down"]


@pytest.mark.parametrize(
    "text", ["= no", "constructs = 3", "construct.up = 'Up?'", "constructs.up = {options = 'yesno'}"]
)
def test_a_broken_instrument_is_refused(text, tmp_path):
    (tmp_path / "i.toml").write_text(text)
    with pytest.raises(FledgeError):
        read_instrument(tmp_path / "i.toml")
