"""Pieces of episodes: what is shown, judged, kept or dropped as one. None of them crosses an episode's border."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from fledge.core.errors import ConfigError, DataError, ShapeError
from fledge.data.trajectories import Trajectories


@dataclass(frozen=True)
class Segment:
    """Steps [start, start + length) of an episode."""

    episode: int
    start: int
    length: int

    @property
    def id(self) -> str:
        """`episode:start+length`, the name of its item."""
        return f"{self.episode}:{self.start}+{self.length}"


@dataclass(frozen=True, eq=False)
class SegmentTable:
    """Segments of a data set, by episode and then by start."""

    episode: Int[np.ndarray, " segment"]
    start: Int[np.ndarray, " segment"]
    length: Int[np.ndarray, " segment"]
    first: Int[np.ndarray, " segment"]
    """Index of its first step in the data set."""
    n_steps: int
    """Steps of the data set."""

    def __len__(self) -> int:
        return len(self.episode)

    def __getitem__(self, i: int) -> Segment:
        return Segment(int(self.episode[i]), int(self.start[i]), int(self.length[i]))

    def __iter__(self) -> Iterator[Segment]:
        return (self[i] for i in range(len(self)))

    @property
    def index(self) -> Int[np.ndarray, " segment"]:
        """Number of the segment in its own episode, from 0."""
        new = np.concatenate([[True], self.episode[1:] != self.episode[:-1]])
        return np.arange(len(self)) - np.flatnonzero(new)[np.cumsum(new) - 1]

    def steps(self, i: int) -> Int[np.ndarray, " step"]:
        """Indices of its steps in the data set."""
        return np.arange(self.first[i], self.first[i] + self.length[i])

    def frames(self, n: int) -> Int[np.ndarray, "segment frame"]:
        """Indices of `n` steps spread evenly over each segment, its first step among them and its end excluded.

        With k = 100 and n = 5: offsets 0, 20, 40, 60, 80 (Beck 2025, released code).

        Raises:
            ConfigError: a segment has fewer steps than that.
        """
        if n < 1 or (len(self) and n > self.length.min()):
            raise ConfigError(
                f"{n} frames of segments of {self.length.min()} steps were wanted; ask for 1 to that many."
            )
        return self.first[:, None] + np.arange(n)[None, :] * self.length[:, None] // n

    def sums(self, values: Float[np.ndarray, " step"]) -> Float[np.ndarray, " segment"]:
        """Sum of a quantity of steps over each segment."""
        total = np.concatenate([[0.0], np.cumsum(np.asarray(values, np.float64))])
        return total[self.first + self.length] - total[self.first]

    def spread(self, values: Float[np.ndarray, " segment"]) -> Float[np.ndarray, " step"]:
        """For each step the mean over the segments that cover it; NaN where none does."""
        if len(values) != len(self):
            raise ShapeError(f"{len(values)} values came for {len(self)} segments; give one for each.")
        total, count = np.zeros(self.n_steps), np.zeros(self.n_steps)
        for length in np.unique(self.length):
            mine = self.length == length
            rows = self.first[mine, None] + np.arange(length)
            np.add.at(total, rows, np.asarray(values, np.float64)[mine, None])
            np.add.at(count, rows, 1.0)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def covered_by_all(self, kept: Bool[np.ndarray, " segment"]) -> Bool[np.ndarray, " step"]:
        """The steps that some segment covers and whose every covering segment is kept."""
        share = self.spread(np.asarray(kept, np.float64))
        return np.nan_to_num(share) == 1.0


def segment(
    trajectories: Trajectories,
    k: int,
    stride: int | None = None,
    tail: Literal["error", "drop", "keep"] = "error",
) -> SegmentTable:
    """Cut every episode into segments of `k` steps.

    Args:
        trajectories: logged behaviour.
        k: steps of a segment.
        stride: steps from one start to the next; None is k (disjoint, the default), less overlaps.
        tail: what to do where k (with this stride) leaves steps over at an episode's end: refuse, leave them out, or
            keep them as a shorter segment (its start then still is a multiple of the stride).

    Raises:
        ConfigError: k or stride makes no sense.
        DataError: an episode does not divide, or is shorter than k.
    """
    stride = k if stride is None else stride
    if k < 1 or not 1 <= stride <= k:
        raise ConfigError(f"k is at least 1 and 1 ≤ stride ≤ k; got k={k}, stride={stride}.")
    if tail not in ("error", "drop", "keep"):
        raise ConfigError(f"tail is 'error', 'drop' or 'keep', not {tail!r}.")
    rows: list[tuple[int, int, int, int]] = []
    for episode, (first, length) in enumerate(zip(trajectories.starts, trajectories.lengths, strict=True)):
        starts = list(range(0, length - k + 1, stride))
        end = starts[-1] + k if starts else 0
        if end < length and tail == "error":
            raise DataError(
                f"Episode {episode} has {length} steps; segments of {k} with stride {stride} leave {length - end} "
                "over. Choose a k that divides it, or say tail='drop' or tail='keep'."
            )
        rows += [(episode, start, k, first + start) for start in starts]
        if end < length and tail == "keep":
            start = starts[-1] + stride if starts else 0
            rows.append((episode, start, length - start, first + start))
    if not rows:
        raise DataError(f"No episode has {k} steps; the longest has {trajectories.lengths.max()}. Choose a smaller k.")
    episode_of, start_of, length_of, first_of = np.array(rows, np.int64).T
    return SegmentTable(episode_of, start_of, length_of, first_of, trajectories.n_steps)
