"""The inference loss: what a chain of posteriors over the task explains of whole trials (VariBAD and task inference).

For a trial of T transitions there are T + 1 posteriors q_0 (nothing seen) … q_T, and T + 1 terms

    L_t = Σ_i error(step i | m_t) + error(task | m_t) + w · KL_t,   m_t ~ q_t,   KL_t = KL(q_t ‖ q_{t−1}),

where i runs over the *whole* trial, past and future. The loss is Σ_t L_t, its mean over trials taken.

What the released code does otherwise (Zintgraf et al. 2020; Beck et al. 2022, 2023): it averages reward and state
errors over trials but *sums* KL and task errors over them, and with sub-sampled terms picks the KL by a flat index
list, so that each picked row counts once more per trial: with B trials the KL weighs B² times what the paper says. And
it sums sub-sampled terms and steps as they are, so that their number is a hidden weight between the parts. Here every
part is a mean over trials, and sub-sampled sums are scaled by how many stand for how many: their expectation is the
full sum. Settings from those papers have to be read with that in mind.

Reference: Zintgraf et al., VariBAD, ICLR 2020, eqs. 5-10 and appendix A.
"""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from fledge.core.distributions import DiagonalNormal
from fledge.core.errors import ConfigError
from fledge.core.types import Token
from fledge.nets.decoders import CellRewardDecoder, RewardDecoder, StateDecoder, TaskDecoder
from fledge.nets.latent import chain_kl, posterior


@dataclass(frozen=True)
class ELBOSettings:
    """Weights of the parts, and how many terms and steps stand for all. The defaults are the published ones."""

    kl_weight: float = 1.0
    kl_to_standard: bool = False
    """KL_t to N(0, I) at every t, instead of to the posterior of the step before."""
    reward_coef: float = 1.0
    state_coef: float = 1.0
    task_coef: float = 1.0
    n_terms: int = 0
    """Posteriors of each trial that are decoded, drawn with replacement; 0 takes all."""
    n_decoded: int = 0
    """Steps of each trial that they decode, drawn with replacement; 0 takes all."""

    def __post_init__(self) -> None:
        if self.n_terms < 0 or self.n_decoded < 0:
            raise ConfigError(f"n_terms and n_decoded are counts, 0 for all; got {self.n_terms} and {self.n_decoded}.")


class Decoders(eqx.Module):
    """What is decoded from a latent; None for what is not."""

    reward: RewardDecoder | CellRewardDecoder | None = None
    state: StateDecoder | None = None
    task: TaskDecoder | None = None


class Trials(eqx.Module):
    """Whole trials, padded at their ends. `steps` holds step i as the token that is seen *after* it."""

    steps: Token
    """Leaves have the axes (step, batch)."""
    real: Bool[Array, "step batch"]
    """Which steps are real: ones, then zeros."""

    @property
    def lengths(self) -> Int[Array, " batch"]:
        """Steps of each trial."""
        return jnp.sum(self.real, axis=0)


def inference_loss(
    key: Key[Array, ""],
    beliefs: Float[Array, "term batch twice"],
    decoders: Decoders,
    trials: Trials,
    settings: ELBOSettings,
    *,
    target: Float[Array, "batch task"] | None = None,
    counts: Float[Array, " batch"] | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The loss of this file's first lines, in nats (squared errors up to their constants), and its parts.

    Args:
        key: of the latent samples and of what is sub-sampled.
        beliefs: q_0 … q_T of each trial: one more than steps. Those after a trial's end are ignored.
        decoders: what is decoded.
        trials: the trials.
        settings: weights and sample sizes.
        target: what the task decoder is held against.
        counts: weight of each trial in the mean over trials; 1 by default.

    Returns:
        The loss, and metrics: means over terms (parts of the loss) and trials.
    """
    key_terms, key_steps, key_latent = jax.random.split(key, 3)
    counts = jnp.ones(beliefs.shape[1]) if counts is None else counts
    exists = jnp.concatenate([jnp.ones_like(trials.real[:1]), trials.real])
    picked, term_weights = _terms(key_terms, beliefs, exists, settings.n_terms)
    steps, step_weights = _steps(key_steps, trials, settings.n_decoded)
    q = posterior(picked)
    latents = q.sample(DiagonalNormal.noise(key_latent, q.mean.shape))

    def mean(per_term: Float[Array, "term batch"], weights: Float[Array, "term batch"]) -> Float[Array, ""]:
        return jnp.sum(jnp.sum(weights * per_term, axis=0) * counts) / jnp.maximum(jnp.sum(counts), 1.0)

    parts = {
        "loss/latent_kl": (settings.kl_weight, chain_kl(beliefs, to_standard=settings.kl_to_standard), exists * 1.0)
    }
    if decoders.reward is not None:
        error = decoders.reward(latents, steps, step_weights)
        parts["loss/reward_model"] = (settings.reward_coef, error, term_weights)
    if decoders.state is not None:
        error = decoders.state(latents, steps, step_weights)
        parts["loss/transition_model"] = (settings.state_coef, error, term_weights)
    if decoders.task is not None:
        if target is None:
            raise ConfigError("A task decoder needs something to be held against: hand in `target`.")
        parts["loss/task"] = (settings.task_coef, decoders.task(latents, target), term_weights)
    sums = {name: (weight, mean(per_term, weights)) for name, (weight, per_term, weights) in parts.items()}
    loss = jnp.sum(jnp.stack([weight * x for weight, x in sums.values()]))
    n_terms = jnp.maximum(mean(jnp.ones_like(exists, jnp.float32), exists * 1.0), 1.0)  # 0 where no trial counts
    return loss, {name: x / n_terms for name, (_, x) in sums.items()} | {"loss/elbo": loss / n_terms}


def _terms(
    key: Key[Array, ""], beliefs: Float[Array, "all batch twice"], exists: Bool[Array, "all batch"], n: int
) -> tuple[Float[Array, "term batch twice"], Float[Array, "term batch"]]:
    """The posteriors to decode from, and how many each stands for."""
    if n == 0:
        return beliefs, exists.astype(jnp.float32)
    length = jnp.sum(exists, axis=0)
    chosen = jax.random.randint(key, (n, exists.shape[1]), 0, length)
    weights = jnp.broadcast_to(length / n, chosen.shape).astype(jnp.float32)
    return jnp.take_along_axis(beliefs, chosen[..., None], axis=0), weights


def _steps(key: Key[Array, ""], trials: Trials, n: int) -> tuple[Token, Float[Array, "step batch"]]:
    """The steps to decode, and how many each stands for."""
    if n == 0:
        return trials.steps, trials.real.astype(jnp.float32)
    length = trials.lengths
    chosen = jax.random.randint(key, (n, length.shape[0]), 0, jnp.maximum(length, 1))
    rows = jnp.arange(length.shape[0])
    weights = jnp.broadcast_to(length / n, chosen.shape).astype(jnp.float32)
    return jax.tree.map(lambda leaf: leaf[chosen, rows], trials.steps), weights
