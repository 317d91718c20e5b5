"""Instruments as data: what is asked, on which screens, in which order (Beck et al. 2022; Kern et al. 2023).

An instrument has constructs (what is asked) and conditions (how). A condition is a list of blocks; a block is one sweep
over the annotator's items, with one or more screens per item. Compiled with a list of items, a condition is a list of
screens; people see them as pages, models as prompts.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from fledge.core.annotations import Item
from fledge.core.errors import ConfigError, unknown


@dataclass(frozen=True)
class Option:
    """An answer that one can choose."""

    value: str
    """As it is stored."""
    label: str
    """As it is shown."""


YES_NO = (Option("1", "Yes"), Option("0", "No"))
PAIR = (Option("first", "The first"), Option("second", "The second"))
"""Of a pair of items, as the pair is stored: `as_stored` puts an answer right where the sides were swapped."""


def likert(points: int, low: str = "", high: str = "") -> tuple[Option, ...]:
    """The options of a rating from 1 to `points`; the two ends can have a name."""
    ends = {1: low, points: high}
    return tuple(Option(str(i), f"{i} {ends.get(i, '')}".strip()) for i in range(1, points + 1))


def as_stored(item: Item, value: str) -> str:
    """An answer about an item as it was shown → the answer about the item as it is stored."""
    if item.meta.get("swapped") is True:
        return {"first": "second", "second": "first"}.get(value, value)
    return value


@dataclass(frozen=True)
class Construct:
    """What is asked about an item."""

    name: str
    question: str
    options: tuple[Option, ...] = YES_NO
    """Empty for a free text."""
    label: str = ""
    """Its name as one of several choices of a screen; by default `name`."""
    definition: str = ""
    """Behind the help button; part of a model's prompt."""

    def __post_init__(self) -> None:
        values = [option.value for option in self.options]
        if len(set(values)) < len(values):
            raise ConfigError(f"Construct '{self.name}': two options have the same value: {values}.")


@dataclass(frozen=True)
class Ask:
    """A screen of a condition, before there are items."""

    constructs: tuple[str, ...]
    """In the order in which they are asked."""
    style: Literal["each", "multi"] = "each"
    """`each`: every construct has its own question. `multi`: one question, choose all constructs that apply or none."""
    question: str = ""
    """Of a `multi` screen."""
    none: str = "None of these"
    """Label of the choice that no construct of a `multi` screen applies; empty: an empty choice is an answer."""
    dont_know: str = ""
    """Label of the "don't know" choice; empty: there is none."""


@dataclass(frozen=True)
class Block:
    """One sweep over the items."""

    screens: tuple[Ask, ...]


@dataclass(frozen=True)
class Condition:
    """One version of the instrument: a screen program."""

    name: str
    blocks: tuple[Block, ...]
    shuffle: tuple[Literal["items", "options", "pair_sides"], ...] = ()
    """What is shuffled anew for each annotator, by the annotator's own seed."""
    batch: int = 1
    """Items on one screen (models label several items of a prompt at once)."""
    confidence: bool = False
    """Whether a confidence from 0 to 100 is asked beside the answer."""
    shuffle_seed: int | None = None
    """A number: shuffled by it, in the same way for every annotator."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ConfigError(f"Condition '{self.name}': batch is at least 1, not {self.batch}.")
        if not self.blocks or any(not block.screens for block in self.blocks):
            raise ConfigError(f"Condition '{self.name}': it has at least one block, each with at least one screen.")


@dataclass(frozen=True)
class Screen:
    """A screen as one annotator sees it."""

    index: int
    items: tuple[Item, ...]
    ask: Ask
    constructs: tuple[Construct, ...]
    """In the order asked; their options in the order shown."""
    sweep: int
    positions: tuple[int, ...]
    """Of the items among the annotator's, from 0."""
    asked_order: int
    """Of the first construct among all that are asked about the item in this condition, from 0."""
    confidence: bool = False


@dataclass(frozen=True)
class Instrument:
    """Constructs, and the conditions under which they are asked."""

    name: str
    constructs: tuple[Construct, ...]
    conditions: tuple[Condition, ...]
    instructions: str = ""
    """Shown before the task; the system message of a model."""
    pages: dict[str, str] = field(default_factory=dict)
    """Further texts of the web page by name (consent, warning, thanks …)."""

    def __post_init__(self) -> None:
        known = [construct.name for construct in self.constructs]
        for what, names in (("constructs", known), ("conditions", [c.name for c in self.conditions])):
            if len(set(names)) < len(names) or not names:
                raise ConfigError(
                    f"Instrument '{self.name}': {what} are at least one, with names of their own: {names}."
                )
        for condition in self.conditions:
            for ask in (ask for block in condition.blocks for ask in block.screens):
                for name in ask.constructs:
                    if name not in known:
                        raise unknown("construct", name, known)

    @property
    def version(self) -> str:
        """Hash of everything that an annotator can see: stored with each answer."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def condition(self, name: str = "") -> Condition:
        """A condition by name; the only one without."""
        if not name and len(self.conditions) == 1:
            return self.conditions[0]
        for condition in self.conditions:
            if condition.name == name:
                return condition
        raise unknown("condition", name, [condition.name for condition in self.conditions])

    def construct(self, name: str) -> Construct:
        """A construct by name."""
        for construct in self.constructs:
            if construct.name == name:
                return construct
        raise unknown("construct", name, [construct.name for construct in self.constructs])

    def compile(self, condition: str, items: Sequence[Item], seed: int | str = 0) -> list[Screen]:
        """The screens of one annotator, in order.

        Args:
            condition: its name.
            items: the annotator's, in the order given.
            seed: the annotator's own; used only for what the condition shuffles.

        Raises:
            ConfigError: there is no such condition.
        """
        program = self.condition(condition)
        seed = seed if program.shuffle_seed is None else program.shuffle_seed
        draw = random.Random(f"{self.version}/{condition}/{seed}")
        order = list(enumerate(items))
        if "items" in program.shuffle:
            draw.shuffle(order)
        placed = [_sides(item, draw) if "pair_sides" in program.shuffle else item for _, item in order]
        asked = {name: self._shown(name, program, draw) for name in dict.fromkeys(_constructs(program))}
        screens: list[Screen] = []
        orders = {name: i for i, name in enumerate(asked)}
        for sweep, block in enumerate(program.blocks):
            for start in range(0, len(placed), program.batch):
                group = tuple(placed[start : start + program.batch])
                for ask in block.screens:
                    screens.append(
                        Screen(
                            index=len(screens),
                            items=group,
                            ask=ask,
                            constructs=tuple(asked[name] for name in ask.constructs),
                            sweep=sweep,
                            positions=tuple(range(start, start + len(group))),
                            asked_order=orders[ask.constructs[0]],
                            confidence=program.confidence,
                        )
                    )
        return screens

    def _shown(self, name: str, program: Condition, draw: random.Random) -> Construct:
        construct = self.construct(name)
        if "options" not in program.shuffle:
            return construct
        options = list(construct.options)
        draw.shuffle(options)
        return Construct(construct.name, construct.question, tuple(options), construct.label, construct.definition)


def _constructs(program: Condition) -> Iterator[str]:
    for block in program.blocks:
        for ask in block.screens:
            yield from ask.constructs


def _sides(item: Item, draw: random.Random) -> Item:
    if not item.pair or draw.random() < 0.5:
        return item
    return Item(item.id, item.text, item.media, item.pair[::-1], {**item.meta, "swapped": True})
