"""A study as it is carried out on the web page: instrument, items, assignment, texts and questions around the task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

from fledge.annotation.assign import Arm, Plan, parts
from fledge.core.annotations import Item, Media
from fledge.core.instruments import Instrument, Option, Screen

STAGES = ("attributes", "check", "practice", "ready", "task", "exit", "done")
"""What an annotator walks through after consenting; what a study has not is skipped."""
ENDS = ("done", "screened_out", "full")
"""Where nothing follows."""
SUFFIXES = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
    "video/mp4": "mp4",
    "video/webm": "webm",
}


@dataclass(frozen=True)
class Field:
    """A question about the annotator, or at the exit."""

    name: str
    label: str
    kind: Literal["choice", "multi", "number", "text"] = "choice"
    options: tuple[Option, ...] = ()
    required: bool = True
    low: float = 0.0
    high: float = 1e9
    hint: str = ""


@dataclass(frozen=True)
class Check:
    """A comprehension question."""

    text: str
    options: tuple[Option, ...]
    answer: str
    """The right option's value."""
    explain: str = ""
    """Shown after a wrong answer."""


@dataclass(frozen=True)
class Practice:
    """An item to practise on, with the answers that the instructions lead to."""

    item: Item
    answers: Mapping[str, str] = field(default_factory=dict)
    """Construct → value; constructs that are left out have no right answer."""
    explain: str = ""


@dataclass(frozen=True)
class StudyDesign:
    """A study file, read and checked."""

    name: str
    title: str
    instrument: Instrument
    items: tuple[Item, ...]
    batches: Mapping[str, tuple[int, ...]]
    """Batch → indices of its items, in order."""
    plan: Plan
    consent: str = ""
    contact: str = ""
    warning: str = ""
    """The content warning; empty: none."""
    blur: bool = False
    """Whether items are blurred until they are asked for."""
    attributes: tuple[Field, ...] = ()
    checks: tuple[Check, ...] = ()
    tries: int = 2
    practice: tuple[Practice, ...] = ()
    exit: tuple[Field, ...] = ()
    thanks: str = ""
    back: bool = True
    """Whether there is a button to the screen before (its use is logged)."""
    completion_code: str = ""
    """Of the platform; empty: each annotator gets a code of their own."""
    completion_url: str = ""
    screened_out_code: str = ""
    planted: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Construct → effect → size: what a simulation of the study plants."""
    snapshot: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The file with everything that it refers to: what export and audit read later. Without pictures."""

    @property
    def version(self) -> str:
        """Hash of the snapshot: a study that was started goes on only unchanged."""
        return hashlib.sha256(json.dumps(self.snapshot, sort_keys=True).encode()).hexdigest()[:16]

    def next_stage(self, stage: str) -> str:
        """The stage after one, empty ones left out."""
        there = {
            "attributes": bool(self.attributes),
            "check": bool(self.checks or self.instrument.instructions),
            "practice": bool(self.practice),
            "exit": bool(self.exit),
        }
        rest = STAGES[STAGES.index(stage) + 1 :] if stage in STAGES else STAGES
        return next(name for name in rest if there.get(name, True))

    def media(self) -> dict[str, Media]:
        """Every picture and film by the name under which it is served."""
        shown = [*self.items, *(practice.item for practice in self.practice)]
        return {media_name(m): m for item in shown for part in (item, *item.pair) for m in part.media}

    def texts(self) -> dict[str, str]:
        """Item → its text; of a pair both."""
        return {item.id: item.text or " | ".join(side.text for side in item.pair).strip(" |") for item in self.items}


@dataclass(frozen=True)
class Step:
    """A screen of one annotator, and the condition that it belongs to."""

    screen: Screen
    condition: str


def course(design: StudyDesign, arm: Arm, batch: str, seed: str) -> tuple[Step, ...]:
    """All task screens of one annotator, in order."""
    items = [design.items[i] for i in design.batches[batch]]
    steps: list[Step] = []
    for condition, part in zip(arm.sequence, parts(len(items), len(arm.sequence)), strict=True):
        for screen in design.instrument.compile(condition, [items[i] for i in part], seed):
            placed = tuple(position + part.start for position in screen.positions)
            steps.append(Step(replace(screen, index=len(steps), positions=placed), condition))
    return tuple(steps)


def practice_course(design: StudyDesign, arm: Arm, seed: str) -> tuple[Step, ...]:
    """The practice screens, under the annotator's first condition."""
    items = [practice.item for practice in design.practice]
    condition = arm.sequence[0]
    return tuple(Step(screen, condition) for screen in design.instrument.compile(condition, items, seed))


@lru_cache(maxsize=4096)
def media_name(media: Media) -> str:
    """The name under which a picture or film is served: a hash of its content, so no path can be named."""
    return f"{hashlib.sha256(media.content).hexdigest()[:32]}.{SUFFIXES[media.mime]}"
