"""The files of a run folder. Everything that is ever reported is read from these, never from live objects.

`curves.csv`: adaptation curves, long, one row per measurement (`Curves`, `write_curves`, `read_curves`).
    Columns exactly `recipe,split,adapt,seed,task,x,x_unit,metric,value`; `x_unit` is episode, shot, label,
    gradient_step or env_step; `metric` is in `METRICS`. Whether actions were sampled or greedy is part of the metric's
    name (`return`, `return_greedy`). Rows of another recipe than the run's own are references (`optimum`, `random`,
    `thompson` …).
`results.csv`: the table behind a study (`Result`, `write_results`, `read_results`).
    Columns exactly `study,arm,metric,value,lo,hi,n,published,verdict`; bounds at 95 %; n = seeds or tasks behind the
    value; `published` may be empty; `verdict` is in `VERDICTS`.
`metrics.jsonl`: what training said, one object per line: `{"update": 3, "env_steps": 3072, "seed": 0, "loss/policy":
    0.1, …}`; names in `METRICS`, null for a number that is not finite (`metrics_line`, `append_metrics`,
    `read_metrics`).
`record.json`: how the run was made (`RunRecord`, `write_record`, `read_record`), with the format's version `FORMAT`.
`paths.json`: walked paths for pictures (`WalkedTrial`, `Scene`, `write_paths`, `read_paths`):
    `{"format": 1, "scenes": [{"task": "goal at (3, 4)", "scene": {…}, "split": "test", "recipe": …, "seed": 0,
    "greedy": true, "episodes": [{"positions": [[x, y], …], "rewards": […], "return": 9.6}, …]}]}`.
    Positions begin with the start (one more than rewards; if there are equally many, the scene's start is put first).
    Scenes: `{"kind": "grid", "width", "height", "start": [x, y], "goals": [{"x", "y", "label"}], "walls": [[x, y] …]}`
    (walls optional) or `{"kind": "plane", "x_range", "y_range", "start", "goals": [{"x", "y", "radius", "label"}]}`.

Whole files are written to a temporary file and renamed, so a kill leaves the old one or the new one. A damaged file is
a `DataError` that names the file, the line and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from fledge.core.curves import CURVE_COLUMNS, X_UNITS, Cube, Curves, read_curves, write_curves
from fledge.core.errors import DataError, nearest, unknown
from fledge.core.files import csv_rows, number, one_of, parse_json, read_text, to_csv, to_json, write_text
from fledge.core.metrics import METRICS, Metric, Metrics, append_metrics, check_metric, metrics_line, read_metrics
from fledge.core.walks import (
    FORMAT,
    Scene,
    WalkedEpisode,
    WalkedTrial,
    check_format,
    check_scene,
    read_paths,
    write_paths,
)

__all__ = [
    "CURVE_COLUMNS",
    "FORMAT",
    "METRICS",
    "RESULT_COLUMNS",
    "VERDICTS",
    "X_UNITS",
    "Cube",
    "Curves",
    "Metric",
    "Metrics",
    "Result",
    "RunRecord",
    "Scene",
    "WalkedEpisode",
    "WalkedTrial",
    "append_metrics",
    "check_metric",
    "check_scene",
    "metrics_line",
    "read_curves",
    "read_metrics",
    "read_paths",
    "read_record",
    "read_results",
    "write_curves",
    "write_paths",
    "write_record",
    "write_results",
]

VERDICTS = ("reproduced", "not reproduced", "not tested at this scale", "")


@dataclass(frozen=True)
class Result:
    """One row of results.csv: an arm of a study, measured."""

    study: str
    arm: str
    metric: str
    """Any name; results are read by people."""
    value: float
    lo: float | None = None
    hi: float | None = None
    n: int | None = None
    published: float | None = None
    verdict: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise unknown("verdict", self.verdict, VERDICTS[:3])


RESULT_COLUMNS = tuple(f.name for f in fields(Result))


def write_results(path: Path, results: Sequence[Result], *, append: bool = False) -> Path:
    """Write results.csv, whole or not at all. With `append`, after the rows that are there already."""
    before = read_results(path) if append and Path(path).exists() else []
    return write_text(path, to_csv(RESULT_COLUMNS, [tuple(asdict(row).values()) for row in (*before, *results)]))


def read_results(path: Path) -> list[Result]:
    """The rows of results.csv.

    Raises:
        DataError: the file is missing, or names the line with a wrong column, verdict or number.
    """
    path = Path(path)
    rows = []
    for line, cells in csv_rows(read_text(path, "results (results.csv)"), RESULT_COLUMNS, path):
        row: dict[str, Any] = dict(zip(RESULT_COLUMNS, cells, strict=True))
        one_of(row["verdict"], VERDICTS, "verdict", path, line)
        row["value"] = number(row["value"], "value", path, line)
        for name in ("lo", "hi", "n", "published"):
            row[name] = number(row[name], name, path, line) if row[name] else None
        if row["n"] is not None:
            row["n"] = int(row["n"])
        rows.append(Result(**row))
    return rows


@dataclass(frozen=True)
class RunRecord:
    """record.json: what made a run, so that it can be made again."""

    recipe: str
    command: str
    """The command line that repeats the run."""
    scale: str
    seeds: tuple[int, ...]
    device: str
    """The machine in words, such as "cpu (2 cores)"."""
    versions: Mapping[str, str]
    """Package → version; "python" among them."""
    commit: str | None
    """The commit of the source, None where it was not run from a checkout."""
    started: str
    """UTC, ISO 8601."""
    wall_s: float
    """Wall-clock seconds so far, compilation included."""
    env_steps: int
    """Environment steps of each seed so far."""
    finished: bool = True
    more: Mapping[str, Any] = field(default_factory=dict)
    """Anything else worth keeping."""


def write_record(path: Path, record: RunRecord) -> Path:
    """Write record.json, whole or not at all."""
    return write_text(path, to_json({"format": FORMAT, **asdict(record)}, indent=2) + "\n")


def read_record(path: Path) -> RunRecord:
    """How a run was made.

    Raises:
        DataError: the file is missing or damaged, or was written in another format.
    """
    path = Path(path)
    content = parse_json(read_text(path, "run record (record.json)"), path, "run record")
    check_format(content, path)
    content = {key: value for key, value in content.items() if key != "format"}
    known = [f.name for f in fields(RunRecord)]
    for key in content:
        if key not in known:
            raise DataError(f"{path}: there is no key '{key}'. {nearest(key, known)} Free notes go under 'more'.")
    missing = [name for name in known[:-2] if name not in content]
    if missing or not isinstance(content["seeds"], list):
        raise DataError(
            f"{path}: {', '.join(missing) or 'a list of seeds'} missing. The record is not whole; run again, "
            "or take it from a copy."
        )
    return RunRecord(**{**content, "seeds": tuple(content["seeds"]), "wall_s": float(content["wall_s"])})
