"""The rows of the families off the grid: each one builds, and one of each kind runs under jit, vmap and scan."""

from __future__ import annotations

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.envs.rows_rest import ROWS
from fledge.envs.trial import Trial


def build(where, settings):
    module, name = where.split(":")
    return getattr(importlib.import_module(f"fledge.envs.{module}"), name)(**settings)


def test__rows__have_names_of_their_own():
    assert len({row[0] for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test__row__builds_a_family_that_describes_its_tasks(row):
    env = build(row[1], row[2])
    task = env.sample(jax.random.key(0), "ood")
    assert env.describe(task)
    assert env.task_vector(task).ndim == 1


WALKED = [row for row in ROWS if row[0] in ("bandit-gaussian", "mdp", "t-lso", "point-nav-square", "semicircle")]


@pytest.mark.parametrize("row", WALKED, ids=[row[0] for row in WALKED])
def test__family__two_random_episodes__end_when_promised_inside_the_observation_space(row):
    env = build(row[1], row[2])
    trial = Trial(env, 2)

    def walk(key):
        key_task, key_reset, key_steps = jax.random.split(key, 3)
        task = trial.sample(key_task, "test")
        state, first = trial.reset(key_reset, task)

        def step(state, key):
            key_act, key_step = jax.random.split(key)
            state, timestep = trial.step(key_step, state, trial.action_space.sample(key_act), task)
            return state, timestep

        _, timesteps = jax.lax.scan(step, state, jax.random.split(key_steps, trial.horizon))
        inside = jax.vmap(env.observation_space.contains)(timesteps.final_observation)
        return inside & env.observation_space.contains(first), timesteps

    inside, timesteps = jax.jit(jax.vmap(walk))(jax.random.split(jax.random.key(0), 3))
    assert bool(jnp.all(inside))
    assert jnp.all(jnp.any(timesteps.trial_end, axis=1))
    if env.fixed_length:
        ends = np.zeros(trial.horizon, bool)
        ends[env.horizon - 1 :: env.horizon] = True
        np.testing.assert_array_equal(timesteps.done, np.broadcast_to(ends, timesteps.done.shape))
