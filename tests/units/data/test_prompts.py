"""What a model is told and shown, and what makes two requests the same."""

from __future__ import annotations

import base64

import pytest

from fledge.core.annotations import Item, Media
from fledge.core.errors import ConfigError
from fledge.core.instruments import PAIR, Ask, Block, Condition, Construct, Instrument
from fledge.data.prompts import answered, build, cache_key, fingerprint, messages

PNG = [bytes([137, 80, 78, 71, i]) for i in range(3)]
FRAMES = Item("seg", media=tuple(Media("image", content) for content in PNG))
QUESTION = "You see a film of a red stick. Answer with Y if the black dot is at its bottom end, else with N."


def instrument(*constructs, condition=None, instructions=""):
    condition = condition or Condition("A", (Block((Ask(tuple(c.name for c in constructs)),)),))
    return Instrument("i", constructs, (condition,), instructions)


def first(made, *items):
    return made.compile("A", items)[0]


def test_the_bare_protocol_is_a_question_as_system_message_and_one_part_per_frame_in_time_order():
    prompt = build(first(instrument(Construct("up", QUESTION)), FRAMES), mode="emitted_no", protocol="bare")
    urls = [f"data:image/png;base64,{base64.b64encode(content).decode()}" for content in PNG]
    parts = [{"type": "image_url", "image_url": {"url": url, "detail": "low"}} for url in urls]
    assert messages(prompt.turns) == [{"role": "system", "content": QUESTION}, {"role": "user", "content": parts}]


def test_a_bare_pair_is_two_messages_with_their_labels():
    pair = Item("p", pair=(FRAMES, FRAMES))
    prompt = build(first(instrument(Construct("better", "Which?", PAIR)), pair), mode="normalised", protocol="bare")
    assert [(turn.role, len(turn.parts)) for turn in prompt.turns] == [("system", 1), ("user", 4), ("user", 4)]


def test_the_bare_protocol_refuses_what_it_cannot_ask():
    with pytest.raises(ConfigError, match="protocol='screens'"):
        build(first(instrument(Construct("a", "?"), Construct("b", "?")), FRAMES), mode="hard", protocol="bare")


def test_instructions_are_the_system_message_and_definitions_stand_with_their_question():
    made = instrument(Construct("up", "Is it up?", definition="Up is up."), instructions="Look well.")
    system, user = build(first(made, Item("a", "a text")), mode="normalised", instructions=made.instructions).turns
    assert system.parts == ("Look well.",)
    assert user.parts == ("a text", "Is it up?\nUp is up.\nAnswer with nothing but Y for Yes, N for No.")


def test_a_batch_is_one_prompt_with_a_slot_for_each_item_and_question():
    ask = Condition("A", (Block((Ask(("a", "b")),)),), batch=2)
    made = instrument(Construct("a", "A?"), Construct("b", "B?"), condition=ask)
    prompt = build(first(made, Item("x", "one"), Item("y", "two")), mode="hard")
    slots = [(slot.item.id, slot.construct.name, slot.position, slot.asked_order) for slot in prompt.slots]
    assert slots == [("x", "a", 0, 0), ("x", "b", 0, 1), ("y", "a", 1, 0), ("y", "b", 1, 1)]


def test_the_schema_asks_for_every_answer_and_allows_only_the_labels():
    made = instrument(Construct("a", "A?"), Construct("b", "B?"))
    fields = build(first(made, Item("x", "one")), mode="hard").schema["properties"]["item_1"]
    assert fields["required"] == ["a", "b"]
    assert fields["properties"]["a"]["enum"] == ["Yes", "No"]


def test_confidence_is_asked_for_where_the_condition_wants_it():
    condition = Condition("A", (Block((Ask(("a",)),)),), confidence=True)
    prompt = build(first(instrument(Construct("a", "A?"), condition=condition), Item("x", "one")), mode="verbal")
    assert "a_confidence" in prompt.schema["properties"]["item_1"]["required"]


def test_a_chat_has_the_earlier_screens_and_their_answers_in_it():
    made = instrument(Construct("up", "Is it up?"), instructions="Look well.")
    one, two = made.compile("A", [Item("x", "one"), Item("y", "two")])
    history = answered(build(one, mode="normalised", instructions="Look well."), "Y")
    turns = build(two, mode="normalised", instructions="Look well.", history=history).turns
    assert [turn.role for turn in turns] == ["system", "user", "assistant", "user"]


def test_a_film_is_refused():
    with pytest.raises(ConfigError, match="frames as pictures"):
        build(first(instrument(Construct("a", "A?")), Item("x", media=(Media("clip", b"GIF"),))), mode="hard")


def test_the_key_changes_with_one_pixel_and_with_one_word_and_with_nothing_else():
    def key(item, question="Is it up?"):
        turns = build(first(instrument(Construct("up", question)), item), mode="normalised").turns
        return cache_key({"text": fingerprint(turns)})

    other = Item("seg", media=(*FRAMES.media[:2], Media("image", PNG[0])))
    assert len({key(FRAMES), key(other), key(FRAMES, "Is it Up?")}) == 3
    assert key(FRAMES) == key(Item("another name", media=FRAMES.media))


def test_pictures_are_not_in_the_fingerprint():
    prompt = build(first(instrument(Construct("up", "?")), FRAMES), mode="normalised")
    hashes = [part["image"] for part in fingerprint(prompt.turns)[0]["parts"] if isinstance(part, dict)]
    assert [len(found) for found in hashes] == [64] * 3
