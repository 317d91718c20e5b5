"""From answers to what a learner is given: probabilities, the filter, the look back, the weights (Beck 2025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from fledge.core.annotations import Annotation
from fledge.core.errors import ConfigError, DataError, ShapeError, unknown
from fledge.data.segments import SegmentTable

ProbMode = Literal["emitted_no", "top_no", "normalised"]
PROB_MODES: tuple[ProbMode, ...] = ("emitted_no", "top_no", "normalised")
YES, NO = "1", "0"


def p_yes(annotation: Annotation, mode: str = "normalised") -> float:
    """The probability of yes that an answer stands for; NaN where it says nothing.

    `normalised`: P(yes) / (P(yes) + P(no)), nothing where both are 0. `top_no`: 1 − P(no).
    `emitted_no`: 1 − P(no) if no was said, otherwise 1: the released code, in which every answer but a no is a certain
    yes, a refusal among them. Where the annotator gave no probabilities, its answer counts as certain.

    Raises:
        ConfigError: there is no such mode.
    """
    if mode not in PROB_MODES:
        raise unknown("probability mode", mode, PROB_MODES)
    found = annotation.probability
    if mode == "emitted_no" and annotation.value != NO:
        return float("nan") if annotation.missing in ("not_asked", "dropped_out") else 1.0
    if annotation.value is None:
        return float("nan")
    if found is None:
        return float(annotation.value == YES)
    yes, no = found.get(YES, 0.0), found.get(NO, 0.0)
    if len(found) == 1 and annotation.mode == "verbal":  # a confidence in one answer; the rest is the other's
        yes, no = (yes, 1 - yes) if YES in found else (1 - no, no)
    if mode == "normalised":
        return yes / (yes + no) if yes + no > 0 else float("nan")
    return 1.0 - no


def probabilities(
    annotations: Sequence[Annotation], table: SegmentTable, *, mode: str = "normalised"
) -> dict[str, Float[np.ndarray, "replicate segment"]]:
    """Construct → P(yes) of every segment in every replicate; NaN where nobody said anything.

    The last revision of an answer counts; several annotators of one replicate are averaged.

    Raises:
        DataError: an answer is about an item that shows no segment of the table.
        ConfigError: there is no such mode.
    """
    rows = {segment.id: i for i, segment in enumerate(table)}
    latest: dict[tuple[str, int, str, str], Annotation] = {}
    for one in annotations:
        if one.item not in rows:
            raise DataError(
                f"An answer is about '{one.item}', which is no segment of this table (such as '{table[0].id}'). "
                "Labels belong to one data set cut in one way; cut it as it was cut when they were given."
            )
        place = (one.construct, one.replicate, one.item, one.annotator)
        if place not in latest or one.revision >= latest[place].revision:
            latest[place] = one
    found: dict[str, np.ndarray] = {}
    counts: dict[str, np.ndarray] = {}
    n_replicates = 1 + max((one.replicate for one in latest.values()), default=0)
    for (construct, replicate, item, _), one in latest.items():
        total = found.setdefault(construct, np.zeros((n_replicates, len(table))))
        count = counts.setdefault(construct, np.zeros_like(total))
        p = p_yes(one, mode)
        if not np.isnan(p):
            total[replicate, rows[item]] += p
            count[replicate, rows[item]] += 1
    return {
        name: np.where(counts[name] > 0, total / np.maximum(counts[name], 1), np.nan) for name, total in found.items()
    }


def combine(parts: Mapping[str, Float[np.ndarray, "*replicate segment"]]) -> Float[np.ndarray, " segment"]:
    """min(1, Σ over questions of P(yes)), each averaged over its replicates; NaN where a question has no answer.

    Raises:
        DataError: there is no question.
    """
    if not parts:
        raise DataError("No question was answered; there is nothing to make labels of.")
    means = [_mean(np.atleast_2d(p)) for p in parts.values()]
    return np.minimum(1.0, np.sum(means, axis=0))


def _mean(p: Float[np.ndarray, "replicate segment"]) -> Float[np.ndarray, " segment"]:
    there = ~np.isnan(p)
    return np.where(there.any(0), np.where(there, p, 0.0).sum(0) / np.maximum(there.sum(0), 1), np.nan)


def keep(
    p: Float[np.ndarray, " segment"], table: SegmentTable, *, alpha: float = 0.1, retro_k: int = 1
) -> Bool[np.ndarray, " segment"]:
    """Which segments survive: P ≥ α, and so do the `retro_k` that follow in the same episode (as far as there are any).

    A segment that nobody judged (NaN) is left out, but throws no doubt on those before it.

    Raises:
        ShapeError: not one P for each segment.
        ConfigError: alpha is no probability, or retro_k is negative.
        DataError: a P is outside [0, 1].
    """
    if len(p) != len(table):
        raise ShapeError(f"{len(p)} probabilities came for {len(table)} segments; give one for each.")
    if not 0 <= alpha <= 1 or retro_k < 0:
        raise ConfigError(f"alpha is in [0, 1] and retro_k at least 0; got alpha={alpha}, retro_k={retro_k}.")
    if ((p < 0) | (p > 1)).any():
        raise DataError(f"P lies in [0, 1], but {p[(p < 0) | (p > 1)][0]} came.")
    fails = p < alpha  # NaN does not
    kept = ~fails & ~np.isnan(p)
    for back in range(1, retro_k + 1):
        same = table.episode[back:] == table.episode[:-back]
        kept[:-back] &= ~(fails[back:] & same)
    return kept


@dataclass(frozen=True, eq=False)
class Selection:
    """The transitions that a learner may use, and what each weighs."""

    rows: Int[np.ndarray, " kept"]
    """Indices of steps."""
    weights: Float[np.ndarray, " step"]
    """Of every step of the data set; 0 where it is not kept."""
    kept: Bool[np.ndarray, " segment"]


def select(
    p: Float[np.ndarray, " segment"],
    table: SegmentTable,
    *,
    alpha: float = 0.1,
    retro_k: int = 1,
    weight: bool = True,
) -> Selection:
    """Filter and weigh: a step weighs the P of its segment (the mean over the segments that cover it), or 1.

    A step survives if every segment that covers it does. α = 0 with retro_k = 0 keeps everything that was judged.

    Raises:
        DataError: nothing is left; the message has the histogram of P.
    """
    kept = keep(p, table, alpha=alpha, retro_k=retro_k)
    survives = table.covered_by_all(kept)
    rows = np.flatnonzero(survives)
    if not len(rows):
        raise DataError(
            f"No segment is left with alpha={alpha} and retro_k={retro_k}. P of the {len(table)} segments:\n"
            f"{histogram_text(p)}\nLower alpha, look back less (retro_k), or look at the question that was asked."
        )
    values = table.spread(np.nan_to_num(p)) if weight else np.ones(table.n_steps)
    return Selection(rows, np.where(survives, np.nan_to_num(values), 0.0).astype(np.float32), kept)


def histogram_text(p: Float[np.ndarray, " segment"], bins: int = 10) -> str:
    """How often P falls into each tenth, as lines of text."""
    counts, edges = np.histogram(p[~np.isnan(p)], bins=bins, range=(0.0, 1.0))
    top = max(int(counts.max()), 1)
    lines = [
        f"  {low:.1f}–{high:.1f}  {'█' * round(30 * n / top):<30} {n}"
        for low, high, n in zip(edges[:-1], edges[1:], counts.tolist(), strict=True)
    ]
    if missing := int(np.isnan(p).sum()):
        lines.append(f"  not judged {missing}")
    return "\n".join(lines)


def keep_rates(
    p: Float[np.ndarray, " segment"], table: SegmentTable, alphas: Sequence[float], retro_k: int = 1
) -> list[tuple[float, float, float]]:
    """α, share kept by the filter alone, share kept after the look back."""
    return [
        (a, float(keep(p, table, alpha=a, retro_k=0).mean()), float(keep(p, table, alpha=a, retro_k=retro_k).mean()))
        for a in alphas
    ]
