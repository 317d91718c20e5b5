"""How a model is asked: chats, modes, probes. A local server looks at what it is sent."""

from __future__ import annotations

import asyncio
from collections import Counter

import numpy as np
import pytest

from fledge.core.annotations import Item
from fledge.core.errors import ConfigError, DataError
from fledge.core.instruments import PAIR, Ask, Block, Condition, Construct, Instrument
from fledge.data.pictures import frames_item
from fledge.run.chats import Asking
from fledge.run.endpoint import Pace
from fledge.run.labeller import OpenAICompatAnnotator
from fledge.run.local_endpoint import LocalEndpoint, Misbehaviour, pictures
from fledge.run.reply_cache import ReplyCache

HS, OL = Ask(("HS",)), Ask(("OL",))
FIVE = Instrument(
    "five",
    (Construct("HS", "Hate speech?"), Construct("OL", "Offensive?")),
    (
        Condition("A", (Block((Ask(("HS", "OL"), "multi"),)),)),
        Condition("B", (Block((HS, OL)),)),
        Condition("D", (Block((HS,)), Block((OL,)))),
        Condition("batch", (Block((Ask(("HS", "OL")),)),), batch=2, confidence=True),
    ),
)
ITEMS = [Item("1", "one"), Item("2", "two"), Item("3", "three")]
PACE = Pace(workers=4, first_wait=0.001)


def asked(answer=None, *, condition="D", items=ITEMS, instrument=FIVE, bad=None, **asking):
    """The annotations, and the requests as they came in."""
    seen = []

    def look(request):
        seen.append(request)
        return {"Y": 0.75, "N": 0.25} if answer is None else answer(request)

    with LocalEndpoint(look, misbehaviour=bad) as server:
        annotator = OpenAICompatAnnotator(server.url, "m", asking=Asking(**asking), pace=PACE)
        labelling = annotator.label(items, instrument, condition=condition)
    return labelling, seen


def chat_of(request):
    """Each message's role with what it asks: `u:1HS`."""
    names = {"one": "1", "two": "2", "three": "3"}
    found = []
    for message in request["messages"]:
        if message["role"] == "assistant":
            found.append(message["content"])
            continue
        text = " ".join(part["text"] for part in message["content"])
        found.append(names[text.split()[0]] + ("HS" if "Hate" in text else "OL"))
    return " ".join(found)


@pytest.mark.parametrize(
    ("memory", "chats"),
    [
        ("none", {"1HS", "2HS", "3HS", "1OL", "2OL", "3OL"}),
        ("item", {"1HS", "2HS", "3HS", "1HS Y 1OL", "2HS Y 2OL", "3HS Y 3OL"}),
        ("session", {"1HS", "1HS Y 2HS", "1HS Y 2HS Y 3HS", "1HS Y 2HS Y 3HS Y 1OL"}),
    ],
)
def test_a_chat_remembers_what_its_memory_says(memory, chats):
    labelling, seen = asked(mode="normalised", memory=memory)
    assert chats <= {chat_of(request) for request in seen} and len(seen) == len(labelling.annotations) == 6


def test_a_session_can_be_cut_into_sessions_of_a_few_items():
    _, seen = asked(mode="normalised", memory="session", session_size=2)
    assert max(Counter(chat_of(request) for request in seen), key=len) == "1HS Y 2HS Y 1OL Y 2OL"


def test_the_order_of_asking_is_stored_with_each_answer():
    labelling, _ = asked(mode="normalised")
    stored = [(a.item, a.construct, a.sweep, a.position, a.asked_order, a.screen) for a in labelling.annotations]
    assert stored[0] == ("1", "HS", 0, 0, 0, 0) and stored[-1] == ("3", "OL", 1, 2, 1, 5)


def test_the_mode_and_the_instrument_are_stored_with_each_answer():
    labelling, _ = asked(mode="normalised")
    assert {(a.mode, a.instrument, a.condition) for a in labelling.annotations} == {("normalised", FIVE.version, "D")}


def test_a_broken_chat_marks_its_later_screens():
    with LocalEndpoint(misbehaviour=Misbehaviour(no_images=True)) as server:
        annotator = OpenAICompatAnnotator(server.url, "m", asking=Asking(mode="hard", memory="item"), pace=PACE)
        items = [frames_item("a", [np.zeros((2, 2, 3), np.uint8)])]
        labelling = annotator.label(items, FIVE, condition="B")
        assert [failure.constructs for failure in labelling.failures] == [("HS",), ("OL",)]
        assert "earlier screen" in labelling.failures[1].reason and len(server.arrived) == 1


def test_faithful_requests_have_the_published_parameters():
    frames = [np.full((2, 2, 3), i, np.uint8) for i in range(5)]
    up = Instrument("up", (Construct("up", "Y or N?"),), (Condition("A", (Block((Ask(("up",)),)),)),))
    labelling, (request,) = asked(
        condition="A", instrument=up, items=[frames_item("s", frames)], mode="emitted_no", protocol="bare"
    )
    params = {name: request[name] for name in ("temperature", "max_tokens", "logprobs", "top_logprobs")}
    assert params == {"temperature": 0.0, "max_tokens": 1, "logprobs": True, "top_logprobs": 5}
    assert len(pictures(request)) == 5 and len(request["messages"]) == 2
    assert labelling.annotations[0].probability == {"1": 1.0, "0": 0.0}


def test_votes_are_five_requests_of_their_own():
    replies = iter(["Y", "N", "Y", "Y", "N"])
    one = Instrument("one", FIVE.constructs[:1], (Condition("D", (Block((HS,)),)),))
    labelling, seen = asked(lambda _: next(replies), items=ITEMS[:1], mode="votes", instrument=one)
    assert labelling.annotations[0].probability == pytest.approx({"1": 4 / 7, "0": 3 / 7})
    assert [request["temperature"] for request in seen] == [0.7] * 5


def test_a_batch_with_confidence_is_one_request_for_two_items():
    labelling, seen = asked(condition="batch", mode="verbal", structured=True)
    assert len(seen) == 2 and len(labelling.annotations) == 6
    assert labelling.annotations[0].probability == pytest.approx({"1": 0.75, "0": 0.25})


def test_json_that_was_cut_short_is_no_answer():
    labelling, _ = asked(condition="batch", mode="verbal", structured=True, bad=Misbehaviour(truncated_every=1))
    assert {(a.value, a.missing) for a in labelling.annotations} == {(None, "unparsable")}


def test_swapped_sides_of_a_pair_are_put_right_before_they_are_stored():
    pair = [Item(str(i), pair=(Item("a", f"bad {i}"), Item("b", f"good {i}"))) for i in range(12)]
    better = Instrument(
        "pair", (Construct("better", "Which is better?", PAIR),),
        (Condition("A", (Block((Ask(("better",)),)),), shuffle=("pair_sides",)),),
    )  # fmt: skip

    def look(request):
        texts = [part["text"] for part in request["messages"][0]["content"]]
        good = texts.index("Second:") < next(i for i, text in enumerate(texts) if text.startswith("good"))
        return {"2": 0.9, "1": 0.1} if good else {"1": 0.9, "2": 0.1}

    labelling, seen = asked(look, condition="A", items=pair, instrument=better, mode="normalised")
    firsts = {request["messages"][0]["content"][1]["text"].split()[0] for request in seen}
    assert firsts == {"bad", "good"}  # sides were swapped, for some
    assert {(a.value, round(a.probability["second"], 6)) for a in labelling.annotations} == {("second", 0.9)}


@pytest.mark.parametrize(
    ("bad", "answer", "mode"),
    [
        (None, None, "normalised"),
        (Misbehaviour(no_logprobs=True), None, "votes"),
        (Misbehaviour(no_schema=True), None, "normalised"),
    ],
)
def test_the_best_mode_that_the_endpoint_can_do_is_found_by_asking(bad, answer, mode):
    labelling, _ = asked(answer, bad=bad, items=ITEMS[:1])
    assert {a.mode for a in labelling.annotations} == {mode}


def test_what_is_found_out_is_asked_once():
    cache = ReplyCache(":memory:")
    with LocalEndpoint() as server:
        first = OpenAICompatAnnotator(server.url, "m", cache=cache, pace=PACE)
        first.label(ITEMS[:1], FIVE, condition="D")
        before = len(server.arrived)
        OpenAICompatAnnotator(server.url, "m", cache=cache, pace=PACE).label(ITEMS, FIVE, condition="D")
        assert len(server.arrived) - before == 4
        able = first.known_capabilities()
    assert able is not None and able.images and able.top_logprobs and able.json_schema and able.seed


def test_pictures_for_a_model_that_does_not_see_are_refused_before_they_are_sent():
    items = [frames_item("a", [np.zeros((2, 2, 3), np.uint8)])]
    with pytest.raises(ConfigError, match="takes no pictures"):
        asked(items=items, bad=Misbehaviour(no_images=True))


def test_an_unknown_endpoint_is_not_probed_from_a_cache():
    with pytest.raises(DataError, match="Name the mode"):
        OpenAICompatAnnotator("http://127.0.0.1:9/v1", "m", cache_mode="cache_only").annotate(
            ITEMS, FIVE, condition="D"
        )


def test_a_screen_of_several_questions_is_refused_where_one_token_is_read():
    with pytest.raises(ConfigError, match="mode='votes'"):
        asked(condition="A", mode="normalised")


def test_two_items_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="'1' comes twice"):
        asked(items=[ITEMS[0], ITEMS[0]])


def test_parameters_of_ones_own_are_sent_and_one_of_them_takes_the_place_of_an_older_one():
    _, seen = asked(mode="hard", temperature=None, extra={"max_completion_tokens": 50, "reasoning_effort": "low"})
    sent = {name: value for name, value in seen[0].items() if name not in ("model", "messages")}
    assert sent == {"max_completion_tokens": 50, "reasoning_effort": "low"}


def test_refusals_are_annotations_without_a_value():
    labelling, _ = asked(lambda _: "I'm sorry, I can't judge that.", mode="hard")
    assert {(a.value, a.missing) for a in labelling.annotations} == {(None, "refused")} and labelling.failures == []


def test_the_estimate_is_what_is_then_asked():
    with LocalEndpoint() as server:
        annotator = OpenAICompatAnnotator(server.url, "gpt-4o", asking=Asking(mode="votes", memory="item"), pace=PACE)
        estimate = annotator.estimate(ITEMS, FIVE, condition="B")
        annotator.label(ITEMS, FIVE, condition="B")
        after = annotator.estimate(ITEMS, FIVE, condition="B")
        assert len(server.arrived) == estimate.requests == 30
    assert estimate.money > 0 and (after.requests, after.cached, after.money) == (0, 30, 0.0)


def test_labelling_works_where_an_event_loop_runs_already():
    async def notebook():
        return asked(mode="normalised", items=ITEMS[:1])

    labelling, _ = asyncio.run(notebook())
    assert len(labelling.annotations) == 2
