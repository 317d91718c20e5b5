"""Everything that is said about a domain's behaviour, by an annotator that knows the right answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from fledge.core.annotations import Annotation
from fledge.core.instruments import Instrument
from fledge.data.segments import SegmentTable, segment
from fledge.data.trajectories import Trajectories
from fledge.feedback.arms import Feedback
from fledge.feedback.domain import Domain
from fledge.feedback.items import Presentation, items_of, random_pairs
from fledge.feedback.labels import probabilities
from fledge.feedback.oracle import NoisyAnnotator, OracleAnnotator, prefer


@dataclass(frozen=True)
class OracleSettings:
    """The annotator that needs no network: it sees the states behind the pictures."""

    residue: Literal["hard", "soft"] = "soft"
    """What a no leaves: 0.01, or a Beta(0.4, 8) draw as a wavering model would."""
    flip: float = 0.0
    """Share of answers that are turned round."""
    temperature: float = 0.0
    """Normal noise on the standardised logits."""
    abstain: float = 0.0
    """Share of answers that are refused."""
    replicates: int = 1
    """How often every question is asked; noise differs."""
    seed: int = 0


def ask(
    domain: Domain,
    trajectories: Trajectories,
    table: SegmentTable,
    settings: OracleSettings,
    n_frames: int,
    instrument: Instrument | None = None,
) -> list[Annotation]:
    """Every question about every segment, answered by the oracle, `replicates` times."""
    oracle = OracleAnnotator(trajectories, table, domain.judges, n_frames, settings.residue)
    annotator: Any = oracle
    if settings.flip or settings.temperature or settings.abstain:
        annotator = NoisyAnnotator(oracle, settings.flip, settings.temperature, settings.abstain, settings.seed)
    items = list(items_of(trajectories, table, Presentation(n_frames)))
    given: list[Annotation] = []
    for replicate in range(settings.replicates):
        given += annotator.annotate(items, instrument or domain.instrument, replicate=replicate)
    return given


def gather(
    domain: Domain,
    trajectories: Trajectories,
    settings: OracleSettings,
    *,
    k: int = 0,
    annotations: list[Annotation] | None = None,
    prob_mode: str = "normalised",
) -> tuple[Feedback, list[Annotation]]:
    """All that the arms need: labels of segments and of whole episodes, and preferences; and the segments' answers.

    Args:
        domain: what is controlled and asked.
        trajectories: its behaviour.
        settings: of the oracle.
        k: steps of a segment; 0 is the domain's own.
        annotations: answers about the segments, where somebody else gave them; then the oracle is asked only about
            whole episodes and pairs.
        prob_mode: how answers become probabilities.
    """
    k = k or domain.k
    table = segment(trajectories, k)
    length = int(trajectories.lengths[0])
    whole = segment(trajectories, length)
    given = ask(domain, trajectories, table, settings, domain.n_frames) if annotations is None else annotations
    frames = domain.n_frames * max(1, length // k)
    about_whole = ask(domain, trajectories, whole, replace(settings, replicates=1), frames)
    pairs = random_pairs(table, settings.seed)
    merit = domain.merit(trajectories.observations[table.frames(domain.n_frames)])
    preference = prefer(merit, pairs, flip=settings.flip, seed=settings.seed)
    parts = probabilities(given, table, mode=prob_mode)
    ordered = {name: parts[name] for name in domain.judges if name in parts} or parts
    feedback = Feedback(
        trajectories,
        table,
        ordered,
        whole,
        probabilities(about_whole, whole, mode=prob_mode),
        pairs,
        np.asarray(preference),
    )
    return feedback, given
