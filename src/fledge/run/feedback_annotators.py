"""Who answers in a feedback recipe: the oracle, answers that were recorded, or a model behind an endpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fledge.core.annotations import Annotation
from fledge.core.errors import ConfigError, DataError
from fledge.core.files import to_json, write_text
from fledge.data.annotations import read_answers
from fledge.data.trajectories import Trajectories
from fledge.feedback.domain import Domain
from fledge.feedback.gather import Asker, OracleAsker, Questions, RecordedAsker
from fledge.run.chats import Asking
from fledge.run.endpoint import Pace, checked_url
from fledge.run.feedback_settings import AnnotatorSettings
from fledge.run.job import Job
from fledge.run.labeller import Labelling, OpenAICompatAnnotator
from fledge.run.limits import Budget
from fledge.run.meter import Meter
from fledge.run.work import money_text

COST = "cost.json"
CACHE = "labels.sqlite"


def faults_of_annotator(own: AnnotatorSettings) -> list[str]:
    """Everything that is wrong with the choice of an annotator."""
    if own.kind == "answers":
        if not own.answers:
            return ["annotator.answers: name the file of answers (.jsonl, .csv or .parquet)."]
        return [] if Path(own.answers).is_file() else [f"annotator.answers: there is no file {own.answers}."]
    if own.kind == "endpoint":
        found = [
            f"annotator.{name}: name it, as in annotator.{name}={example}."
            for name, example in (("base_url", "http://localhost:8000/v1"), ("model", "gpt-4o"))
            if not getattr(own, name)
        ]
        try:
            checked_url(own.base_url or "http://localhost/v1")
            asking_of(own)
        except ConfigError as error:
            found.append(f"annotator: {error}")
        return found
    return []


def asking_of(own: AnnotatorSettings) -> Asking:
    """How a model is asked."""
    return Asking(mode=own.mode, memory=own.memory, protocol=own.protocol, temperature=own.temperature)


def asker_of(job: Job, domain: Domain, trajectories: Trajectories) -> Asker:
    """Whoever answers by the job's settings."""
    own: AnnotatorSettings = job.config.annotator
    if own.kind == "answers":
        return RecordedAsker(read_answers(own.answers), own.answers)
    if own.kind == "endpoint":
        return EndpointAsker(job, own)
    return OracleAsker(domain, trajectories, job.config.oracle)


@dataclass
class EndpointAsker:
    """Asks a model; tells the cost before the first request, and writes what was spent to cost.json."""

    job: Job
    settings: AnnotatorSettings
    pictures: bool = True
    done: list[Labelling] = field(default_factory=list)

    def annotator(self, **more: Any) -> OpenAICompatAnnotator:
        """The model, with one budget for everything that a run asks."""
        own = self.settings
        return OpenAICompatAnnotator(
            own.base_url,
            own.model,
            own.api_key_env,
            asking=asking_of(own),
            cache=own.cache or self.job.folder.path / CACHE,
            cache_mode=own.cache_mode,
            pace=Pace(own.workers, own.requests_per_minute or math.inf, own.tokens_per_minute or math.inf),
            budget=Budget(own.max_requests or None, own.max_tokens or None, own.max_dollars or None),
            job=f"{self.job.recipe.name}/{own.base_url}/{own.model}",
            **more,
        )

    def __call__(self, questions: Questions) -> list[Annotation]:
        """What the model says; segments without a reply have no answer.

        Raises:
            DataError: nothing at all was answered.
        """
        replicates = self.settings.replicates if questions.about == "segments" else 1
        with Meter(self.job.console) as meter:
            annotator = self.annotator(progress=meter.show)
            estimate = annotator.estimate(questions.items, questions.instrument, replicates=replicates)
            self.job.tell(f"{self.settings.model} is asked about {len(questions.items):,} {questions.about}")
            for line in estimate.lines():
                self.job.tell(f"  {line}")
            asked = [annotator.label(questions.items, questions.instrument, replicate=r) for r in range(replicates)]
        self.done += asked
        write_text(self.job.folder.path / COST, to_json(cost_of(self.settings.model, self.done), indent=1) + "\n")
        found = [answer for labelling in asked for answer in labelling.annotations]
        if not found:
            why = next((one.stopped or one.failures[0].reason for one in asked if one.stopped or one.failures), "?")
            raise DataError(
                f"{self.settings.model} answered nothing about {questions.about}: {why}. What it said before is in "
                f"the cache; go on with: {self.job.resumed_by}"
            )
        for line in _remarks(asked):
            self.job.tell(line)
        return found


def cost_of(model: str, done: Sequence[Labelling]) -> dict[str, Any]:
    """What was spent, for the page: by this job over all its runs with its cache."""
    spent, stopped = done[-1].spent, next((one.stopped for one in done if one.stopped), "")
    found: dict[str, Any] = {
        "model": model,
        "requests": spent.requests,
        "prompt tokens": spent.prompt_tokens,
        "completion tokens": spent.completion_tokens,
        "money": money_text(done[-1].money),
        "questions without a reply": sum(len(one.failures) for one in done),
        "items not asked": sum(len(one.left) for one in done),
    }
    return found | ({"stopped": stopped} if stopped else {})


def _remarks(asked: Sequence[Labelling]) -> list[str]:
    failures, left = [f for one in asked for f in one.failures], [i for one in asked for i in one.left]
    lines = [f"{len(failures):,} questions have no reply, for example: {failures[0].reason}"] if failures else []
    why = next((one.stopped for one in asked if one.left), "")
    return lines + ([f"{len(left):,} items were not asked: {why}"] if left else [])
