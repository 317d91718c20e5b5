"""How far a learnt belief over a grid world's hidden goal is from the exact one."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from fledge.core.contracts import task_batch
from fledge.core.distributions import DiagonalNormal
from fledge.core.errors import ConfigError
from fledge.core.types import Task
from fledge.envs.beliefs import exact_beliefs, grid_of
from fledge.envs.trial import Trial
from fledge.learn.beliefs import BeliefAgent
from fledge.learn.rollout import begin, rollout
from fledge.nets.decoders import CellRewardDecoder
from fledge.nets.latent import posterior


@partial(jax.jit, static_argnames=("n_samples", "split"))
def belief_gaps(
    agent: BeliefAgent,
    decoder: CellRewardDecoder,
    trial: Trial,
    key: Key[Array, ""],
    tasks: Task,
    *,
    n_samples: int = 16,
    split: str = "test",
) -> tuple[Float[Array, "term batch"], Float[Array, "term batch cell"]]:
    """KL(exact Bayes belief ‖ decoded belief), in nats, along a trial of each task, walked with sampled actions.

    The decoded belief of a cell is its chance to pay, averaged over latents drawn from the posterior (their mixture is
    what the agent predicts), normalised over cells. The direction is the one that is finite: the exact belief rules
    cells out, a sigmoid never does.

    What is decoded is the chance to pay of a cell *that is entered*. On walks that do not depend on the goal it is the
    exact belief, were the decoder perfect. A policy that searches enters the last cell of its way only if the goal was
    in none before: VariBAD, trained on its own policy's walks, then rightly overrates the cells it would try last.

    Args:
        agent: walks and infers.
        decoder: of its latents.
        trial: of a grid world.
        key: randomness.
        tasks: stacked along a leading axis.
        n_samples: latents of each posterior.
        split: whose goals are possible.

    Returns:
        The gap of each of a trial's T + 1 beliefs, and the exact beliefs.

    Raises:
        ConfigError: there is no grid world in the trial whose exact belief is known.
    """
    env = grid_of(trial)
    if env is None:
        raise ConfigError("The exact belief is known for GridNav without `show` only.")
    key_begin, key_walk, key_latent = jax.random.split(key, 3)
    state = begin(agent, trial, key_begin, tasks)
    _, walked = rollout(agent, trial, state, key_walk, n_steps=trial.horizon, split=split)
    steps = walked.token.next(walked.decision.action, walked.timestep)
    exact = exact_beliefs(env, steps.final_observation, steps.reward, split=split)
    q = posterior(agent.trial_beliefs(steps))
    latents = q.sample(DiagonalNormal.noise(key_latent, (n_samples, *q.mean.shape)))
    chances = jnp.mean(decoder.probabilities(latents), axis=0)
    return _kl(exact, chances / jnp.sum(chances, axis=-1, keepdims=True)), exact


def belief_gap(
    agent: BeliefAgent,
    decoder: CellRewardDecoder,
    trial: Trial,
    key: Key[Array, ""],
    *,
    n_trials: int = 100,
    n_samples: int = 16,
    split: str = "test",
) -> dict[str, Float[Array, ""]]:
    """Means of `belief_gaps` over the tasks of a split.

    Args:
        agent: walks and infers.
        decoder: of its latents.
        trial: of a grid world.
        key: randomness.
        n_trials: walked.
        n_samples: latents of each posterior.
        split: of the tasks; the exact belief is over its goals.

    Returns:
        `gap` (mean over all T + 1 beliefs of a trial), `searching` (those before the goal is found), `found` (those
        after it), `prior` (the very first), and `ignorant`: the gap of whoever keeps to the uniform prior throughout.

    Raises:
        ConfigError: there is no grid world in the trial whose exact belief is known.
    """
    key_task, key = jax.random.split(key)
    tasks = task_batch(trial, key_task, split, n_trials)
    gap, exact = belief_gaps(agent, decoder, trial, key, tasks, n_samples=n_samples, split=split)
    found = jnp.max(exact, axis=-1) > 0.999

    def mean(x: Float[Array, "term batch"], where: Array) -> Float[Array, ""]:
        return jnp.sum(x * where) / jnp.maximum(jnp.sum(where), 1)

    uniform = jnp.broadcast_to(exact[:1], exact.shape)
    return {
        "gap": jnp.mean(gap),
        "searching": mean(gap, ~found),
        "found": mean(gap, found),
        "prior": jnp.mean(gap[0]),
        "ignorant": jnp.mean(_kl(exact, uniform)),
    }


def _kl(p: Float[Array, "*batch cell"], q: Float[Array, "*batch cell"]) -> Float[Array, "*batch"]:
    """KL(p ‖ q) in nats; cells that p rules out count nothing."""
    ratio = jnp.log(jnp.maximum(p, 1e-12)) - jnp.log(jnp.maximum(q, 1e-12))
    return jnp.sum(jnp.where(p > 0, p * ratio, 0.0), axis=-1)
