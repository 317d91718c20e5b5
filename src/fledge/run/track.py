"""Trackers: where training reports to. Two methods; the console and metrics.jsonl are always on."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from fledge.core.errors import need, unknown
from fledge.core.files import write_text
from fledge.core.metrics import append_metrics, metrics_line

PLAIN_LINES = 10
"""Lines of progress where the output is no terminal."""


@dataclass(frozen=True)
class Point:
    """What training says after a chunk of updates."""

    update: int
    env_steps: int
    """Of each seed, so far."""
    steps_per_s: float
    """Of all seeds together, learning included, in this chunk."""
    seeds: tuple[int, ...]
    metrics: Mapping[str, Float[np.ndarray, " seed"]]
    """Means over the chunk; NaN where a metric says nothing."""


@runtime_checkable
class Tracker(Protocol):
    """Somebody who is told how training goes."""

    def log(self, point: Point) -> None:
        """One more chunk is done."""

    def close(self) -> None:
        """Nothing more will come."""


class JSONLTracker:
    """Writes metrics.jsonl: one line per chunk and seed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def log(self, point: Point) -> None:
        """Append the lines of a chunk."""
        speed = {"speed/steps_per_s": point.steps_per_s}
        append_metrics(
            self.path,
            [
                metrics_line(point.update, point.env_steps, seed, _of_seed(point, i) | speed)
                for i, seed in enumerate(point.seeds)
            ],
        )

    def close(self) -> None:
        """Nothing is open between two lines."""


def forget_after(path: Path, update: int) -> None:
    """Drop the lines of metrics.jsonl that were written after `update`: a run that goes on from there repeats them."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["update"] <= update:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue  # half a line that a kill left
    write_text(path, "".join(f"{line}\n" for line in kept))


class ConsoleTracker:
    """A progress bar with environment steps per second, return and time left; sparse plain lines without a terminal.

    Until the first chunk is done, the bar says what JAX is doing: compiling.
    """

    def __init__(self, name: str, total_steps: int, *, done: int = 0, console: Console | None = None) -> None:
        self.name = name
        self.total = total_steps
        self.console = console or Console(stderr=True)
        self.started = time.perf_counter()
        self.next_line = 0.0
        self.progress: Progress | None = None
        if self.console.is_terminal:
            self.progress = Progress(*_columns(), console=self.console)
            self.task = self.progress.add_task(name, total=total_steps, completed=done, say="compiling …")
            self.progress.start()
        else:
            self._line(f"{name}: compiling")

    def log(self, point: Point) -> None:
        """Move the bar, or print a line now and then."""
        say = f"{_short(point.steps_per_s)} steps/s · {_return(point)}"
        if self.progress is not None:
            self.progress.update(self.task, completed=point.env_steps, say=say)
            return
        share = point.env_steps / self.total
        if share >= self.next_line or point.env_steps >= self.total:
            self.next_line = (int(share * PLAIN_LINES) + 1) / PLAIN_LINES
            seconds = time.perf_counter() - self.started
            self._line(
                f"{self.name}: {_short(point.env_steps)} of {_short(self.total)} steps · {say} · {seconds:.0f} s"
            )

    def close(self) -> None:
        """Take the bar away."""
        if self.progress is not None:
            self.progress.stop()

    def _line(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


class TensorBoardTracker:
    """Writes TensorBoard files, one run per seed."""

    def __init__(self, folder: Path, seeds: Sequence[int]) -> None:
        writer = need("tensorboardX", "tensorboard").SummaryWriter
        self.writers = [writer(str(folder / "tensorboard" / f"seed-{seed}")) for seed in seeds]

    def log(self, point: Point) -> None:
        """One scalar per metric."""
        for i, writer in enumerate(self.writers):
            for name, value in _of_seed(point, i).items():
                writer.add_scalar(name, value, point.env_steps)

    def close(self) -> None:
        """Flush to the disk."""
        for writer in self.writers:
            writer.close()


class WandbTracker:
    """Reports to Weights & Biases; who and where comes from its own environment variables."""

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        wandb = need("wandb", "wandb")
        self.run = wandb.init(project="fledge", name=name, dir=str(folder), config=dict(settings))

    def log(self, point: Point) -> None:
        """All seeds of a chunk, beside one another."""
        values = {
            f"{name}/seed-{seed}": v for i, seed in enumerate(point.seeds) for name, v in _of_seed(point, i).items()
        }
        self.run.log(values, step=point.env_steps)

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()


EXTRA = {"tensorboard": "tensorboardX", "wandb": "wandb"}
"""Trackers that an extra of the same name installs, and their packages."""


class Trackers:
    """Several trackers as one; closes them whatever happens."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self.trackers = list(trackers)

    def __enter__(self) -> Trackers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def log(self, point: Point) -> None:
        """Tell all."""
        for tracker in self.trackers:
            tracker.log(point)

    def close(self) -> None:
        """Close all."""
        for tracker in self.trackers:
            tracker.close()


def check_trackers(names: Sequence[str]) -> None:
    """Nothing, if all of these trackers can be made.

    Raises:
        ConfigError: there is none of a name.
        MissingExtra: its package is not installed.
    """
    for name in names:
        if name not in EXTRA:
            raise unknown("tracker", name, EXTRA)
        need(EXTRA[name], name)


def extra_trackers(
    names: Sequence[str], folder: Path, name: str, seeds: Sequence[int], settings: Mapping[str, Any]
) -> list[Tracker]:
    """The trackers of these names; see `check_trackers` for what can be wrong with them."""
    check_trackers(names)
    return [
        TensorBoardTracker(folder, seeds) if kind == "tensorboard" else WandbTracker(folder, name, settings)
        for kind in names
    ]


def _of_seed(point: Point, i: int) -> dict[str, float]:
    """A seed's metrics, without those that say nothing."""
    return {name: float(x[i]) for name, x in point.metrics.items() if not np.isnan(x[i])}


def _return(point: Point) -> str:
    for name, label in (("return/trial", "return of a trial"), ("return/per_step", "reward of a step")):
        x = point.metrics.get(name)
        if x is not None and not np.isnan(x).all():
            return f"{label} {np.nanmean(x):.3g}"
    return ""


def _short(n: float | int) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= size:
            return f"{n / size:.3g}{letter}"
    return f"{n:.0f}"


def _columns() -> tuple[ProgressColumn, ...]:
    return (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[say]}"),
        TimeRemainingColumn(),
    )
