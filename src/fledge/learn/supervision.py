"""What trains the memory of a recipe, and how: the settings of every kind of supervision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fledge.core.errors import ConfigError
from fledge.learn.elbo import ELBOSettings

Kind = Literal["reward", "varibad", "ti-naive", "ti", "ti++", "bi++"]
MULTI_TASK = ("ti", "ti++", "bi++")
"""Kinds that begin with a phase in which the policy is told the task."""


@dataclass(frozen=True)
class SupervisionSettings:
    """What trains the memory.

    `reward`: the policy gradient alone, through the policy (RL²). `varibad`: decoding rewards. `ti-naive`: the task
    vector. `ti`: its embedding g(c), learnt beforehand by a policy that is told the task for `multi_task_updates`
    updates, whose frames count; then the policy starts anew and g stays. `ti++`: the same without starting anew, the
    inference loss running from the beginning. `bi++`: as `ti++`, but regressing the policy's generated weights.

    As released the task-inference family decodes rewards as well; the papers describe the task alone, and so it is here
    unless `reward_decoder` says otherwise.
    """

    kind: Kind = "reward"
    reward_decoder: Literal["auto", "none", "mlp", "cells"] = "auto"
    """`cells`: a logit per cell of a grid world; `auto`: for `varibad` that or, elsewhere, `mlp`; otherwise none."""
    state_decoder: bool = False
    task_decoder: bool = False
    """Also decode the task vector (`varibad`; the others always decode their own)."""
    decoder_hidden: tuple[int, ...] = (32, 32)
    elbo: ELBOSettings = field(default_factory=ELBOSettings)
    n_updates: int = 3
    """Gradient steps of the inference loss per iteration."""
    n_trials: int = 25
    """In each."""
    capacity: int = 10_000
    """Trials that are kept to draw from, first in, first out."""
    learning_rate: float = 1e-3
    learning_rate_end: float | None = None
    """Linearly reached at the end of training; None keeps the rate (published). Where the policy's rate decays this one
    should too: a policy that hardly learns any more cannot follow beliefs that still change their meaning."""
    multi_task_updates: int = 100

    def __post_init__(self) -> None:
        counts = {"n_updates": self.n_updates, "n_trials": self.n_trials, "capacity": self.capacity}
        faults = [f"{name} is at least 1, not {value}." for name, value in counts.items() if value < 1]
        if self.learning_rate <= 0:
            faults.append(f"learning_rate is above 0, not {self.learning_rate}.")
        if self.multi_task_updates < 0:
            faults.append(f"multi_task_updates is at least 0, not {self.multi_task_updates}.")
        if faults:
            raise ConfigError(" ".join(faults))

    @property
    def embeds_task(self) -> bool:
        """Whether the agent has a task embedding."""
        return self.kind in MULTI_TASK

    @property
    def decodes_task(self) -> bool:
        """Whether something about the task is decoded: then the agent has to be told it in training."""
        return self.task_decoder or self.kind not in ("reward", "varibad")
