"""From the settings of a recipe that trains an agent to environments and learners, and all that can be wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
from jaxtyping import Array, Key

from fledge.agents.build import PRESETS, memory_agent, strange_tasks
from fledge.agents.inference import inference_agent
from fledge.agents.maml import MAMLAgent, adaptive_policy
from fledge.agents.memories import MEMORIES
from fledge.agents.pearl import pearl_agent
from fledge.agents.references import make_reference
from fledge.core.contracts import Env, Learner, ReplayAgent
from fledge.core.errors import ConfigError, FledgeError, unknown
from fledge.core.types import SPLITS
from fledge.envs import families
from fledge.envs.check import check_env
from fledge.envs.trial import Trial
from fledge.learn.devices import place
from fledge.learn.eta import usual
from fledge.learn.inference import InferenceLearner
from fledge.learn.inner import Meta
from fledge.learn.loop import Loop
from fledge.learn.maml import MAML
from fledge.learn.online_meta import OnlineMeta
from fledge.learn.pearl import PEARL
from fledge.learn.ppo import PPO
from fledge.nets.tokens import FIELDS
from fledge.run.eta import make_eta
from fledge.run.settings import (
    EnvSettings,
    LifetimeRunSettings,
    LoopSettings,
    MAMLRunSettings,
    MetaRLSettings,
    PEARLRunSettings,
    TrainedSettings,
)

LIMITS: dict[str, tuple[float, float]] = {
    "env.n_episodes": (1, math.inf),
    "agent.joint_embedding": (0, math.inf),
    "agent.observation_embedding": (0, math.inf),
    "agent.action_embedding": (0, math.inf),
    "agent.reward_embedding": (0, math.inf),
    "agent.latent_size": (0, math.inf),
    "agent.latent_embedding": (0, math.inf),
    "agent.state_embedding": (0, math.inf),
    "agent.memory_size": (1, math.inf),
    "learner.n_envs": (1, math.inf),
    "learner.unroll_len": (0, math.inf),
    "learner.n_epochs": (1, math.inf),
    "learner.n_minibatches": (1, math.inf),
    "learner.discount": (0, 1),
    "learner.gae_lambda": (0, 1),
    "learner.clip_ratio": (0, math.inf),
    "learner.huber": (0, math.inf),
    "learner.learning_rate": (0, math.inf),
    "learner.adam_eps": (0, math.inf),
    "learner.max_grad_norm": (0, math.inf),
    "train.env_steps": (1, math.inf),
    "train.seeds": (1, math.inf),
    "train.first_seed": (0, 2**31),
    "train.n_chunks": (1, math.inf),
    "train.checkpoint_every": (1, math.inf),
    "evaluation.n_tasks": (0, math.inf),
    "evaluation.n_repeats": (1, math.inf),
    "evaluation.n_pictures": (0, math.inf),
}
"""Dotted setting → lowest and highest value that makes sense."""


@dataclass(frozen=True)
class Plan:
    """How a training run is cut: `n_chunks` calls of `chunk_len` updates."""

    n_chunks: int
    chunk_len: int
    steps_per_update: int

    @property
    def n_updates(self) -> int:
        """Updates in all."""
        return self.n_chunks * self.chunk_len

    @property
    def steps_per_chunk(self) -> int:
        """Environment steps of each seed between two looks at training."""
        return self.chunk_len * self.steps_per_update

    @property
    def env_steps(self) -> int:
        """Environment steps of each seed in all."""
        return self.n_updates * self.steps_per_update


def make_env(settings: EnvSettings) -> Env:
    """The environment: a row of the table of families, or a class of the user's own."""
    make = families.load if ":" in settings.family else families.make
    return make(settings.family, **settings.settings)


def make_trial(settings: EnvSettings) -> Trial:
    """Trials of the environment."""
    return Trial(make_env(settings), settings.n_episodes)


def plan_of(config: LoopSettings, trial: Trial) -> Plan:
    """Updates and chunks; `train.env_steps` is rounded to whole chunks."""
    if isinstance(config, PEARLRunSettings):
        steps_per_update = config.learner.steps_per_update(trial.env.horizon)
    elif isinstance(config, (MAMLRunSettings, LifetimeRunSettings)):
        steps_per_update = make_learner(config, trial).steps_per_update
    else:
        steps_per_update = (config.learner.unroll_len or trial.horizon) * config.learner.n_envs
    n_updates = max(1, round(config.train.env_steps / steps_per_update))
    chunk_len = max(1, n_updates // config.train.n_chunks)
    return Plan(n_updates // chunk_len, chunk_len, steps_per_update)


def make_learner(config: LoopSettings, trial: Trial, split: str | None = None) -> Learner:
    """The learner of these settings; `split` as in `PPO`."""
    if isinstance(config, PEARLRunSettings):
        return PEARL(trial, pearl_agent(config.agent, trial, config.learner.hidden), config.learner)
    if isinstance(config, MAMLRunSettings):
        return make_maml(config, trial)
    if isinstance(config, LifetimeRunSettings):
        return make_online_meta(config, trial)
    ppo = PPO(trial, make_agent(config, trial), config.learner, plan_of(config, trial).n_updates, split)
    return ppo if config.supervision.kind == "reward" else InferenceLearner(ppo, config.supervision)


def make_maml(config: MAMLRunSettings, trial: Trial) -> MAML:
    """The learner of the MAML family: it plays single episodes, and counts them itself."""
    inner, horizon = config.learner.inner, trial.env.horizon

    def wrap(meta: Meta) -> MAMLAgent:
        return MAMLAgent(meta, inner, horizon)

    return MAML(Trial(trial.env, 1), adaptive_policy(config.agent, trial), wrap, config.learner)


def make_online_meta(config: LifetimeRunSettings, trial: Trial) -> OnlineMeta:
    """The learner of η along lives."""
    return OnlineMeta(trial, adaptive_policy(config.agent, trial), make_eta(config.eta, trial), config.learner)


def make_agent(config: MetaRLSettings, trial: Trial) -> Callable[[Key[Array, ""]], ReplayAgent]:
    """A function from a key to a fresh agent of these settings."""
    supervision = config.supervision
    if supervision.kind == "reward":
        return memory_agent(config.agent, trial)
    told = {"embeds_task": supervision.embeds_task, "reads_task": supervision.decodes_task}
    return inference_agent(config.agent, trial, **told)


def make_loop(config: LoopSettings, trial: Trial) -> Loop:
    """The training program, on the devices of this process."""
    shared = 1  # only PPO shares out its minibatches
    if isinstance(config, MetaRLSettings):
        shared = config.learner.n_envs // config.learner.n_minibatches
    placement = place(config.train.seeds, shared)
    learner = make_learner(config, trial, placement.split)
    return Loop(learner, plan_of(config, trial).chunk_len, placement)


def faults_of(config: LoopSettings, *, exam: bool = True) -> list[str]:
    """Everything that is wrong with settings whose types are right, as sentences.

    Args:
        config: the settings.
        exam: a user's own environment takes the exam of its contract (seconds).
    """
    faults = _limits(config)
    trial: Trial | None = None
    try:
        trial = make_trial(config.env)
    except FledgeError as error:
        faults.append(f"env: {error}")
    if trial is not None and exam and ":" in config.env.family:
        faults += [f"env: {config.env.family}: {finding}" for finding in check_env(trial.env)]
    if isinstance(config, PEARLRunSettings):
        if trial is not None and not faults:
            faults += _once(config, lambda: _learner_built(config, trial, "agent"))
    elif isinstance(config, LifetimeRunSettings):
        faults += _lifetime_faults(config, trial if not faults else None)
    elif isinstance(config, MAMLRunSettings):
        faults += _maml_faults(config, trial if not faults else None)
    else:
        faults += _agent_faults(config, trial if not faults else None)
        faults += _learner_faults(config)
    if trial is not None:
        faults += _evaluation_faults(config, trial)
    return faults


def _maml_faults(config: MAMLRunSettings, trial: Trial | None) -> list[str]:
    size, n_episodes = config.learner.inner.batch_size, config.env.n_episodes
    faults = []
    if n_episodes % size or n_episodes < 2 * size:
        faults.append(
            f"env.n_episodes: a gradient step comes after every {size} episodes (learner.inner.batch_size), and trials "
            f"have {n_episodes}. Make it a multiple, {2 * size} or more."
        )
    if config.learner.split not in SPLITS:
        faults.append(f"learner.split: {unknown('split', config.learner.split, SPLITS)}")
    if trial is not None and not faults:
        faults += _raised("learner", lambda: jax.eval_shape(make_maml(config, trial).init, jax.random.key(0)))
    if trial is not None and not faults and config.learner.inner.adapts == "context" and not config.agent.context_size:
        faults.append(
            "agent.context_size: learner.inner.adapts = 'context' moves a context, and its size is 0. CAVIA took 5 for "
            "2D navigation."
        )
    return faults


def _lifetime_faults(config: LifetimeRunSettings, trial: Trial | None) -> list[str]:
    faults = _raised("eta.hand_set", lambda: usual(config.eta.hand_set))
    if config.env.n_episodes != 1:
        faults.append(f"env.n_episodes is 1 for lives (learner.life_len counts updates), not {config.env.n_episodes}.")
    if trial is not None and not faults:
        faults += _raised("eta", lambda: jax.eval_shape(make_learner(config, trial).init, jax.random.key(0)))
    return faults


def _limits(config: LoopSettings) -> list[str]:
    faults = []
    for key, (low, high) in LIMITS.items():
        table, _, name = key.partition(".")
        value = getattr(getattr(config, table), name, None)
        if value is None:
            continue  # a setting of another kind of recipe
        if not low <= value <= high:
            wanted = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
            faults.append(f"{key} is {wanted}, not {value:g}.")
    return faults


def _agent_faults(config: MetaRLSettings, trial: Trial | None) -> list[str]:
    settings = config.agent
    faults = [
        f"agent.{key}: {unknown(what, name, known)}"
        for key, what, name, known in (
            ("kind", "agent", settings.kind, PRESETS),
            ("memory", "memory", settings.memory, MEMORIES),
        )
        if name not in known
    ]
    faults += [
        f"agent.fields: {unknown('token field', name, FIELDS)}" for name in settings.fields if name not in FIELDS
    ]
    return faults if trial is None or faults else _once(config, lambda: _built(config, trial))


def _built(config: MetaRLSettings, trial: Trial) -> list[str]:
    """What is wrong with the agent, and with a learner that tells it the task: both are built without any numbers."""
    told = config.supervision.kind != "reward"
    faults = _learner_built(config, trial, "supervision") if told else []
    if told and not faults:
        return []  # the agent was built with it
    return _raised("agent", lambda: jax.eval_shape(make_agent(config, trial), jax.random.key(0))) or faults


def _learner_built(config: TrainedSettings, trial: Trial, where: str) -> list[str]:
    return _raised(where, lambda: jax.eval_shape(make_learner(config, trial).init, jax.random.key(0)))


_EXAMINED: dict[tuple[str, Any], list[str]] = {}
"""What was wrong with the agents built so far, by all that says how they are built: a study's arms are examined at
every scale, and most differ only in how long they train."""


def _once(config: TrainedSettings, exam: Callable[[], list[str]]) -> list[str]:
    """What the exam says of these settings, or said of settings that build the same. A class of the user's own is
    examined every time: it may have been rewritten since."""
    if ":" in config.env.family:
        return exam()
    parts: tuple[Any, ...] = (config.env, config.agent, config.learner)
    memory = None
    if isinstance(config, MetaRLSettings):
        memory = MEMORIES[config.agent.memory]
        rewarded = config.supervision.kind == "reward"  # by a learner that any agent suits
        parts = parts[:2] if rewarded else (*parts, config.supervision)
    key = (repr(parts), memory)
    if key not in _EXAMINED:
        _EXAMINED[key] = exam()
    return list(_EXAMINED[key])


def _learner_faults(config: MetaRLSettings) -> list[str]:
    s = config.learner
    faults = []
    if s.n_minibatches >= 1 and s.n_envs % s.n_minibatches:
        faults.append(
            f"learner.n_minibatches: {s.n_envs} environments cannot be cut into {s.n_minibatches} equal parts. "
            "Make n_envs a multiple of n_minibatches."
        )
    if s.split not in SPLITS:
        faults.append(f"learner.split: {unknown('split', s.split, SPLITS)}")
    if s.latent_gradients and config.supervision.kind != "reward":
        faults.append(
            "learner.latent_gradients: it is measured where the policy gradient reaches the latent, with "
            f"supervision.kind = 'reward', not '{config.supervision.kind}'. Set it to false."
        )
    return faults


def _evaluation_faults(config: LoopSettings, trial: Trial) -> list[str]:
    faults = []
    for name in config.evaluation.references:
        faults += _raised("evaluation.references", lambda: make_reference(name, trial))  # noqa: B023
    if config.evaluation.n_tasks == 0 and trial.enumerate(config.evaluation.split) is None:
        faults.append(
            f"evaluation.n_tasks: 0 means every task, but the tasks of '{config.env.family}' cannot be listed. "
            "Say how many to draw."
        )
    if isinstance(config, MetaRLSettings):
        faults += _raised("evaluation.split", lambda: _refuse_strange(config, trial))
    return faults


def _refuse_strange(config: MetaRLSettings, trial: Trial) -> None:
    split = config.evaluation.split
    n = strange_tasks(config.agent.kind, trial, split) if config.agent.kind in PRESETS else 0
    if n:
        raise ConfigError(
            f"'{config.agent.kind}' knows the training tasks only, and {n} tasks of '{split}' are none of them. "
            "Measure it on 'train'."
        )


def _raised(where: str, call: Callable[[], Any]) -> list[str]:
    try:
        call()
    except FledgeError as error:
        return [f"{where}: {error}"]
    return []


def one_seed(config: TrainedSettings, seed: int) -> TrainedSettings:
    """The settings that train only this seed."""
    return replace(config, train=replace(config.train, seeds=1, first_seed=seed))
