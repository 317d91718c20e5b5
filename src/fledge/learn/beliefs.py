"""What the inference learner asks of an agent: beliefs, and a policy that acts on them."""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from equinox import AbstractVar
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from fledge.core.contracts import ReplayAgent
from fledge.core.distributions import Distribution
from fledge.core.errors import ContractError
from fledge.core.types import Decision, Token
from fledge.nets.blocks import Linear


class BeliefPolicy(ReplayAgent):
    """A policy that is told what is believed: the part of an inferring agent that the policy gradient trains.

    What it is told (`Token.task`) are the numbers of the belief, followed by the task vector if there is a task
    embedding; both are normalised already, and so is the observation, which comes as features. It is a `ReplayAgent`
    without memory, so that PPO neither sees the encoder nor runs it again in every minibatch.

    The belief is embedded as φ = tanh(W b), the task as g(c) = tanh(W_g c), both of the same width: where `use_task` is
    1 the policy acts on g(c) instead of φ (the multi-task phase of task inference, Beck et al. 2023, appendix).
    """

    embed_belief: Linear
    embed_task: Linear | None
    policy: eqx.Module
    """Any module that turns (latent, state) into an action distribution and a value."""
    use_task: Float[Array, ""]

    @property
    def told(self) -> bool:
        return True

    def begin(self) -> tuple[()]:
        return ()

    def sample_noise(self, key: Key[Array, ""]) -> PyTree[Array]:
        return self.policy.head.sample_noise(key)  # type: ignore[attr-defined]

    def latent(self, told: Float[Array, "*batch told"]) -> Float[Array, "*batch latent"]:
        """What the policy module is conditioned on."""
        n_belief = self.embed_belief.weight.shape[0]
        latent = jnp.tanh(self.embed_belief(told[..., :n_belief]))
        if self.embed_task is None or told.shape[-1] == n_belief:
            return latent
        return jnp.where(self.use_task > 0, self.task_latent(told[..., n_belief:]), latent)

    def task_latent(self, task: Float[Array, "*batch task"]) -> Float[Array, "*batch latent"]:
        """g(c) of normalised task vectors."""
        if self.embed_task is None:
            raise ContractError("This policy has no task embedding; give it `embed_task`, or no task to embed.")
        return jnp.tanh(self.embed_task(task))

    def decide(self, token: Token) -> tuple[Distribution, Float[Array, "*batch"]]:
        """The action distribution and the value."""
        if token.task is None:
            raise ContractError("A BeliefPolicy acts on what is in Token.task: use BeliefAgent.conditioned tokens.")
        return self.policy(self.latent(token.task), token.observation)  # type: ignore[operator]

    def act(self, memory: tuple[()], token: Token, noise: PyTree[Array] | None = None) -> tuple[Decision, tuple[()]]:
        distribution, value = self.decide(token)
        action = distribution.mode() if noise is None else distribution.sample(noise)
        return Decision(action, distribution.log_prob(action), value), memory

    def replay(self, memory: tuple[()], tokens: Token) -> tuple[Distribution, Float[Array, "time *batch"], tuple[()]]:
        distribution, values = self.decide(tokens)
        return distribution, values, memory


class BeliefAgent(ReplayAgent):
    """An agent in two parts that learn apart: one infers (encoder, memory, posterior head), `policy` acts on it.

    A belief is the vector [μ, log σ²] of a diagonal normal over the latent task.
    """

    policy: AbstractVar[BeliefPolicy]

    @abstractmethod
    def beliefs(self, memory: PyTree[Array], tokens: Token) -> tuple[Float[Array, "time *batch twice"], PyTree[Array]]:
        """The belief at each recorded decision, and the memory after the last."""

    @abstractmethod
    def trial_beliefs(self, steps: Token) -> Float[Array, "term batch twice"]:
        """q_0 (nothing seen) … q_T of whole trials whose step i is the token seen after it: one more than steps."""

    @abstractmethod
    def resumed(self, steps: Token, length: Int[Array, " batch"]) -> PyTree[Array]:
        """The memory of running trials, of which the last `length` of these steps (time, batch) have been walked.

        The last step is not consumed yet: it is the token of the decision to come.
        """

    @abstractmethod
    def conditioned(self, beliefs: Float[Array, "*batch twice"], tokens: Token) -> Token:
        """The tokens as `policy` takes them."""

    @abstractmethod
    def normalised_task(self, task: Float[Array, "*batch task"]) -> Float[Array, "*batch task"]:
        """Task vectors as `policy` takes them."""

    @abstractmethod
    def inference_part(self) -> PyTree[Array]:
        """The parameters that the inference loss trains."""

    @abstractmethod
    def with_inference_part(self, part: PyTree[Array]) -> "BeliefAgent":
        """The agent with these in their place."""

    @abstractmethod
    def with_statistics(
        self,
        beliefs: Float[Array, "*batch twice"],
        tokens: Token,
        *,
        move_task: Bool[Array, ""],
        move_belief: Bool[Array, ""],
    ) -> "BeliefAgent":
        """The agent with its running statistics moved on; those of task vectors and of beliefs only where that holds.

        What a frozen task embedding reads must not drift; and beliefs of an encoder that does not learn yet say nothing
        about those to come.
        """

    @abstractmethod
    def untold(self) -> "BeliefAgent":
        """The agent that is not told the task, whatever it was told in training. Leaves may have leading axes."""
