"""Agents that infer the task: the policy acts on a posterior over it (VariBAD and the task-inference family)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from fledge.agents.build import MemoryAgentSettings, make_policy, memory_agent
from fledge.core.contracts import Env, Memory
from fledge.core.distributions import Distribution
from fledge.core.errors import ConfigError
from fledge.core.normalise import RunningStats
from fledge.core.types import Decision, Token
from fledge.learn.beliefs import BeliefAgent, BeliefPolicy
from fledge.nets.blocks import Linear
from fledge.nets.tokens import TokenEncoder


class Normalisers(eqx.Module):
    """Running statistics of what the policy reads; None for what is handed on as it is."""

    belief: RunningStats
    state: RunningStats | None
    task: RunningStats | None


class InferenceAgent(BeliefAgent):
    """Token → encoder → memory → posterior N(μ, σ²) over a latent task; the policy reads [μ, log σ²] and the state.

    The policy sees the belief through a stop-gradient, normalised by running statistics, then embedded; the encoder
    sees raw observations and rewards (Zintgraf et al. 2020, VariBAD, §3 and public code).

    Before anything has happened the belief is the prior: the posterior head on zeros, as if from an all-zero hidden
    state. A trial's first token, which holds no transition, is not consumed. So VariBAD's own code does it; its
    successors' push an all-zero token through the cell, read the prior off that, and throw the state away. Consequence:
    a cue in the very first observation reaches the memory only if `last_observation` is among the encoder's fields.

    With `reads_task` the agent is told the task vector in training, for `policy.use_task` and for supervised losses.
    """

    encoder: TokenEncoder
    memory: Memory
    posterior: Linear
    policy: BeliefPolicy
    statistics: Normalisers
    reads_task: bool = eqx.field(static=True)

    @property
    def told(self) -> bool:
        return self.reads_task

    def begin(self) -> PyTree[Array]:
        return self.memory.begin()

    def sample_noise(self, key: Key[Array, ""]) -> PyTree[Array]:
        return self.policy.sample_noise(key)

    def act(
        self, memory: PyTree[Array], token: Token, noise: PyTree[Array] | None = None
    ) -> tuple[Decision, PyTree[Array]]:
        stepped, out = self.memory.step(memory, self.encoder(token))
        memory = _where(token.start, self._begin(token.start.shape), stepped)
        belief = self.posterior(out * (1.0 - token.start[..., None]))
        return self.policy.act((), self.conditioned(belief, token), noise)[0], memory

    def replay(
        self, memory: PyTree[Array], tokens: Token
    ) -> tuple[Distribution, Float[Array, "time *batch"], PyTree[Array]]:
        beliefs, memory = self.beliefs(memory, tokens)
        distribution, values = self.policy.decide(self.conditioned(beliefs, tokens))
        return distribution, values, memory

    def beliefs(self, memory: PyTree[Array], tokens: Token) -> tuple[Float[Array, "time *batch twice"], PyTree[Array]]:
        # A start token is not consumed: the memory is fresh before the token *after* it.
        resets = tokens.start | jnp.concatenate([jnp.zeros_like(tokens.start[:1]), tokens.start[:-1]])
        after, outs = self.memory.scan(memory, self.encoder(tokens), resets)
        after = _where(tokens.start[-1], self._begin(tokens.start.shape[1:]), after)
        return self.posterior(outs * (1.0 - tokens.start[..., None])), after

    def trial_beliefs(self, steps: Token) -> Float[Array, "term batch twice"]:
        _, outs = self.memory.scan(self._begin(steps.start.shape[1:]), self.encoder(steps), jnp.zeros_like(steps.start))
        return self.posterior(jnp.concatenate([jnp.zeros_like(outs[:1]), outs]))

    def resumed(self, steps: Token, length: Int[Array, " batch"]) -> PyTree[Array]:
        seen = jax.tree.map(lambda leaf: leaf[:-1], steps)
        n_steps = steps.start.shape[0]
        resets = jnp.arange(n_steps - 1)[:, None] == n_steps - length  # what is before the first step is older
        fresh = self._begin(length.shape)
        after, _ = self.memory.scan(fresh, self.encoder(seen), resets)
        return _where(length > 1, after, fresh)

    def conditioned(self, beliefs: Float[Array, "*batch twice"], tokens: Token) -> Token:
        state = self._features(tokens)
        if self.statistics.state is not None:
            state = self.statistics.state.normalise(state)
        told = self.statistics.belief.normalise(jax.lax.stop_gradient(beliefs))
        if tokens.task is not None and self.policy.embed_task is not None:
            told = jnp.concatenate([told, self.normalised_task(tokens.task)], axis=-1)
        return eqx.tree_at(lambda t: (t.observation, t.task), tokens, (state, told), is_leaf=lambda x: x is None)

    def normalised_task(self, task: Float[Array, "*batch task"]) -> Float[Array, "*batch task"]:
        return task if self.statistics.task is None else self.statistics.task.normalise(task)

    def inference_part(self) -> PyTree[Array]:
        return self.encoder, self.memory, self.posterior

    def with_inference_part(self, part: PyTree[Array]) -> InferenceAgent:
        return eqx.tree_at(lambda agent: (agent.encoder, agent.memory, agent.posterior), self, part)

    def update_statistics(self, tokens: Token) -> InferenceAgent:
        """As in the contract, for tokens that begin with a trial (there the beliefs need no earlier memory)."""
        yes = jnp.asarray(True)
        beliefs, _ = self.beliefs(self._begin(tokens.start.shape[1:]), tokens)
        return self.with_statistics(beliefs, tokens, move_task=yes, move_belief=yes)

    def with_statistics(
        self,
        beliefs: Float[Array, "*batch twice"],
        tokens: Token,
        *,
        move_task: Bool[Array, ""],
        move_belief: Bool[Array, ""],
    ) -> InferenceAgent:
        old = self.statistics
        task = old.task
        if task is not None and tokens.task is not None:
            task = _where(move_task, task.update(tokens.task), task)
        state = None if old.state is None else old.state.update(self._features(tokens))
        belief = _where(move_belief, old.belief.update(beliefs), old.belief)
        return replace(self, statistics=Normalisers(belief, state, task))

    def untold(self) -> InferenceAgent:
        policy = eqx.tree_at(lambda p: p.use_task, self.policy, jnp.zeros_like(self.policy.use_task))
        if policy.embed_task is not None:
            policy = eqx.tree_at(lambda p: p.embed_task, policy, None)
        return replace(self, policy=policy, reads_task=False)

    def _features(self, token: Token) -> Float[Array, "*batch state"]:
        return self.encoder.observation_space.features(token.observation)

    def _begin(self, batch: tuple[int, ...]) -> PyTree[Array]:
        """`begin()` with these batch axes in front."""
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*batch, *leaf.shape)), self.begin())


def _where(condition: Bool[Array, "*batch"], new: PyTree[Array], old: PyTree[Array]) -> PyTree[Array]:
    """`new` where the condition holds; its axes lead those of every leaf."""

    def pick(a: Array, b: Array) -> Array:
        return jnp.where(condition.reshape(condition.shape + (1,) * (b.ndim - condition.ndim)), a, b)

    return jax.tree.map(pick, new, old)


def inference_agent(
    settings: MemoryAgentSettings, env: Env, *, embeds_task: bool = False, reads_task: bool = False
) -> Callable[[Key[Array, ""]], InferenceAgent]:
    """A function from a key to a fresh agent for this environment.

    Args:
        settings: `latent_size` is d_lat, `latent_embedding` the width that the policy is conditioned on, and the rest
            is as for a `MemoryAgent`: any memory, any way of conditioning.
        env: the environment.
        embeds_task: with a task embedding of that width, for the multi-task phase.
        reads_task: told the task in training (also without an embedding, for supervised losses).

    Raises:
        ConfigError: a size is missing, or the encoder would be told what it has to infer.
    """
    for name, size, published in (
        ("latent_size", settings.latent_size, 5),
        ("latent_embedding", settings.latent_embedding, 25),
    ):
        if size < 1:
            raise ConfigError(
                f"An agent that infers the task needs a {name} of at least 1; the paper's is {published}."
            )
    make_plain = memory_agent(replace(settings, latent_size=0, latent_embedding=0), env)
    if jax.eval_shape(make_plain, jax.random.key(0)).told:
        raise ConfigError(
            "The task is among the encoder's fields, so there is nothing to infer. Choose kind = 'varibad'."
        )
    n_task = jax.eval_shape(lambda key: env.task_vector(env.sample(key)), jax.random.key(0)).shape[0]
    width, n_belief = settings.latent_embedding, 2 * settings.latent_size

    def make(key: Key[Array, ""]) -> InferenceAgent:
        key_plain, key_posterior, key_belief, key_task, key_policy = jax.random.split(key, 5)
        plain = make_plain(key_plain)  # its encoder and memory; its policy is for another width
        policy = BeliefPolicy(
            Linear.init(key_belief, n_belief, width),
            Linear.init(key_task, n_task, width) if embeds_task else None,
            make_policy(key_policy, replace(settings, latent_embedding=0), env, width),
            jnp.asarray(1.0 if embeds_task else 0.0, jnp.float32),
        )
        n_state = env.observation_space.n_features
        statistics = Normalisers(
            RunningStats.init((n_belief,)),
            RunningStats.init((n_state,)) if settings.normalise_observations else None,
            RunningStats.init((n_task,)) if embeds_task else None,
        )
        head = Linear.init(key_posterior, plain.memory.out_size, n_belief)
        encoder: Any = plain.encoder  # of tokens: one of task ids was refused above
        return InferenceAgent(
            encoder=encoder,
            memory=plain.memory,
            posterior=head,
            policy=policy,
            statistics=statistics,
            reads_task=embeds_task or reads_task,
        )

    return make
