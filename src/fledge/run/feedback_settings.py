"""What recipes about feedback can set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fledge.feedback.arms import ArmSettings
from fledge.feedback.gather import OracleSettings


@dataclass(frozen=True)
class DataSettings:
    """Which behaviour, and how it is cut."""

    domain: str = "pendulum"
    """A name of `fledge.feedback.domain.DOMAINS`, or `module:NAME` of one's own."""
    n_episodes: int = 0
    """0 is the domain's own number."""
    seed: int = -1
    """Of the behaviour; −1 is the domain's own."""
    k: int = 0
    """Steps of a segment; 0 is the domain's own."""


@dataclass(frozen=True)
class AnnotatorSettings:
    """Who says what is good."""

    kind: Literal["oracle", "answers", "endpoint"] = "oracle"
    answers: str = ""
    """A table of answers (.jsonl, .csv, .parquet): of a run, of `fledge feedback label`, of the annotation page."""
    base_url: str = ""
    """Of an OpenAI-compatible endpoint."""
    model: str = ""
    api_key_env: str = ""
    """Name of the environment variable with the key; empty for an endpoint that wants none."""
    mode: str = "auto"
    """How a probability is found (`fledge.data.replies`)."""
    protocol: Literal["screens", "bare"] = "screens"
    """`bare`: the question is the system message, the pictures are the user's (Beck 2025)."""
    memory: Literal["none", "item", "session"] = "none"
    temperature: float = 0.0
    replicates: int = 1
    """How often everything about segments is asked: for reliability."""
    layout: Literal["separate", "filmstrip", "grid"] = "separate"
    resolution: int = 256
    """Pixels along each side of a frame; the paper has 500."""
    cache: str = ""
    """File of replies; empty: labels.sqlite in the run folder."""
    cache_mode: Literal["online", "cache_only", "record"] = "online"
    max_requests: int = 0
    """Hard limit over all runs with this cache; 0: none."""
    max_tokens: int = 0
    max_dollars: float = 0.0
    workers: int = 8
    """Requests on their way at a time."""
    requests_per_minute: float = 0.0
    """0: no limit."""
    tokens_per_minute: float = 0.0


@dataclass(frozen=True)
class FilterSettings:
    """From probabilities to a selection."""

    alpha: float = 0.1
    """A segment passes with P ≥ alpha."""
    retro_k: int = 1
    """Segments before a failing one that are dropped with it."""
    prob_mode: Literal["normalised", "top_no", "emitted_no"] = "normalised"


@dataclass(frozen=True)
class RolloutSettings:
    """How policies are measured."""

    n_starts: int = 20
    """Per seed, the same for all; 1 is the paper's single rollout from the seed's own start."""
    n_steps: int = 1000
    film_steps: int = 160
    """Length of the film of the first arm's first policy; 0 for none."""


@dataclass(frozen=True)
class FeedbackSettings:
    """Train policies on labelled behaviour, by one way of using the labels or several, and measure them."""

    data: DataSettings = field(default_factory=DataSettings)
    annotator: AnnotatorSettings = field(default_factory=AnnotatorSettings)
    oracle: OracleSettings = field(default_factory=OracleSettings)
    """How the oracle answers, where it is the annotator."""
    filter: FilterSettings = field(default_factory=FilterSettings)
    arms: tuple[str, ...] = ("SF-BC",)
    """Rows of `fledge.feedback.arms.ARMS`."""
    bounds: tuple[Literal["env", "tanh1"], ...] = ("env",)
    """How policies are bounded: by the environment, or by ±1 as in the paper."""
    learner: ArmSettings = field(default_factory=ArmSettings)
    training_seeds: tuple[int, ...] = (20, 73, 11, 46, 89, 18, 12, 37, 94, 83, 13, 53, 61, 77, 22)
    """Of training."""
    seeds_at_once: int = 8
    """Seeds trained side by side, after which a stopped run need not train them again; 0 for all."""
    rollouts: RolloutSettings = field(default_factory=RolloutSettings)
    claims: tuple[str, ...] = ()
    """"A > B" or "bound: A > B": A's success is higher, paired by seed and start."""


@dataclass(frozen=True)
class InstrumentArm:
    """One version of the instrument: how the questions are put and the segments shown."""

    wording: str = "plain"
    """A name of `fledge.feedback.simulated.WORDINGS`."""
    n_frames: int = 5
    layout: str = "separate"
    questions: Literal["both", "markov", "non-markov"] = "both"
    together: bool = False
    """Both questions on one screen instead of on two."""


@dataclass(frozen=True)
class InstrumentSettings:
    """The same policy learner on the labels of several versions of one instrument."""

    data: DataSettings = field(default_factory=DataSettings)
    filter: FilterSettings = field(default_factory=FilterSettings)
    instruments: dict[str, InstrumentArm] = field(default_factory=dict)
    """Name → version. The first is what the others are compared with."""
    bound: Literal["env", "tanh1"] = "env"
    learner: ArmSettings = field(default_factory=ArmSettings)
    training_seeds: tuple[int, ...] = (20, 73, 11, 46, 89)
    replicates: int = 2
    """How often each version asks every question: for reliability."""
    reader_seed: int = 0
    """Of the simulated annotator's noise."""
    rollouts: RolloutSettings = field(default_factory=RolloutSettings)
