"""Proximal policy optimisation for agents with memory (Schulman et al. 2017, with the settings of VariBAD)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from fledge.core.contracts import Learner, ReplayAgent
from fledge.core.errors import ConfigError
from fledge.core.normalise import RewardScaler
from fledge.core.returns import gae
from fledge.core.types import Token, Trajectory
from fledge.envs.trial import Trial
from fledge.learn.pieces import gradient_in_pieces
from fledge.learn.rollout import RolloutState, begin, is_synchronous, rollout, sample_tasks
from fledge.learn.sensitivity import latent_gradient_norms


@dataclass(frozen=True)
class PPOSettings:
    """What can be turned. The defaults are those of the published grid-world runs where they are not about size.

    `unroll_len` 0 unrolls whole trials. With shorter unrolls the memory is carried, detached, from one iteration to the
    next; gradients flow through all steps of an unroll (full back-propagation through time).

    `piece_rows` is the most unrolls whose gradient is taken at once; larger minibatches are cut into equal pieces whose
    gradients are averaged, which changes the memory needed and the speed, not the result. None decides by the device:
    on a CPU 32, so that a piece stays in the cache (with 1,024 environments a quarter to a half faster); elsewhere all.

    `warmup_frac` is the share of the run over which the learning rate rises from 0, before its own schedule takes over.

    `latent_gradients` also measures, before each update and on as many unrolls as a minibatch has, how strongly the
    value hangs on latent and state (`fledge.learn.sensitivity`): metrics grad/value_by_latent and their neighbours.
    """

    n_envs: int = 16
    unroll_len: int = 0
    n_epochs: int = 2
    n_minibatches: int = 4
    discount: float = 0.95
    gae_lambda: float = 0.95
    clip_ratio: float = 0.05
    value_clip: bool = True
    huber: float = 1.0
    value_coef: float = 0.5
    entropy_coef: float = 0.1
    entropy_coef_end: float | None = None
    learning_rate: float = 1e-3
    learning_rate_end: float | None = None
    warmup_frac: float = 0.0
    adam_eps: float = 1e-5
    max_grad_norm: float = 0.5
    normalise_rewards: bool = True
    bootstrap_time_limit: bool = False
    split: str = "train"
    piece_rows: int | None = None
    latent_gradients: bool = False

    def __post_init__(self) -> None:
        if self.piece_rows is not None and self.piece_rows < 1:
            raise ConfigError(f"piece_rows is a number of unrolls, at least 1 (or None), not {self.piece_rows}.")


class Batch(eqx.Module):
    """What the loss is computed on: whole unrolls of some environments. Axes (time, batch)."""

    tokens: Token
    actions: Array
    log_probs: Float[Array, "time batch"]
    values: Float[Array, "time batch"]
    advantages: Float[Array, "time batch"]
    targets: Float[Array, "time batch"]
    memory: PyTree[Array]


class PPOState(eqx.Module):
    """Everything that training carries from one update to the next."""

    agent: ReplayAgent
    optimiser: PyTree
    rollout: RolloutState
    rewards: RewardScaler
    key: Key[Array, ""]
    n_updates: Int[Array, ""]


class PPO(Learner):
    """Recurrent PPO.

    Replay starts from the memory of *before* the unroll's first token and meets the same resets, so the importance
    ratio of the first minibatch is 1 (metric `ppo/ratio_error`). Minibatches are whole unrolls of some environments.
    Values bootstrap through inner episode ends; at a trial's end nothing is bootstrapped, unless
    `bootstrap_time_limit` asks for the value of the final observation where a time limit cut the trial.

    Args:
        trial: the environment, K episodes to a trial.
        initial: an agent, or anything `make_agent` turns into one from a key.
        settings: see `PPOSettings`.
        total_updates: length of the run, which the schedules need.
        split: the mapped axis over which devices share out the unrolls of a minibatch (`Placement.split`); with None
            every device would take the gradient of all of them.
    """

    trial: Trial
    make_agent: Any = eqx.field(static=True)
    settings: PPOSettings = eqx.field(static=True)
    total_updates: int = eqx.field(static=True)
    split: str | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        s = self.settings
        if s.n_envs % s.n_minibatches:
            raise ConfigError(
                f"n_envs = {s.n_envs} cannot be cut into n_minibatches = {s.n_minibatches} equal parts of whole "
                f"unrolls. Make n_envs a multiple of n_minibatches."
            )

    @property
    def unroll_len(self) -> int:
        """Steps of one unroll."""
        return self.settings.unroll_len or self.trial.horizon

    @property
    def steps_per_update(self) -> int:
        return self.unroll_len * self.settings.n_envs

    def optimiser(self) -> optax.GradientTransformation:
        """Clip the *global* gradient norm, then Adam. The parameters enter as one vector: fewer, larger kernels."""
        s = self.settings
        schedule = warmed_up(
            self._schedule(s.learning_rate, s.learning_rate_end), round(s.warmup_frac * self.total_updates)
        )
        updates_each = s.n_epochs * s.n_minibatches
        chain = optax.chain(
            optax.clip_by_global_norm(s.max_grad_norm),
            optax.adam(lambda count: schedule(count // updates_each), eps=s.adam_eps),
        )
        return optax.flatten(chain)

    def _schedule(self, start: float, end: float | None) -> optax.Schedule:
        return optax.linear_schedule(start, start if end is None else end, max(self.total_updates, 1))

    def init(self, key: Key[Array, ""]) -> PPOState:
        key_agent, key_task, key_reset, key = jax.random.split(key, 4)
        agent = self.make_agent(key_agent)
        n_envs = self.settings.n_envs
        tasks = sample_tasks(self.trial, key_task, self.settings.split, n_envs)
        return PPOState(
            agent=agent,
            optimiser=self.optimiser().init(agent),
            rollout=begin(agent, self.trial, key_reset, tasks),
            rewards=RewardScaler.init(n_envs),
            key=key,
            n_updates=jnp.asarray(0, jnp.int32),
        )

    def agent(self, state: PPOState) -> ReplayAgent:
        return state.agent

    def update(self, state: PPOState) -> tuple[PPOState, dict[str, Float[Array, ""]]]:
        key, key_rollout, key_shuffle = jax.random.split(state.key, 3)
        memory = state.rollout.memory
        rolled, trajectory = rollout(
            state.agent,
            self.trial,
            state.rollout,
            key_rollout,
            n_steps=self.unroll_len,
            split=self.settings.split,
        )
        rewards, batch = self.prepare(state, rolled, trajectory, memory)
        agent, optimiser, losses = self.learn(state, batch, key_shuffle)
        agent = agent.update_statistics(trajectory.token)
        metrics = returns_of(trajectory) | losses
        if self.settings.latent_gradients:
            some = take_rows(batch, jnp.arange(self.settings.n_envs // self.settings.n_minibatches))
            metrics |= latent_gradient_norms(state.agent, some.memory, some.tokens)
        metrics["ppo/explained_variance"] = 1 - jnp.var(batch.targets - batch.values) / (jnp.var(batch.targets) + 1e-8)
        return PPOState(agent, optimiser, rolled, rewards, key, state.n_updates + 1), metrics

    def prepare(
        self, state: PPOState, rolled: RolloutState, trajectory: Trajectory, memory: PyTree[Array]
    ) -> tuple[RewardScaler, Batch]:
        """Scale rewards, estimate advantages, and lay out what the loss needs."""
        s, timestep, decision = self.settings, trajectory.timestep, trajectory.decision
        scaler, rewards = state.rewards, timestep.reward
        if s.normalise_rewards:
            scaler, rewards = scaler.update(rewards, timestep.trial_end, discount=s.discount)
        if is_synchronous(self.trial, self.unroll_len):
            last = jnp.zeros(s.n_envs)  # every unroll ends with its trials
        else:
            last = jax.vmap(lambda m, t: state.agent.act(m, t)[0].value)(rolled.memory, rolled.token)
        next_values = jnp.concatenate([decision.value[1:], last[None]])
        next_values = jnp.where(timestep.trial_end, 0.0, next_values)
        if s.bootstrap_time_limit:
            cut = timestep.trial_end & timestep.truncated & ~timestep.terminated
            next_values = jnp.where(cut, self._final_values(state.agent, trajectory, memory), next_values)
        advantages, targets = gae(
            rewards,
            decision.value,
            next_values,
            timestep.trial_end,
            discount=s.discount,
            gae_lambda=s.gae_lambda,
        )
        advantages = (advantages - jnp.mean(advantages)) / (jnp.std(advantages) + 1e-5)
        return scaler, Batch(
            trajectory.token, decision.action, decision.log_prob, decision.value, advantages, targets, memory
        )

    def _final_values(
        self, agent: ReplayAgent, trajectory: Trajectory, memory: PyTree[Array]
    ) -> Float[Array, "time batch"]:
        """V of the final observation after each step, from the memory that the agent has there."""

        def one(memory: PyTree[Array], x: tuple[Token, Trajectory]) -> tuple[PyTree[Array], Array]:
            token, happened = x
            fresh = agent.begin()
            memory = jax.tree.map(lambda new, old: jnp.where(token.start, new, old), fresh, memory)
            _, memory = agent.act(memory, token)
            seen = eqx.tree_at(lambda t: t.observation, happened.timestep, happened.timestep.final_observation)
            decision, _ = agent.act(memory, token.next(happened.decision.action, seen))
            return memory, decision.value

        def sequence(memory: PyTree[Array], trajectory: Trajectory) -> Float[Array, " time"]:
            return jax.lax.scan(one, memory, (trajectory.token, trajectory))[1]

        return jax.vmap(sequence, in_axes=(0, 1), out_axes=1)(memory, trajectory)

    def learn(
        self, state: PPOState, batch: Batch, key: Key[Array, ""]
    ) -> tuple[ReplayAgent, PyTree, dict[str, Float[Array, ""]]]:
        """Epochs of minibatches. The reported losses are means over them; the ratio error is the first one's."""
        s = self.settings
        entropy_coef = self._schedule(s.entropy_coef, s.entropy_coef_end)(state.n_updates)
        optimiser = self.optimiser()

        def minibatch(
            carry: tuple[ReplayAgent, PyTree], rows: Int[Array, " rows"]
        ) -> tuple[tuple[ReplayAgent, PyTree], dict[str, Array]]:
            agent, opt_state = carry

            def on_rows(rows: Int[Array, " rows"]) -> tuple[ReplayAgent, dict[str, Array]]:
                return jax.grad(ppo_loss, has_aux=True)(agent, take_rows(batch, rows), s, entropy_coef)

            gradient, metrics = gradient_in_pieces(on_rows, rows, s.piece_rows, self.split)
            metrics["grad/norm"] = optax.tree.norm(gradient)
            updates, opt_state = optimiser.update(gradient, opt_state, agent)
            return (optax.apply_updates(agent, updates), opt_state), metrics

        shuffle = jax.vmap(lambda k: jax.random.permutation(k, s.n_envs))
        rows = shuffle(jax.random.split(key, s.n_epochs)).reshape(s.n_epochs * s.n_minibatches, -1)
        (agent, opt_state), metrics = jax.lax.scan(minibatch, (state.agent, state.optimiser), rows)
        first = jnp.max(metrics.pop("ppo/ratio_error")[0])
        return agent, opt_state, {name: jnp.mean(x) for name, x in metrics.items()} | {"ppo/ratio_error": first}


def warmed_up(schedule: optax.Schedule, n_updates: int) -> optax.Schedule:
    """The schedule, multiplied by what rises from 1/n to 1 over its first n updates."""
    if n_updates < 1:
        return schedule
    return lambda count: schedule(count) * jnp.minimum((count + 1) / n_updates, 1.0)


def take_rows(batch: Batch, rows: Int[Array, " rows"]) -> Batch:
    """Some environments of a batch (axis 1; axis 0 of the memory)."""
    memory = jax.tree.map(lambda leaf: leaf[rows], batch.memory)
    rest = jax.tree.map(lambda leaf: leaf[:, rows], eqx.tree_at(lambda b: b.memory, batch, None))
    return eqx.tree_at(lambda b: b.memory, rest, memory, is_leaf=lambda x: x is None)


def ppo_loss(
    agent: ReplayAgent, batch: Batch, settings: PPOSettings, entropy_coef: Float[Array, ""]
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The clipped surrogate, the clipped Huber value loss and the entropy bonus, replayed from the stored memory.

    L = −mean min(ρÂ, clip(ρ, 1−ε, 1+ε)Â) + c_v · ½ mean max(l(V−R), l(V_clip−R)) − c_e · entropy (nats).
    """
    distribution, values, _ = agent.replay(batch.memory, batch.tokens)
    log_ratio = distribution.log_prob(batch.actions) - batch.log_probs
    ratio = jnp.exp(log_ratio)
    epsilon = settings.clip_ratio
    clipped = jnp.clip(ratio, 1 - epsilon, 1 + epsilon)
    policy_loss = -jnp.mean(jnp.minimum(ratio * batch.advantages, clipped * batch.advantages))
    value_loss = _value_error(values - batch.targets, settings.huber)
    if settings.value_clip:
        near = batch.values + jnp.clip(values - batch.values, -epsilon, epsilon)
        value_loss = jnp.maximum(value_loss, _value_error(near - batch.targets, settings.huber))
    value_loss = 0.5 * jnp.mean(value_loss)
    entropy = jnp.mean(distribution.entropy())
    loss = policy_loss + settings.value_coef * value_loss - entropy_coef * entropy
    return loss, {
        "loss/total": loss,
        "loss/policy": policy_loss,
        "loss/value": value_loss,
        "loss/entropy": entropy,
        "ppo/kl": jnp.mean(ratio - 1 - log_ratio),
        "ppo/clip_frac": jnp.mean(jnp.abs(ratio - 1) > epsilon),
        "ppo/ratio_error": jnp.max(jnp.abs(ratio - 1)),
    }


def _value_error(error: Float[Array, "*shape"], huber: float) -> Float[Array, "*shape"]:
    return optax.losses.huber_loss(error, delta=huber) if huber > 0 else 0.5 * error**2


def returns_of(trajectory: Trajectory) -> dict[str, Float[Array, ""]]:
    """Mean raw reward per step, and per trial where the unroll holds whole ones."""
    reward, ends = trajectory.timestep.reward, trajectory.timestep.trial_end
    n_ends = jnp.sum(ends)
    return {
        "return/per_step": jnp.mean(reward),
        "return/trial": jnp.where(n_ends > 0, jnp.sum(reward) / jnp.maximum(n_ends, 1), jnp.nan),
    }
