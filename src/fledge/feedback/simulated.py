"""A simulated annotator that sees frames through noise, so that how they are shown and asked about changes its answers.

It stands in for a vision-language model where there is no network. Its noise is an assumption, not a measurement: it
shows what a study of instruments can find, never how a real model behaves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from fledge.core.annotations import Annotation, Item
from fledge.core.contracts import Annotator
from fledge.core.errors import ConfigError, unknown
from fledge.core.instruments import Ask, Block, Condition, Construct, Instrument
from fledge.data.segments import SegmentTable
from fledge.data.trajectories import Trajectories
from fledge.feedback.domain import Domain, Judge
from fledge.feedback.items import Presentation, segments_of


@dataclass(frozen=True)
class Wording:
    """How a question is put, and what that is assumed to do to answers."""

    template: str
    """With `{question}` in it."""
    acquiescence: float = 0.0
    """Share of answers that become yes whatever was seen."""
    confusion: float = 0.0
    """Share of answers that are given the wrong way round."""


WORDINGS: dict[str, Wording] = {
    "plain": Wording("{question}"),
    "leading": Wording("You will surely agree: {question}", acquiescence=0.2),
    "negated": Wording("Answer Y unless the answer to the following is no: {question}", confusion=0.1),
    "vague": Wording("Roughly speaking, and all in all: {question}", acquiescence=0.05, confusion=0.05),
}
LEGIBILITY = {"separate": 0.05, "grid": 0.1, "filmstrip": 0.15}
"""Layout → deviation of what is seen at five frames, in standard deviations of the observation."""
CARRY_OVER = 0.3
"""Weight of the first answer in the second where both are given on one screen."""


@dataclass(frozen=True)
class SimulatedReader(Annotator):
    """Sees every frame's state through normal noise, several times; P(yes) is the share of looks that say yes.

    Frames that share a picture get smaller as they get more: the noise of a filmstrip grows with n/5, of a grid with
    √(n/5); separate pictures stay as they are.

    Args:
        trajectories: the behaviour that items show.
        table: its segments.
        judges: construct → right answer to what is seen.
        presentation: how segments are shown.
        wording: a name of `WORDINGS`.
        n_looks: at each segment, for each question.
        seed: of the noise; a replicate is other noise.
    """

    trajectories: Trajectories
    table: SegmentTable
    judges: Mapping[str, Judge]
    presentation: Presentation = field(default_factory=Presentation)
    wording: str = "plain"
    n_looks: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.wording not in WORDINGS:
            raise unknown("wording", self.wording, WORDINGS)
        if self.presentation.layout not in LEGIBILITY:
            raise unknown("layout", self.presentation.layout, LEGIBILITY)
        if self.n_looks < 1:
            raise ConfigError(f"n_looks is at least 1, not {self.n_looks}.")

    @property
    def blur(self) -> float:
        """Deviation of what is seen, in standard deviations of the observation."""
        more = self.presentation.n_frames / 5
        growth = {"separate": 1.0, "grid": more**0.5, "filmstrip": more}[self.presentation.layout]
        return LEGIBILITY[self.presentation.layout] * growth

    def annotate(
        self, items: Sequence[Item], instrument: Instrument, *, condition: str = "", replicate: int = 0
    ) -> list[Annotation]:
        """One answer per item and construct, in the order of the condition (by default the instrument's first).

        Raises:
            ConfigError: a construct whose right answer is unknown.
            DataError: an item that shows no segment.
        """
        rows = segments_of(items)
        program = instrument.condition(condition) if condition else instrument.conditions[0]
        screens = [ask.constructs for block in program.blocks for ask in block.screens]
        given: list[Annotation] = []
        order = 0
        for names in screens:
            before: np.ndarray | None = None
            for name in names:
                p = self._seen(name, replicate)
                if before is not None:
                    p = (1 - CARRY_OVER) * p + CARRY_OVER * before
                before = p
                given += [
                    self._answer(item, name, float(p[row]), instrument, order, replicate)
                    for item, row in zip(items, rows.tolist(), strict=True)
                ]
                order += 1
        return given

    def _seen(self, construct: str, replicate: int) -> Float[np.ndarray, " segment"]:
        if construct not in self.judges:
            raise unknown("construct with a known answer", construct, self.judges)
        shown = self.presentation
        states = self.trajectories.observations[self.table.frames(shown.n_frames)]
        scale = self.blur * self.trajectories.observations.std(0)
        words = f"{self.seed}/{replicate}/{construct}/{shown.n_frames}/{shown.layout}/{self.wording}"
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big"))
        looks = [
            self.judges[construct](states + scale * rng.standard_normal(states.shape).astype(np.float32))
            for _ in range(self.n_looks)
        ]
        wording = WORDINGS[self.wording]
        p = wording.acquiescence + (1 - wording.acquiescence) * np.mean(looks, axis=0)
        return np.asarray((1 - wording.confusion) * p + wording.confusion * (1 - p))

    def _answer(
        self, item: Item, construct: str, p: float, instrument: Instrument, order: int, replicate: int
    ) -> Annotation:
        shown = self.presentation
        return Annotation(
            item.id,
            construct,
            "simulated-reader",
            value="1" if p >= 0.5 else "0",
            probability={"0": 1.0 - p, "1": p},
            mode="simulated",
            instrument=instrument.version,
            condition=f"{instrument.conditions[0].name}, {shown.n_frames} frames, {shown.layout}",
            asked_order=order,
            replicate=replicate,
            source="oracle",
        )


def worded(domain: Domain, wording: str, constructs: Sequence[str], together: bool) -> Instrument:
    """The domain's instrument with these questions, put in these words, on one screen or on one each.

    Raises:
        ConfigError: there is no such wording.
    """
    if wording not in WORDINGS:
        raise unknown("wording", wording, WORDINGS)
    asked = tuple(
        Construct(c.name, WORDINGS[wording].template.format(question=c.question))
        for c in domain.instrument.constructs
        if c.name in constructs
    )
    names = tuple(c.name for c in asked)
    screens = (Ask(names),) if together else tuple(Ask((name,)) for name in names)
    condition = Condition("one screen" if together else "own screens", (Block(screens),))
    return Instrument(f"{domain.name}-{wording}", asked, (condition,), domain.instrument.instructions)
