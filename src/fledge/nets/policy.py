"""Actor and critic heads on a latent."""

from __future__ import annotations

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from fledge.core.distributions import Categorical, DiagonalNormal, Distribution
from fledge.core.errors import ConfigError, ContractError
from fledge.core.spaces import Box, Discrete, Space
from fledge.nets.blocks import MLP, Linear, activate


class ActionHead(eqx.Module):
    """Turns an actor's outputs into a distribution over a space's actions.

    Discrete: logits. Continuous: the mean of a diagonal normal whose log standard deviation is a parameter of its own,
    the same in every state (floor 1e-6 on the standard deviation).

    A *bounded* mean goes through tanh onto the box's bounds. Without that the mean of a policy that was trained for
    long lies far outside, where noise changes nothing that the environment sees: what it does there it can hardly
    unlearn.
    """

    space: Space
    log_std: Float[Array, " act"] | None
    bounds: tuple[float, float] | None = eqx.field(static=True, default=None)
    """Of a bounded mean."""

    @classmethod
    def init(cls, space: Space, *, init_std: float = 1.0, bounded: bool = False) -> ActionHead:
        """The head for a space.

        Raises:
            ContractError: the space is neither `Discrete` nor `Box`.
            ConfigError: a bounded mean where actions have no bounds.
        """
        if isinstance(space, Discrete):
            return cls(space, None)
        if isinstance(space, Box):
            bounds = (space.low, space.high)
            if bounded and not all(map(math.isfinite, bounds)):
                raise ConfigError(f"bounded_mean = true needs actions with bounds; these lie in {[*bounds]}.")
            return cls(space, jnp.full(space.size, jnp.log(init_std)), bounds if bounded else None)
        raise ContractError(f"Actions must come from Discrete or Box; this environment has {type(space).__name__}.")

    @property
    def n_outputs(self) -> int:
        """How many numbers the actor has to put out."""
        return self.space.n_features

    @property
    def out_init(self) -> tuple[str, float]:
        """Initialiser and gain of the actor's last layer, as in VariBAD's code."""
        return ("normc", 1.0) if self.log_std is not None else ("orthogonal", 0.01)

    def __call__(self, outputs: Float[Array, "*batch out"]) -> Distribution:
        if self.log_std is None:
            return Categorical(outputs)
        if self.bounds is not None:
            low, high = self.bounds
            outputs = low + 0.5 * (high - low) * (1 + jnp.tanh(outputs))
        return DiagonalNormal(outputs, jnp.broadcast_to(jnp.maximum(self.log_std, jnp.log(1e-6)), outputs.shape))

    def sample_noise(self, key: Key[Array, ""]) -> Float[Array, " out"]:
        """The randomness of one action."""
        kind = Categorical if self.log_std is None else DiagonalNormal
        return kind.noise(key, (self.n_outputs,))


class ActorCritic(eqx.Module):
    """Separate actor and critic MLPs on the latent, or on the latent beside the embedded state.

    `embed_latent` and `embed_state` are linear + activation, as in VariBAD's policy networks; None where the size is 0
    (the latent then enters as it is, and the state not at all).
    """

    embed_latent: Linear | None
    embed_state: Linear | None
    actor: MLP
    critic: MLP
    head: ActionHead
    activation: str = eqx.field(static=True)

    @classmethod
    def init(
        cls,
        key: Key[Array, ""],
        latent_size: int,
        observation_space: Space,
        action_space: Space,
        *,
        hidden: Sequence[int] = (),
        latent_embedding: int = 0,
        state_embedding: int = 0,
        activation: str = "tanh",
        bounded_mean: bool = False,
    ) -> ActorCritic:
        """Random weights; see `nets.blocks.MLP` for the initialisers.

        Args:
            key: randomness.
            latent_size: width of the latent.
            observation_space: of the environment.
            action_space: of the environment.
            hidden: hidden sizes of actor and critic each; () for linear heads.
            latent_embedding: width of the latent's embedding; 0 for none.
            state_embedding: width of the state's embedding; 0 keeps the state away from the policy (latent only).
            activation: of embeddings and hidden layers.
            bounded_mean: see `ActionHead`.
        """
        key_latent, key_state, key_actor, key_critic = jax.random.split(key, 4)
        embed_latent = Linear.init(key_latent, latent_size, latent_embedding) if latent_embedding else None
        n_state = observation_space.n_features
        embed_state = Linear.init(key_state, n_state, state_embedding) if state_embedding else None
        n_in = (latent_embedding or latent_size) + state_embedding
        head = ActionHead.init(action_space, bounded=bounded_mean)
        out_init, out_gain = head.out_init
        actor = MLP.init(
            key_actor, n_in, hidden, head.n_outputs, activation=activation, out_init=out_init, out_gain=out_gain
        )
        return cls(
            embed_latent,
            embed_state,
            actor,
            MLP.init(key_critic, n_in, hidden, 1, activation=activation),
            head,
            activation,
        )

    def __call__(
        self, latent: Float[Array, "*batch latent"], state: Float[Array, "*batch state"]
    ) -> tuple[Distribution, Float[Array, "*batch"]]:
        """The action distribution and the value."""
        x = latent if self.embed_latent is None else activate(self.activation, self.embed_latent(latent))
        if self.embed_state is not None:
            x = jnp.concatenate([x, activate(self.activation, self.embed_state(state))], axis=-1)
        return self.head(self.actor(x)), self.critic(x)[..., 0]
