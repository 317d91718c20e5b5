"""VariBAD and the task-inference family: a policy learnt by PPO on beliefs that are learnt beside it.

The RL loss never touches the encoder and the inference loss never touches the policy: each is taken of its own part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from fledge.core.contracts import Learner
from fledge.core.errors import ConfigError
from fledge.core.normalise import RewardScaler
from fledge.core.types import Trajectory
from fledge.data.replay import Ring
from fledge.envs.beliefs import grid_of
from fledge.envs.trial import Trial
from fledge.learn.beliefs import BeliefAgent, BeliefPolicy
from fledge.learn.elbo import Decoders, Trials, inference_loss
from fledge.learn.ppo import PPO, PPOState, returns_of, warmed_up
from fledge.learn.rollout import RolloutState, is_synchronous, rollout
from fledge.learn.stored import Window, equal_trials, row_like
from fledge.learn.supervision import SupervisionSettings
from fledge.nets.decoders import CellRewardDecoder, RewardDecoder, StateDecoder, TaskDecoder

Target = Callable[[BeliefPolicy, Float[Array, "batch task"]], Float[Array, "batch out"]]
"""From the policy and normalised task vectors to what the task decoder regresses."""


class InferenceState(eqx.Module):
    """Everything that training carries from one update to the next."""

    agent: BeliefAgent
    policy_optimiser: PyTree
    """Of `agent.policy`."""
    decoders: Decoders
    optimiser: PyTree
    """Of the rest of the agent and the decoders."""
    trials: Ring
    """Rows are whole trials, as `Trials`."""
    window: Window | None
    """The running trials; None where a rollout holds whole ones only."""
    fresh: BeliefPolicy | None
    """The policy that `ti` starts anew from."""
    rollout: RolloutState
    rewards: RewardScaler
    key: Key[Array, ""]
    n_updates: Int[Array, ""]


class InferenceLearner(Learner):
    """PPO on beliefs, and after each of its iterations some gradient steps of the inference loss (`learn.elbo`).

    The memory never outlives the encoder that wrote it: where an iteration begins inside trials (they differ in length,
    or the unroll is not made of whole ones), what was seen of them so far is encoded anew, as in the published code.

    Args:
        ppo: makes the agent (a `BeliefAgent`), rolls out, and trains the agent's policy.
        settings: of the inference loss.
        target: what the task decoder regresses, if not what the kind says.
    """

    ppo: PPO
    settings: SupervisionSettings = eqx.field(static=True)
    target: Target | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        if self.settings.kind == "reward":
            raise ConfigError("supervision = 'reward' has no inference loss: PPO alone trains it.")

    @property
    def trial(self) -> Trial:
        """What is trained on."""
        return self.ppo.trial

    @property
    def steps_per_update(self) -> int:
        return self.ppo.steps_per_update

    @property
    def synchronous(self) -> bool:
        """Whether every rollout holds whole trials of one length."""
        return is_synchronous(self.trial, self.ppo.unroll_len)

    @property
    def most_trials(self) -> int:
        """Trials that an iteration stores at most: twice as many as it has room for if all were of full length."""
        n = 2 * self.ppo.settings.n_envs * max(1, self.ppo.unroll_len // self.trial.horizon)
        return min(n, self.settings.capacity)

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
        token, horizon = base.rollout.token, self.trial.horizon
        return InferenceState(
            agent=agent,
            policy_optimiser=self.ppo.optimiser().init(agent.policy),
            decoders=decoders,
            optimiser=self.optimiser().init((agent.inference_part(), decoders)),
            trials=Ring.init(row_like(token, horizon), self.settings.capacity),
            window=None if self.synchronous else Window.init(token, horizon),
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
        state = self._resume(self._enter_phase(state))
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
        trials, window = self._store(state, trajectory, jax.random.fold_in(state.key, 4))
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
            window,
            state.fresh,
            rolled,
            rewards,
            key,
            state.n_updates + 1,
        )
        return state, returns_of(trajectory) | metrics | losses

    def _resume(self, state: InferenceState) -> InferenceState:
        """The memory of running trials as the encoder of now would have it."""
        if state.window is None:
            return state
        memory = state.agent.resumed(state.window.steps, state.window.length)
        return eqx.tree_at(lambda s: s.rollout.memory, state, memory)

    def _store(self, state: InferenceState, trajectory: Trajectory, key: Key[Array, ""]) -> tuple[Ring, Window | None]:
        """The ring with the trials that ended, and the window of those that go on."""
        if state.window is None:
            return state.trials.insert(equal_trials(trajectory, self.trial.horizon)), None
        window, rows, n = state.window.after(trajectory, key, self.most_trials)
        return state.trials.insert_first(rows, n), window

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
            drawn = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), rows)
            gradient, metrics = jax.grad(self.loss, has_aux=True)(parameters, agent, drawn, there * 1.0, key_loss)
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
        trials: Trials,
        counts: Float[Array, " batch"],
        key: Key[Array, ""],
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The inference loss of the agent's inference part and decoders on whole trials."""
        part, decoders = parameters
        steps = trials.steps
        beliefs = agent.with_inference_part(part).trial_beliefs(steps)
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


def _without_moments(optimiser: PyTree) -> PyTree:
    """The optimiser's state with Adam's moments forgotten; the schedule goes on."""

    def is_adam(node: Any) -> bool:
        return isinstance(node, optax.ScaleByAdamState)

    return jax.tree.map(
        lambda node: jax.tree.map(jnp.zeros_like, node) if is_adam(node) else node, optimiser, is_leaf=is_adam
    )
