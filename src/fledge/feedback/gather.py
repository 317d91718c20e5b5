"""Everything that is said about a domain's behaviour: of segments, of whole episodes, and of pairs of segments."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from fledge.core.annotations import Annotation, Item
from fledge.core.contracts import Annotator
from fledge.core.errors import DataError
from fledge.core.instruments import Instrument
from fledge.data.annotators import NoisyAnnotator
from fledge.data.segments import SegmentTable, segment
from fledge.data.trajectories import Trajectories
from fledge.feedback.arms import ARMS, Feedback
from fledge.feedback.domain import Domain, comparison
from fledge.feedback.items import Presentation, items_of, pair_items, random_pairs
from fledge.feedback.labels import probabilities
from fledge.feedback.oracle import MeritAnnotator, OracleAnnotator

Subject = Literal["segments", "episodes", "pairs"]


@dataclass(frozen=True)
class OracleSettings:
    """The annotator that needs no network: it sees the states behind the pictures."""

    residue: Literal["hard", "soft"] = "soft"
    """What a no leaves: 0.01, or a Beta(0.4, 8) draw as a wavering model would."""
    flip: float = 0.0
    """Share of answers that are turned round."""
    jitter: float = 0.0
    """Standard deviation of normal noise on the log odds."""
    abstain: float = 0.0
    """Share of answers that are refused."""
    replicates: int = 1
    """How often every question about segments is asked; noise differs."""
    seed: int = 0


@dataclass(frozen=True)
class Questions:
    """What somebody is asked at a time."""

    about: Subject
    items: Sequence[Item]
    instrument: Instrument
    table: SegmentTable
    """What the items show."""
    n_frames: int
    """Of an item, or of each half of a pair."""


@runtime_checkable
class Asker(Protocol):
    """Whoever answers."""

    @property
    def pictures(self) -> bool:
        """Whether items need pictures."""

    def __call__(self, questions: Questions) -> list[Annotation]:
        """All answers; those to segments in all replicates."""


@dataclass(frozen=True)
class OracleAsker:
    """Asks the oracle, spoilt as the settings say."""

    domain: Domain
    trajectories: Trajectories
    settings: OracleSettings
    pictures: bool = False

    def __call__(self, questions: Questions) -> list[Annotation]:
        """The oracle's answers; those about pairs by the merit of states."""
        own, annotator = self.settings, self._annotator(questions)
        if own.flip or own.jitter or own.abstain:
            spoil: dict[str, Any] = {"flip": own.flip, "jitter": own.jitter, "abstain": own.abstain}
            annotator = NoisyAnnotator(annotator, seed=own.seed, **spoil)
        replicates = own.replicates if questions.about == "segments" else 1
        found: list[Annotation] = []
        for replicate in range(replicates):
            found += annotator.annotate(questions.items, questions.instrument, replicate=replicate)
        return found

    def _annotator(self, questions: Questions) -> Annotator:
        logged, table, n = self.trajectories, questions.table, questions.n_frames
        if questions.about == "pairs":
            return MeritAnnotator(logged, table, self.domain.merit, n)
        return OracleAnnotator(logged, table, self.domain.judges, n, self.settings.residue)


@dataclass(frozen=True)
class RecordedAsker:
    """Answers that were given before: by people at the annotation page, by a model, by a run."""

    answers: Sequence[Annotation]
    origin: str = "these answers"
    pictures: bool = False

    def __call__(self, questions: Questions) -> list[Annotation]:
        """What was answered about these items.

        Raises:
            DataError: nothing was.
        """
        wanted = {item.id for item in questions.items}
        found = [answer for answer in self.answers if answer.item in wanted]
        if not found:
            given = f" (there are {len(self.answers)}, such as one about '{self.answers[0].item}')" * bool(self.answers)
            raise DataError(
                f"{self.origin} hold no answer about {questions.about} such as '{questions.items[0].id}'{given}. "
                "Labels belong to one data set cut in one way: cut it alike, ask about these too, or leave out the "
                "arms that need them."
            )
        return found


def wants(arms: Collection[str]) -> set[Subject]:
    """What has to be asked about, beside segments, for these arms."""
    rows = [ARMS[name] for name in arms]
    found: set[Subject] = {"segments"}
    found |= {"episodes"} if any(row.whole_episodes for row in rows) else set()
    paired = (row.learner in ("sdpo", "cpl") or row.reward == "model" for row in rows)
    return found | ({"pairs"} if any(paired) else set())


def gather(
    domain: Domain,
    trajectories: Trajectories,
    ask: Asker,
    *,
    k: int = 0,
    about: Collection[Subject] = ("segments", "episodes", "pairs"),
    prob_mode: str = "normalised",
    shown: Presentation | None = None,
    pair_seed: int = 0,
) -> tuple[Feedback, list[Annotation]]:
    """All that the arms need: labels of segments and of whole episodes, and preferences; and every answer.

    Args:
        domain: what is controlled and asked.
        trajectories: its behaviour.
        ask: who answers.
        k: steps of a segment; 0 is the domain's own.
        about: what is asked about.
        prob_mode: how answers become probabilities.
        shown: how pictures are laid out and how large they are; the number of frames is the domain's.
        pair_seed: which pairs are compared.
    """
    k, n = k or domain.k, domain.n_frames
    table, length = segment(trajectories, k), int(trajectories.lengths[0])
    whole, pairs = segment(trajectories, length), random_pairs(table, pair_seed)
    renderer = domain.renderer if ask.pictures else None
    shown = shown or Presentation()

    def frames(count: int) -> Presentation:
        return Presentation(count, shown.layout, shown.resolution, shown.captions)

    items = list(items_of(trajectories, table, frames(n), renderer))
    on_segments = ask(Questions("segments", items, domain.instrument, table, n))
    compared = pair_items(items, pairs)
    on_whole: list[Annotation] = []
    on_pairs: list[Annotation] = []
    if "episodes" in about:
        count = n * max(1, length // k)
        episodes = list(items_of(trajectories, whole, frames(count), renderer))
        on_whole = ask(Questions("episodes", episodes, domain.instrument, whole, count))
    if "pairs" in about:
        on_pairs = ask(Questions("pairs", compared, comparison(domain), table, n))
    parts = probabilities(on_segments, table, mode=prob_mode)
    feedback = Feedback(
        trajectories,
        table,
        {name: parts[name] for name in domain.judges if name in parts} or parts,
        whole,
        probabilities(on_whole, whole, mode=prob_mode),
        pairs,
        preferences(on_pairs, compared),
    )
    return feedback, [*on_segments, *on_whole, *on_pairs]


def preferences(answers: Sequence[Annotation], pairs: Sequence[Item]) -> Float[np.ndarray, " pair"]:
    """P(first) / (P(first) + P(second)) of each pair, the mean over its answers; ½ where nobody says (Beck 2025).

    An answer without probabilities counts as certain.
    """
    total, count = np.zeros(len(pairs)), np.zeros(len(pairs), np.int64)
    row: Mapping[str, int] = {pair.id: i for i, pair in enumerate(pairs)}
    for answer in answers:
        shares = answer.probability or ({answer.value: 1.0} if answer.value is not None else {})
        first, second = shares.get("first", 0.0), shares.get("second", 0.0)
        if answer.value is not None and first + second > 0:
            total[row[answer.item]] += first / (first + second)
            count[row[answer.item]] += 1
    return np.where(count > 0, total / np.maximum(count, 1), 0.5)
