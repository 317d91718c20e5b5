"""PEARL's agent: it draws a latent from a posterior over the task, and acts on it for a whole episode."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

from fledge.core.contracts import Env
from fledge.core.errors import ConfigError
from fledge.core.spaces import Box, Space
from fledge.core.types import Decision, Token
from fledge.learn import sac
from fledge.learn.contexts import ContextAgent
from fledge.nets.blocks import MLP
from fledge.nets.posterior import Evidence, PosteriorEncoder


@dataclass(frozen=True)
class PEARLAgentSettings:
    """What the agent is made of. The defaults are those of the released code.

    `next_observation` puts o' among what the encoder reads of a transition (needed where tasks differ in dynamics).
    `prior_factor` makes the prior one of the factors of the posterior. In the first `n_prior_episodes` of a trial the
    latent is drawn from the prior, whatever was seen.
    """

    latent_size: int = 5
    encoder_hidden: tuple[int, ...] = (200, 200, 200)
    next_observation: bool = False
    prior_factor: bool = False
    n_prior_episodes: int = 1

    def __post_init__(self) -> None:
        faults = []
        if self.latent_size < 1:
            faults.append(f"latent_size is at least 1, not {self.latent_size}.")
        if self.n_prior_episodes < 0:
            faults.append(f"n_prior_episodes is at least 0, not {self.n_prior_episodes}.")
        if any(width < 1 for width in self.encoder_hidden):
            faults.append(f"encoder_hidden is a list of widths of at least 1, not {list(self.encoder_hidden)}.")
        if faults:
            raise ConfigError(" ".join(faults))


class PEARLMemory(eqx.Module):
    """What is known in a trial, and what is acted on in this episode."""

    evidence: Evidence
    latent: Float[Array, "*batch latent"]
    episode: Int[Array, "*batch"]
    """Its number in the trial, from 0."""


class PEARLNoise(eqx.Module):
    """Standard normal numbers. Those of the latent are used only where an episode begins."""

    latent: Float[Array, "*batch latent"]
    action: Float[Array, "*batch act"]


class PEARLAgent(ContextAgent):
    """Every transition of the trial adds a factor to the posterior; where an episode begins, a latent is drawn from it.

    The latent stays as it is until the episode ends: exploration is that of one hypothesis at a time (posterior
    sampling). Evidence is forgotten with the trial. Greedy, the latent is the posterior's mean, the action the mode.

    Reference: Rakelly et al. 2019 (PEARL), algorithm 2.
    """

    encoder: PosteriorEncoder
    actor: MLP
    observation_space: Space
    action_space: Box
    next_observation: bool = eqx.field(static=True, default=False)
    n_prior_episodes: int = eqx.field(static=True, default=1)
    infers: bool = eqx.field(static=True, default=True)

    def begin(self) -> PEARLMemory:
        size = self.encoder.latent_size
        return PEARLMemory(Evidence.none(size), jnp.zeros(size), jnp.asarray(0, jnp.int32))

    def given(self, evidence: Evidence) -> PEARLMemory:
        episode = jnp.full(evidence.precision.shape[:-1], self.n_prior_episodes, jnp.int32)
        return PEARLMemory(evidence, jnp.zeros_like(evidence.precision), episode)

    def collector(self) -> PEARLAgent:
        return replace(self, infers=False)

    def sample_noise(self, key: Key[Array, ""]) -> PEARLNoise:
        size = self.encoder.latent_size
        noise = jax.random.normal(key, (size + self.action_space.size,))
        return PEARLNoise(noise[:size], noise[size:])

    def act(self, memory: PEARLMemory, token: Token, noise: PEARLNoise | None = None) -> tuple[Decision, PEARLMemory]:
        evidence = memory.evidence
        if self.infers:
            seen = self.encoder(self.context(token))
            there = 1.0 - token.start[..., None]
            evidence = evidence + Evidence(there * seen.weighted, there * seen.precision)
        episode = memory.episode + token.done
        latent = jnp.where((token.start | token.done)[..., None], self._drawn(evidence, episode, noise), memory.latent)
        action, log_prob = sac.act(
            self.actor, self.state(token.observation), latent, None if noise is None else noise.action
        )
        decision = Decision(self._stretched(action), log_prob, jnp.zeros_like(log_prob))
        return decision, PEARLMemory(evidence, latent, episode)

    def _drawn(
        self, evidence: Evidence, episode: Int[Array, "*batch"], noise: PEARLNoise | None
    ) -> Float[Array, "*batch latent"]:
        known = (episode >= self.n_prior_episodes)[..., None]
        belief = self.encoder.posterior(evidence)
        mean, std = jnp.where(known, belief.mean, 0.0), jnp.where(known, jnp.exp(belief.log_std), 1.0)
        return mean if noise is None else mean + std * noise.latent

    def context(self, steps: Token) -> Float[Array, "*batch context"]:
        parts = [self.state(steps.last_observation), self.unit_action(steps.action), steps.reward[..., None]]
        if self.next_observation:
            parts.append(self.state(steps.final_observation))
        return jnp.concatenate(parts, axis=-1)

    def state(self, observation: Shaped[Array, "..."]) -> Float[Array, "*batch state"]:
        return self.observation_space.features(observation)

    def unit_action(self, action: Float[Array, "*batch act"]) -> Float[Array, "*batch act"]:
        low, high = self.action_space.low, self.action_space.high
        return (2.0 * action - (high + low)) / (high - low)

    def _stretched(self, action: Float[Array, "*batch act"]) -> Float[Array, "*batch act"]:
        low, high = self.action_space.low, self.action_space.high
        return 0.5 * ((high + low) + (high - low) * action)


def pearl_agent(
    settings: PEARLAgentSettings, env: Env, hidden: Sequence[int]
) -> Callable[[Key[Array, ""]], PEARLAgent]:
    """A function from a key to a fresh agent for this environment.

    Args:
        settings: of the encoder.
        env: the environment, or trials of it.
        hidden: widths of the actor's layers.

    Raises:
        ConfigError: actions are not numbers between bounds.
    """
    space, seen = env.action_space, env.observation_space
    if not isinstance(space, Box) or not (math.isfinite(space.low) and math.isfinite(space.high)):
        what = "without bounds" if isinstance(space, Box) else f"of the space {type(space).__name__}"
        raise ConfigError(
            f"PEARL needs continuous actions between bounds, for its actor-critic is SAC; this family's are {what}. "
            "Choose a family such as point-nav or cheetah-vel, or a recipe of kind 'meta-rl' (RL², VariBAD), which "
            "takes discrete actions."
        )
    n_in = seen.n_features * (1 + settings.next_observation) + space.size + 1

    def make(key: Key[Array, ""]) -> PEARLAgent:
        key_encoder, key_actor = jax.random.split(key)
        encoder = PosteriorEncoder.init(
            key_encoder,
            n_in,
            settings.latent_size,
            settings.encoder_hidden,
            prior_factor=settings.prior_factor,
        )
        actor = sac.make_actor(key_actor, seen.n_features + settings.latent_size, hidden, space.size)
        return PEARLAgent(encoder, actor, seen, space, settings.next_observation, settings.n_prior_episodes)

    return make
