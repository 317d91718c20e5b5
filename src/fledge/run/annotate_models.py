"""Language models as annotators of a study file: under the same compiled screens as people, into the same table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from fledge.annotation.collected import SNAPSHOT, TABLE
from fledge.annotation.design import StudyDesign
from fledge.annotation.design_files import read_design
from fledge.core.annotations import Annotation, Item
from fledge.core.errors import ConfigError, DataError
from fledge.core.files import to_json, write_text
from fledge.data.annotations import AnnotationTable, write_table
from fledge.data.prices import Estimate
from fledge.run.chats import Asking
from fledge.run.endpoint import Pace
from fledge.run.labeller import Labelling, OpenAICompatAnnotator
from fledge.run.limits import Budget
from fledge.run.work import Progress, money_text

CACHE, COST = "labels.sqlite", "cost.json"
APART = 10_000
"""Between the replicates of two conditions: screens that they share are asked anew, as of other people."""


@dataclass(frozen=True)
class ModelSettings:
    """Which model, and how it is asked."""

    base_url: str
    model: str
    api_key_env: str = ""
    asking: Asking = field(default_factory=lambda: Asking(memory="session"))
    """`memory="session"` is what people do: only then has the order of the screens an effect."""
    labels: int = 0
    """Conversations for each batch and condition; 0: as many as people."""
    pace: Pace = field(default_factory=Pace)
    budget: Budget = field(default_factory=Budget)


@dataclass(frozen=True)
class Asked:
    """What came of asking a model."""

    rows: tuple[Annotation, ...]
    runs: tuple[Labelling, ...]
    folder: Path

    def lines(self) -> list[str]:
        """What to tell the person who asked."""
        missing = sum(row.value is None for row in self.rows)
        failures = [failure for run in self.runs for failure in run.failures]
        stopped = next((run.stopped for run in self.runs if run.stopped), "")
        spent, money = self.runs[-1].spent, money_text(self.runs[-1].money)
        return [
            f"{self.folder / TABLE}: {len(self.rows):,} answers, {missing:,} of them without a value",
            *([f"{len(failures):,} screens without a reply, for example: {failures[0].reason}"] if failures else []),
            *([f"ended early: {stopped}"] if stopped else []),
            f"spent {spent.requests:,} requests, {spent.tokens:,} tokens, {money} over all runs",
        ]

    @property
    def whole(self) -> bool:
        """Whether everything was answered."""
        return not any(run.failures or run.left for run in self.runs)


def ask(
    study: Path | str,
    out: Path | str,
    settings: ModelSettings,
    progress: Callable[[Progress], None] | None = None,
) -> Asked:
    """Ask a model everything that a study asks people; write an export that `fledge annotate analyse` reads.

    Each conversation counts as an annotator: it sees a batch of items under one condition, as a person does. Replies
    are cached in the folder, so a killed job goes on where it was.

    Raises:
        ConfigError: the study is wrong, or its folder holds people's answers.
    """
    design, out = read_design(Path(study)), Path(out)
    if (out / "assignments.csv").exists():
        raise ConfigError(f"{out} holds answers of people. Choose another folder for the model's, and analyse both.")
    annotator = _annotator(design, settings, out / CACHE, progress)
    rows: list[Annotation] = []
    runs: list[Labelling] = []
    for condition, replicate, items in _portions(design, settings):
        runs.append(annotator.label(items, design.instrument, condition=condition, replicate=replicate))
        rows += _as_annotators(runs[-1].annotations, design, settings.model)
    _write(design, out, rows, runs, settings.model)
    return Asked(tuple(rows), tuple(runs), out)


def estimate(study: Path | str, out: Path | str, settings: ModelSettings) -> list[str]:
    """What `ask` would need now, in lines; sends nothing and writes nothing."""
    design, cache = read_design(Path(study)), Path(out) / CACHE
    annotator = _annotator(design, settings, cache if cache.exists() else ":memory:", None)
    total, labels = Estimate(), settings.labels or design.plan.labels
    for condition, replicate, items in _portions(design, settings):
        if replicate % APART == 0:
            more = annotator.estimate(items, design.instrument, condition=condition, replicates=labels, first=replicate)
            total += more
    return total.lines()


def _annotator(
    design: StudyDesign, settings: ModelSettings, cache: Path | str, progress: Callable[[Progress], None] | None
) -> OpenAICompatAnnotator:
    sees = any(part.media for item in design.items for part in (item, *item.pair))
    sizes = {len(batch) for batch in design.batches.values()}
    session = settings.asking.memory == "session"
    return OpenAICompatAnnotator(
        settings.base_url,
        settings.model,
        settings.api_key_env,
        asking=replace(settings.asking, session_size=min(sizes) if session and len(sizes) == 1 else 0),
        cache=cache,
        pace=settings.pace,
        budget=settings.budget,
        progress=progress,
        source="vlm" if sees else "llm",
        job=f"{design.name}/{settings.base_url}/{settings.model}",
    )


def _portions(design: StudyDesign, settings: ModelSettings) -> Iterator[tuple[str, int, Sequence[Item]]]:
    """Condition, replicate and items of each call: all batches at once, unless conversations would mix them."""
    batches = [[design.items[i] for i in batch] for batch in design.batches.values()]
    apart = settings.asking.memory == "session" and len({len(batch) for batch in batches}) > 1
    conditions = dict.fromkeys(name for arm in design.plan.arms for name in arm.sequence)
    for number, condition in enumerate(conditions):
        for n in range(settings.labels or design.plan.labels):
            for items in batches if apart else [[item for batch in batches for item in batch]]:
                yield condition, number * APART + n, items


def _as_annotators(given: Sequence[Annotation], design: StudyDesign, model: str) -> list[Annotation]:
    """Each conversation's answers under a name of its own."""
    batches = {design.items[i].id: name for name, batch in design.batches.items() for i in batch}
    return [
        replace(row, annotator=f"{model}, {row.condition} {batches[row.item]}.{row.replicate % APART + 1}", replicate=0)
        for row in given
    ]


def _write(design: StudyDesign, out: Path, rows: Sequence[Annotation], runs: Sequence[Labelling], model: str) -> None:
    if not rows:
        why = next((run.stopped or run.failures[0].reason for run in runs if run.stopped or run.failures), "no item")
        raise DataError(f"{model} answered nothing: {why}.")
    table = AnnotationTable(tuple(rows), design.texts())
    for name in (TABLE, TABLE.replace(".jsonl", ".csv")):
        write_table(out / name, table)
    write_text(out / SNAPSHOT, to_json(dict(design.snapshot), indent=1))
    write_text(out / "instrument.json", to_json(asdict(design.instrument), indent=1))
    spent = runs[-1].spent
    cost = {"model": model, "requests": spent.requests, "prompt tokens": spent.prompt_tokens}
    cost |= {"completion tokens": spent.completion_tokens, "money": money_text(runs[-1].money)}
    write_text(out / COST, to_json(cost, indent=1) + "\n")
