"""Run folders: where the files of a run lie."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fledge.core.errors import ConfigError, DataError, nearest
from fledge.core.records import RunRecord, read_record

RUNS = Path("runs")


@dataclass(frozen=True)
class RunFolder:
    """A folder with config.toml, record.json, metrics.jsonl, checkpoints/, curves.csv, paths.json and report.html."""

    path: Path

    @property
    def config(self) -> Path:
        """The recipe, with exactly the settings of the run."""
        return self.path / "config.toml"

    @property
    def record(self) -> Path:
        """How the run was made."""
        return self.path / "record.json"

    @property
    def metrics(self) -> Path:
        """What training said."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def curves(self) -> Path:
        """Adaptation curves."""
        return self.path / "curves.csv"

    @property
    def results(self) -> Path:
        """The table of a study."""
        return self.path / "results.csv"

    @property
    def paths(self) -> Path:
        """Walked paths."""
        return self.path / "paths.json"

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / "report.html"

    @classmethod
    def create(cls, name: str, scale: str, out: Path | str | None = None) -> RunFolder:
        """A new folder: `out`, or runs/<name>-<scale>-<counter>.

        Raises:
            ConfigError: `out` is there already and not empty. Nothing is ever overwritten.
        """
        if out is not None:
            path = Path(out)
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise ConfigError(
                    f"{path} is there already. Choose another --out, go on with it by 'fledge resume {path}', "
                    "or delete it first."
                )
            path.mkdir(parents=True, exist_ok=True)
            return cls(path)
        stem = f"{name}-{scale}"
        pattern = re.compile(re.escape(stem) + r"-(\d+)")
        taken = [int(m[1]) for p in RUNS.glob(f"{stem}-*") if (m := pattern.fullmatch(p.name))]
        n = max(taken, default=0)
        while True:
            n += 1
            path = RUNS / f"{stem}-{n:03d}"
            try:
                path.mkdir(parents=True)
            except FileExistsError:  # somebody else was faster
                continue
            return cls(path)

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """The folder of a run that was started.

        Raises:
            DataError: it is not there, or no run folder.
        """
        folder = cls(Path(path))
        if folder.path.is_file():
            raise DataError(f"{path} is a file; a run folder was wanted, such as {folder.path.parent}.")
        if not folder.path.is_dir():
            near = [str(p) for p in folder.path.parent.glob("*")] if folder.path.parent.is_dir() else []
            raise DataError(f"There is no folder {path}. {nearest(str(path), near)}")
        for file in (folder.config, folder.record):
            if not file.exists():
                raise DataError(f"{path} is no run folder: it has no {file.name}. Point to what 'fledge run' made.")
        return folder

    def read_record(self) -> RunRecord:
        """How the run was made.

        Raises:
            DataError: the file is damaged, or was written by another version.
        """
        return read_record(self.record)
