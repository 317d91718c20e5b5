"""The few-shot protocol: how well assays that were never learnt from are ranked after so many labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fledge.core.errors import FledgeError
from fledge.core.records import Curves
from fledge.data.assays import Assay
from fledge.data.protein_splits import FewShot, few_shot
from fledge.protein.adapt import adapt, steps_by_rule
from fledge.protein.baselines import BASELINES, NEED_LABELS
from fledge.protein.scores import spearman
from fledge.protein.tasks import kind_of
from fledge.protein.weights import Prior

META = "meta"
CONTEXT_ONLY = "context-only"
SHUFFLED = "shuffled-labels"
UNTRAINED = "untrained"
"""A model that was never meta-trained, fine-tuned on the labels."""


@dataclass(frozen=True)
class Protocol:
    """What is measured on each assay."""

    shots: tuple[int, ...] = (0, 16, 128)
    repeats: int = 2
    """Shuffles of each assay."""
    n_query: int = 256
    """At most so many variants are ranked."""
    seed: int = 100
    arms: tuple[str, ...] = (META, SHUFFLED, *BASELINES)


@dataclass(frozen=True)
class Measured:
    """One number."""

    arm: str
    assay: str
    repeat: int
    shots: int
    spearman: float


def evaluate(
    prior: Prior,
    assays: Sequence[Assay],
    protocol: Protocol,
    *,
    untrained: Prior | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Measured]:
    """Spearman of every arm on every assay after every number of labels. Labels of the ranked variants are not shown.

    Args:
        prior: meta-trained models.
        assays: none of which was learnt from.
        protocol: what is measured.
        untrained: models for the arm of that name.
        tell: called with a line for each assay that is too small for a number of shots, after each assay, and at the
            end for each arm that gave all variants of an assay one value (such a ranking counts as 0).
    """
    found: list[Measured] = []
    flat: Counter[str] = Counter()
    for assay in assays:
        kept = np.isfinite(assay.scores)
        assay = Assay(assay.name, assay.wild_type, assay.variants.take(kept), assay.scores[kept], {}, assay.set)
        for shots in protocol.shots:
            for repeat in range(protocol.repeats):
                try:
                    shot = few_shot(len(assay), shots, protocol.seed + repeat, most=protocol.n_query)
                except FledgeError as error:
                    tell(f"{assay.name}: {error}")
                    continue
                found += _arms(prior, assay, shot, protocol.arms, repeat, untrained, flat)
        tell(assay.name)
    for arm, count in flat.items():
        tell(f"{arm}: {count} rankings had one value for all variants, and count as 0")
    return found


def _arms(
    prior: Prior,
    assay: Assay,
    shot: FewShot,
    arms: Sequence[str],
    repeat: int,
    untrained: Prior | None,
    flat: Counter[str],
) -> Iterator[Measured]:
    support, labels = assay.variants.take(shot.support), assay.scores[shot.support]
    query, truth = assay.variants.take(shot.query), assay.scores[shot.query]
    n = len(labels)
    kind, steps = kind_of(assay), steps_by_rule(n, in_context=prior.in_context)
    for arm in arms:
        if n == 0 and arm in (*NEED_LABELS, SHUFFLED, CONTEXT_ONLY, UNTRAINED):
            continue
        if arm in BASELINES:
            v = BASELINES[arm](assay.wild_type, support, labels, query)
        elif arm == UNTRAINED:
            if untrained is None:
                continue
            tuned = adapt(
                untrained.members, assay.wild_type, [(support, labels)], n_steps=100, kind=kind, learning_rate=1e-3
            )
            v = tuned.predict(query).mean(axis=0)
        else:
            shown = np.random.default_rng(repeat).permutation(labels) if arm == SHUFFLED else labels
            tuning = 0 if arm == CONTEXT_ONLY else steps
            adapted = adapt(
                prior.members,
                assay.wild_type,
                [(support, shown)],
                n_steps=tuning,
                kind=kind,
                seed=repeat,
                in_context=prior.in_context,
            )
            v = adapted.predict(query).mean(axis=0)
        flat.update([arm] * bool(np.ptp(v) == 0))
        yield Measured(arm, assay.name, repeat, n, spearman(v, truth))


def curves_of(
    found: Sequence[Measured], *, recipe: str = "", adapt_name: str = "default", seed: int | None = None
) -> Curves:
    """The rows of curves.csv: the arm is the recipe; each shuffle is a seed."""
    return Curves.of(
        recipe=[f"{recipe}{row.arm}" for row in found],
        split=["test"] * len(found),
        adapt=[adapt_name] * len(found),
        seed=[row.repeat if seed is None else seed for row in found],
        task=[row.assay for row in found],
        x=[float(row.shots) for row in found],
        x_unit=["shot"] * len(found),
        metric=["spearman"] * len(found),
        value=[row.spearman for row in found],
    )


def table(found: Sequence[Measured]) -> dict[tuple[str, int], dict[str, float]]:
    """(arm, shots) → assay → mean over shuffles."""
    cells: dict[tuple[str, int], dict[str, list[float]]] = {}
    for row in found:
        cells.setdefault((row.arm, row.shots), {}).setdefault(row.assay, []).append(row.spearman)
    return {key: {name: float(np.mean(v)) for name, v in by.items()} for key, by in cells.items()}
