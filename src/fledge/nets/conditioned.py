"""Actor and critic whose networks are generated from the latent: by a hypernetwork, or by FiLM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, Key, PyTree

from fledge.core.distributions import Distribution
from fledge.core.errors import unknown
from fledge.core.spaces import Space
from fledge.nets.blocks import MLP, Linear, activate
from fledge.nets.film import FiLM
from fledge.nets.hyper import HyperNetwork
from fledge.nets.policy import ActionHead

GENERATORS = ("hyper", "film")


class ConditionedActorCritic(eqx.Module):
    """The latent makes the networks, the state goes through them (RNN+HN of Beck et al. 2023, §4.1 of the method).

    z = tanh(W_z e + b_z) from the latent e and s̃ = tanh(W_s s + b_s) from the state are shared by actor and critic;
    from z two generators of their own make the actor and the critic, which read s̃. Embeddings and the log standard
    deviation are ordinary parameters. Any number of hidden layers is generated (the released code only works with
    two: G26).
    """

    embed_latent: Linear | None
    embed_state: Linear | None
    actor: HyperNetwork | FiLM
    critic: HyperNetwork | FiLM
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
        conditioning: str = "hyper",
        hyper_init: str = "bias",
        hidden: Sequence[int] = (),
        latent_embedding: int = 25,
        state_embedding: int = 0,
        activation: str = "tanh",
        bounded_mean: bool = False,
    ) -> ConditionedActorCritic:
        """Random weights.

        Under Bias-HyperInit actor and critic are, for every latent, networks as `ActorCritic` draws them: the actor's
        head with its own initialiser and gain, the critic's uniform in ± 1 / √fan-in with bias zero (the released code
        draws its weights in ± √(6 / fan-in) and its bias in ± 1: G10, G11). Under every other initialisation the
        generated weights grow with the length of z, and at first that is mostly the bias of its embedding.

        Args:
            key: randomness.
            latent_size: width of the latent.
            observation_space: of the environment.
            action_space: of the environment.
            conditioning: what makes the networks, one of `GENERATORS`.
            hyper_init: one of `HYPER_INITS`, or of `FILM_INITS`.
            hidden: hidden sizes of actor and critic each.
            latent_embedding: width of z; 0 takes the latent itself.
            state_embedding: width of s̃; 0 takes the state itself.
            activation: of embeddings and hidden layers.
            bounded_mean: see `ActionHead`.

        Raises:
            ConfigError: an unknown conditioning or initialisation.
        """
        if conditioning not in GENERATORS:
            raise unknown("generator", conditioning, GENERATORS)
        key_latent, key_state, key_actor, key_critic = jax.random.split(key, 4)
        n_state = observation_space.n_features
        embed_latent = Linear.framework(key_latent, latent_size, latent_embedding) if latent_embedding else None
        embed_state = Linear.framework(key_state, n_state, state_embedding) if state_embedding else None
        n_in, n_z = state_embedding or n_state, latent_embedding or latent_size
        head = ActionHead.init(action_space, bounded=bounded_mean)
        out_init, out_gain = head.out_init

        def sample_actor(key: Key[Array, ""]) -> MLP:
            return MLP.init(
                key, n_in, hidden, head.n_outputs, activation=activation, out_init=out_init, out_gain=out_gain
            )

        def sample_critic(key: Key[Array, ""]) -> MLP:
            return MLP.init(key, n_in, hidden, 1, activation=activation)

        def generator(key: Key[Array, ""], sample: Callable[..., MLP], last_gain: float) -> HyperNetwork | FiLM:
            if conditioning == "film":
                return FiLM.init(key, sample, n_z, init=hyper_init)
            gains = {f"layers.{len(hidden)}": last_gain}
            return HyperNetwork.init(key, sample, n_z, init=hyper_init, gains=gains)

        return cls(
            embed_latent,
            embed_state,
            generator(key_actor, sample_actor, out_gain),
            generator(key_critic, sample_critic, 1.0),
            head,
            activation,
        )

    @classmethod
    def per_task(
        cls,
        key: Key[Array, ""],
        n_tasks: int,
        observation_space: Space,
        action_space: Space,
        *,
        heads_only: bool,
        hidden: Sequence[int] = (),
        state_embedding: int = 0,
        activation: str = "tanh",
        bounded_mean: bool = False,
    ) -> ConditionedActorCritic:
        """Networks that a one-hot task id picks: heads of their own on shared layers, or nothing shared at all.

        A linear hypernetwork without constant part on a one-hot id *is* a network per task (multi-net), and with only
        the last layer generated a head per task (multi-head): Beck et al. 2022, §3. The state's embedding is shared.

        Args:
            key: randomness.
            n_tasks: entries of the id.
            observation_space: of the environment.
            action_space: of the environment.
            heads_only: whether the hidden layers are shared.
            hidden: hidden sizes of actor and critic each.
            state_embedding: width of s̃; 0 takes the state itself.
            activation: of the embedding and hidden layers.
            bounded_mean: see `ActionHead`.
        """
        key_state, key_actor, key_critic = jax.random.split(key, 3)
        n_state = observation_space.n_features
        embed_state = Linear.init(key_state, n_state, state_embedding) if state_embedding else None
        head = ActionHead.init(action_space, bounded=bounded_mean)
        out_init, out_gain = head.out_init
        only = (f"layers.{len(hidden)}",) if heads_only else ()

        def networks(key: Key[Array, ""], n_out: int, **last: Any) -> HyperNetwork:
            def sample(key: Key[Array, ""]) -> MLP:
                return MLP.init(key, state_embedding or n_state, hidden, n_out, activation=activation, **last)

            return HyperNetwork.init(key, sample, n_tasks, init="weight", only=only, constant=False)

        actor = networks(key_actor, head.n_outputs, out_init=out_init, out_gain=out_gain)
        return cls(None, embed_state, actor, networks(key_critic, 1), head, activation)

    def materialise(self, latent: Float[Array, " latent"]) -> tuple[PyTree, PyTree]:
        """The actor and the critic of one latent, with plain weights (what BI++HN regresses, and what to look at)."""
        z = latent if self.embed_latent is None else activate(self.activation, self.embed_latent(latent))
        return self.actor.materialise(z), self.critic.materialise(z)

    def __call__(
        self, latent: Float[Array, "*batch latent"], state: Float[Array, "*batch state"]
    ) -> tuple[Distribution, Float[Array, "*batch"]]:
        """The action distribution and the value."""
        z = latent if self.embed_latent is None else activate(self.activation, self.embed_latent(latent))
        x = state if self.embed_state is None else activate(self.activation, self.embed_state(state))
        return self.head(self.actor.generate(z)(x)), self.critic.generate(z)(x)[..., 0]
