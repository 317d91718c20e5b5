"""What a recipe of each kind can set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fledge.agents.build import MemoryAgentSettings
from fledge.agents.maml import MAMLAgentSettings
from fledge.agents.pearl import PEARLAgentSettings
from fledge.learn.maml import MAMLSettings
from fledge.learn.online_meta import OnlineMetaSettings
from fledge.learn.pearl import PEARLSettings
from fledge.learn.ppo import PPOSettings
from fledge.learn.supervision import SupervisionSettings

Scalar = bool | int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]
"""What a setting of an environment may be."""


@dataclass(frozen=True)
class EnvSettings:
    """Which family, how many episodes to a trial, and what to change in the family's own settings."""

    family: str = "gridnav"
    """A name of `fledge ls envs`, or `module:Name` for a class of one's own."""
    n_episodes: int = 4
    settings: dict[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainSettings:
    """How long, how often, how finely."""

    env_steps: int = 1_000_000
    """Environment steps of each seed, rounded to whole chunks of updates."""
    seeds: int = 1
    """Independent runs, trained side by side in one program."""
    first_seed: int = 0
    n_chunks: int = 50
    """About how many calls of the compiled program; metrics and checkpoints come between two of them."""
    checkpoint_every: int = 10
    """In chunks; there is always one at the end."""


@dataclass(frozen=True)
class EvaluationSettings:
    """What is measured after training."""

    split: Literal["train", "test", "ood"] = "test"
    n_tasks: int = 0
    """0 takes every task of a split that can be listed."""
    n_repeats: int = 10
    """Trials per task with sampled actions; their mean is kept."""
    greedy_too: bool = True
    """Also measure with the most likely action each step (one trial per task)."""
    references: tuple[str, ...] = ()
    """Agents that nobody trained, for comparison."""
    n_pictures: int = 6
    """Tasks whose walked paths are kept for pictures, where the environment has any."""
    seed: int = 0
    """Of the evaluation's own randomness: the same for all seeds and all recipes, so that they meet the same tasks."""


@dataclass(frozen=True)
class MetaRLSettings:
    """Train an agent with a memory over a family of tasks, and measure how fast it adapts."""

    env: EnvSettings = field(default_factory=EnvSettings)
    agent: MemoryAgentSettings = field(default_factory=MemoryAgentSettings)
    learner: PPOSettings = field(default_factory=PPOSettings)
    supervision: SupervisionSettings = field(default_factory=SupervisionSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)


@dataclass(frozen=True)
class PEARLRunSettings:
    """Train PEARL, off-policy, over a family of tasks, and measure how fast it adapts."""

    env: EnvSettings = field(default_factory=EnvSettings)
    agent: PEARLAgentSettings = field(default_factory=PEARLAgentSettings)
    learner: PEARLSettings = field(default_factory=PEARLSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)


@dataclass(frozen=True)
class MAMLRunSettings:
    """Meta-learn what gradient steps adapt, over a family of tasks. `env.n_episodes` is a multiple of the inner loop's
    `batch_size`: after each batch of a trial comes a step, in evaluation too."""

    env: EnvSettings = field(default_factory=lambda: EnvSettings("point-nav", 40))
    agent: MAMLAgentSettings = field(default_factory=MAMLAgentSettings)
    learner: MAMLSettings = field(default_factory=MAMLSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)


@dataclass(frozen=True)
class EtaSettings:
    """What is learnt about learning (`fledge.learn.eta`, `fledge.learn.lpg`), and what it is compared with."""

    kind: Literal["weights", "reward", "schedule", "lpg"] = "weights"
    start: dict[str, float] = field(default_factory=lambda: {"discount": 0.9, "gae_lambda": 0.9})
    """`weights`: numbers of the loss that are learnt → where they start, in (0, 1)."""
    hidden: int = 32
    """Units of the network, for the other kinds."""
    reward_scale: float = 0.1
    """`reward`: bound of the intrinsic reward."""
    n_predictions: int = 8
    """`lpg`: categories that an agent predicts."""
    hand_set: dict[str, float] = field(default_factory=dict)
    """Numbers of the control's loss, laid over the usual ones."""


@dataclass(frozen=True)
class LifetimeRunSettings:
    """Learn η along lives on tasks of a family, then let fresh lives learn with it, beside a life with numbers that a
    person set and as many updates. `train.env_steps` counts those of all lives; `env.n_episodes` is 1."""

    env: EnvSettings = field(default_factory=lambda: EnvSettings("mdp", 1))
    agent: MAMLAgentSettings = field(default_factory=lambda: MAMLAgentSettings(hidden=()))
    eta: EtaSettings = field(default_factory=EtaSettings)
    learner: OnlineMetaSettings = field(default_factory=OnlineMetaSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)


TrainedSettings = MetaRLSettings | PEARLRunSettings | MAMLRunSettings
"""What trains one agent and measures its adaptation: the arms of studies, and what can be loaded."""
LoopSettings = TrainedSettings | LifetimeRunSettings
"""What the training loop runs."""


@dataclass(frozen=True)
class StudySettings:
    """Several agents side by side, at the same scale, with the same budget, on one environment or several."""

    recipes: tuple[str, ...] = ()
    """Arms that are recipes as they are, by name."""
    arms: dict[str, dict[str, Scalar]] = field(default_factory=dict)
    """Arm → `recipe`, and dotted settings laid over it."""
    cases: dict[str, dict[str, Scalar]] = field(default_factory=dict)
    """Case → dotted settings laid over every arm: the same comparison on each environment; beside them `arms`, those
    that take part (without it: all). None: one case, unnamed."""
    claims: tuple[str, ...] = ()
    """What the paper says about the order of arms, as "A > B": B's trials earn less (after the last gradient step,
    where a curve counts those). "A @ 1 > A @ 0" compares points of curves: episodes from 1, or gradient steps from 0.
    Tested by the chance of improvement, in every case that has both arms, or in one as "case: A > B"."""
    published: dict[str, float] = field(default_factory=dict)
    """Arm (or "case: arm") → the published return of a trial, where there is one."""
    learning_rates: tuple[float, ...] = ()
    """Candidates, the same for every arm. Each is tried on `selection_seeds` seeds that are not reported; the one with
    the best mean return over training is then run on fresh ones."""
    selection_seeds: int = 2
    """Seeds per candidate."""
    overrides: dict[str, Scalar] = field(default_factory=dict)
    """Dotted setting → value, laid over every arm."""
