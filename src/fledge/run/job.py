"""What every kind of recipe's program is handed, and what it has to offer."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rich.console import Console

from fledge.core.files import write_text
from fledge.core.records import RunRecord, write_record
from fledge.run import launch
from fledge.run.folder import RunFolder
from fledge.run.recipe import Recipe, dump


@dataclass(frozen=True)
class Job:
    """A run that is to be done, or gone on with: the same thing, for a program looks at what the folder holds."""

    recipe: Recipe
    config: Any
    """The effective settings."""
    scale: str
    folder: RunFolder
    command: str
    """The command line that repeats the run."""
    track: Sequence[str] = ()
    console: Console = field(default_factory=lambda: Console(stderr=True))
    """Where progress and remarks go."""
    study: Path | None = None
    """The folder of the study that this run is an arm of."""

    @property
    def resumed_by(self) -> str:
        """The command that goes on with it."""
        return f"fledge resume {self.study or self.folder.path}"

    def tell(self, line: str) -> None:
        """A remark to whoever is watching."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


@runtime_checkable
class Program(Protocol):
    """What runs the recipes of one kind."""

    def faults(self, config: Any) -> list[str]:
        """Everything that is wrong with settings whose types are right."""

    def run(self, job: Job) -> Any:
        """Do the job, from wherever the folder stands. Returns something with `.dir` and `.show(console)`."""

    def seeded(self, config: Any, seeds: int) -> Mapping[str, Any]:
        """The changes (nested dicts) that make a run of these settings use so many seeds."""


def begin_record(job: Job, seeds: Sequence[int]) -> RunRecord:
    """Write config.toml and record.json of a run that starts; of one that goes on, read the record."""
    if job.folder.record.exists():
        return job.folder.read_record()
    write_text(job.folder.config, dump(job.recipe, job.config))
    record = RunRecord(
        recipe=job.recipe.name,
        command=job.command,
        scale=job.scale,
        seeds=tuple(seeds),
        device=launch.device(),
        versions=launch.versions(),
        commit=launch.commit(),
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        wall_s=0.0,
        env_steps=0,
        finished=False,
        more={"kind": job.recipe.header.kind},
    )
    write_record(job.folder.record, record)
    return record


class Clock:
    """Keeps a run's record: what it took so far, over all its sittings."""

    def __init__(self, path: Path, record: RunRecord) -> None:
        self.path = path
        self.record = record
        self.before = record.wall_s
        self.started = time.perf_counter()

    @property
    def wall_s(self) -> float:
        """Seconds of work so far."""
        return round(self.before + time.perf_counter() - self.started, 3)

    def note(self, *, env_steps: int | None = None, finished: bool | None = None, **more: Any) -> None:
        """Write the record anew with these facts."""
        record = replace(self.record, wall_s=self.wall_s, more={**self.record.more, **more})
        if env_steps is not None:
            record = replace(record, env_steps=env_steps)
        if finished is not None:
            record = replace(record, finished=finished)
        self.record = record
        write_record(self.path, record)
