"""Agents from settings: a memory times a conditioning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from fledge.agents.memories import MEMORIES, make_memory
from fledge.agents.recurrent import MemoryAgent
from fledge.core.contracts import Env
from fledge.core.errors import ConfigError, unknown
from fledge.core.normalise import RunningStats
from fledge.nets.blocks import ACTIVATIONS, Linear
from fledge.nets.conditioned import ConditionedActorCritic
from fledge.nets.film import FILM_INITS
from fledge.nets.hyper import HYPER_INITS
from fledge.nets.policy import ActorCritic
from fledge.nets.tokens import EVERYTHING_NEW, TaskIdEncoder, TokenEncoder


@dataclass(frozen=True)
class MemoryAgentSettings:
    """A memory times a conditioning. The defaults are RL², latent only.

    `kind` names a preset of what is read: `rl2` (last transition and observation), `varibad` (what the last action
    brought, the observation being the policy's), `memoryless` (observation only) or `oracle` (observation and task).
    Three more are told *which* training task it is, as an id, and have no memory: `multi-task` (the id, embedded by
    `latent_embedding`, is the latent of whichever conditioning), `multi-head` (a head per task) and `multi-net` (a
    network per task). They bound what agents that have to find out can earn on the training tasks.

    `conditioning` says how the latent reaches the policy: "latent" is its input, alone or, where `state_embedding` > 0,
    beside the embedded observation ("state" is the same and insists on it: RNN+S); "hyper" generates the policy's
    weights from it and "film" scales and shifts its units, and the policy's input is the observation. `hyper_init` is
    theirs alone. `latent_size` d puts a linear layer of width 2d between memory and policy (a mean and a log-variance,
    where a method reads them so: d_lat of agents that infer the task); 0 leaves it out. `bounded_mean` keeps the mean
    of continuous actions within their bounds (`fledge.nets.policy.ActionHead`).
    """

    kind: str = "rl2"
    memory: str = "gru"
    memory_size: int = 64
    fields: tuple[str, ...] = ()
    joint_embedding: int = 32
    observation_embedding: int = 32
    action_embedding: int = 8
    reward_embedding: int = 8
    conditioning: Literal["latent", "state", "hyper", "film"] = "latent"
    hyper_init: str = "bias"
    hidden: tuple[int, ...] = ()
    activation: str = "tanh"
    latent_size: int = 0
    latent_embedding: int = 0
    state_embedding: int = 0
    normalise_observations: bool = False
    bounded_mean: bool = False


PRESETS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "rl2": (EVERYTHING_NEW, None),
    "varibad": (("action", "reward", "done", "final_observation"), None),
    "memoryless": (("observation",), "none"),
    "oracle": (("observation", "task"), "none"),
    "multi-task": (("task",), "none"),
    "multi-head": (("task",), "none"),
    "multi-net": (("task",), "none"),
}
"""Name → (token fields, memory if it is not the settings')."""

PER_TASK = ("multi-head", "multi-net")
BY_ID = ("multi-task", *PER_TASK)
"""Presets that are told the number of the training task."""


def memory_agent(settings: MemoryAgentSettings, env: Env) -> Callable[[Key[Array, ""]], MemoryAgent]:
    """A function from a key to a fresh agent for this environment.

    Raises:
        ConfigError: an unknown preset, memory, token field, activation or initialisation, or "state" without a size.
    """
    _check_conditioning(settings)
    if settings.kind not in PRESETS:
        raise unknown("agent", settings.kind, PRESETS)
    fields, memory_name = PRESETS[settings.kind]
    fields, memory_name = settings.fields or fields, memory_name or settings.memory
    if memory_name not in MEMORIES:
        raise unknown("memory", memory_name, MEMORIES)
    if settings.memory_size < 1:
        raise ConfigError(f"memory_size is the number of units, at least 1; got {settings.memory_size}.")
    rows = task_rows(settings.kind, env) if settings.kind in BY_ID else None
    task_size = jax.eval_shape(lambda key: env.task_vector(env.sample(key)), jax.random.key(0)).shape[0]

    def make(key: Key[Array, ""]) -> MemoryAgent:
        key_encoder, key_memory, key_policy = jax.random.split(key, 3)
        encoder: TokenEncoder | TaskIdEncoder
        if rows is None:
            encoder = _token_encoder(key_encoder, settings, env, fields, task_size)
        else:
            encoder = TaskIdEncoder(rows, env.observation_space)
        memory = make_memory(memory_name, key_memory, encoder.out_size(), settings.memory_size, horizon=env.horizon)
        latent_size, to_latent = memory.out_size, None
        if settings.latent_size:
            latent_size = 2 * settings.latent_size
            to_latent = Linear.init(jax.random.fold_in(key_policy, 1), memory.out_size, latent_size)
        policy = make_policy(key_policy, settings, env, latent_size)
        size = env.observation_space.n_features
        statistics = RunningStats.init((size,)) if settings.normalise_observations else None
        return MemoryAgent(encoder, memory, policy, statistics, to_latent)

    return make


def _token_encoder(
    key: Key[Array, ""], settings: MemoryAgentSettings, env: Env, fields: tuple[str, ...], task_size: int
) -> TokenEncoder:
    return TokenEncoder.init(
        key,
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


def task_rows(kind: str, env: Env, split: str = "train") -> Float[Array, "task vector"]:
    """The task vectors of a split whose tasks can be listed and told apart.

    Raises:
        ConfigError: they cannot.
    """
    tasks = env.enumerate(split)
    instead = 'Tell it the task as a vector instead: kind = "oracle" (with fields = ["task"] as a latent alone).'
    if tasks is None:
        raise ConfigError(
            f'kind = "{kind}" is told the number of the training task, but the tasks of this family cannot be listed. '
            f"{instead}"
        )
    rows = jax.vmap(env.task_vector)(tasks)
    if len(np.unique(np.asarray(rows), axis=0)) < len(rows):
        raise ConfigError(f'kind = "{kind}" knows a task by its vector, but here two tasks share one. {instead}')
    return rows


def strange_tasks(kind: str, env: Env, split: str) -> int:
    """How many tasks of a split an agent that is told the number of the training task has never met."""
    if kind not in BY_ID or env.enumerate("train") is None or env.enumerate(split) is None:
        return 0
    known, met = task_rows(kind, env), task_rows(kind, env, split)
    return int(np.sum(~np.asarray(met[:, None] == known[None]).all(-1).any(-1)))


def make_policy(
    key: Key[Array, ""], settings: MemoryAgentSettings, env: Env, latent_size: int
) -> ActorCritic | ConditionedActorCritic:
    """Actor and critic on latents of this size."""
    spaces = env.observation_space, env.action_space
    sizes: dict[str, Any] = {
        "hidden": settings.hidden,
        "latent_embedding": settings.latent_embedding,
        "state_embedding": settings.state_embedding,
        "activation": settings.activation,
        "bounded_mean": settings.bounded_mean,
    }
    if settings.kind in PER_TASK:
        del sizes["latent_embedding"]
        return ConditionedActorCritic.per_task(
            key, latent_size, *spaces, heads_only=settings.kind == "multi-head", **sizes
        )
    if settings.conditioning in ("latent", "state"):
        return ActorCritic.init(key, latent_size, *spaces, **sizes)
    sizes |= {"conditioning": settings.conditioning, "hyper_init": settings.hyper_init}
    return ConditionedActorCritic.init(key, latent_size, *spaces, **sizes)


def _check_conditioning(settings: MemoryAgentSettings) -> None:
    if settings.conditioning == "state" and settings.state_embedding < 1:
        raise ConfigError('conditioning = "state" needs a state_embedding of at least 1; Beck et al. (2023) took 25.')
    if settings.kind == "multi-task" and settings.conditioning == "latent" and settings.state_embedding < 1:
        raise ConfigError(
            'kind = "multi-task" has no memory, so its policy has to read the observation: give it a state_embedding, '
            'or conditioning = "hyper".'
        )
    if settings.kind in PER_TASK and settings.latent_size:
        raise ConfigError(f'kind = "{settings.kind}" picks networks by the task\'s number: leave latent_size at 0.')
    known = FILM_INITS if settings.conditioning == "film" else HYPER_INITS
    if settings.hyper_init not in known:
        raise unknown("hyper_init", settings.hyper_init, known)
    if settings.activation not in ACTIVATIONS:
        raise unknown("activation", settings.activation, ACTIVATIONS)


def summary(agent: Any) -> str:
    """One line about an agent: its parts and how many parameters it has."""
    count = sum(leaf.size for leaf in jax.tree.leaves(agent))
    return f"{type(agent).__name__} with {type(agent.memory).__name__}, {count:,} parameters"
