"""Annotators that know the right answer: exact, with a residue of doubt, or noisy on purpose."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import beta

from fledge.core.annotations import Annotation, Item
from fledge.core.contracts import Annotator
from fledge.core.errors import ConfigError, unknown
from fledge.core.instruments import Instrument
from fledge.data.segments import SegmentTable
from fledge.data.trajectories import Trajectories
from fledge.feedback.domain import Judge
from fledge.feedback.items import segments_of

NO = 0.01
"""Probability of yes that a hard oracle leaves to a no."""
RESIDUE = (0.4, 8.0)
"""Beta distribution of the same of a soft one: 16 % of its noes leave more than 0.1."""


def uniform_of(*words: object) -> float:
    """A number in (0, 1) that depends on the words alone."""
    digest = hashlib.sha256("\x1f".join(map(str, words)).encode()).digest()
    return (int.from_bytes(digest[:8], "big") + 0.5) / 2.0**64


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
                row = _answer(item, construct.name, p, instrument, position, order, replicate)
                given.append(replace(row, annotator=f"oracle-{self.residue}"))
        return given

    def _doubts(self, items: Sequence[Item], construct: str) -> Float[np.ndarray, " item"]:
        """P(yes) of each item if the answer is no."""
        if self.residue == "hard":
            return np.full(len(items), NO)
        return np.asarray(beta.ppf([uniform_of("residue", item.id, construct) for item in items], *RESIDUE))


@dataclass(frozen=True)
class NoisyAnnotator(Annotator):
    """Another annotator's answers, spoilt: flipped at a rate, or their certainty shifted on the logit scale.

    What is spoilt depends on seed, item, construct and replicate alone: asking again in another order changes nothing.

    Args:
        inner: whose answers.
        flip: the share of answers that are turned round.
        temperature: standard deviation of normal noise on the *standardised* logits; 0 for none.
        abstain: the share of answers that are refused.
        seed: of the noise.
    """

    inner: Any
    flip: float = 0.0
    temperature: float = 0.0
    abstain: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.flip <= 1 and 0 <= self.abstain <= 1 and self.temperature >= 0):
            raise ConfigError(
                f"flip and abstain are shares in [0, 1] and temperature is at least 0; got {self.flip}, "
                f"{self.abstain}, {self.temperature}."
            )

    def annotate(
        self, items: Sequence[Item], instrument: Instrument, *, condition: str = "", replicate: int = 0
    ) -> list[Annotation]:
        """One answer per item and construct; refusals are answers that are missing."""
        given = self.inner.annotate(items, instrument, condition=condition, replicate=replicate)
        logits = _standardised([row.probability["1"] if row.probability else 0.5 for row in given])
        return [self._spoilt(row, logit, replicate) for row, logit in zip(given, logits.tolist(), strict=True)]

    def _spoilt(self, row: Annotation, logit: float, replicate: int) -> Annotation:
        name = f"noisy({row.annotator})"
        words = (self.seed, row.item, row.construct, replicate)
        if row.value is None:
            return replace(row, annotator=name)
        if uniform_of("abstain", *words) < self.abstain:
            return replace(row, annotator=name, value=None, missing="refused", probability=None)
        p = row.probability["1"] if row.probability else float(row.value)
        if self.temperature > 0:
            u, v = uniform_of("u", *words), uniform_of("v", *words)
            normal = np.sqrt(-2 * np.log(u)) * np.cos(2 * np.pi * v)
            p = float(1 / (1 + np.exp(-(logit + self.temperature * normal))))
        if uniform_of("flip", *words) < self.flip:
            p = 1.0 - p
        return replace(row, annotator=name, value="1" if p >= 0.5 else "0", probability={"0": 1 - p, "1": p})


def prefer(
    merit: Float[np.ndarray, "segment frame"], pairs: np.ndarray, *, flip: float = 0.0, seed: int = 0
) -> Float[np.ndarray, " pair"]:
    """Which clip of each pair is better by the mean merit of its frames: 1 the first, 0 the second, ½ neither.

    Args:
        merit: of the states in each segment's frames.
        pairs: (pair, 2) rows of segments.
        flip: share of answers that are turned round.
        seed: of the flips.
    """
    score = merit.mean(-1)
    difference = score[pairs[:, 0]] - score[pairs[:, 1]]
    better = np.where(difference > 0, 1.0, np.where(difference < 0, 0.0, 0.5))
    turned = np.random.default_rng(seed).random(len(pairs)) < flip
    return np.where(turned, 1.0 - better, better)


def _standardised(p: Sequence[float]) -> Float[np.ndarray, " answer"]:
    clipped = np.clip(np.asarray(p, float), 1e-3, 1 - 1e-3)
    logit = np.log(clipped / (1 - clipped))
    scale = logit.std()
    return logit / scale if scale > 0 else logit


def _answer(
    item: Item, construct: str, p: float, instrument: Instrument, position: int, order: int, replicate: int
) -> Annotation:
    return Annotation(
        item.id,
        construct,
        "oracle",
        value="1" if p >= 0.5 else "0",
        probability={"0": 1.0 - p, "1": p},
        mode="oracle",
        instrument=instrument.version,
        condition=instrument.conditions[0].name,
        position=position,
        asked_order=order,
        replicate=replicate,
        source="oracle",
    )
