"""The program of annotation studies: from answers (simulated or one's own) to results.csv, curves.csv and a page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fledge.annotation.aggregate import RULES, Rule
from fledge.annotation.analysis import curve_fits, describe, field_tables, label_tables, model_tables
from fledge.annotation.backends import EmbeddingLogistic, TfidfLogistic
from fledge.annotation.bert import FineTuning, HuggingFaceClassifier
from fledge.annotation.collected import Collected, as_tables, is_export, read_collected
from fledge.annotation.curves import as_curves, learning_curves
from fledge.annotation.frame import EXTRA, Study, pandas
from fledge.annotation.load import load_study
from fledge.annotation.matrix import suited
from fledge.annotation.simulate import FIVE_CONDITIONS, Asked, Planted, Simulation, faults, simulate
from fledge.core.errors import ConfigError, need
from fledge.core.records import Curves, Result, write_curves, write_results
from fledge.report.instrument import ANALYSIS, SCREENSHOTS, write_analysis, write_instrument_report
from fledge.run import launch
from fledge.run.job import Clock, Job, begin_record
from fledge.run.text import MeanEmbedding, PretrainedClassifier

CELLS = "cells"
"""Folder of finished cells: what a run that goes on need not train again."""
PUBLISHED_DIGITS = 5.1e-4
"""Half a unit in the last digit of published shares (0.1 %) and agreement (0.001)."""


@dataclass(frozen=True)
class DataSettings:
    """Where answers come from."""

    path: str = ""
    """A folder with the public tweets, an export of the annotation page, or a long table; empty for a simulated study
    with nonsense texts."""
    also: tuple[str, ...] = ()
    """Beside an export: folders or tables with further answers to the same study, such as a model's."""
    test_frac: float = 0.25
    """Share of items to test on, where the table has no column `split`."""
    seed: int = 0
    """Of the simulation, or of that split."""


@dataclass(frozen=True)
class SimulatedSettings:
    """The study that is simulated where `data.path` is empty; conditions A–E."""

    n_items: int = 600
    labels: int = 3
    batch: int = 30
    dropout: float = 0.0
    constructs: dict[str, Planted] = field(default_factory=lambda: dict(Simulation().constructs))

    def plan(self) -> Simulation:
        """What is drawn."""
        return Simulation(self.n_items, self.labels, self.batch, self.dropout, self.constructs)


@dataclass(frozen=True)
class LabelSettings:
    """How answers are analysed."""

    rule: Rule = "median"
    """How an item's answers become one before conditions are compared."""
    n_resamples: int = 1000
    mixed: bool = True
    """Also fit the crossed mixed model."""


@dataclass(frozen=True)
class ModelSettings:
    """What is trained on the labels."""

    backend: str = "tfidf"
    """`tfidf`, `embeddings`, `huggingface`, or `module:Name` for a callable of one's own."""
    name: str = "bert-base-cased"
    """Of the text model: a local folder, or a name on the hub."""
    download: bool = False
    """Whether it may be fetched from the hub."""
    seeds: tuple[int, ...] = (0,)
    label_mode: Literal["rows", "majority", "soft"] = "rows"
    equal_size: bool = False
    """Give every item equally many training labels in all conditions."""
    n_resamples: int = 1000
    tuning: FineTuning = field(default_factory=FineTuning)


@dataclass(frozen=True)
class LearningCurveSettings:
    """How much of the training items, how often."""

    fractions: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
    """Empty for no curves."""
    repeats: int = 3


@dataclass(frozen=True)
class SensitivitySettings:
    """An annotation study: how the instrument moves labels, agreement, models and predictions."""

    data: DataSettings = DataSettings()
    simulation: SimulatedSettings = field(default_factory=SimulatedSettings)
    labels: LabelSettings = LabelSettings()
    model: ModelSettings = ModelSettings()
    curves: LearningCurveSettings = LearningCurveSettings()
    workers: int = 0
    """Processes that train side by side; 0 takes the cores there are."""
    conditions: dict[str, str] = field(default_factory=dict)
    """Condition → how it asks, in words, for the page."""
    screenshots: str = ""
    """A folder of pictures (.png) of the instrument's screens, for the page."""
    datasheet: dict[str, str] = field(default_factory=dict)
    """What a reader of the data should know, for the page."""
    published: dict[str, float] = field(default_factory=dict)
    """ "arm: metric" → the published number, compared where the public tweets are analysed."""


@dataclass(frozen=True)
class SensitivityRun:
    """A finished study."""

    dir: Path
    name: str
    results: Sequence[Result]
    curves: Curves

    def show(self, console: Console) -> None:
        """Print the shares, and where everything lies."""
        metrics = [m for m in dict.fromkeys(row.metric for row in self.results) if m.startswith("share_")]
        table = Table(title=f"{self.name}: share of positive answers [95 % interval]")
        table.add_column("condition")
        for metric in metrics:
            table.add_column(metric.removeprefix("share_").replace("_", " "), justify="right")
        for arm in dict.fromkeys(row.arm for row in self.results if row.metric in metrics):
            own = {row.metric: row for row in self.results if row.arm == arm}
            table.add_row(arm, *(_told(own.get(metric)) for metric in metrics))
        console.print(table)
        judged = [row for row in self.results if row.verdict]
        if judged:
            same = sum(row.verdict == "reproduced" for row in judged)
            console.print(f"{same} of {len(judged)} published numbers reproduced", highlight=False)
        console.print(f"report: {self.dir / 'report.html'}", highlight=False, soft_wrap=True)


def _told(row: Result | None) -> str:
    return "" if row is None else f"{100 * row.value:.1f} [{100 * (row.lo or 0):.1f}, {100 * (row.hi or 0):.1f}]"


class SensitivityProgram:
    """Analyses labels, trains the cells that are not there yet, and reports."""

    def faults(self, config: SensitivitySettings) -> list[str]:
        """Everything that is wrong with the settings."""
        found = [f"simulation: {fault}" for fault in faults(config.simulation.plan())]
        if config.labels.rule not in RULES:
            found.append(f"labels.rule is one of {', '.join(RULES)}.")
        if config.model.backend not in ("tfidf", "embeddings", "huggingface") and ":" not in config.model.backend:
            found.append(
                f"model.backend is tfidf, embeddings, huggingface or module:Name, not '{config.model.backend}'."
            )
        if config.screenshots and not Path(config.screenshots).is_dir():
            found.append(f"screenshots: there is no folder {config.screenshots}.")
        if not config.model.seeds:
            found.append("model.seeds: give one or more.")
        if not all(0 < part <= 1 for part in config.curves.fractions):
            found.append(f"curves.fractions lie in (0, 1], not {list(config.curves.fractions)}.")
        if config.curves.repeats < 1 or config.labels.n_resamples < 1 or config.model.n_resamples < 1:
            found.append("curves.repeats, labels.n_resamples and model.n_resamples are 1 or more.")
        if not 0 < config.data.test_frac < 1:
            found.append(f"data.test_frac is a share in (0, 1), not {config.data.test_frac}.")
        found += [
            f"published: '{key}' is not of the form 'arm: metric'." for key in config.published if ": " not in key
        ]
        return found

    def seeded(self, config: SensitivitySettings, seeds: int) -> Mapping[str, Any]:
        """The change that trains so many models in each cell."""
        return {"model": {"seeds": list(range(seeds))}}

    def report(self, folder: Path, page: Path) -> Path:
        """The page, from the folder's files."""
        return write_instrument_report(folder, page)

    def run(self, job: Job) -> SensitivityRun:
        """Do the study, from wherever its folder stands."""
        config: SensitivitySettings = job.config
        pandas()  # before anything is written: the extra is needed
        clock = Clock(job.folder.record, begin_record(job, config.model.seeds))
        collected = collected_of(config)
        study = collected.study if collected else study_of(config)
        tables = _about(job, config, study) | field_tables(study)
        if collected:
            tables |= as_tables(collected)
            tables["deviations"] = [*tables["deviations"], *collected.remarks]
        job.tell(f"{study.name}: {tables['about']['answers']} answers; labels, effects and agreement")
        tables |= label_tables(
            study, rule=config.labels.rule, n_resamples=config.labels.n_resamples, mixed=config.labels.mixed
        )
        curves = Curves.empty()
        known: list[Any] = []
        if study.texts:
            known, remarks = suited(study)
            tables["deviations"] = [*tables["deviations"], *remarks]
        else:
            job.tell("items have no texts: no models are trained")
        if known:
            own = replace(study, frame=study.frame[study.frame["construct"].isin(known)])
            trained, curves = _train(job, config, own)
            tables |= trained
        results = results_of(job.recipe.name, tables, config.published if study.name == "tweets" else {})
        write_results(job.folder.results, results)
        write_curves(job.folder.curves, curves)
        write_analysis(job.folder.path / ANALYSIS, tables)
        if config.screenshots:
            shutil.copytree(config.screenshots, job.folder.path / SCREENSHOTS, dirs_exist_ok=True)
        clock.note(finished=True, libraries=_libraries())
        write_instrument_report(job.folder.path)
        return SensitivityRun(job.folder.path, job.recipe.name, results, curves)


PROGRAM = SensitivityProgram()


def collected_of(config: SensitivitySettings) -> Collected | None:
    """The answers of an annotation page, where the path leads to an export."""
    own = config.data
    if own.path and (own.also or is_export(own.path)):
        return read_collected(own.path, own.also, test_frac=own.test_frac, seed=own.seed)
    return None


def study_of(config: SensitivitySettings) -> Study:
    """The answers: one's own, or simulated."""
    if collected := collected_of(config):
        return collected.study
    if config.data.path:
        return load_study(config.data.path, test_frac=config.data.test_frac, seed=config.data.seed)
    return simulate(config.simulation.plan(), config.data.seed)


def backend_of(config: ModelSettings) -> Any:
    """What is trained.

    Raises:
        ConfigError: `module:Name` names nothing that can be called.
        MissingExtra: a text model, and PyTorch or transformers is not installed.
    """
    if config.backend == "tfidf":
        return TfidfLogistic()
    if config.backend in ("huggingface", "embeddings"):
        need("torch", "text")
        need("transformers", "text")
        if config.backend == "embeddings":
            return EmbeddingLogistic(MeanEmbedding(config.name, config.download), config.name)
        return HuggingFaceClassifier(PretrainedClassifier(config.name, config.download), config.name, config.tuning)
    module, _, name = config.backend.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"model.backend={config.backend} cannot be imported: {error}.") from None
    made = found() if isinstance(found, type) else found
    if not callable(made):
        raise ConfigError(f"model.backend={config.backend} is a {type(made).__name__}, which cannot be called.")
    return made


def _about(job: Job, config: SensitivitySettings, study: Study) -> dict[str, Any]:
    """What the page says of the study before any number."""
    simulated = not config.data.path
    told = dict(config.conditions)
    sheet = dict(config.datasheet)
    tables: dict[str, Any] = {"title": job.recipe.header.about, "about": describe(study)}
    if simulated:
        plan = config.simulation.plan()
        told = told or {name: _asked(asked) for name, asked in FIVE_CONDITIONS.items()}
        sheet["data"] = f"simulated (seed {config.data.seed}); texts are nonsense words"
        tables["planted"] = [
            {"construct": name, "condition": condition, "share": share}
            for name in plan.constructs
            for condition, share in plan.truth(name).items()
        ]
    else:
        sheet.setdefault("data", study.name)
    told = {name: text for name, text in told.items() if name in tables["about"]["conditions"]}
    tables["source"] = "Simulated, with planted effects." if simulated else f"Data: {study.name}."
    return tables | {"conditions_told": told, "datasheet": sheet}


def _asked(asked: Asked) -> str:
    if not asked.split:
        return "one screen per item, all constructs together"
    order = f"{asked.first.replace('_', ' ')} first"
    return f"a pass over all items for each construct, {order}" if asked.blocked else f"a screen for each, {order}"


def _train(job: Job, config: SensitivitySettings, study: Study) -> tuple[dict[str, Any], Curves]:
    """The matrix and the learning curves."""
    backend, model = backend_of(config.model), config.model
    side_by_side = 1 if model.backend == "huggingface" else (config.workers or launch.cores())
    cells = job.folder.path / CELLS
    with _progress(job, "matrix") as tick:
        tables, _ = model_tables(
            study,
            backend,
            seeds=model.seeds,
            label_mode=model.label_mode,
            equal_size=model.equal_size,
            n_resamples=model.n_resamples,
            folder=cells,
            n_jobs=side_by_side,
            progress=tick,
        )
    name = "TF-IDF and logistic regression" if model.backend == "tfidf" else f"{model.backend} ({model.name})"
    tables["model_told"] = f"Back-end: {name}; labels as {model.label_mode}; {len(model.seeds)} seed(s) per cell." + (
        " Every item has equally many training labels in all conditions." if model.equal_size else ""
    )
    if not config.curves.fractions:
        return tables | {"curve_fits": []}, Curves.empty()
    parts = []
    for construct in study.constructs:
        with _progress(job, f"learning curves, {construct}") as tick:
            parts.append(
                learning_curves(
                    study,
                    construct,
                    backend,
                    fractions=config.curves.fractions,
                    repeats=config.curves.repeats,
                    label_mode=model.label_mode,
                    folder=cells,
                    n_jobs=side_by_side,
                    progress=tick,
                )
            )
    table = pandas().concat(parts, ignore_index=True)
    return tables | {"curve_fits": curve_fits(table)}, as_curves(table)


@contextmanager
def _progress(job: Job, what: str) -> Iterator[Any]:
    """A bar on the job's console, moved by calling (done, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=job.console, disable=job.console.quiet) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def results_of(study: str, tables: Mapping[str, Any], published: Mapping[str, float]) -> list[Result]:
    """Shares, agreement and the matrix as rows of results.csv."""
    rows: list[Result] = []

    def add(arm: str, metric: str, row: Mapping[str, Any], n: int | None) -> None:
        known = published.get(f"{arm}: {metric}")
        verdict = ""
        if known is not None:
            verdict = "reproduced" if abs(row["value"] - known) <= PUBLISHED_DIGITS else "not reproduced"
        rows.append(Result(study, arm, metric, row["value"], row.get("lo"), row.get("hi"), n, known, verdict))

    for row in tables["prevalence"]:
        if row["condition"] != "all":
            add(str(row["condition"]), f"share_{row['construct']}", row, row["n"])
    for row in tables["within"]:
        add(row["condition"], f"{row['measure']}_{row['construct']}", row, row["n_items"])
    for row in tables["between"]:
        add(f"{row['first']}-{row['second']}", f"alpha_{row['construct']}", row, row["n"])
    for construct, value in tables["between_all"].items():
        add("all", f"alpha_{construct}", {"value": value}, None)
    for row in tables.get("matrix", ()):
        add(f"train {row['train']}, test {row['test']}", f"{row['metric']}_{row['construct']}", row, None)
    return rows


def _libraries() -> str:
    return ", ".join(f"{name} {need(name, EXTRA).__version__}" for name in ("pandas", "sklearn", "statsmodels"))
