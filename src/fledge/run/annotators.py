"""Annotators by name: who can answer questions about items."""

from __future__ import annotations

from fledge.core.contracts import Annotator
from fledge.data.annotators import EmbeddingAnnotator, NoisyAnnotator, PeopleAnnotator
from fledge.data.ensembles import EnsembleAnnotator
from fledge.run.labeller import OpenAICompatAnnotator, ReplayAnnotator

ANNOTATORS: dict[str, tuple[type[Annotator], str]] = {
    "endpoint": (OpenAICompatAnnotator, "a model behind an OpenAI-compatible endpoint"),
    "replay": (ReplayAnnotator, "recorded replies: a cache or a label pack; no network, no key"),
    "people": (PeopleAnnotator, "people's answers, collected before"),
    "embedding": (EmbeddingAnnotator, "a score with a logistic curve fitted to a few labels"),
    "noisy": (NoisyAnnotator, "another annotator, less certain and sometimes wrong"),
    "ensemble": (EnsembleAnnotator, "several as one: mean, vote, or Dawid and Skene's model of their errors"),
}
"""Name → class and what it is. The exam in `tests/contracts/test_annotators.py` is taken by each."""
