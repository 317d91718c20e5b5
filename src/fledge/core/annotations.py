"""Items, and what annotators said of them: long, one row per answer, never aggregated.

"Not asked", "dropped out", "don't know", "refused" and "unparsable" are kept apart and are never negatives; an error is
no annotation at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fledge.core.errors import ConfigError, unknown

MISSING = ("not_asked", "dropped_out", "dont_know", "refused", "unparsable")
"""Why an answer is missing."""
SOURCES = ("human", "llm", "vlm", "oracle")
MEDIA = ("image", "clip")


@dataclass(frozen=True)
class Media:
    """A picture or a film of an item."""

    kind: Literal["image", "clip"]
    content: bytes
    """The file: PNG or JPEG, GIF or MP4."""
    mime: str = "image/png"
    alt: str = ""
    """What it shows, in words, for those who cannot see it."""


@dataclass(frozen=True)
class Item:
    """What is judged: a text, pictures in time order, or a pair of items side by side."""

    id: str
    text: str = ""
    media: tuple[Media, ...] = ()
    pair: tuple[Item, ...] = ()
    """Two items where one is asked which is better; the item itself is then empty."""
    meta: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """What annotators never see: where it comes from, what the oracle needs."""

    def __post_init__(self) -> None:
        if len(self.pair) not in (0, 2):
            raise ConfigError(f"Item '{self.id}': a pair is two items, not {len(self.pair)}.")


@dataclass(frozen=True)
class Annotation:
    """One answer of one annotator to one question about one item."""

    item: str
    construct: str
    annotator: str
    value: str | None = None
    """The option's value, the number or the text as a string; None where the answer is missing."""
    missing: str = ""
    """One of `MISSING` where there is no value; empty otherwise."""
    probability: Mapping[str, float] | None = None
    """Option value → probability, where the annotator gives one."""
    mode: str = ""
    """How the probability was found (`top_logprobs`, `votes`, `verbal`, `hard`, …)."""
    instrument: str = ""
    """Version (hash) of the instrument."""
    condition: str = ""
    screen: int = -1
    """Index of the screen among the annotator's screens, from 0; -1 where there were none."""
    position: int = -1
    """Of the item among the annotator's items, from 0."""
    sweep: int = 0
    """Which pass over the items, from 0."""
    asked_order: int = 0
    """Of the construct among those asked about this item, from 0."""
    replicate: int = 0
    revision: int = 0
    """How often the answer was changed before."""
    source: str = "human"
    shown: float | None = None
    """Unix time in seconds."""
    submitted: float | None = None
    raw: str = ""
    """The reply as it came, or a reference to it."""

    def __post_init__(self) -> None:
        if self.missing and self.missing not in MISSING:
            raise unknown("missing code", self.missing, MISSING)
        if (self.value is None) != bool(self.missing):
            raise ConfigError(
                f"Annotation of '{self.item}': an answer has either a value or a missing code, "
                f"not value={self.value!r} with missing={self.missing!r}."
            )
        if self.source not in SOURCES:
            raise unknown("source", self.source, SOURCES)
