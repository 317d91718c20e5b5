"""Run folders, read back from their files alone."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from fledge.core.errors import DataError
from fledge.core.files import read_text
from fledge.core.records import (
    Curves,
    Metrics,
    Result,
    RunRecord,
    WalkedTrial,
    read_curves,
    read_metrics,
    read_paths,
    read_record,
    read_results,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """One run folder. What is not there is empty or None, and `notes` says so in words."""

    folder: Path
    name: str
    """The recipe's name (`name` in config.toml): rows of curves.csv under other names are references."""
    label: str
    """How the report calls it: the name, and the folder too where two runs share a name."""
    config: Mapping[str, Any]
    record: RunRecord | None
    metrics: Metrics | None
    curves: Curves
    results: Sequence[Result]
    paths: Sequence[WalkedTrial]
    notes: Sequence[str]


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs in these folders, with labels that tell them apart.

    Raises:
        DataError: no folder was given, or one is not there.
    """
    if not folders:
        raise DataError("No run folder came. Name at least one, such as runs/rl2-gridnav.")
    runs = [read_run(Path(folder)) for folder in folders]
    names = [run.name for run in runs]
    labels = [run.name if names.count(run.name) == 1 else f"{run.name} ({run.folder.name})" for run in runs]
    labels = [x if labels.count(x) == 1 else f"{run.name} ({run.folder})" for x, run in zip(labels, runs, strict=True)]
    return [replace(run, label=label) for run, label in zip(runs, labels, strict=True)]


def read_run(folder: Path) -> Run:
    """The run in a folder. A missing or damaged file becomes a note, and the rest is still read.

    Raises:
        DataError: the folder is not there.
    """
    if not folder.is_dir():
        raise DataError(f"There is no run folder {folder}. Make one with: fledge run RECIPE --out {folder}")
    notes: list[str] = []

    def attempt(name: str, read: Callable[[Path], T], *, optional: bool = False) -> T | None:
        if not (folder / name).exists():
            if not optional:
                notes.append(f"{name} is not in {folder}: what it would show is left out.")
            return None
        try:
            return read(folder / name)
        except DataError as error:
            notes.append(str(error))
            return None

    config = attempt("config.toml", _read_config) or {}
    record = attempt("record.json", read_record)
    metrics = attempt("metrics.jsonl", lambda path: read_metrics(path, whole_lines=True))
    curves = attempt("curves.csv", read_curves) or Curves.empty()
    results = attempt("results.csv", read_results, optional=True) or []
    paths = attempt("paths.json", read_paths, optional=True) or []
    name = str(config.get("name") or (record.recipe if record else folder.name))
    if record is not None and not record.finished:
        notes.append(f"The run in {folder} has not finished; go on with: fledge resume {folder}")
    if record is not None:
        missing = sorted(set(record.seeds) - set(curves.where(recipe=name).seed.tolist()))
        if missing and len(curves):
            notes.append(f"{folder}: no adaptation curve of seed {', '.join(map(str, missing))}; intervals are wider.")
    return Run(folder, name, name, config, record, metrics, curves, results, paths, notes)


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(read_text(path, "settings (config.toml)"))
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path} is not TOML: {error}. Mend that line, or copy the recipe again.") from None
