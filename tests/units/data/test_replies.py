"""Canned replies in every mode, and what no reply may ever do to the parser."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.core.annotations import MISSING, Item
from fledge.core.errors import ConfigError
from fledge.core.instruments import PAIR, Ask, Block, Condition, Construct, Instrument, Option, likert
from fledge.data.choices import choices, match, yes_no
from fledge.data.prompts import MODES, build
from fledge.data.replies import choice_in, first_token, json_in, read, vote

UP = Construct("up", "Is it up?")
OUT = Construct("out", "Is it out?")


ONE = (Item("a", "one"),)


def screen(condition, constructs=(UP, OUT), items=ONE):
    return Instrument("i", constructs, (condition,)).compile(condition.name, items)[0]


SINGLE = Condition("A", (Block((Ask(("up",)),)),))
MULTI = Condition("A", (Block((Ask(("up", "out"), "multi"),)),))
BATCH = Condition("A", (Block((Ask(("up", "out")),)),), batch=2)
SURE = Condition("A", (Block((Ask(("up",)),)),), confidence=True)
DONT_KNOW = Condition("A", (Block((Ask(("up",), dont_know="Don't know"),)),))


def reply(text, top=None, *, refusal=None, finish="stop"):
    """A chat completion; `top` are the first token's alternatives, the written one first."""
    content = None
    if top is not None:
        rows = [{"token": token, "logprob": math.log(p)} for token, p in top.items()]
        content = {"content": [{**rows[0], "top_logprobs": rows}]}
    message = {"role": "assistant", "content": text, "refusal": refusal}
    return {"choices": [{"message": message, "finish_reason": finish, "logprobs": content}]}


def said(mode, *replies, condition=SINGLE):
    (answer,) = read(build(screen(condition), mode=mode), replies, mode)
    return answer


YES = {"Y": 0.7, "N": 0.2, " yes": 0.05, "No": 0.04, "maybe": 0.01}
NO = {"N": 0.9, "Y": 0.06, "no": 0.02}


@pytest.mark.parametrize(
    ("text", "top", "p"),
    [
        ("Y", YES, 1.0),
        ("N", NO, 0.1),
        (" no", {" no": 0.8, "Y": 0.2}, 0.2),
        ("maybe", {"maybe": 0.5, "N": 0.5}, 1.0),
        ("Y", None, 1.0),
        ("qwerty", None, 1.0),
    ],
)
def test_emitted_no_reads_the_written_token_alone(text, top, p):
    assert said("emitted_no", reply(text, top)).probability["1"] == pytest.approx(p)


def test_a_written_no_of_unknown_probability_is_no_answer():
    assert said("emitted_no", reply("N")).missing == "unparsable"


def test_top_no_sums_all_spellings_of_no():
    assert said("top_no", reply("Y", YES)).probability["1"] == pytest.approx(1 - 0.24)


def test_normalised_divides_the_spellings_of_yes_by_those_of_both():
    assert said("normalised", reply("Y", YES)).probability["1"] == pytest.approx(0.75 / 0.99)


def test_normalised_says_no_where_no_is_likelier():
    assert said("normalised", reply("N", NO)).value == "0"


@pytest.mark.parametrize("mode", ["normalised", "top_no"])
def test_an_answer_without_logprobs_is_unparsable(mode):
    assert said(mode, reply("Y")).missing == "unparsable"


def test_alternatives_that_name_no_option_are_an_abstention():
    assert said("normalised", reply("maybe", {"maybe": 0.9, "so": 0.1})).missing == "unparsable"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [{"refusal": "I will not."}, {"finish": "content_filter"}])
def test_a_refusal_is_refused_in_every_mode(mode, kind):
    assert said(mode, *[reply("", YES, **kind)] * 5).missing == "refused"


@pytest.mark.parametrize("text", ["I'm sorry, but I can't help with that.", "I cannot judge people.", "Sorry."])
def test_an_apology_is_a_refusal(text):
    assert said("hard", reply(text)).missing == "refused"


@pytest.mark.parametrize(
    "text", ["Y", "yes", " Yes.", "**Yes**", '"Y"', "Yes, it is.", "The answer is: Yes.", "Answer: Y"]
)
def test_yes_is_understood_however_it_is_written(text):
    assert said("hard", reply(text)).value == "1"


@pytest.mark.parametrize("text", ["maybe", "", "No idea", "yes and no", "Yes. The answer is No.", "notable", "{", "YN"])
def test_what_is_no_clear_answer_is_unparsable(text):
    assert said("hard", reply(text)).missing == "unparsable"


def test_the_older_shape_of_logprobs_is_read():
    old = {"tokens": ["Y"], "token_logprobs": [-0.1], "top_logprobs": [{"Y": -0.1, "N": -2.4}]}
    token, p, alternatives = first_token({"choices": [{"message": {"content": "Y"}, "logprobs": old}]})
    assert (token, p, alternatives) == ("Y", math.exp(-0.1), {"Y": math.exp(-0.1), "N": math.exp(-2.4)})


def test_votes_are_smoothed():
    replies = [reply(text) for text in ("Y", "Y", "Y", "N", "gibberish")]
    assert said("votes", *replies).probability == {"1": pytest.approx(4 / 6), "0": pytest.approx(2 / 6)}


def test_a_tied_vote_is_dont_know():
    assert said("votes", *[reply(text) for text in ("Y", "N", "Y", "N", "?")]).missing == "dont_know"


def test_votes_that_are_mostly_missing_are_missing():
    refusal = reply("I'm sorry, I can't.")
    assert said("votes", reply("Y"), refusal, refusal, refusal, reply("Y")).missing == "refused"


def test_a_stated_confidence_is_the_probability_of_the_answer():
    answer = said("verbal", reply('{"item_1": {"up": "No", "up_confidence": 80}}'))
    assert answer.probability == {"1": pytest.approx(0.2), "0": pytest.approx(0.8)}


@pytest.mark.parametrize("sure", ["0.8", "101", "-1", '"high"', "null", "true"])
def test_a_confidence_that_is_no_percentage_is_unparsable(sure):
    assert said("verbal", reply(f'{{"item_1": {{"up": "No", "up_confidence": {sure}}}}}')).missing == "unparsable"


def test_truncated_json_is_unparsable():
    text = '{"item_1": {"up": "Yes", "out": "No"}, "item_2": {"up": "Y'
    items = (Item("a", "one"), Item("b", "two"))
    answers = read(build(screen(BATCH, items=items), mode="hard"), [reply(text)], "hard")
    assert [answer.missing for answer in answers] == ["unparsable"] * 4


def test_a_batch_is_read_item_by_item():
    text = 'Here: ```json\n{"item_2": {"up": "no", "out": "Y"}, "item_1": {"up": "Yes", "out": "perhaps"}}\n```'
    items = (Item("a", "one"), Item("b", "two"))
    answers = read(build(screen(BATCH, items=items), mode="hard"), [reply(text)], "hard")
    assert [answer.value for answer in answers] == ["1", None, "0", "1"]


@pytest.mark.parametrize(
    ("chosen", "values"),
    [
        (["up"], ["1", "0"]),
        (["up", "out"], ["1", "1"]),
        ([], ["0", "0"]),
        (["None of these"], ["0", "0"]),
        (["None of these", "up"], [None, None]),
        (["sideways"], [None, None]),
    ],
)
def test_choices_of_one_question_are_answers_to_all_its_constructs(chosen, values):
    answers = read(build(screen(MULTI), mode="hard"), [reply(json.dumps({"choices": chosen}))], "hard")
    assert [answer.value for answer in answers] == values


def test_dont_know_is_a_missing_code_of_its_own():
    assert said("normalised", reply("D", {"D": 0.6, "Y": 0.4}), condition=DONT_KNOW).missing == "dont_know"


def test_modes_that_read_one_token_refuse_screens_with_several_answers():
    with pytest.raises(ConfigError, match="mode='votes'"):
        build(screen(MULTI), mode="normalised")


def test_a_question_without_a_no_has_no_probability_of_no():
    with pytest.raises(ConfigError, match="yes/no"):
        yes_no(choices(Construct("x", "?", PAIR)))


@pytest.mark.parametrize(
    ("options", "codes"),
    [
        ((Option("1", "Yes"), Option("0", "No")), ["Y", "N"]),
        (PAIR, ["1", "2"]),
        (likert(3, "bad", "good"), ["1", "2", "3"]),
        ((Option("hate", "Hate"), Option("harm", "Harmless")), ["1", "2"]),
    ],
)
def test_codes_are_letters_where_these_differ_and_numbers_elsewhere(options, codes):
    assert [choice.code for choice in choices(Construct("x", "?", options))] == codes


def test_a_number_may_be_written_as_a_word():
    assert match("two", choices(Construct("x", "?", PAIR))).value == "second"


# --- whatever comes ---

LABELS = st.text(st.characters(codec="utf-8", exclude_categories=("C",)), min_size=1, max_size=8)
SHAPES = ["choices", "message", "content", "logprobs", "token", "logprob", "top_logprobs", "tokens", "token_logprobs"]
NAMES = [*SHAPES, "item_1", "up", "refusal"]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=20)
JUNK = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(
    body=st.dictionaries(st.sampled_from(["choices", "usage"]), JUNK | st.lists(JUNK, max_size=2)),
    mode=st.sampled_from(MODES),
)
def test_no_reply_makes_the_parser_raise_or_invent_an_option(body, mode):
    answer = said(mode, body)
    assert answer.value in (None, "0", "1") and answer.missing in ("", *MISSING)


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=60), mode=st.sampled_from(["votes", "verbal", "hard"]))
def test_no_text_makes_the_parser_raise_or_invent_an_option(text, mode):
    answer = said(mode, *[reply(text)] * 5)
    assert (answer.value is None) == bool(answer.missing)


@settings(max_examples=100, deadline=None)
@given(
    mass=st.dictionaries(
        st.sampled_from(["Y", "N", " yes", "no", "NO", "maybe", "\n"]), st.floats(1e-9, 1.0), min_size=1
    ),
    mode=st.sampled_from(["emitted_no", "top_no", "normalised"]),
)
def test_probabilities_are_probabilities(mass, mode):
    answer = said(mode, reply(next(iter(mass)), mass))
    if answer.probability is not None:
        assert all(0 <= p <= 1 for p in answer.probability.values())
        assert sum(answer.probability.values()) == pytest.approx(1)


@settings(max_examples=100, deadline=None)
@given(labels=st.lists(LABELS, min_size=2, max_size=5, unique=True))
def test_no_spelling_counts_as_two_answers(labels):
    found = choices(Construct("x", "?", tuple(Option(str(i), label) for i, label in enumerate(labels))))
    assert all(not a.variants & b.variants for i, a in enumerate(found) for b in found[:i])


@settings(max_examples=100, deadline=None)
@given(
    i=st.integers(0, 2),
    before=st.sampled_from(["", " ", "\n", '"', "**", "▁", "Ġ"]),
    after=st.sampled_from(["", ".", "\n", '"', "**", "!", " "]),
    change=st.sampled_from([str.upper, str.lower, str]),
)
def test_a_code_survives_what_tokenisers_and_markdown_put_around_it(i, before, after, change):
    among = choices(Construct("x", "?", (Option("a", "Left"), Option("b", "Right"), Option("c", "Up"))))
    assert choice_in(before + change(among[i].code) + after, among) is among[i]


@settings(max_examples=100, deadline=None)
@given(
    value=st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3),
    around=st.sampled_from(["{}", "Sure! {} Anything else?", "```json\n{}\n```", "{{ {}"]),
)
def test_json_is_found_whatever_stands_around_it(value, around):
    assert json_in(around.format(json.dumps(value))) == value


@given(n_yes=st.integers(0, 9), n_no=st.integers(0, 9))
def test_one_more_vote_for_yes_never_lowers_its_share(n_yes, n_no):
    prompt = build(screen(SINGLE), mode="hard")
    (yes,), (no,) = (read(prompt, [reply(text)], "hard") for text in "YN")
    fewer, more = (vote(prompt.slots[0], [yes] * n + [no] * n_no) for n in (n_yes, n_yes + 1))
    assert fewer.probability is None or more.probability["1"] >= fewer.probability["1"]
