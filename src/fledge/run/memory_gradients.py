"""The program of analyses of memories at their start: statistics, a table beside published numbers, a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from fledge.agents.analyse import MemoryStatistics, latent_memory, memory_statistics
from fledge.agents.memories import MEMORIES
from fledge.core.errors import FledgeError, nearest, unknown
from fledge.core.records import Result, write_results
from fledge.core.token_statistics import Statistics, read_statistics, write_statistics
from fledge.report.memories import STATISTICS, estimate_of, metric_at, write_memory_report
from fledge.run.job import Clock, Job, begin_record
from fledge.run.judge import UNTESTED

VANISHED = 1e-3
"""Below, published numbers differ between initialisations by orders of magnitude."""
ROUNDING = 1e-5
"""What counts as 0 in single precision."""


@dataclass(frozen=True)
class MemoryGradientsSettings:
    """Which memories, how large, on how long sequences; and what others found."""

    memories: tuple[str, ...] = ("rnn", "splagger", "amrl", "cnp")
    """Names of `fledge ls memories`."""
    memory_size: int = 256
    latent_size: int = 12
    """A linear layer to twice as many outputs follows each memory."""
    token_size: int = 80
    n_tokens: int = 100
    n_inits: int = 10
    """Initialisations, with one sequence each."""
    n_permutations: int = 2
    """Of each beginning of a sequence."""
    seed: int = 0
    tokens: tuple[int, ...] = (0, 1, 10, 25, 50, 99)
    """Counted from 0: where results.csv takes the statistics."""
    published: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """"memory: statistic" → the published mean at each of `tokens`; negative where there is none."""
    tolerance: float = 0.3
    """Relative. Numbers below 1e-3 are compared by their order of magnitude."""


@dataclass(frozen=True)
class MemoryGradientsRun:
    """A finished analysis."""

    dir: Path
    results: Sequence[Result]

    def show(self, console: Console) -> None:
        """Print the gradient of the first token, how many published numbers came out, and where everything lies."""
        metric = STATISTICS["first_input"].metric
        rows = [row for row in self.results if row.metric.startswith(metric)]
        tokens = list(dict.fromkeys(row.metric.rpartition(" ")[2] for row in rows))
        table = Table(title=f"{metric}, at token")
        table.add_column("memory")
        for token in tokens:
            table.add_column(token, justify="right")
        for arm in dict.fromkeys(row.arm for row in rows):
            table.add_row(arm, *(f"{row.value:.2g}" for row in rows if row.arm == arm))
        console.print(table)
        judged = [row.verdict == "reproduced" for row in self.results if row.verdict not in ("", UNTESTED)]
        if judged:
            console.print(f"{sum(judged)} of {len(judged)} published numbers are reproduced.", highlight=False)
        console.print(f"report: {self.dir / 'report.html'}", highlight=False, soft_wrap=True)


class MemoryGradientsProgram:
    """Looks at one memory after the other. Those that are in statistics.csv already are not looked at again."""

    def faults(self, config: MemoryGradientsSettings) -> list[str]:
        """Everything that is wrong with the settings."""
        faults = [
            f"{name} is at least 1, not {getattr(config, name)}."
            for name in ("memory_size", "latent_size", "token_size", "n_tokens", "n_inits", "n_permutations")
            if getattr(config, name) < 1
        ]
        if not config.memories:
            faults.append("memories is a list of at least one memory, not [].")
        faults += [f"memories: {unknown('memory', name, MEMORIES)}" for name in config.memories if name not in MEMORIES]
        late = [token for token in config.tokens if not 0 <= token < config.n_tokens]
        if late:
            faults.append(f"tokens: {late[0]} is not among the tokens 0 … {config.n_tokens - 1}.")
        for key, values in config.published.items():
            statistic = key.partition(": ")[2]
            if statistic not in STATISTICS:
                faults.append(
                    f"published: '{key}' is not of the form 'memory: statistic'. {nearest(statistic, STATISTICS)}"
                )
            elif len(values) != len(config.tokens):
                faults.append(f"published: '{key}' has {len(values)} numbers; there are {len(config.tokens)} tokens.")
        return faults or _unbuildable(config)

    def seeded(self, config: MemoryGradientsSettings, seeds: int) -> Mapping[str, Any]:
        """The change that draws so many initialisations."""
        return {"n_inits": seeds}

    def run(self, job: Job) -> MemoryGradientsRun:
        """Look at the memories that are missing, then compare and report."""
        config: MemoryGradientsSettings = job.config
        path = job.folder.path / "statistics.csv"
        clock = Clock(job.folder.record, begin_record(job, tuple(range(config.n_inits))))
        table: dict[str, Statistics] = dict(read_statistics(path)) if path.exists() else {}
        for name in config.memories:
            if name not in table:
                job.tell(f"{job.recipe.name}: {name}")
                table[name] = statistics_of(name, config)
                write_statistics(path, table)
                clock.note()
        results = compare(job.recipe.name, job.scale, config, table)
        write_results(job.folder.results, results)
        clock.note(finished=True)
        self.report(job.folder.path, job.folder.report)
        return MemoryGradientsRun(job.folder.path, results)

    def report(self, folder: Path, page: Path) -> Path:
        """The page, from the folder's files."""
        return write_memory_report(folder, page)


PROGRAM = MemoryGradientsProgram()


def statistics_of(name: str, config: MemoryGradientsSettings) -> dict[str, np.ndarray]:
    """Statistic → values (init, token) of a memory."""
    make = latent_memory(name, config.token_size, config.memory_size, config.latent_size, horizon=config.n_tokens)
    found = memory_statistics(
        make,
        jax.random.key(config.seed),
        config.n_tokens,
        config.token_size,
        config.n_inits,
        n_permutations=config.n_permutations,
    )
    return {f.name: np.asarray(getattr(found, f.name), float) for f in fields(MemoryStatistics)}


def compare(study: str, scale: str, config: MemoryGradientsSettings, table: Mapping[str, Statistics]) -> list[Result]:
    """The rows of results.csv: each memory's statistics at the chosen tokens, beside what was published."""
    results = []
    for memory in config.memories:
        for name in STATISTICS:
            estimate = estimate_of(table[memory], name)
            published = config.published.get(f"{memory}: {name}", (-1.0,) * len(config.tokens))
            for token, number in zip(config.tokens, published, strict=True):
                value, lo, hi = (float(x[token]) for x in estimate[:3])
                row = Result(study, memory, metric_at(name, token), value, _known(lo), _known(hi), estimate.n_seeds)
                results.append(row if number < 0 else _judged(row, number, scale, config.tolerance))
    return results


def _known(bound: float) -> float | None:
    return None if math.isnan(bound) else bound


def _judged(row: Result, published: float, scale: str, tolerance: float) -> Result:
    found = "reproduced" if agrees(row, published, tolerance) else "not reproduced"
    verdict = UNTESTED if scale == "smoke" else found
    return Result(row.study, row.arm, row.metric, row.value, row.lo, row.hi, row.n, published, verdict)


def agrees(row: Result, published: float, tolerance: float) -> bool:
    """Whether a published number is ours: within the tolerance, or inside our interval.

    What has all but vanished varies by orders of magnitude between initialisations: it agrees within a tenth of its
    exponent, but at least one order. A published 0 agrees with what is no more than rounding.
    """
    if published == 0:
        return row.value < ROUNDING
    if row.lo is not None and row.hi is not None and row.lo <= published <= row.hi:
        return True
    if published < VANISHED:
        exponent = math.log10(published)
        return row.value > 0 and abs(math.log10(row.value) - exponent) <= max(1.0, abs(exponent) / 10)
    return abs(row.value - published) <= tolerance * published


def _unbuildable(config: MemoryGradientsSettings) -> list[str]:
    """Memories whose size does not fit them."""
    faults = []
    for name in config.memories:
        make = latent_memory(name, config.token_size, config.memory_size, config.latent_size, horizon=config.n_tokens)
        try:
            jax.eval_shape(make, jax.random.key(0))
        except FledgeError as error:
            faults.append(f"memory_size: {name}: {error}")
    return faults
