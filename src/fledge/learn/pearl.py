"""PEARL: off-policy meta-RL with a posterior over the task (Rakelly et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from fledge.core.contracts import Learner, task_batch
from fledge.core.errors import ConfigError
from fledge.core.types import SPLITS, Task, Trajectory
from fledge.data.task_rings import TaskRings
from fledge.envs.trial import Trial
from fledge.learn import sac
from fledge.learn.contexts import ContextAgent
from fledge.learn.rollout import begin, rollout
from fledge.learn.sac import SACSettings, SACState, Transition
from fledge.nets.posterior import Evidence, PosteriorEncoder, standard


@dataclass(frozen=True)
class PEARLSettings:
    """What can be turned. Names and defaults are the released code's (configs/default.py) where nothing else is said.

    Steps are environment steps of one task in one iteration, rounded up to whole episodes. Data of `n_steps_prior` and
    `n_steps_posterior` trains the encoder too (until the task is visited again), that of
    `n_extra_rl_steps_posterior` only actor and critics. `temperature` None tunes it (see `SACSettings`); the released
    code keeps it at 1 and scales rewards. `train_reward` names an extra of the environment's time steps on which actor
    and critics are trained in place of the reward; the encoder sees the reward.
    """

    hidden: tuple[int, ...] = (300, 300, 300)
    """Of actor and critics."""
    n_tasks: int = 100
    """Training tasks, drawn once (n_train_tasks)."""
    n_initial_steps: int = 2000
    """Of each task, before the first iteration."""
    n_tasks_sample: int = 5
    """Tasks that data is collected on in an iteration."""
    n_steps_prior: int = 400
    n_steps_posterior: int = 0
    n_extra_rl_steps_posterior: int = 400
    n_train_steps: int = 2000
    """Gradient steps in an iteration."""
    meta_batch: int = 16
    """Tasks in a gradient step."""
    batch_size: int = 256
    """Transitions of each of them for actor and critics."""
    context_batch_size: int = 64
    """Transitions of each of them for the encoder (embedding_batch_size)."""
    capacity: int = 20_000
    """Transitions that are kept of each task (1,000,000 in released code, which never fills them)."""
    discount: float = 0.99
    learning_rate: float = 3e-4
    target_rate: float = 0.005
    temperature: float | None = 1.0
    reward_scale: float = 5.0
    kl_lambda: float = 0.1
    """Weight of the *sum* of the tasks' KL(q ‖ N(0, I)) against the *mean* squared error of both critics, as in the
    released code. In the paper's algorithm both are sums: there it would be `kl_lambda` × `meta_batch`."""
    train_reward: str = ""
    n_warmup: int = 0
    """Gradient steps over which all learning rates rise."""
    split: str = "train"

    def __post_init__(self) -> None:
        least = {"n_warmup": 0, "n_steps_posterior": 0, "n_extra_rl_steps_posterior": 0, "n_train_steps": 1}
        least |= dict.fromkeys(("n_tasks", "n_initial_steps", "n_tasks_sample", "n_steps_prior"), 1)
        least |= dict.fromkeys(("meta_batch", "batch_size", "context_batch_size", "capacity"), 1)
        faults = [
            f"{key} is at least {low}, not {getattr(self, key)}."
            for key, low in least.items()
            if getattr(self, key) < low
        ]
        if self.n_tasks_sample > self.n_tasks:
            faults.append(
                f"n_tasks_sample: {self.n_tasks_sample} different tasks cannot be chosen of n_tasks = {self.n_tasks}."
            )
        if not 0 <= self.discount <= 1 or not 0 < self.target_rate <= 1:
            faults.append(f"discount and target_rate are shares, not {self.discount} and {self.target_rate}.")
        if self.learning_rate <= 0 or self.reward_scale <= 0 or self.kl_lambda < 0:
            faults.append("learning_rate and reward_scale are above 0, kl_lambda is at least 0.")
        if self.split not in SPLITS:
            faults.append(f"split is one of {', '.join(SPLITS)}, not '{self.split}'.")
        if faults:
            raise ConfigError(" ".join(faults))

    @property
    def sac(self) -> SACSettings:
        """What of it concerns actor and critics."""
        return SACSettings(
            hidden=self.hidden,
            discount=self.discount,
            learning_rate=self.learning_rate,
            target_rate=self.target_rate,
            temperature=self.temperature,
            reward_scale=self.reward_scale,
            n_warmup=self.n_warmup,
        )

    def episodes(self, horizon: int) -> tuple[int, int, int]:
        """Episodes of a task in an iteration: from the prior, from the posterior, and for actor and critics alone."""
        steps = self.n_steps_prior, self.n_steps_posterior, self.n_extra_rl_steps_posterior
        prior, posterior, extra = (-(-n // horizon) for n in steps)
        return prior, posterior, extra

    def steps_per_update(self, horizon: int) -> int:
        """Environment steps of one iteration."""
        return self.n_tasks_sample * sum(self.episodes(horizon)) * horizon


class PEARLState(eqx.Module):
    """Everything that training carries from one iteration to the next."""

    encoder: PosteriorEncoder
    optimiser: PyTree
    """The encoder's."""
    sac: SACState
    tasks: Task
    """The training tasks, along a leading axis."""
    replay: TaskRings
    """Transitions for actor and critics."""
    recent: TaskRings
    """What the encoder reads: transitions since the task was last visited."""
    key: Key[Array, ""]
    n_updates: Int[Array, ""]


class Visit(eqx.Module):
    """The tasks that an iteration collects data on: their numbers, and what they are."""

    chosen: Int[Array, " task"]
    tasks: Task


class Phase(eqx.Module):
    """What came of some episodes."""

    per_step: Float[Array, "*phase"]
    """Mean reward of a step."""
    episode: Float[Array, "*phase"]
    """Mean return of an episode."""
    n_episodes: Float[Array, "*phase"]
    """Of each task."""


Rings = tuple[TaskRings, TaskRings]
"""For actor and critics, and for the encoder."""


class PEARL(Learner):
    """One update collects data on a few tasks, then trains encoder, actor and critics on all of them.

    The encoder learns from the critics' error, through the latent, and from its KL to the prior; the actor reads the
    latent without a gradient. What the latent is inferred from is recent data and what is trained on is all data, so
    that contexts in training are like those of a test (Rakelly et al. 2019, §4.2).

    Data before the first iteration (`n_initial_steps` of every task) is collected in `init` and not counted in
    `steps_per_update`.

    Args:
        trial: what the agent is for; data is collected in single episodes of its environment.
        make_agent: from a key to a fresh agent.
        settings: of the algorithm.
    """

    trial: Trial
    make_agent: Callable[[Key[Array, ""]], ContextAgent] = eqx.field(static=True)
    settings: PEARLSettings = eqx.field(static=True)

    @property
    def steps_per_update(self) -> int:
        return self.settings.steps_per_update(self.trial.env.horizon)

    def optimiser(self) -> optax.GradientTransformation:
        """The encoder's."""
        return sac.adam(self.settings.sac)

    def init(self, key: Key[Array, ""]) -> PEARLState:
        s = self.settings
        key, key_agent, key_sac, key_tasks, key_collect = jax.random.split(key, 5)
        agent = self.make_agent(key_agent)
        networks = sac.init(
            key_sac,
            s.sac,
            observation_size=self.trial.observation_space.n_features,
            action_size=self.trial.action_space.n_features,
            context_size=agent.encoder.latent_size,
        )
        networks = eqx.tree_at(lambda n: n.actor, networks, agent.actor)
        tasks = task_batch(self.trial, key_tasks, s.split, s.n_tasks)
        everyone = jnp.arange(s.n_tasks)
        n_episodes = -(-s.n_initial_steps // self.trial.env.horizon)
        nothing = jax.tree.map(
            lambda leaf: jnp.zeros((s.n_tasks, n_episodes, *leaf.shape)), Evidence.none(agent.encoder.latent_size)
        )
        transitions, contexts, _ = self._collect(agent, tasks, nothing, key_collect)
        row = jax.tree.map(lambda leaf: leaf[0, 0], (transitions, contexts))
        prior, posterior, _ = s.episodes(self.trial.env.horizon)
        n_recent = max(prior + posterior, n_episodes) * self.trial.env.horizon
        return PEARLState(
            encoder=agent.encoder,
            optimiser=self.optimiser().init(agent.encoder),
            sac=networks,
            tasks=tasks,
            replay=TaskRings.init(row[0], s.n_tasks, s.capacity).insert(everyone, transitions),
            recent=TaskRings.init(row[1], s.n_tasks, n_recent).insert(everyone, contexts),
            key=key,
            n_updates=jnp.asarray(0, jnp.int32),
        )

    def agent(self, state: PEARLState) -> ContextAgent:
        """The agent as it is evaluated. Leaves may have leading axes."""
        made = jax.eval_shape(self.make_agent, jax.random.key(0))  # has no other arrays
        return eqx.tree_at(lambda agent: (agent.encoder, agent.actor), made, (state.encoder, state.sac.actor))

    def update(self, state: PEARLState) -> tuple[PEARLState, dict[str, Float[Array, ""]]]:
        key, key_collect, key_train = jax.random.split(state.key, 3)
        state, returns = self._visit(state, key_collect)

        def step(
            carry: tuple[PosteriorEncoder, PyTree, SACState], key: Key[Array, ""]
        ) -> tuple[tuple[PosteriorEncoder, PyTree, SACState], dict[str, Array]]:
            return self.train_step(carry, state.replay, state.recent, key)

        carry = state.encoder, state.optimiser, state.sac
        carry, metrics = jax.lax.scan(step, carry, jax.random.split(key_train, self.settings.n_train_steps))
        encoder, optimiser, networks = carry
        state = PEARLState(
            encoder, optimiser, networks, state.tasks, state.replay, state.recent, key, state.n_updates + 1
        )
        return state, returns | {name: jnp.mean(x) for name, x in metrics.items()}

    def train_step(
        self,
        carry: tuple[PosteriorEncoder, PyTree, SACState],
        replay: TaskRings,
        recent: TaskRings,
        key: Key[Array, ""],
    ) -> tuple[tuple[PosteriorEncoder, PyTree, SACState], dict[str, Float[Array, ""]]]:
        """One gradient step of encoder, critics and actor on `meta_batch` tasks (drawn with replacement, as published).

        Args:
            carry: encoder, its optimiser's state, and actor and critics.
            replay: transitions for actor and critics.
            recent: transitions that the latent is inferred from.
            key: randomness.
        """
        s = self.settings
        encoder, opt_state, networks = carry
        key_tasks, key_context, key_batch, key_latent, key_sac = jax.random.split(key, 5)
        tasks = jax.random.randint(key_tasks, (s.meta_batch,), 0, s.n_tasks)
        context = recent.draw(key_context, tasks, s.context_batch_size)
        batch = replay.draw(key_batch, tasks, s.batch_size)
        noise = jax.random.normal(key_latent, (s.meta_batch, encoder.latent_size))

        def infer(encoder: PosteriorEncoder) -> tuple[Float[Array, "task latent"], Float[Array, ""]]:
            belief = encoder.posterior(encoder(context).together())
            return belief.sample(noise), jnp.sum(belief.kl(standard(belief.mean)))

        (latent, kl), pull = jax.vjp(infer, encoder)
        rows = jnp.broadcast_to(latent[:, None], (s.meta_batch, s.batch_size, encoder.latent_size))
        networks, by_row, metrics = sac.update(key_sac, networks, batch, rows, s.sac)
        # `sac.update` descends half of the mean squared errors; the weight of the KL is that against the whole.
        (gradient,) = pull((2.0 * jnp.sum(by_row, axis=1), jnp.asarray(s.kl_lambda)))
        step, opt_state = self.optimiser().update(gradient, opt_state, encoder)
        encoder = optax.apply_updates(encoder, step)
        told = {
            "loss/critic": metrics["loss/critic"],
            "loss/actor": metrics["loss/actor"],
            "loss/entropy": metrics["entropy"],
            "loss/latent_kl": kl / s.meta_batch,
            "norm/latent": jnp.mean(jnp.linalg.norm(latent, axis=-1)),
            "sac/temperature": metrics["temperature"],
        }
        return (encoder, opt_state, networks), told

    def _visit(self, state: PEARLState, key: Key[Array, ""]) -> tuple[PEARLState, dict[str, Float[Array, ""]]]:
        """Data of some tasks: with latents of the prior, then of the posterior given what was just seen."""
        key_tasks, key_prior, key_posterior, key_extra = jax.random.split(key, 4)
        agent = self.agent(state)
        chosen = jax.random.permutation(key_tasks, self.settings.n_tasks)[: self.settings.n_tasks_sample]
        visit = Visit(chosen, jax.tree.map(lambda leaf: leaf[chosen], state.tasks))
        n_prior, n_posterior, n_extra = self.settings.episodes(self.trial.env.horizon)
        rings = state.replay, state.recent.emptied(chosen)
        rings, prior = self._phase(agent, visit, rings, key_prior, n_prior, given=False)

        def one(rings: Rings, key: Key[Array, ""]) -> tuple[Rings, Phase]:
            return self._phase(agent, visit, rings, key, 1)

        phases = [prior]
        if n_posterior:  # one after another, for each adds to what the next one is told
            rings, told = jax.lax.scan(one, rings, jax.random.split(key_posterior, n_posterior))
            phases.append(Phase(jnp.mean(told.per_step), jnp.mean(told.episode), jnp.sum(told.n_episodes)))
        if n_extra:
            (replay, _), extra = self._phase(agent, visit, rings, key_extra, n_extra)
            rings = replay, rings[1]
            phases.append(extra)
        state = eqx.tree_at(lambda s: (s.replay, s.recent), state, rings)
        return state, self._returns(phases)

    def _phase(
        self,
        agent: ContextAgent,
        visit: Visit,
        rings: Rings,
        key: Key[Array, ""],
        n_episodes: int,
        *,
        given: bool = True,
    ) -> tuple[Rings, Phase]:
        """Episodes side by side on every task, with latents of the posterior (`given`) or the prior."""
        key_context, key_collect = jax.random.split(key)
        replay, recent = rings
        evidence = self._evidence(agent.encoder, recent, visit.chosen, n_episodes, key_context, prior=not given)
        transitions, contexts, happened = self._collect(agent, visit.tasks, evidence, key_collect)
        rings = replay.insert(visit.chosen, transitions), recent.insert(visit.chosen, contexts)
        reward, ended = happened.timestep.reward, happened.timestep.done
        returns = jnp.sum(reward) / jnp.maximum(jnp.sum(ended), 1)
        return rings, Phase(jnp.mean(reward), returns, jnp.asarray(float(n_episodes)))

    def _returns(self, phases: list[Phase]) -> dict[str, Float[Array, ""]]:
        """What a trial would have brought: its first episode from the prior, the others from the posterior."""

        def mean(name: str, phases: list[Phase]) -> Float[Array, ""]:
            weights = jnp.stack([phase.n_episodes for phase in phases])
            return jnp.average(jnp.stack([getattr(phase, name) for phase in phases]), weights=weights)

        prior, later = phases[0].episode, phases[1:]
        rest = mean("episode", later) if later else jnp.asarray(jnp.nan)
        return {
            "return/per_step": mean("per_step", phases),
            "return/episode_1": prior,
            "return/trial": prior + (self.trial.n_episodes - 1) * rest,
        }

    def _evidence(
        self,
        encoder: PosteriorEncoder,
        recent: TaskRings,
        chosen: Int[Array, " task"],
        n_episodes: int,
        key: Key[Array, ""],
        *,
        prior: bool,
    ) -> Evidence:
        """Of each (task, episode): none, or a fresh draw of recent transitions."""
        shape = (chosen.shape[0], n_episodes)
        if prior:
            return jax.tree.map(lambda x: jnp.zeros((*shape, *x.shape)), Evidence.none(encoder.latent_size))
        tasks = jnp.broadcast_to(chosen[:, None], shape)
        return encoder(recent.draw(key, tasks, self.settings.context_batch_size)).together()

    def _collect(
        self, agent: ContextAgent, tasks: Task, evidence: Evidence, key: Key[Array, ""]
    ) -> tuple[Transition, Float[Array, "task row context"], Trajectory]:
        """Every (task, episode) at once, each with a latent drawn from its own evidence.

        Where episodes can end early, others on the same task follow until `horizon` steps are taken.

        Returns:
            Transitions and contexts with axes (task, row), and the trajectory (time, task and episode).
        """
        env = self.trial.env
        shape = evidence.precision.shape[:2]
        collector = agent.collector()
        trial = Trial(env, 1 if env.fixed_length else env.horizon + 1)
        key_begin, key_rollout = jax.random.split(key)
        many = jax.tree.map(lambda leaf: jnp.repeat(leaf, shape[1], axis=0), tasks)
        start = begin(collector, trial, key_begin, many)
        memory = collector.given(jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1]), evidence))
        start = eqx.tree_at(lambda s: s.memory, start, memory)
        _, happened = rollout(collector, trial, start, key_rollout, n_steps=env.horizon, split=self.settings.split)

        def rows(leaf: Array) -> Array:
            cut = leaf.reshape(leaf.shape[0], *shape, *leaf.shape[2:])  # time, task, episode
            return jnp.moveaxis(cut, 0, 2).reshape(shape[0], -1, *leaf.shape[2:])

        transitions, contexts = jax.tree.map(rows, self._rows(agent, happened))
        return transitions, contexts, happened

    def _rows(self, agent: ContextAgent, happened: Trajectory) -> tuple[Transition, Float[Array, "time batch context"]]:
        timestep, name = happened.timestep, self.settings.train_reward
        if name and name not in timestep.info:
            known = ", ".join(timestep.info) or "none"
            raise ConfigError(f"train_reward: this family's time steps have no extra '{name}'. There is: {known}.")
        steps = happened.token.next(happened.decision.action, timestep)
        transitions = Transition(
            agent.state(steps.last_observation),
            agent.unit_action(steps.action),
            timestep.info[name] if name else timestep.reward,
            agent.state(timestep.final_observation),
            timestep.terminated,
        )
        return transitions, agent.context(steps)
