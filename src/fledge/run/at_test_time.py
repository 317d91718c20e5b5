"""The learners that go on at test time, for every kind of agent, and the control that does not adapt."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Array, Key

from fledge.agents.adapt import SUBSET, AdaptSettings
from fledge.agents.build import memory_agent
from fledge.agents.inference import inference_agent
from fledge.agents.maml import adaptive_policy
from fledge.agents.pearl import pearl_agent
from fledge.core.contracts import Learner
from fledge.core.errors import ConfigError
from fledge.envs.trial import Trial
from fledge.learn.inference import InferenceLearner
from fledge.learn.inner import Meta
from fledge.learn.pearl import PEARL
from fledge.learn.policy_gradient import PolicyGradient
from fledge.learn.ppo import PPO
from fledge.run.settings import MAMLRunSettings, PEARLRunSettings, TrainedSettings


@dataclass(frozen=True)
class TestLearner:
    """What trains an agent at test time."""

    __test__ = False  # not a test, whatever its name says to a collector

    learner: Learner
    default: bool = False
    """Whether it is also what the agent does by default (gradient steps)."""
    n_episodes: int | None = None
    """Episodes of the trials that are measured, if not those of training."""


def make_test_learner(
    config: TrainedSettings, trial: Trial, settings: AdaptSettings, n_updates: int, mode: str = "all"
) -> TestLearner:
    """The learner that goes on at test time: the loss of training, its schedules spread over the new budget.

    Agents that were taught by being told the task are told nothing now: their encoder stays, their policy learns on.
    """
    if isinstance(config, MAMLRunSettings):
        return _test_maml(config, trial, settings, n_updates, mode)
    if isinstance(config, PEARLRunSettings):
        return _test_pearl(config, trial, settings, n_updates, mode)
    n_minibatches = math.gcd(config.learner.n_minibatches, settings.n_envs)
    ppo = replace(
        config.learner,
        n_envs=settings.n_envs,
        n_minibatches=n_minibatches,
        unroll_len=0,
        split="train",
        warmup_frac=settings.warmup_frac,
        latent_gradients=False,
    )
    if config.supervision.kind == "reward":
        return TestLearner(PPO(trial, memory_agent(config.agent, trial), ppo, n_updates))
    plain = PPO(trial, inference_agent(config.agent, trial), ppo, n_updates)
    if config.supervision.kind == "varibad":
        return TestLearner(InferenceLearner(plain, replace(config.supervision, task_decoder=False)))
    return TestLearner(plain)


def _test_maml(
    config: MAMLRunSettings, trial: Trial, settings: AdaptSettings, n_updates: int, mode: str
) -> TestLearner:
    """By default inner steps for ever; otherwise those of training first, then Adam on every parameter."""
    s = config.learner
    make_policy = adaptive_policy(config.agent, trial)

    def make_meta(key: Key[Array, ""]) -> Meta:
        return Meta.init(make_policy(key), s.inner, learn_step_sizes=s.learn_step_sizes)

    n_inner = None if mode == "default" else 0 if mode == "scratch" else s.inner.n_steps
    n_warmup = round(settings.warmup_frac * n_updates)
    learner = PolicyGradient(Trial(trial.env, 1), make_meta, s.inner, n_inner, n_warmup=n_warmup)
    return TestLearner(learner, default=s.inner.n_steps > 0, n_episodes=1)


def _test_pearl(
    config: PEARLRunSettings, trial: Trial, settings: AdaptSettings, n_updates: int, mode: str
) -> TestLearner:
    """Encoder, actor and critics on buffers of the one task, with as many gradient steps for a step of the environment
    as in training. It collects as in training, too: `settings.n_envs` says nothing here."""
    if mode.startswith(SUBSET):
        raise ConfigError("PEARL's encoder learns from its critics, so its parts learn on together: use --adapt all.")
    s = config.learner
    n_train_steps = max(1, round(s.n_train_steps / s.n_tasks_sample))
    learner = replace(
        s,
        n_tasks=1,
        n_tasks_sample=1,
        meta_batch=1,
        n_initial_steps=1,
        n_train_steps=n_train_steps,
        n_warmup=round(settings.warmup_frac * n_updates * n_train_steps),
        split="train",
    )
    return TestLearner(PEARL(trial, pearl_agent(config.agent, trial, s.hidden), learner))


def without_memory(config: TrainedSettings) -> dict[str, Any]:
    """The changes (dotted) that make the multi-task control of a run: the same budget, a policy that does not adapt."""
    if isinstance(config, PEARLRunSettings):
        raise ConfigError(
            "There is no PEARL without its posterior to compare with. Take --adapt scratch as the control."
        )
    if isinstance(config, MAMLRunSettings):
        changes = {"learner.inner.n_steps": 0, "learner.inner.adapts": "all", "learner.learn_step_sizes": False}
        return changes | {"learner.objective.sc_coef": 0.0}
    return {"agent.kind": "memoryless", "agent.fields": [], "supervision.kind": "reward"}
