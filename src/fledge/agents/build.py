"""Agents from settings: a memory times a conditioning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jaxtyping import Array, Key

from fledge.agents.memories import MEMORIES, make_memory
from fledge.agents.recurrent import MemoryAgent
from fledge.core.contracts import Env
from fledge.core.errors import ConfigError, unknown
from fledge.core.normalise import RunningStats
from fledge.nets.policy import ActorCritic
from fledge.nets.tokens import EVERYTHING_NEW, TokenEncoder


@dataclass(frozen=True)
class MemoryAgentSettings:
    """A memory times a conditioning. The defaults are RL², latent only.

    `kind` names a preset of what is read: `rl2` (last transition and observation), `varibad` (what the last action
    brought, the observation being the policy's), `memoryless` (observation only) or `oracle` (observation and task).
    `state_embedding` > 0 shows the observation to the policy too (RNN+S). `latent_size` is d_lat of agents that infer
    the task.
    """

    kind: str = "rl2"
    memory: str = "gru"
    memory_size: int = 64
    fields: tuple[str, ...] = ()
    joint_embedding: int = 32
    observation_embedding: int = 32
    action_embedding: int = 8
    reward_embedding: int = 8
    hidden: tuple[int, ...] = ()
    latent_size: int = 0
    latent_embedding: int = 0
    state_embedding: int = 0
    normalise_observations: bool = False


PRESETS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "rl2": (EVERYTHING_NEW, None),
    "varibad": (("action", "reward", "done", "final_observation"), None),
    "memoryless": (("observation",), "none"),
    "oracle": (("observation", "task"), "none"),
}
"""Name → (token fields, memory if it is not the settings')."""


def memory_agent(settings: MemoryAgentSettings, env: Env) -> Callable[[Key[Array, ""]], MemoryAgent]:
    """A function from a key to a fresh agent for this environment.

    Raises:
        ConfigError: an unknown preset, memory or token field.
    """
    if settings.kind not in PRESETS:
        raise unknown("agent", settings.kind, PRESETS)
    fields, memory_name = PRESETS[settings.kind]
    fields, memory_name = settings.fields or fields, memory_name or settings.memory
    if memory_name not in MEMORIES:
        raise unknown("memory", memory_name, MEMORIES)
    if settings.memory_size < 1:
        raise ConfigError(f"memory_size is the number of units, at least 1; got {settings.memory_size}.")
    task_size = jax.eval_shape(lambda key: env.task_vector(env.sample(key)), jax.random.key(0)).shape[0]

    def make(key: Key[Array, ""]) -> MemoryAgent:
        key_encoder, key_memory, key_policy = jax.random.split(key, 3)
        encoder = TokenEncoder.init(
            key_encoder,
            env.observation_space,
            env.action_space,
            fields=fields,
            task_size=task_size,
            joint=settings.joint_embedding,
            sizes={
                "observation": settings.observation_embedding,
                "action": settings.action_embedding,
                "reward": settings.reward_embedding,
            },
        )
        memory = make_memory(memory_name, key_memory, encoder.out_size(), settings.memory_size, horizon=env.horizon)
        policy = make_policy(key_policy, settings, env, memory.out_size)
        size = env.observation_space.n_features
        return MemoryAgent(
            encoder, memory, policy, RunningStats.init((size,)) if settings.normalise_observations else None
        )

    return make


def make_policy(key: Key[Array, ""], settings: MemoryAgentSettings, env: Env, latent_size: int) -> ActorCritic:
    """Actor and critic on latents of this size."""
    return ActorCritic.init(
        key,
        latent_size,
        env.observation_space,
        env.action_space,
        hidden=settings.hidden,
        latent_embedding=settings.latent_embedding,
        state_embedding=settings.state_embedding,
    )


def summary(agent: Any) -> str:
    """One line about an agent: its parts and how many parameters it has."""
    count = sum(leaf.size for leaf in jax.tree.leaves(agent))
    return f"{type(agent).__name__} with {type(agent.memory).__name__}, {count:,} parameters"
