"""What a model's reply says: an answer with a probability, or why there is none.

Modes (Beck 2025, and what endpoints can do):

- `emitted_no`: as the released code of Beck 2025. Only the probability of the token that was written is read: "no" with
  probability p gives P(yes) = 1 - p; anything else, nonsense included, gives P(yes) = 1.
- `top_no`: P(yes) = 1 - the probability of all spellings of "no" among the alternatives.
- `normalised`: the probability of an option's spellings among the alternatives, over that of all options.
- `votes`: shares of several replies, with one added to each count (Laplace).
- `verbal`: the reply says how probable its answer is, from 0 to 100; the rest is shared by the other options.
- `hard`: the answer has probability 1.

A refusal, a "don't know" and an unreadable reply are missing codes. Nothing here raises on a strange reply.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fledge.core.errors import unknown
from fledge.data.choices import Choice, match, plain, yes_no
from fledge.data.prompts import LOGPROB_MODES, MODES, Prompt, Slot

_REFUSAL = re.compile(
    r"^\W*(i['’]?m sorry|i am sorry|sorry|i apologi[sz]e|i can(no|['’])t|i can not|i['’]?m (unable|not able)"
    r"|i am (unable|not able)|i won['’]t|i will not|unable to|as an ai)\b",
    re.IGNORECASE,
)
_SAID = re.compile(
    r"\b(?:answer|label)\b\s*(?:is|:|=)+\s*[\"'*(]*(\w[\w' ]*?)[\"'*).]*\s*$", re.IGNORECASE | re.MULTILINE
)


@dataclass(frozen=True)
class Answer:
    """One answer, or the reason why it is missing (one of `core.annotations.MISSING`)."""

    value: str | None
    missing: str
    probability: dict[str, float] | None
    mode: str


def read(prompt: Prompt, replies: Sequence[Mapping[str, Any]], mode: str) -> list[Answer]:
    """One answer per slot of the prompt.

    Args:
        prompt: what was asked.
        replies: chat completions as they came; several for `votes`, else one.
        mode: one of `MODES`.

    Raises:
        ConfigError: there is no such mode; `emitted_no` or `top_no` for a question without a "no".
    """
    if mode not in MODES:
        raise unknown("probability mode", mode, MODES)
    if mode == "votes":
        each = [[_one(slot, found) for slot, found in _found(prompt, reply)] for reply in replies]
        return [vote(slot, [answers[i] for answers in each]) for i, slot in enumerate(prompt.slots)]
    if mode in LOGPROB_MODES:
        return [_from_tokens(prompt.slots[0], replies[0], mode)]
    return [_one(slot, found, mode) for slot, found in _found(prompt, replies[0])]


# --- what was said ---


@dataclass(frozen=True)
class _Found:
    choice: Choice | None = None
    text: str | None = None
    confidence: float | None = None
    missing: str = ""


def _one(slot: Slot, found: _Found, mode: str = "hard") -> Answer:
    if found.missing:
        return Answer(None, found.missing, None, mode)
    if found.text is not None:
        return Answer(found.text, "", None, mode)
    if found.choice is None:
        return Answer(None, "unparsable", None, mode)
    if found.choice.value is None:
        return Answer(None, "dont_know", None, mode)
    options = [choice.value for choice in slot.choices if choice.value is not None]
    sure = 1.0
    if mode == "verbal":
        if found.confidence is None:
            return Answer(None, "unparsable", None, mode)
        sure = found.confidence / 100
    rest = (1 - sure) / (len(options) - 1) if len(options) > 1 else 0.0
    return Answer(found.choice.value, "", {o: sure if o == found.choice.value else rest for o in options}, mode)


def _found(prompt: Prompt, reply: Mapping[str, Any]) -> Iterator[tuple[Slot, _Found]]:
    text, refused = text_of(reply)
    if refused:
        yield from ((slot, _Found(missing="refused")) for slot in prompt.slots)
        return
    missing = _Found(missing="refused" if _REFUSAL.match(text) else "unparsable")
    if prompt.form == "json":
        whole = json_in(text)
        for slot in prompt.slots:
            part = _part_of(whole, slot, alone=len(prompt.screen.items) == 1)
            found = None if part is None else _chosen(prompt, slot, part) if prompt.multi else _said(prompt, slot, part)
            yield slot, found or missing
    elif prompt.form == "text":
        yield (
            prompt.slots[0],
            missing if not text.strip() or missing.missing == "refused" else _Found(text=text.strip()),
        )
    else:
        choice = choice_in(text, prompt.slots[0].choices)
        yield prompt.slots[0], missing if choice is None else _Found(choice)


def text_of(reply: Mapping[str, Any]) -> tuple[str, bool]:
    """The text of a chat completion, and whether the model or its filter refused to answer."""
    choice = _first(reply)
    message = choice.get("message")
    message = message if isinstance(message, Mapping) else {}
    content = message.get("content")
    if isinstance(content, list):  # some endpoints answer in parts
        texts = (part.get("text") for part in content if isinstance(part, Mapping))
        content = "".join(text for text in texts if isinstance(text, str))
    refused = bool(message.get("refusal")) or choice.get("finish_reason") == "content_filter"
    return content if isinstance(content, str) else "", refused


def _first(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    found = reply.get("choices")
    return found[0] if isinstance(found, list) and found and isinstance(found[0], Mapping) else {}


def choice_in(text: str, among: Sequence[Choice]) -> Choice | None:
    """The one choice that a short text names: alone, first and set off by punctuation, or after "the answer is"."""
    whole = match(text, among)
    if whole is not None:
        return whole
    head = re.match(r"^[\s\"'*`(]*([\w'’][\w'’ ]*?)[\"'*`)]*\s*[.,:;!\n]", text)
    said = [match(m[1], among) for m in _SAID.finditer(text)]
    found = {id(choice): choice for choice in (match(head[1], among) if head else None, *said) if choice is not None}
    return next(iter(found.values())) if len(found) == 1 else None


def json_in(text: str) -> Any:
    """The first whole JSON object in a text, whatever stands around it; None where there is none."""
    decoder = json.JSONDecoder()
    for start in (m.start() for m in re.finditer(r"\{", text)):
        try:
            return decoder.raw_decode(text, start)[0]
        except (ValueError, RecursionError):
            continue
    return None


def _part_of(whole: Any, slot: Slot, *, alone: bool) -> Mapping[str, Any] | None:
    if not isinstance(whole, Mapping):
        return None
    part = whole.get(slot.key)
    if isinstance(part, Mapping):
        return part
    return whole if alone and slot.key not in whole else None


def _said(prompt: Prompt, slot: Slot, part: Mapping[str, Any]) -> _Found | None:
    value = part.get(slot.construct.name)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    if not slot.choices:
        return _Found(text=str(value)) if str(value).strip() else None
    choice = match(str(value), slot.choices)
    sure = _confidence(part.get(f"{slot.construct.name}_confidence")) if prompt.confidence else None
    return None if choice is None else _Found(choice, confidence=sure)


def _chosen(prompt: Prompt, slot: Slot, part: Mapping[str, Any]) -> _Found | None:
    values, ask = part.get("choices"), prompt.screen.ask
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        return None
    names = {plain(c.label or c.name): c.name for c in prompt.screen.constructs}
    said = {plain(value) for value in values}
    if ask.dont_know and plain(ask.dont_know) in said:
        return _Found(missing="dont_know") if len(said) == 1 else None
    if ask.none and plain(ask.none) in said:
        said -= {plain(ask.none)}
        if said:
            return None
    if not said <= set(names):
        return None
    chosen = slot.construct.name in {names[name] for name in said}
    yes, no = yes_no(slot.choices)
    sure = _confidence(part.get("confidence")) if prompt.confidence else None
    return _Found(yes if chosen else no, confidence=sure)


def _confidence(value: Any) -> float | None:
    """A number from 0 to 100, or None. A fraction below 1 is ambiguous, and is not taken for a percentage."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,3}(\.\d+)?\s*%?\s*", value):
        value = float(value.strip().rstrip("% "))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 100:
        return None
    return None if 0 < value < 1 else float(value)


# --- how probable it is ---


def first_token(reply: Mapping[str, Any]) -> tuple[str, float | None, dict[str, float]] | None:
    """The first token that is not blank: its text, its probability, and the alternatives' by text (itself included).

    Reads the chat format and the older one that some servers send instead. None where there are no log probabilities.
    """
    found = _first(reply).get("logprobs")
    if not isinstance(found, Mapping):
        return None
    for token, logprob, top in _tokens(found):
        if isinstance(token, str) and plain(token):
            alternatives: dict[str, float] = {}
            for text, other in top:
                p = _probability(other)
                if isinstance(text, str) and p is not None:
                    alternatives[text] = max(p, alternatives.get(text, 0.0))
            return token, _probability(logprob), alternatives
    return None


def _tokens(found: Mapping[str, Any]) -> Iterator[tuple[Any, Any, list[tuple[Any, Any]]]]:
    content = found.get("content")
    if isinstance(content, list):
        for entry in content:
            if isinstance(entry, Mapping):
                top = entry.get("top_logprobs")
                pairs = (
                    [(o.get("token"), o.get("logprob")) for o in top or () if isinstance(o, Mapping)]
                    if isinstance(top, list)
                    else []
                )
                yield entry.get("token"), entry.get("logprob"), pairs
        return
    tokens, logprobs, tops = (found.get(name) for name in ("tokens", "token_logprobs", "top_logprobs"))
    for i, token in enumerate(tokens if isinstance(tokens, list) else ()):
        one = logprobs[i] if isinstance(logprobs, list) and i < len(logprobs) else None
        top = tops[i] if isinstance(tops, list) and i < len(tops) else None
        yield token, one, list(top.items()) if isinstance(top, Mapping) else []


def _probability(logprob: Any) -> float | None:
    if isinstance(logprob, bool) or not isinstance(logprob, (int, float)) or logprob != logprob:
        return None
    return math.exp(max(min(logprob, 0.0), -1e4))


def _from_tokens(slot: Slot, reply: Mapping[str, Any], mode: str) -> Answer:
    text, refused = text_of(reply)
    token = first_token(reply)
    if refused:
        return Answer(None, "refused", None, mode)
    if mode == "emitted_no":
        return _emitted_no(slot, text, token)
    no_answer = Answer(None, "refused" if _REFUSAL.match(text) else "unparsable", None, mode)
    if token is None or not token[2]:
        return no_answer
    said = match(token[0], slot.choices)
    if said is not None and said.value is None:
        return Answer(None, "dont_know", None, mode)
    mass = {choice.label: 0.0 for choice in slot.choices}
    for spelled, p in token[2].items():
        choice = match(spelled, slot.choices)
        if choice is not None:
            mass[choice.label] += p
    real = [choice for choice in slot.choices if choice.value is not None]
    if mode == "top_no":
        yes, no = yes_no(slot.choices)
        return _yes_no(yes, no, 1 - min(mass[no.label], 1.0), mode)
    total = sum(mass[choice.label] for choice in real)
    if total <= 0:
        return no_answer
    found = {str(choice.value): mass[choice.label] / total for choice in real}
    return Answer(max(found, key=lambda value: found[value]), "", found, mode)


def _emitted_no(slot: Slot, text: str, token: tuple[str, float | None, dict[str, float]] | None) -> Answer:
    yes, no = yes_no(slot.choices)
    said = token[0] if token is not None else text
    if plain(said) not in no.variants:
        return _yes_no(yes, no, 1.0, "emitted_no")
    if token is None or token[1] is None:
        return Answer(None, "unparsable", None, "emitted_no")  # a "no" of unknown probability
    return Answer(str(no.value), "", {str(yes.value): 1 - token[1], str(no.value): token[1]}, "emitted_no")


def _yes_no(yes: Choice, no: Choice, p: float, mode: str) -> Answer:
    return Answer(str((yes if p >= 0.5 else no).value), "", {str(yes.value): p, str(no.value): 1 - p}, mode)


def vote(slot: Slot, answers: Sequence[Answer]) -> Answer:
    """The answer of several replies: (count + 1) / (replies + options). Half missing: missing. A tie: "don't know"."""
    given = [answer.value for answer in answers if answer.value is not None]
    if 2 * len(given) <= len(answers):
        codes = Counter(answer.missing for answer in answers if answer.value is None)
        return Answer(None, codes.most_common(1)[0][0] if codes else "unparsable", None, "votes")
    counts = Counter(given)
    (first, n), *others = counts.most_common(2)
    tied = bool(others) and others[0][1] == n
    if not slot.choices:
        return Answer(None, "dont_know", None, "votes") if tied else Answer(first, "", None, "votes")
    options = [choice.value for choice in slot.choices if choice.value is not None]
    shares = {option: (counts[option] + 1) / (len(given) + len(options)) for option in options}
    return Answer(None, "dont_know", shares, "votes") if tied else Answer(first, "", shares, "votes")
