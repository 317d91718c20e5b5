"""Behaviour cloning: plain, on a filtered set, or weighted (Beck 2025, eq. of L = −E[P log π]; d3rlpy's BC)."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from fledge.learn.actors import Actor, Head


@dataclass(frozen=True)
class CloneSettings:
    """d3rlpy 2.7's BC, and the paper's budget."""

    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 1e-3
    batch_size: int = 100
    n_steps: int = 8000
    """Gradient steps."""
    head: Head = "deterministic"
    normalise_weights: bool = False
    """Divide by the sum of the batch's weights instead of by its size."""


class Examples(eqx.Module):
    """What is cloned: transitions with weights, of which only some may be drawn.

    `rows` is padded to a common length, so that sets of different sizes are one compiled program.
    """

    observations: Float[Array, "step obs"]
    actions: Float[Array, "step act"]
    """In [−1, 1] units of the actor (`ActionScale.to_unit`)."""
    weights: Float[Array, " step"]
    rows: Int[Array, " place"]
    """Steps that may be drawn; the first `n_rows` count."""
    n_rows: Int[Array, ""]

    def draw(self, key: Key[Array, ""], n: int) -> tuple[Array, Array, Array]:
        """Observations, actions and weights of `n` steps, uniformly and with replacement."""
        at = self.rows[jax.random.randint(key, (n,), 0, self.n_rows)]
        return self.observations[at], self.actions[at], self.weights[at]


def clone_loss(
    actor: Actor,
    observation: Float[Array, "batch obs"],
    action: Float[Array, "batch act"],
    weight: Float[Array, " batch"],
    normalise_weights: bool = False,
) -> Float[Array, ""]:
    """Deterministic: mean over batch and action entries of w (π(s) − a)². Stochastic: mean of −w log π(a|s).

    The two differ by the deviation that a stochastic policy learns. With `normalise_weights` the sum over the batch is
    divided by Σ w instead of by the number of rows.
    """
    if actor.raw_log_std is None:
        errors = jnp.mean((actor(observation) - action) ** 2, axis=-1)
    else:
        errors = -actor.log_prob(observation, action)
    total = jnp.sum(weight * errors)
    return total / (jnp.maximum(jnp.sum(weight), 1e-8) if normalise_weights else weight.shape[0])


def clone(
    key: Key[Array, ""], examples: Examples, settings: CloneSettings
) -> tuple[Actor, Float[Array, " gradient_step"]]:
    """The actor after `n_steps` of Adam, and the loss at every step. One scan; `vmap` over keys for seeds."""
    key_init, key_train = jax.random.split(key)
    n_obs, n_act = examples.observations.shape[1], examples.actions.shape[1]
    actor = Actor.init(key_init, n_obs, n_act, hidden=settings.hidden, head=settings.head)
    adam = optax.adam(settings.learning_rate)

    def step(carry: tuple[Actor, optax.OptState], key: Key[Array, ""]) -> tuple[tuple[Actor, optax.OptState], Array]:
        actor, state = carry
        batch = examples.draw(key, settings.batch_size)
        loss, gradient = jax.value_and_grad(clone_loss)(actor, *batch, settings.normalise_weights)
        change, state = adam.update(gradient, state)
        return (optax.apply_updates(actor, change), state), loss

    keys = jax.random.split(key_train, settings.n_steps)
    (actor, _), losses = jax.lax.scan(step, (actor, adam.init(actor)), keys)
    return actor, losses
