"""What a screen's form sends → answers; nothing is believed that the screen did not offer.

Field names count items and constructs: `a.0.1` is the answer about the first item to the second construct, `m.0` the
choices of a `multi` screen, `d.0.1` a ticked "don't know" beside a free text, `c.0.1` a confidence.
"""

from __future__ import annotations

from collections.abc import Mapping

from fledge.annotation.store import Given
from fledge.core.annotations import Item
from fledge.core.errors import FledgeError
from fledge.core.instruments import Construct, Screen, as_stored

NONE, DONT_KNOW = "~none", "~dont_know"
LONGEST = 5_000
"""Characters of a free text."""
Form = Mapping[str, list[str]]


class Refused(FledgeError):
    """A request that no page of ours sends."""

    def __init__(self, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.status = status


def names_of(screen: Screen) -> set[str]:
    """Every field that the screen's form has."""
    names = set()
    for i in range(len(screen.items)):
        if screen.ask.style == "multi":
            names |= {f"m.{i}"} | ({f"c.{i}.0"} if screen.confidence else set())
            continue
        for j, construct in enumerate(screen.constructs):
            names |= {f"a.{i}.{j}"} | ({f"c.{i}.{j}"} if screen.confidence else set())
            if not construct.options and screen.ask.dont_know:
                names.add(f"d.{i}.{j}")
    return names


def answers_of(screen: Screen, form: Form) -> tuple[list[Given], dict[str, str]]:
    """The answers of a form, and what is still missing as field → message.

    Raises:
        Refused: a field or a choice that the screen has not.
    """
    strange = set(form) - names_of(screen)
    if strange:
        raise Refused(f"the screen has no field {sorted(strange)[0]!r}")
    given: list[Given] = []
    faults: dict[str, str] = {}
    for i, item in enumerate(screen.items):
        if screen.ask.style == "multi":
            given += _multi(screen, i, item, form, faults)
            continue
        for j, construct in enumerate(screen.constructs):
            given += _each(screen, i, j, item, construct, form, faults)
    return given, faults


def filled_in(screen: Screen, answers: Mapping[tuple[str, str], Given]) -> dict[str, list[str]]:
    """Answers by (item, construct) → the form as it was filled in: the inverse of `answers_of`."""
    form: dict[str, list[str]] = {}
    for i, item in enumerate(screen.items):
        found = [answers.get((item.id, construct.name)) for construct in screen.constructs]
        if screen.ask.style == "multi" and all(found):
            chosen = [g.construct for g in found if g and g.value == "1"]
            unknown = any(g and g.missing for g in found)
            form[f"m.{i}"] = [DONT_KNOW] if unknown else chosen or ([NONE] if screen.ask.none else [])
        for j, (construct, g) in enumerate(zip(screen.constructs, found, strict=True)):
            if g is None:
                continue
            if g.confidence is not None:
                form[f"c.{i}.{j}"] = [str(g.confidence)]
            if screen.ask.style == "each":
                known = [as_stored(item, g.value)] if g.value is not None else [DONT_KNOW]
                form[f"{'d' if g.value is None and not construct.options else 'a'}.{i}.{j}"] = known
    return {name: values for name, values in form.items() if name in names_of(screen)}


def _multi(screen: Screen, i: int, item: Item, form: Form, faults: dict[str, str]) -> list[Given]:
    names = [construct.name for construct in screen.constructs]
    offered = [*names, *([NONE] if screen.ask.none else []), *([DONT_KNOW] if screen.ask.dont_know else [])]
    chosen = _offered(form.get(f"m.{i}", []), offered)
    if not chosen and screen.ask.none:
        faults[f"m.{i}"] = "Please choose what applies."
        return []
    if len(chosen) > 1 and {NONE, DONT_KNOW} & set(chosen):
        faults[f"m.{i}"] = "The last choice excludes the others. Please choose one or the other."
        return []
    sure = _confidence(screen, f"c.{i}.0", form, faults, needed=DONT_KNOW not in chosen)
    missing = "dont_know" if DONT_KNOW in chosen else ""
    values = {name: None if missing else str(int(name in chosen)) for name in names}
    place, first = screen.positions[i], screen.asked_order
    return [Given(item.id, n, value, missing, sure, place, first + j) for j, (n, value) in enumerate(values.items())]


def _each(
    screen: Screen, i: int, j: int, item: Item, construct: Construct, form: Form, faults: dict[str, str]
) -> list[Given]:
    name, place = f"a.{i}.{j}", (screen.positions[i], screen.asked_order + j)
    values = form.get(name, [])
    if construct.options:
        offered = [o.value for o in construct.options] + ([DONT_KNOW] if screen.ask.dont_know else [])
        values = _offered(values, offered)
        unsure = DONT_KNOW in values
    else:
        unsure = bool(_offered(form.get(f"d.{i}.{j}", []), [DONT_KNOW]))
        values = [value.strip() for value in values if value.strip()]
        if any(len(value) > LONGEST for value in values):
            faults[name] = f"Please keep to {LONGEST} characters."
            return []
    if len(values) > 1:
        raise Refused(f"{name} has several answers")
    if unsure:
        return [Given(item.id, construct.name, None, "dont_know", None, *place)]
    if not values:
        faults[name] = "Please answer this question."
        return []
    sure = _confidence(screen, f"c.{i}.{j}", form, faults)
    return [Given(item.id, construct.name, as_stored(item, values[0]), "", sure, *place)]


def _offered(values: list[str], offered: list[str]) -> list[str]:
    for value in values:
        if value not in offered:
            raise Refused(f"the choice {value[:40]!r} was not offered")
    if len(set(values)) < len(values):
        raise Refused("a choice comes twice")
    return values


def _confidence(screen: Screen, name: str, form: Form, faults: dict[str, str], needed: bool = True) -> int | None:
    if not screen.confidence or not needed:
        return None
    text = (form.get(name) or [""])[0].strip()
    if not (text.isascii() and text.isdigit() and int(text[:4]) <= 100):
        faults[name] = "Please give a whole number from 0 to 100."
        return None
    return int(text)
