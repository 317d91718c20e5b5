from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import Probe

from fledge.agents.build import MemoryAgentSettings, memory_agent
from fledge.core.errors import ConfigError
from fledge.envs.gridnav import GridNav
from fledge.envs.trial import Trial
from fledge.learn.devices import place
from fledge.learn.loop import Loop
from fledge.learn.ppo import PPO, PPOSettings

KINDS = ("gru", "lstm", "linear", "none", "transformer", "splagger-avg", "amrl")
"""A memory of each kind of state and gradient; that all others replay what they did is shown by their exam."""


def learner(env, n_episodes=2, agent=None, **settings):
    trial = Trial(env, n_episodes)
    make = memory_agent(MemoryAgentSettings(**{"memory_size": 8, "joint_embedding": 8} | (agent or {})), trial)
    return PPO(trial, make, PPOSettings(**{"n_envs": 4, "n_minibatches": 2, "learning_rate": 1e-2} | settings), 10)


def ratio_errors(ppo, n_updates=3):
    state = jax.jit(ppo.init)(jax.random.key(0))
    update, errors = jax.jit(ppo.update), []
    for _ in range(n_updates):
        state, metrics = update(state)
        errors.append(float(metrics["ppo/ratio_error"]))
    return errors


@pytest.mark.parametrize("memory", KINDS)
def test_first_ratio__whole_trials__is_one(memory):
    errors = ratio_errors(learner(GridNav(horizon=5), agent={"memory": memory}))
    assert max(errors) < 1e-5


@pytest.mark.parametrize("memory", KINDS)
def test_first_ratio__truncated_unrolls_that_cross_trial_ends__is_one(memory):
    errors = ratio_errors(learner(GridNav(horizon=5), agent={"memory": memory}, unroll_len=7))
    assert max(errors) < 1e-5


def test_first_ratio__episodes_that_end_early__is_one():
    assert max(ratio_errors(learner(Probe("early", 5), unroll_len=9))) < 1e-5


def test_first_ratio__normalised_observations__is_one_although_the_statistics_move():
    assert max(ratio_errors(learner(GridNav(horizon=5), agent={"normalise_observations": True}))) < 1e-5


def test_first_ratio__memory_taken_after_the_step__would_be_noticed():
    ppo = learner(GridNav(horizon=5), unroll_len=7)
    state = jax.jit(ppo.init)(jax.random.key(0))
    state, _ = jax.jit(ppo.update)(state)
    wrong = jax.tree.map(lambda x: x + 0.1, state.rollout.memory)
    from fledge.learn.ppo import ppo_loss
    from fledge.learn.rollout import rollout

    rolled, happened = rollout(state.agent, ppo.trial, state.rollout, state.key, n_steps=7)
    _, batch = ppo.prepare(state, rolled, happened, wrong)
    assert ppo_loss(state.agent, batch, ppo.settings, jnp.asarray(0.0))[1]["ppo/ratio_error"] > 1e-4


def test_a_second_update_does_not_recompile():
    ppo = learner(GridNav(horizon=3))
    state = jax.jit(ppo.init)(jax.random.key(0))
    update = jax.jit(ppo.update)
    for _ in range(3):
        state, _ = update(state)
    assert update._cache_size() == 1


def test_max_grad_norm_is_the_global_norm():
    ppo = learner(GridNav(horizon=3), max_grad_norm=0.5)
    params = {"a": jnp.full(9, 100.0), "b": jnp.full(16, 100.0)}
    clipped, _ = ppo.optimiser().update(params, ppo.optimiser().init(params))
    reference = jax.tree.map(lambda x: x * 0.5 / 500.0, params)  # norm of 25 entries of 100 is 500
    expected = jax.tree.map(lambda g: -1e-2 * g / (jnp.abs(g) + 1e-5), reference)  # Adam's first step
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4), clipped, expected)


def test_minibatches_that_do_not_divide_the_environments_are_refused_with_the_cure():
    with pytest.raises(ConfigError, match="Make n_envs a multiple of n_minibatches"):
        learner(GridNav(), n_envs=5, n_minibatches=2)


@pytest.fixture(scope="module")
def loop():
    return Loop(learner(GridNav(horizon=5)), chunk_len=2)


def test_seed_i_alone_is_seed_i_inside_the_vmap(loop):
    keys = jax.random.split(jax.random.key(3), 4)
    together = next(iter(loop.run(loop.init(keys), n_chunks=1)))
    alone_loop = Loop(loop.learner, chunk_len=2)
    alone = next(iter(alone_loop.run(alone_loop.init(keys[1:2]), n_chunks=1)))
    for name, x in alone.metrics.items():
        np.testing.assert_allclose(x[:, 0], together.metrics[name][:, 1], rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(("n_seeds", "grid"), [(4, (2, 1)), (1, (1, 2))])
def test_two_devices_give_the_numbers_of_one(loop, n_seeds, grid):
    keys = jax.random.split(jax.random.key(3), n_seeds)
    placement = place(n_seeds, n_rows=2, devices=jax.devices()[:2])
    spread = Loop(replace(loop.learner, split=placement.split), chunk_len=2, placement=placement)
    one = list(Loop(loop.learner, chunk_len=2).run(loop.init(keys), n_chunks=2))[-1]
    two = list(spread.run(spread.init(keys), n_chunks=2))[-1]
    assert placement.mesh.devices.shape == grid
    assert {leaf.sharding.num_devices for leaf in jax.tree.leaves(two.state)} == {2}
    for name, x in one.metrics.items():
        np.testing.assert_allclose(x, two.metrics[name], rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(("n_seeds", "n_rows", "grid"), [(3, 16, (1, 2)), (3, 5, (1, 1)), (4, 16, (2, 1))])
def test_devices_are_used_where_they_divide_the_work(n_seeds, n_rows, grid):
    assert place(n_seeds, n_rows, jax.devices()[:2]).mesh.devices.shape == grid


def test_a_run_that_goes_on_from_a_saved_state_is_the_run_that_never_stopped(loop):
    keys = jax.random.split(jax.random.key(3), 4)

    def numbers(chunk):
        return jax.tree.map(np.array, jax.tree.map(_bits, chunk.state))

    whole = [numbers(chunk) for chunk in loop.run(loop.init(keys), n_chunks=2)]
    saved = None
    for chunk in loop.run(loop.init(keys), n_chunks=1):
        saved = jax.tree.map(jnp.array, chunk.state)
    (resumed,) = [numbers(chunk) for chunk in loop.run(saved, n_chunks=2, done=1)]
    jax.tree.map(np.testing.assert_array_equal, resumed, whole[-1])


def _bits(x):
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
