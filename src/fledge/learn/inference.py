"""VariBAD and the task-inference family: a policy learnt by PPO on beliefs that are learnt beside it.

The RL loss never touches the encoder and the inference loss never touches the policy: each is taken of its own part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from fledge.core.contracts import Learner
from fledge.core.errors import ConfigError
from fledge.core.normalise import RewardScaler
from fledge.core.types import Token, Trajectory
from fledge.data.replay import Ring
from fledge.envs.beliefs import grid_of
from fledge.envs.trial import Trial
from fledge.learn.beliefs import BeliefAgent, BeliefPolicy
from fledge.learn.elbo import Decoders, ELBOSettings, Trials, inference_loss
from fledge.learn.ppo import PPO, PPOState, returns_of, warmed_up
from fledge.learn.rollout import RolloutState, is_synchronous, rollout
from fledge.nets.decoders import CellRewardDecoder, RewardDecoder, StateDecoder, TaskDecoder

Kind = Literal["reward", "varibad", "ti-naive", "ti", "ti++", "bi++"]
MULTI_TASK = ("ti", "ti++", "bi++")
"""Kinds that begin with a phase in which the policy is told the task."""

Target = Callable[[BeliefPolicy, Float[Array, "batch task"]], Float[Array, "batch out"]]
"""From the policy and normalised task vectors to what the task decoder regresses."""


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


class InferenceState(eqx.Module):
    """Everything that training carries from one update to the next."""

    agent: BeliefAgent
    policy_optimiser: PyTree
    """Of `agent.policy`."""
    decoders: Decoders
    optimiser: PyTree
    """Of the rest of the agent and the decoders."""
    trials: Ring
    fresh: BeliefPolicy | None
    """The policy that `ti` starts anew from."""
    rollout: RolloutState
    rewards: RewardScaler
    key: Key[Array, ""]
    n_updates: Int[Array, ""]


class InferenceLearner(Learner):
    """PPO on beliefs, and after each of its iterations some gradient steps of the inference loss (`learn.elbo`).

    Rollouts are whole trials, so that the memory never outlives the encoder that wrote it. (The published code stores
    running trials and re-encodes them where an iteration begins inside one.)

    Args:
        ppo: makes the agent (a `BeliefAgent`), rolls out, and trains the agent's policy.
        settings: of the inference loss.
        target: what the task decoder regresses, if not what the kind says.
    """

    ppo: PPO
    settings: SupervisionSettings = eqx.field(static=True)
    target: Target | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        if not is_synchronous(self.ppo.trial, self.ppo.unroll_len):
            raise ConfigError(
                f"supervision = '{self.settings.kind}' needs unrolls of whole trials that all take "
                f"{self.trial.horizon} steps. Set learner.unroll_len = 0, and choose a family whose episodes have a "
                "fixed length."
            )
        if self.settings.kind == "reward":
            raise ConfigError("supervision = 'reward' has no inference loss: PPO alone trains it.")

    @property
    def trial(self) -> Trial:
        """What is trained on."""
        return self.ppo.trial

    @property
    def steps_per_update(self) -> int:
        return self.ppo.steps_per_update

    def optimiser(self) -> optax.GradientTransformation:
        """Of the inference loss: Adam, unclipped, as published."""
        s = self.settings
        end = s.learning_rate if s.learning_rate_end is None else s.learning_rate_end
        n_steps = max(self.ppo.total_updates, 1) * s.n_updates
        schedule = optax.linear_schedule(s.learning_rate, end, n_steps)
        schedule = warmed_up(schedule, round(self.ppo.settings.warmup_frac * n_steps))
        return optax.flatten(optax.adam(schedule))

    def init(self, key: Key[Array, ""]) -> InferenceState:
        key, key_decoders, key_fresh = jax.random.split(key, 3)
        base = self.ppo.init(key)
        agent: Any = base.agent
        if not isinstance(agent, BeliefAgent):
            raise ConfigError(f"An inference loss trains a BeliefAgent, not {type(agent).__name__}.")
        decoders = self._decoders(key_decoders, agent)
        steps = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((self.trial.horizon, *leaf.shape[1:]), leaf.dtype), base.rollout.token
        )
        return InferenceState(
            agent=agent,
            policy_optimiser=self.ppo.optimiser().init(agent.policy),
            decoders=decoders,
            optimiser=self.optimiser().init((agent.inference_part(), decoders)),
            trials=Ring.init(steps, self.settings.capacity),
            fresh=self.ppo.make_agent(key_fresh).policy if self.settings.kind == "ti" else None,
            rollout=base.rollout,
            rewards=base.rewards,
            key=base.key,
            n_updates=base.n_updates,
        )

    def agent(self, state: InferenceState) -> BeliefAgent:
        """The agent as it is evaluated: never told the task."""
        return state.agent.untold()

    def update(self, state: InferenceState) -> tuple[InferenceState, dict[str, Float[Array, ""]]]:
        key, key_rollout, key_shuffle, key_infer = jax.random.split(state.key, 4)
        state = self._enter_phase(state)
        memory = state.rollout.memory
        rolled, trajectory = rollout(
            state.agent,
            self.trial,
            state.rollout,
            key_rollout,
            n_steps=self.ppo.unroll_len,
            split=self.ppo.settings.split,
        )
        beliefs, _ = state.agent.beliefs(memory, trajectory.token)
        rewards, policy, policy_optimiser, metrics = self._reinforce(state, rolled, trajectory, beliefs, key_shuffle)
        trials = state.trials.insert(_rows(trajectory, self.trial.horizon))
        agent = eqx.tree_at(lambda a: a.policy, state.agent, policy)
        agent, decoders, optimiser, losses = self._infer(state, agent, trials, key_infer)
        agent = agent.with_statistics(
            beliefs, trajectory.token, move_task=self._multi_task(state), move_belief=self._infers(state)
        )
        state = InferenceState(
            agent,
            policy_optimiser,
            decoders,
            optimiser,
            trials,
            state.fresh,
            rolled,
            rewards,
            key,
            state.n_updates + 1,
        )
        return state, returns_of(trajectory) | metrics | losses

    def _multi_task(self, state: InferenceState) -> Bool[Array, ""]:
        """Whether this update belongs to the multi-task phase."""
        return (state.n_updates < self.settings.multi_task_updates) & self.settings.embeds_task

    def _infers(self, state: InferenceState) -> Bool[Array, ""]:
        """Whether the inference loss trains in this update: always, but for the multi-task phase of `ti`."""
        return ~self._multi_task(state) | (self.settings.kind != "ti")

    def _enter_phase(self, state: InferenceState) -> InferenceState:
        """The policy acts on the task or on the belief; where `ti` changes over, it starts anew, all but g."""
        if not self.settings.embeds_task:
            return state
        told = self._multi_task(state).astype(jnp.float32)
        policy = eqx.tree_at(lambda p: p.use_task, state.agent.policy, told)
        state = eqx.tree_at(lambda s: s.agent.policy, state, policy)
        if state.fresh is None:
            return state
        over = state.n_updates == self.settings.multi_task_updates
        fresh = eqx.tree_at(lambda p: (p.embed_task, p.use_task), state.fresh, (policy.embed_task, told))
        anew = (fresh, _without_moments(state.policy_optimiser), state.trials.emptied().n_written)

        def changed(s: InferenceState) -> tuple[Any, ...]:
            return s.agent.policy, s.policy_optimiser, s.trials.n_written

        return eqx.tree_at(
            changed, state, jax.tree.map(lambda new, old: jnp.where(over, new, old), anew, changed(state))
        )

    def _reinforce(
        self,
        state: InferenceState,
        rolled: RolloutState,
        trajectory: Trajectory,
        beliefs: Float[Array, "time batch twice"],
        key: Key[Array, ""],
    ) -> tuple[RewardScaler, BeliefPolicy, PyTree, dict[str, Float[Array, ""]]]:
        """PPO on the policy alone: beliefs are computed once, and are what it is told."""
        old = state.agent.policy
        base = PPOState(state.agent, state.policy_optimiser, rolled, state.rewards, key, state.n_updates)
        rewards, batch = self.ppo.prepare(base, rolled, trajectory, state.rollout.memory)
        tokens = state.agent.conditioned(beliefs, trajectory.token)
        batch = eqx.tree_at(lambda b: (b.tokens, b.memory), batch, (tokens, ()))
        base = eqx.tree_at(lambda s: s.agent, base, old)
        learnt, optimiser, metrics = self.ppo.learn(base, batch, key)
        policy: Any = learnt
        if (
            old.embed_task is not None
        ):  # after the multi-task phase g is what is regressed: Adam's momentum must not move it
            moves = self._multi_task(state)
            g = jax.tree.map(lambda new, was: jnp.where(moves, new, was), policy.embed_task, old.embed_task)
            policy = eqx.tree_at(lambda p: p.embed_task, policy, g)
        metrics["ppo/explained_variance"] = 1 - jnp.var(batch.targets - batch.values) / (jnp.var(batch.targets) + 1e-8)
        return rewards, policy, optimiser, metrics

    def _infer(
        self, state: InferenceState, agent: BeliefAgent, trials: Ring, key: Key[Array, ""]
    ) -> tuple[BeliefAgent, Decoders, PyTree, dict[str, Float[Array, ""]]]:
        """Some gradient steps of the inference loss; none while `ti` learns its task embedding."""
        s, optimiser = self.settings, self.optimiser()
        carry = ((agent.inference_part(), state.decoders), state.optimiser)

        def step(carry: tuple[PyTree, PyTree], key: Key[Array, ""]) -> tuple[tuple[PyTree, PyTree], dict[str, Array]]:
            parameters, opt_state = carry
            key_draw, key_loss = jax.random.split(key)
            rows, there = trials.sample(key_draw, s.n_trials)
            steps = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), rows)
            gradient, metrics = jax.grad(self.loss, has_aux=True)(parameters, agent, steps, there * 1.0, key_loss)
            updates, opt_state = optimiser.update(gradient, opt_state, parameters)
            return (optax.apply_updates(parameters, updates), opt_state), metrics

        after, metrics = jax.lax.scan(step, carry, jax.random.split(key, s.n_updates))
        if s.kind == "ti":
            after = jax.tree.map(lambda new, old: jnp.where(self._infers(state), new, old), after, carry)
        (part, decoders), opt_state = after
        return agent.with_inference_part(part), decoders, opt_state, {name: jnp.mean(x) for name, x in metrics.items()}

    def loss(
        self,
        parameters: tuple[PyTree, Decoders],
        agent: BeliefAgent,
        steps: Token,
        counts: Float[Array, " batch"],
        key: Key[Array, ""],
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The inference loss of the agent's inference part and decoders on whole trials, `steps` (time, batch)."""
        part, decoders = parameters
        beliefs = agent.with_inference_part(part).trial_beliefs(steps)
        trials = Trials(steps, jnp.ones(steps.start.shape, bool))
        target = None
        if self.settings.decodes_task:
            if steps.task is None:
                raise ConfigError("What is decoded of the task has to be told: build the agent with `reads_task`.")
            target = self._target(agent, steps.task[0])
        return inference_loss(key, beliefs, decoders, trials, self.settings.elbo, target=target, counts=counts)

    def _target(self, agent: BeliefAgent, task: Float[Array, "batch task"]) -> Float[Array, "batch out"]:
        """What the task decoder regresses for these task vectors, without a gradient into the policy."""
        if self.target is None and not self.settings.embeds_task:
            return task
        target = self.target or (base_weights if self.settings.kind == "bi++" else BeliefPolicy.task_latent)
        return jax.lax.stop_gradient(target(agent.policy, agent.normalised_task(task)))

    def _decoders(self, key: Key[Array, ""], agent: BeliefAgent) -> Decoders:
        s, trial = self.settings, self.trial
        key_reward, key_state, key_task = jax.random.split(key, 3)
        n_latent, spaces = agent.policy.embed_belief.weight.shape[0] // 2, (trial.observation_space, trial.action_space)
        grid, form = grid_of(trial), s.reward_decoder
        if form == "auto":
            form = "none" if s.kind != "varibad" else "mlp" if grid is None else "cells"
        reward: RewardDecoder | CellRewardDecoder | None = None
        if form == "cells":
            if grid is None:
                raise ConfigError(
                    "reward_decoder = 'cells' needs a grid world whose observation is the cell. Take 'mlp'."
                )
            reward = CellRewardDecoder.init(key_reward, n_latent, grid.size, grid.size, s.decoder_hidden)
        elif form == "mlp":
            reward = RewardDecoder.init(key_reward, n_latent, *spaces, s.decoder_hidden)
        state = StateDecoder.init(key_state, n_latent, *spaces, s.decoder_hidden) if s.state_decoder else None
        task = None
        if s.decodes_task:
            told = jax.eval_shape(lambda key: trial.task_vector(trial.sample(key))[None], key_task)
            n_out = jax.eval_shape(self._target, agent, told).shape[-1]
            task = TaskDecoder.init(key_task, n_latent, s.decoder_hidden, n_out)
        return Decoders(reward, state, task)


def base_weights(policy: BeliefPolicy, tasks: Float[Array, "batch task"]) -> Float[Array, "batch weight"]:
    """The weights that a hypernetwork policy generates from g(c), as vectors: what `bi++` regresses.

    Raises:
        ConfigError: the policy module generates none (it has no `materialise`).
    """
    generate = getattr(policy.policy, "materialise", None)
    if generate is None:
        raise ConfigError(
            f"supervision = 'bi++' regresses generated weights, but {type(policy.policy).__name__} generates none. "
            "Choose a hypernetwork policy, or kind = 'ti++'."
        )
    return jax.vmap(lambda latent: ravel_pytree(generate(latent))[0])(policy.task_latent(tasks))


def _rows(trajectory: Trajectory, horizon: int) -> Token:
    """Whole trials as rows (trial, step): the token after each step."""
    steps = trajectory.token.next(trajectory.decision.action, trajectory.timestep)

    def rows(leaf: Array) -> Array:
        cut = leaf.reshape(-1, horizon, *leaf.shape[1:])  # trial in turn, step, environment
        return jnp.swapaxes(cut, 1, 2).reshape(-1, horizon, *leaf.shape[2:])

    return jax.tree.map(rows, steps)


def _without_moments(optimiser: PyTree) -> PyTree:
    """The optimiser's state with Adam's moments forgotten; the schedule goes on."""

    def is_adam(node: Any) -> bool:
        return isinstance(node, optax.ScaleByAdamState)

    return jax.tree.map(
        lambda node: jax.tree.map(jnp.zeros_like, node) if is_adam(node) else node, optimiser, is_leaf=is_adam
    )
