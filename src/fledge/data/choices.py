"""The answers a model may give to a question: codes it is told, and the spellings that count as them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fledge.core.errors import ConfigError
from fledge.core.instruments import Ask, Construct

_EDGES = " \t\r\n\u00a0\u0120\u2581.,:;!?\"'`*_()[]{}<>«»“”‘’"
"""What may stand around an answer: blanks (as tokenisers write them too), quotes, punctuation, emphasis."""
_WORDS = {"0": "zero", "1": "one", "2": "two", "3": "three", "4": "four", "5": "five", "6": "six", "7": "seven"} | {
    "8": "eight",
    "9": "nine",
}
_NO = ("no", "n", "false", "0")


@dataclass(frozen=True)
class Choice:
    """One answer that can be given."""

    value: str | None
    """As it is stored; None for "don't know"."""
    label: str
    code: str
    """The letter or number that a model is asked to answer with."""
    variants: frozenset[str]
    """Spellings that count as this answer, as `plain` writes them. No two choices share one."""


def plain(text: str) -> str:
    """Lower case, without blanks, quotes and punctuation around it."""
    return text.strip(_EDGES).casefold()


def choices(construct: Construct, ask: Ask | None = None) -> tuple[Choice, ...]:
    """What can be answered to a question, in the order shown; "don't know" last. Empty for a free text.

    Codes are the labels' first letters where these differ, else the values where they are short, else 1, 2, 3, …
    """
    if not construct.options:
        return ()
    answers: list[tuple[str | None, str]] = [(option.value, option.label) for option in construct.options]
    if ask is not None and ask.dont_know:
        answers.append((None, ask.dont_know))
    codes = _codes(answers)
    claimed: set[str] = {plain(code) for code in codes}
    found = []
    for (value, label), code in zip(answers, codes, strict=True):
        own = {plain(code)} | ({plain(label)} - claimed) | ({_WORDS.get(code, plain(code))} - claimed)
        claimed |= own
        found.append(Choice(value, label, code, frozenset(own - {""})))
    return tuple(found)


def _codes(answers: Sequence[tuple[str | None, str]]) -> list[str]:
    letters = [plain(label)[:1].upper() for _, label in answers]
    if all(letter.isalpha() for letter in letters) and len(set(letters)) == len(letters):
        return letters
    values = ["DK" if value is None else value for value, _ in answers]
    if all(len(value) <= 2 and plain(value) for value in values) and len({plain(v) for v in values}) == len(values):
        return values
    return [str(i + 1) for i in range(len(answers))]


def match(text: str, among: Sequence[Choice]) -> Choice | None:
    """The choice that a whole text spells, or None."""
    word = plain(text)
    return next((choice for choice in among if word in choice.variants), None)


def yes_no(among: Sequence[Choice]) -> tuple[Choice, Choice]:
    """The "yes" and the "no" of a yes/no question.

    Raises:
        ConfigError: the question has not two answers, one of them "no".
    """
    real = [choice for choice in among if choice.value is not None]
    for texts in ([plain(choice.label) for choice in real], [plain(choice.value or "") for choice in real]):
        found = [i for i, text in enumerate(texts) if text in _NO]
        if len(real) == 2 and len(found) == 1:
            return real[1 - found[0]], real[found[0]]
    raise ConfigError(
        f"This needs a yes/no question, but the answers are {[choice.label for choice in among]}. "
        "Label one of two options 'No', or use mode='normalised'."
    )
