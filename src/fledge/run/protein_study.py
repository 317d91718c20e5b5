"""The program of studies of protein rankings: meta-train arms, rank unseen assays after few labels, compare, report."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from fledge.core.errors import FledgeError, nearest, unknown
from fledge.core.files import parse_json, read_text, to_json, write_text
from fledge.core.records import Curves, Result, write_curves, write_results
from fledge.data.assays import Assay, Library
from fledge.protein.baselines import BASELINES
from fledge.protein.evaluate import CONTEXT_ONLY, META, SHUFFLED, UNTRAINED, Measured, Protocol, curves_of, evaluate
from fledge.protein.pretrain import PretrainSettings, make_model
from fledge.protein.synthetic import FAMILIES, synthetic_assays
from fledge.protein.weights import Prior, stack
from fledge.report.protein import write_protein_report
from fledge.run.job import Clock, Job, begin_record
from fledge.run.judge import UNTESTED
from fledge.run.protein_evaluate import results_of
from fledge.run.protein_pretrain import MemberSettings, split_of, train_members

DATA = "FLEDGE_DATA"
"""Environment variable: the folder that has `protein/` with real assays."""
ARMS: dict[str, dict[str, Any]] = {
    META: {},
    "without-context": {"context": False},
    "without-augmentation": {"augment_prob": 0.0},
    "mse": {"loss": "mse"},
    "reptile": {"rule": "reptile"},
    "maml": {"rule": "maml", "context": False},
}
"""Arm → what it changes in meta-training."""


@dataclass(frozen=True)
class ProteinStudySettings:
    """What is learnt from, what is compared, and what was published."""

    data: str = "potts"
    """A synthetic family (potts, nk, ehrlich), or a folder of assays; "real" is `protein/` in FLEDGE_DATA."""
    split: str = "domains"
    """Of real assays: domains, strict or paper."""
    n_train: int = 60
    """Synthetic proteins to learn from."""
    n_test: int = 20
    """Proteins to rank."""
    seeds: int = 3
    members: int = 1
    """Of each seed's ensemble."""
    arms: tuple[str, ...] = (META, "without-context")
    shots: tuple[int, ...] = (0, 16, 128)
    repeats: int = 2
    n_query: int = 256
    train: PretrainSettings = field(default_factory=PretrainSettings)
    published: dict[str, float] = field(default_factory=dict)
    """"arm: shots" → Spearman reported elsewhere for the same setting."""
    tolerance: float = 0.02
    """Below a published number by more than this is not reproduced."""


@dataclass(frozen=True)
class ProteinStudyRun:
    """A finished study."""

    dir: Path
    results: Sequence[Result]

    def show(self, console: Console) -> None:
        """Print the mean of each arm after each number of labels, beside what was published."""
        metrics = list(dict.fromkeys(row.metric for row in self.results))
        found = Table(title="mean Spearman over unseen proteins")
        found.add_column("arm")
        for metric in metrics:
            found.add_column(metric.removeprefix("spearman after "), justify="right")
        cells = {(row.arm, row.metric): row for row in self.results}
        for arm in dict.fromkeys(row.arm for row in self.results):
            found.add_row(arm, *(_cell(cells.get((arm, metric))) for metric in metrics))
        console.print(found)
        console.print(f"report: {self.dir / 'report.html'}", highlight=False, soft_wrap=True)


def _cell(row: Result | None) -> str:
    if row is None:
        return ""
    return f"{row.value:.3f}" + ("" if row.published is None else f" ({row.published:g})")


class ProteinStudyProgram:
    """Trains and measures one arm and seed after the other; what is measured already is not measured again."""

    def faults(self, config: ProteinStudySettings) -> list[str]:
        """Everything that is wrong with the settings."""
        faults = [f"arms: {unknown('arm', arm, ARMS)}" for arm in config.arms if arm not in ARMS]
        faults += [] if config.arms else ["arms is a list of at least one arm."]
        for name in ("seeds", "members", "repeats", "n_test"):
            if getattr(config, name) < 1:
                faults.append(f"{name} is at least 1, not {getattr(config, name)}.")
        if config.n_query < 2:
            faults.append(f"n_query is at least 2, not {config.n_query}.")
        if config.train.n_steps < config.train.chunk:
            faults.append(f"train.n_steps is at least train.chunk ({config.train.chunk}), not {config.train.n_steps}.")
        known = (*ARMS, *BASELINES, CONTEXT_ONLY, SHUFFLED, UNTRAINED)
        for key in config.published:
            arm, _, shots = key.partition(": ")
            if arm not in known or not shots.isdigit():
                faults.append(f"published: '{key}' is not of the form 'arm: shots'. {nearest(arm, known)}")
        return faults

    def seeded(self, config: ProteinStudySettings, seeds: int) -> Mapping[str, Any]:
        """The change that trains so many seeds."""
        return {"seeds": seeds}

    def run(self, job: Job) -> ProteinStudyRun:
        """Measure what is missing, then compare and report."""
        config: ProteinStudySettings = job.config
        clock = Clock(job.folder.record, begin_record(job, tuple(range(config.seeds))))
        train, test = assays_of(config)
        found: list[tuple[int, Measured]] = []
        for seed in range(config.seeds):
            for arm in config.arms:
                path = job.folder.path / "measured" / f"{arm}-{seed}.json"
                if not path.exists():
                    job.tell(f"{job.recipe.name}: {arm}, seed {seed}")
                    rows = measure(config, arm, seed, train, test)
                    write_text(path, to_json([vars(row) for row in rows]))
                    clock.note()
                content = parse_json(read_text(path, "measurements"), path, "measurements")
                found += [(seed, Measured(**row)) for row in content]
        curves = Curves.concat([curves_of([row], seed=seed) for seed, row in found])
        write_curves(job.folder.curves, curves)
        results = compare(job, config, [row for _, row in found])
        write_results(job.folder.results, results)
        clock.note(finished=True)
        self.report(job.folder.path, job.folder.report)
        return ProteinStudyRun(job.folder.path, results)

    def report(self, folder: Path, page: Path) -> Path:
        """The page, from the folder's files."""
        return write_protein_report(folder, page)


PROGRAM = ProteinStudyProgram()


def assays_of(config: ProteinStudySettings) -> tuple[list[Assay], list[Assay]]:
    """Proteins to learn from and to rank.

    Raises:
        FledgeError: the folder of real assays is not there; says how to name it.
    """
    if config.data in FAMILIES:
        both = synthetic_assays(config.data, config.n_train + config.n_test, seed=0)
        return both[: config.n_train], both[config.n_train :]
    folder = Path(config.data)
    if config.data == "real":
        if DATA not in os.environ:
            raise FledgeError(f"Where are the real assays? Set {DATA}=FOLDER (with FOLDER/protein/index.csv in it).")
        folder = Path(os.environ[DATA]) / "protein"
    library = Library(folder)
    split = split_of(library, MemberSettings(split=config.split))
    return [library.read(name) for name in split.train], [library.read(name) for name in split.test[: config.n_test]]


def measure(
    config: ProteinStudySettings, arm: str, seed: int, train: Sequence[Assay], test: Sequence[Assay]
) -> list[Measured]:
    """Train an arm and rank the test proteins; the first arm brings the controls and baselines along."""
    settings = MemberSettings(n_members=config.members, seed=100 * seed, train=replace(config.train, **ARMS[arm]))
    prior = train_members(train, settings)
    protocol = Protocol(config.shots, config.repeats, config.n_query, arms=(META, CONTEXT_ONLY))
    untrained = None
    if arm == config.arms[0]:
        extra = (SHUFFLED, UNTRAINED, *BASELINES)
        protocol = replace(protocol, arms=(*protocol.arms, *(extra if seed == 0 else (SHUFFLED, UNTRAINED))))
        fresh = [make_model(jax.random.key(1000 + seed + i), settings.train) for i in range(config.members)]
        untrained = Prior(stack(fresh), {})
    rows = evaluate(prior, test, protocol, untrained=untrained)
    renamed = {META: arm, CONTEXT_ONLY: CONTEXT_ONLY if arm == META else f"{arm}, no fine-tuning"}
    return [replace(row, arm=renamed.get(row.arm, row.arm)) for row in rows]


def compare(job: Job, config: ProteinStudySettings, found: Sequence[Measured]) -> list[Result]:
    """The rows of results.csv, judged where there is a published number."""
    rows = []
    for row in results_of(job.recipe.name, found):
        key = f"{row.arm}: {row.metric.split()[2]}"
        published = config.published.get(key)
        if published is None:
            rows.append(row)
            continue
        good = row.value >= published - config.tolerance
        verdict = UNTESTED if job.scale == "smoke" else "reproduced" if good else "not reproduced"
        rows.append(replace(row, published=published, verdict=verdict))
    return rows
