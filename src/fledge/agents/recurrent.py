"""Agents that are a memory times a conditioning: RL², its memoryless control, and the oracle that is told the task."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from fledge.core.contracts import Memory, ReplayAgent
from fledge.core.distributions import Distribution
from fledge.core.normalise import RunningStats
from fledge.core.types import Decision, Token
from fledge.nets.blocks import Linear
from fledge.nets.conditioned import ConditionedActorCritic
from fledge.nets.policy import ActorCritic
from fledge.nets.tokens import TaskIdEncoder, TokenEncoder


class MemoryAgent(ReplayAgent):
    """Token → encoder → memory → latent → actor and critic, all trained by the policy gradient.

    With a recurrent memory that reads actions, rewards and ends it is RL² (Duan et al. 2016; Wang et al. 2016): latent
    only, or latent + state where the policy also reads the observation (RNN and RNN+S of Beck et al. 2023), or with
    actor and critic generated from the latent (RNN+HN). With `NoMemory` on the observation alone it is the memoryless
    control; with the task among its fields, the oracle; with an encoder of task ids, a multi-task agent. `to_latent` is
    a linear layer between memory and policy; None hands on what the memory puts out.
    """

    encoder: TokenEncoder | TaskIdEncoder
    memory: Memory
    policy: ActorCritic | ConditionedActorCritic
    statistics: RunningStats | None
    to_latent: Linear | None = None

    @property
    def told(self) -> bool:
        return "task" in self.encoder.fields

    def begin(self) -> PyTree[Array]:
        return self.memory.begin()

    def sample_noise(self, key: Key[Array, ""]) -> Float[Array, " out"]:
        return self.policy.head.sample_noise(key)

    def act(
        self, memory: PyTree[Array], token: Token, noise: PyTree[Array] | None = None
    ) -> tuple[Decision, PyTree[Array]]:
        token = self._normalise(token)
        memory, output = self.memory.step(memory, self.encoder(token))
        distribution, value = self.policy(self._latent(output), self._state(token))
        action = distribution.mode() if noise is None else distribution.sample(noise)
        return Decision(action, distribution.log_prob(action), value), memory

    def replay(
        self, memory: PyTree[Array], tokens: Token
    ) -> tuple[Distribution, Float[Array, "time *batch"], PyTree[Array]]:
        latents, states, memory = self.inputs(memory, tokens)
        distribution, values = self.policy(latents, states)
        return distribution, values, memory

    def inputs(
        self, memory: PyTree[Array], tokens: Token
    ) -> tuple[Float[Array, "time *batch latent"], Float[Array, "time *batch state"], PyTree[Array]]:
        """What the policy reads at each token, latent and state, and the memory after the last."""
        tokens = self._normalise(tokens)
        memory, outputs = self.memory.scan(memory, self.encoder(tokens), tokens.start)
        return self._latent(outputs), self._state(tokens), memory

    def update_statistics(self, tokens: Token) -> MemoryAgent:
        if self.statistics is None:
            return self
        seen = self.encoder.observation_space.features(tokens.observation)
        return eqx.tree_at(lambda agent: agent.statistics, self, self.statistics.update(seen))

    def _latent(self, output: Float[Array, "*batch out"]) -> Float[Array, "*batch latent"]:
        return output if self.to_latent is None else self.to_latent(output)

    def _state(self, token: Token) -> Float[Array, "*batch state"]:
        return self.encoder.observation_space.features(token.observation)

    def _normalise(self, token: Token) -> Token:
        """Observations by their running statistics; where there is none (a trial's start) they stay zero."""
        if self.statistics is None:
            return token
        stats, known = self.statistics, 1.0 - token.start[..., None].astype(jnp.float32)
        return eqx.tree_at(
            lambda t: (t.observation, t.last_observation, t.final_observation),
            token,
            (
                stats.normalise(token.observation),
                stats.normalise(token.last_observation) * known,
                stats.normalise(token.final_observation) * known,
            ),
        )
