"""Annotators that know the right answer: exact, or with a residue of doubt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import beta

from fledge.core.annotations import Annotation, Item
from fledge.core.contracts import Annotator
from fledge.core.errors import DataError, unknown
from fledge.core.instruments import Instrument
from fledge.data.annotators import draw
from fledge.data.segments import SegmentTable
from fledge.data.trajectories import Trajectories
from fledge.feedback.domain import Judge
from fledge.feedback.items import segments_of

MERIT = "oracle-merit"
"""The annotator that compares."""
NO = 0.01
"""Probability of yes that a hard oracle leaves to a no."""
RESIDUE = (0.4, 8.0)
"""Beta distribution of the same of a soft one: 16 % of its noes leave more than 0.1."""


@dataclass(frozen=True)
class OracleAnnotator(Annotator):
    """Answers from the states in a segment's frames: yes with probability 1, no with a small residue.

    Args:
        trajectories: the behaviour that items show.
        table: its segments.
        judges: construct → right answer.
        n_frames: how many frames of a segment it looks at.
        residue: `hard` leaves 0.01 to a no; `soft` a Beta(0.4, 8) draw that depends on item and construct alone.
    """

    trajectories: Trajectories
    table: SegmentTable
    judges: Mapping[str, Judge]
    n_frames: int = 5
    residue: Literal["hard", "soft"] = "hard"

    def right_answers(self, construct: str) -> Bool[np.ndarray, " segment"]:
        """Whether yes is right, for every segment of the table.

        Raises:
            ConfigError: nobody said what is right for this construct.
        """
        if construct not in self.judges:
            raise unknown("construct with a known answer", construct, self.judges)
        return self.judges[construct](self.trajectories.observations[self.table.frames(self.n_frames)])

    def annotate(
        self, items: Sequence[Item], instrument: Instrument, *, condition: str = "", replicate: int = 0
    ) -> list[Annotation]:
        """One answer per item and construct; a replicate is no different.

        Raises:
            ConfigError: a construct whose right answer is unknown.
            DataError: an item that shows no segment.
        """
        rows = segments_of(items)
        given: list[Annotation] = []
        for order, construct in enumerate(instrument.constructs):
            right = self.right_answers(construct.name)[rows]
            found = np.where(right, 1.0, self._doubts(items, construct.name)).tolist()
            for position, (item, p) in enumerate(zip(items, found, strict=True)):
                shares = {"0": 1.0 - p, "1": p}
                value, who = "1" if p >= 0.5 else "0", f"oracle-{self.residue}"
                row = Annotation(item.id, construct.name, who, value, "", shares, "oracle", source="oracle")
                given.append(_placed(row, instrument, position, order, replicate))
        return given

    def _doubts(self, items: Sequence[Item], construct: str) -> Float[np.ndarray, " item"]:
        """P(yes) of each item if the answer is no."""
        if self.residue == "hard":
            return np.full(len(items), NO)
        return np.asarray(beta.ppf([draw("residue", item.id, construct) for item in items], *RESIDUE))


@dataclass(frozen=True)
class MeritAnnotator(Annotator):
    """Says which half of a pair shows better states, by the mean merit of its frames; equals are "don't know".

    Args:
        trajectories: the behaviour that items show.
        table: the segments that the halves show.
        merit: how good a state looks.
        n_frames: how many frames of a segment it looks at.
    """

    trajectories: Trajectories
    table: SegmentTable
    merit: Callable[[Float[np.ndarray, "*shape obs"]], Float[np.ndarray, "*shape"]]
    n_frames: int = 5

    def annotate(
        self, items: Sequence[Item], instrument: Instrument, *, condition: str = "", replicate: int = 0
    ) -> list[Annotation]:
        """One answer per pair and construct.

        Raises:
            DataError: an item that is no pair of segments.
        """
        for item in items:
            if not item.pair:
                raise DataError(f"Item '{item.id}' is no pair. Make pairs by pair_items.")
        score = self.merit(self.trajectories.observations[self.table.frames(self.n_frames)]).mean(-1)
        given: list[Annotation] = []
        for order, construct in enumerate(instrument.constructs):
            for position, item in enumerate(items):
                first, second = score[segments_of(item.pair)]
                if first == second:
                    row = Annotation(item.id, construct.name, MERIT, None, "dont_know", source="oracle")
                else:
                    shares = {"first": float(first > second), "second": float(second > first)}
                    value = max(shares, key=lambda option: shares[option])
                    row = Annotation(item.id, construct.name, MERIT, value, "", shares, "oracle", source="oracle")
                given.append(_placed(row, instrument, position, order, replicate))
        return given


def _placed(row: Annotation, instrument: Instrument, position: int, order: int, replicate: int) -> Annotation:
    return replace(
        row,
        instrument=instrument.version,
        condition=instrument.conditions[0].name,
        position=position,
        asked_order=order,
        replicate=replicate,
    )
