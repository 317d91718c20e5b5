"""The trial: K episodes on one task, walked through as one long episode."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, Shaped

from fledge.core.contracts import Env
from fledge.core.types import Task, TimeStep
from fledge.envs.wrapper import Wrapper


class TrialState(eqx.Module):
    """The inner environment's state, the number of the running episode and the step inside it."""

    inner: PyTree
    episode: Int[Array, ""]
    step: Int[Array, ""]


class Trial(Wrapper):
    """`n_episodes` episodes of `env` on one task (the Bayes-adaptive wrapper of RL² and VariBAD).

    An inner reset costs no environment step: at an inner episode's end the time step carries the terminal observation
    (`final_observation`) *and* the start of the next episode (`observation`). `trial_end` is raised once, at the end of
    the last episode; there `observation` is the terminal one and whoever drives the environment draws a new task.
    """

    env: Env
    n_episodes: int = eqx.field(static=True)

    @property
    def horizon(self) -> int:
        """Most steps of a whole trial: no step is spent on resets (VariBAD's K − 1 dummy steps never happen)."""
        return self.env.horizon * self.n_episodes

    def position(self, state: TrialState) -> Float[Array, "2"] | None:
        return self.env.position(state.inner)

    def reset(self, key: Key[Array, ""], task: Task) -> tuple[TrialState, Shaped[Array, "*obs"]]:
        inner, observation = self.env.reset(key, task)
        return TrialState(inner, jnp.asarray(0, jnp.int32), jnp.asarray(0, jnp.int32)), observation

    def restart(self, key: Key[Array, ""], state: TrialState, task: Task) -> tuple[TrialState, Shaped[Array, "*obs"]]:
        return self.reset(key, task)

    def step(
        self, key: Key[Array, ""], state: TrialState, action: Shaped[Array, "*act"], task: Task
    ) -> tuple[TrialState, TimeStep]:
        key_step, key_reset = jax.random.split(key)
        inner, timestep = self.env.step(key_step, state.inner, action, task)
        done = timestep.done
        episode = state.episode + done
        trial_end = episode >= self.n_episodes
        inner, observation = self._next_start(key_reset, inner, timestep, done & ~trial_end, task)
        timestep = eqx.tree_at(lambda t: (t.observation, t.trial_end), timestep, (observation, trial_end))
        return TrialState(inner, episode, jnp.where(done, 0, state.step + 1)), timestep

    def _next_start(
        self, key: Key[Array, ""], inner: PyTree, timestep: TimeStep, restart: Bool[Array, ""], task: Task
    ) -> tuple[PyTree, Shaped[Array, "*obs"]]:
        fresh = self.env.restart(key, inner, task)
        return jax.tree.map(lambda new, old: jnp.where(restart, new, old), fresh, (inner, timestep.final_observation))
