"""Compiled screens as prompts for a vision-language model: what it is told, what it is shown, what it may answer.

A prompt is a list of turns in the form of a chat, free of any vendor's types; `messages` writes it for an
OpenAI-compatible endpoint, `fingerprint` for a cache. With `protocol="bare"` a prompt is that of Beck 2025: the
question is the system message, the pictures are the user's only message, one part for each, in time order.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fledge.core.annotations import Item, Media
from fledge.core.errors import ConfigError
from fledge.core.instruments import Construct, Screen
from fledge.data.choices import Choice, choices, yes_no

Protocol = Literal["screens", "bare"]
Form = Literal["letter", "json", "text"]
MODES = ("emitted_no", "top_no", "normalised", "votes", "verbal", "hard")
"""How a probability is read off a reply; see `fledge.data.replies`."""
LOGPROB_MODES = ("emitted_no", "top_no", "normalised")


@dataclass(frozen=True)
class Turn:
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[str | Media, ...]


@dataclass(frozen=True)
class Slot:
    """One answer that a prompt asks for."""

    item: Item
    position: int
    """Of the item among the annotator's, from 0."""
    construct: Construct
    choices: tuple[Choice, ...]
    """Empty for a free text."""
    asked_order: int
    key: str
    """Of its item in a JSON reply."""


@dataclass(frozen=True)
class Prompt:
    """What is sent for one screen, and how to read what comes back."""

    screen: Screen
    turns: tuple[Turn, ...]
    """Earlier screens of the same chat included."""
    slots: tuple[Slot, ...]
    form: Form
    """`letter`: the reply is a code. `json`: an object. `text`: the reply is the answer."""
    confidence: bool
    schema: Mapping[str, Any] | None
    """Of a `json` reply."""
    multi: bool

    @property
    def images(self) -> int:
        """How many pictures are sent."""
        return sum(isinstance(part, Media) for turn in self.turns for part in turn.parts)


def slots_of(screen: Screen) -> tuple[Slot, ...]:
    """The answers that a screen asks for, item by item."""
    return tuple(
        Slot(
            item,
            position,
            construct,
            choices(construct, screen.ask),
            screen.asked_order + nth,
            f"item_{place + 1}",
        )
        for place, (item, position) in enumerate(zip(screen.items, screen.positions, strict=True))
        for nth, construct in enumerate(screen.constructs)
    )


def single(screen: Screen) -> bool:
    """Whether a screen asks for one choice only, so that its answer can be one token."""
    return (
        len(screen.items) == 1
        and len(screen.constructs) == 1
        and screen.ask.style == "each"
        and bool(screen.constructs[0].options)
        and not screen.confidence
    )


def build(
    screen: Screen,
    *,
    mode: str,
    instructions: str = "",
    history: Sequence[Turn] = (),
    protocol: Protocol = "screens",
    structured: bool = False,
) -> Prompt:
    """The prompt of a screen.

    Args:
        screen: compiled from an instrument; layouts come as pictures already.
        mode: one of `MODES`.
        instructions: the instrument's; opens the system message.
        history: the turns of earlier screens of the same chat (`Prompt.turns` and the reply, see `answered`).
        protocol: `bare` for the prompts of Beck 2025 (one item, one question).
        structured: whether the endpoint keeps to a JSON schema; one question is then asked for in JSON too, unless
            `mode` reads token probabilities.

    Raises:
        ConfigError: the mode or the protocol cannot ask this screen.
    """
    slots = slots_of(screen)
    multi = screen.ask.style == "multi"
    for slot in slots if multi else ():
        yes_no(slot.choices)
    form = _form(screen, slots, mode, structured, protocol)
    confidence = form == "json" and (screen.confidence or mode == "verbal")
    schema = _schema(screen, slots, confidence) if form == "json" else None
    if protocol == "bare":
        turns = _bare(screen)
    else:
        user = Turn("user", (*_shown(screen), _asked(screen, form, slots, confidence)))
        system = instructions.strip()
        turns = (*history, user) if history or not system else (Turn("system", (system,)), user)
    return Prompt(screen, turns, slots, form, confidence, schema, multi)


def answered(prompt: Prompt, reply: str) -> tuple[Turn, ...]:
    """The history for the next screen of the same chat."""
    return (*prompt.turns, Turn("assistant", (reply,)))


def _form(screen: Screen, slots: Sequence[Slot], mode: str, structured: bool, protocol: Protocol) -> Form:
    if protocol == "bare" and not single(screen):
        raise ConfigError(
            f"protocol='bare' asks one question about one item at a time, but screen {screen.index} has "
            f"{len(screen.items)} items and {len(screen.constructs)} questions. Use protocol='screens'."
        )
    if mode in LOGPROB_MODES and not single(screen):
        raise ConfigError(
            f"mode='{mode}' reads the probability of one token, but screen {screen.index} asks for {len(slots)} answers"
            f"{' with a confidence' if screen.confidence else ''}. Use mode='votes', 'verbal' or 'hard' (or 'auto')."
        )
    if len(slots) == 1 and not slots[0].choices and mode != "verbal" and not screen.confidence:
        return "text"
    if not single(screen) or mode == "verbal":
        return "json"
    return "json" if structured and mode not in LOGPROB_MODES and protocol != "bare" else "letter"


def _bare(screen: Screen) -> tuple[Turn, ...]:
    item, question = screen.items[0], screen.constructs[0].question
    system = Turn("system", (question,))
    if not item.pair:
        return (system, Turn("user", _content(item)))
    first, second = item.pair
    return (system, Turn("user", ("First clip:", *_content(first))), Turn("user", ("Second clip:", *_content(second))))


def _name(construct: Construct) -> str:
    return construct.label or construct.name


def _content(item: Item) -> tuple[str | Media, ...]:
    for media in item.media:
        if media.kind != "image":
            raise ConfigError(
                f"Item '{item.id}' has a film, and chat endpoints take pictures. Give the item its frames as pictures."
            )
    return (*((item.text,) if item.text else ()), *item.media)


def _shown(screen: Screen) -> tuple[str | Media, ...]:
    parts: list[str | Media] = []
    for place, item in enumerate(screen.items):
        if len(screen.items) > 1:
            parts.append(f"Item {place + 1}:")
        for name, half in zip(("First:", "Second:"), item.pair, strict=False):
            parts += [name, *_content(half)]
        parts += _content(item)
    return tuple(parts)


def _asked(screen: Screen, form: Form, slots: Sequence[Slot], confidence: bool) -> str:
    if screen.ask.style == "multi":
        names = ", ".join(f'"{_name(c)}"' for c in screen.constructs)
        help_lines = "".join(f"\n{_name(c)}: {c.definition}" for c in screen.constructs if c.definition)
        question = (
            f"{screen.ask.question or 'Which of these apply?'}{help_lines}\nChoose all that apply of {names}, or none."
        )
        if screen.ask.dont_know:
            question += f' If you cannot tell, choose only "{screen.ask.dont_know}".'
    else:
        question = "\n".join(
            _question(construct, slot) for construct, slot in zip(screen.constructs, slots, strict=False)
        )
    if form == "letter":
        codes = ", ".join(f"{choice.code} for {choice.label}" for choice in slots[0].choices)
        return f"{_wording(screen.constructs[0])}\nAnswer with nothing but {codes}."
    if form == "text":
        return question
    lines = [question, f"Answer with JSON and nothing else, in this form: {_example(screen, slots, confidence)}"]
    if confidence:
        lines.append("A confidence is a whole number from 0 to 100: how probable it is that your answer is right.")
    return "\n".join(lines)


def _question(construct: Construct, slot: Slot) -> str:
    answers = " / ".join(choice.label for choice in slot.choices)
    return f"{construct.name}: {_wording(construct)}" + (f" ({answers})" if answers else "")


def _wording(construct: Construct) -> str:
    return f"{construct.question}\n{construct.definition}" if construct.definition else construct.question


def _example(screen: Screen, slots: Sequence[Slot], confidence: bool) -> str:
    if screen.ask.style == "multi":
        fields: dict[str, Any] = {"choices": [_name(screen.constructs[0]), "…"]}
        if confidence:
            fields["confidence"] = 0
        return json.dumps({slot.key: fields for slot in slots}, ensure_ascii=False)
    rows: dict[str, dict[str, Any]] = {}
    for slot in slots:
        row = rows.setdefault(slot.key, {})
        row[slot.construct.name] = " | ".join(choice.label for choice in slot.choices) or "…"
        if confidence:
            row[f"{slot.construct.name}_confidence"] = 0
    return json.dumps(rows, ensure_ascii=False)


def _schema(screen: Screen, slots: Sequence[Slot], confidence: bool) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = {}
    number = {"type": "integer"}  # bounds are not in every endpoint's dialect of JSON schema; the parser checks them
    for slot in slots:
        fields = rows.setdefault(slot.key, {})
        if screen.ask.style == "multi":
            names = [_name(c) for c in screen.constructs] + [x for x in (screen.ask.none, screen.ask.dont_know) if x]
            fields["choices"] = {"type": "array", "items": {"type": "string", "enum": names}}
            if confidence:
                fields["confidence"] = number
            continue
        labels = [choice.label for choice in slot.choices]
        fields[slot.construct.name] = {"type": "string", "enum": labels} if labels else {"type": "string"}
        if confidence:
            fields[f"{slot.construct.name}_confidence"] = number
    return _object({key: _object(fields) for key, fields in rows.items()})


def _object(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(fields), "required": list(fields), "additionalProperties": False}


def messages(turns: Sequence[Turn], detail: str = "low") -> list[dict[str, Any]]:
    """Turns in the format of OpenAI-compatible chat endpoints; pictures as data URLs, one part each."""
    found: list[dict[str, Any]] = []
    for turn in turns:
        if len(turn.parts) == 1 and isinstance(turn.parts[0], str):
            found.append({"role": turn.role, "content": turn.parts[0]})
        else:
            found.append({"role": turn.role, "content": [_part(part, detail) for part in turn.parts]})
    return found


def _part(part: str | Media, detail: str) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    url = f"data:{part.mime};base64,{base64.b64encode(part.content).decode()}"
    return {"type": "image_url", "image_url": {"url": url, "detail": detail}}


def fingerprint(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Turns with the SHA-256 of each picture's bytes in its place: what a cache keeps of a prompt."""
    return [
        {
            "role": turn.role,
            "parts": [
                part if isinstance(part, str) else {"image": hashlib.sha256(part.content).hexdigest()}
                for part in turn.parts
            ],
        }
        for turn in turns
    ]


def cache_key(request: Mapping[str, Any]) -> str:
    """SHA-256 of canonical JSON: what makes two requests the same question."""
    return hashlib.sha256(
        json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    ).hexdigest()
