"""From the settings of a recipe to a fresh η."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Array, Key

from fledge.core.contracts import Env
from fledge.learn.eta import EntropySchedule, IntrinsicReward, LossShape, LossWeights
from fledge.learn.lpg import LearnedPolicyGradient
from fledge.run.settings import EtaSettings


def make_eta(settings: EtaSettings, env: Env) -> Callable[[Key[Array, ""]], LossShape]:
    """A function from a key to η as it starts.

    Raises (when called):
        ConfigError: a number that no loss has, or actions that this η cannot read.
    """
    s, spaces = settings, (env.observation_space, env.action_space)

    def make(key: Key[Array, ""]) -> LossShape:
        if s.kind == "reward":
            return IntrinsicReward.init(key, *spaces, hidden=s.hidden, scale=s.reward_scale)
        if s.kind == "schedule":
            return EntropySchedule.init(key, hidden=s.hidden)
        if s.kind == "lpg":
            return LearnedPolicyGradient.init(key, env.action_space, hidden=s.hidden, n_predictions=s.n_predictions)
        return LossWeights.init(s.start)

    return make
