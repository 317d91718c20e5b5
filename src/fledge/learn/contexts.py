"""What the off-policy learner asks of an agent: a latent that is drawn from a posterior over sets of transitions."""

from abc import abstractmethod

from equinox import AbstractVar
from jaxtyping import Array, Float, PyTree, Shaped

from fledge.core.contracts import Agent
from fledge.core.types import Token
from fledge.nets.blocks import MLP
from fledge.nets.posterior import Evidence, PosteriorEncoder


class ContextAgent(Agent):
    """An agent in two parts: an encoder that turns transitions into evidence, and an actor that reads a drawn latent.

    The actor's actions lie in [−1, 1]; the agent stretches them to the environment's box.
    """

    encoder: AbstractVar[PosteriorEncoder]
    actor: AbstractVar[MLP]

    @abstractmethod
    def context(self, steps: Token) -> Float[Array, "*batch context"]:
        """The last transition of each token as the encoder reads it."""

    @abstractmethod
    def state(self, observation: Shaped[Array, "..."]) -> Float[Array, "*batch state"]:
        """Observations as actor and critics read them."""

    @abstractmethod
    def unit_action(self, action: Float[Array, "*batch act"]) -> Float[Array, "*batch act"]:
        """The environment's actions as the actor's, in [−1, 1]."""

    @abstractmethod
    def given(self, evidence: Evidence) -> PyTree[Array]:
        """The memory of a trial that begins with evidence, as if it had been seen before."""

    @abstractmethod
    def collector(self) -> "ContextAgent":
        """The same agent, but it adds nothing to the evidence that its memory begins with."""
