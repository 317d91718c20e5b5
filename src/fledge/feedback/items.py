"""Segments as items that can be asked about, and pairs of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from fledge.core.annotations import Item, Media
from fledge.core.errors import DataError
from fledge.data.pictures import png
from fledge.data.segments import SegmentTable
from fledge.data.trajectories import Trajectories
from fledge.feedback.raster import Renderer, arrange


@dataclass(frozen=True)
class Presentation:
    """How a segment is shown: what the instrument decides besides the wording."""

    n_frames: int = 5
    """Spread evenly over the segment."""
    layout: str = "separate"
    """`separate`, `filmstrip` or `grid`."""
    resolution: int = 500
    """Pixels along each side of a frame."""
    captions: bool = False
    """Whether each frame bears its number."""


def items_of(
    trajectories: Trajectories,
    table: SegmentTable,
    presentation: Presentation | None = None,
    renderer: Renderer | None = None,
) -> Iterator[Item]:
    """One item for each segment, in the table's order; pictures are drawn one item at a time.

    Args:
        trajectories: logged behaviour.
        table: its segments.
        presentation: how they are shown.
        renderer: draws a state; None leaves pictures out (an oracle needs none).
    """
    shown = presentation or Presentation()
    rows = table.frames(shown.n_frames)
    for i, segment in enumerate(table):
        media: tuple[Media, ...] = ()
        if renderer is not None:
            frames = [renderer(trajectories.observations[row], shown.resolution) for row in rows[i]]
            pictures = arrange(frames, shown.layout, captions=shown.captions)
            media = tuple(Media("image", png(picture)) for picture in pictures)
        meta = {"segment": i, "episode": segment.episode, "start": segment.start, "length": segment.length}
        yield Item(segment.id, media=media, meta=meta)


def segments_of(items: Sequence[Item]) -> Int[np.ndarray, " item"]:
    """The row of each item's segment in its table.

    Raises:
        DataError: an item was not made by `items_of`.
    """
    for item in items:
        if "segment" not in item.meta:
            raise DataError(f"Item '{item.id}' does not say which segment it shows. Make items by items_of.")
    return np.array([int(item.meta["segment"]) for item in items], np.int64)


def pair_items(items: Sequence[Item], pairs: Int[np.ndarray, "pair 2"]) -> list[Item]:
    """Pairs of a table's items, to be asked which of the two is better."""
    halves = [(items[int(i)], items[int(j)]) for i, j in pairs]
    return [Item(f"{first.id}|{second.id}", pair=(first, second)) for first, second in halves]


def random_pairs(table: SegmentTable, seed: int = 0) -> Int[np.ndarray, "pair 2"]:
    """Each segment beside a random one of a random episode, at another place in it (Beck 2025, S-DPO).

    One pair for each segment; `seed` decides which, and nothing else does.

    Raises:
        DataError: episodes have one segment each and there is only one episode.
    """
    rng = np.random.default_rng(seed)
    n = len(table)
    if n < 2:
        raise DataError("Pairs need two segments at least.")
    index, last = table.index, np.append(np.flatnonzero(np.diff(table.episode)), n - 1)
    first = np.append(0, last[:-1] + 1)
    several = (last - first).max() > 0
    pairs = np.zeros((n, 2), np.int64)
    for i in range(n):
        while True:
            j = rng.integers(len(first))
            other = rng.integers(first[j], last[j] + 1)
            # whole-episode segments all stand at place 0: then any other one will do
            if other != i and (index[other] != index[i] or not several):
                break
        pairs[i] = i, other
    return pairs
