"""How strongly the value hangs on the latent: the diagnosis of Beck et al. (2023, appendix), figure 11."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from fledge.core.errors import ConfigError
from fledge.core.types import Token


@runtime_checkable
class LatentAgent(Protocol):
    """An agent whose policy reads a latent and a state: `MemoryAgent` with any conditioning."""

    policy: Any

    def inputs(
        self, memory: PyTree[Array], tokens: Token
    ) -> tuple[Float[Array, "time *batch latent"], Float[Array, "time *batch state"], PyTree[Array]]:
        """Latents, states, and the memory after the last token."""


def latent_gradient_norms(agent: Any, memory: PyTree[Array], tokens: Token) -> dict[str, Float[Array, ""]]:
    """Mean norms over samples: of ∂V/∂latent (before the policy's own embedding), ∂V/∂state, the latent and the state.

    RNN and RNN+HN with Kaiming start with large gradients and did worst; with RNN+S and Bias-HyperInit they start low,
    with the latter at exactly 0. (The paper's text speaks of the hypernetwork's first layer; its code takes the
    critic's value, and so does this.)

    Args:
        agent: a `LatentAgent`.
        memory: of before the first token, as for `replay`.
        tokens: of a rollout.

    Raises:
        ConfigError: the agent's policy does not read a latent and a state.
    """
    if not isinstance(agent, LatentAgent):
        raise ConfigError(
            f"The gradient by the latent is measured of agents that hand their policy a latent and a state "
            f"(MemoryAgent); this one is a {type(agent).__name__}. Set learner.latent_gradients = false."
        )
    latents, states, _ = agent.inputs(memory, tokens)
    by_latent, by_state = jax.grad(lambda e, s: jnp.sum(agent.policy(e, s)[1]), argnums=(0, 1))(latents, states)
    rows = {
        "grad/value_by_latent": by_latent,
        "grad/value_by_state": by_state,
        "norm/latent": latents,
        "norm/state": states,
    }
    return {name: jnp.mean(jnp.linalg.norm(x, axis=-1)) for name, x in rows.items()}
