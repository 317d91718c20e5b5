"""What a control problem has to bring so that its behaviour can be shown, judged and cloned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module

import numpy as np
from jaxtyping import Bool, Float

from fledge.core.contracts import Env
from fledge.core.errors import unknown
from fledge.core.instruments import PAIR, Ask, Block, Condition, Construct, Instrument
from fledge.data.trajectories import Trajectories
from fledge.feedback.raster import Renderer

Judge = Callable[[Float[np.ndarray, "segment frame obs"]], Bool[np.ndarray, " segment"]]
"""Whether the right answer to a question is yes, from the states in a segment's frames."""


@dataclass(frozen=True)
class Domain:
    """A control problem with pictures, logged behaviour and questions whose right answers are known."""

    name: str
    env: Env
    make_data: Callable[[int, int], Trajectories]
    """(episodes, seed) → behaviour; `extras["expert"]` marks the steps of the policy that is wanted."""
    n_episodes: int
    seed: int
    k: int
    """Steps of a segment."""
    n_frames: int
    renderer: Renderer
    instrument: Instrument
    judges: Mapping[str, Judge]
    """Construct → its right answer. The Markov question comes first: one frame would do to answer it."""
    merit: Callable[[Float[np.ndarray, "*shape obs"]], Float[np.ndarray, "*shape"]]
    """How good a state looks: what the oracle compares a pair of clips by."""
    better: str = "Which of the two clips is better?"
    """The question about a pair of clips."""

    @property
    def markov(self) -> str:
        """The question that needs no sequence of frames."""
        return next(iter(self.judges))


def yes_no_questions(name: str, about: str, questions: Mapping[str, str]) -> Instrument:
    """An instrument of independent yes/no questions: one screen each, answered with Y or N."""
    constructs = tuple(Construct(key, text) for key, text in questions.items())
    block = Block(tuple(Ask((construct.name,)) for construct in constructs))
    return Instrument(name, constructs, (Condition("separate", (block,)),), about)


def comparison(domain: Domain) -> Instrument:
    """One question about a pair of clips, whose sides are shuffled."""
    ask = Block((Ask(("better",)),))
    condition = Condition("pairs", (ask,), shuffle=("pair_sides",))
    return Instrument(f"{domain.name}-pairs", (Construct("better", domain.better, PAIR),), (condition,))


DOMAINS = {
    "pendulum": "fledge.feedback.pendulum:PENDULUM",
    "point-mass": "fledge.feedback.pointmass:POINT_MASS",
}
"""Name → `module:NAME`. A domain of one's own is one more row."""


def domain(name: str) -> Domain:
    """The domain of that name, or `module:NAME` of one's own.

    Raises:
        ConfigError: nobody registered it.
    """
    target = DOMAINS.get(name, name)
    module, colon, attribute = target.partition(":")
    if not colon:
        raise unknown("domain", name, DOMAINS)
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError):
        raise unknown("domain", name, DOMAINS) from None
    if not isinstance(found, Domain):
        raise unknown("domain", name, DOMAINS)
    return found
