"""What goes on at test time, for every kind of agent."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from fledge.agents.adapt import AdaptSettings, carry_over, check_mode, components, distances
from fledge.core.errors import ConfigError, ContractError
from fledge.envs.gridnav import GridNav
from fledge.envs.one_task import OneTask
from fledge.envs.trial import Trial
from fledge.run import at_test_time, build, recipe

SETTINGS = AdaptSettings(budget=1000, n_envs=4, n_points=2)
RECIPES = [
    "rl2-gridnav",
    "rl2-hyper-gridnav",
    "memoryless-gridnav",
    "oracle-gridnav",
    "varibad-gridnav",
    "ti-gridnav",
    "ti-plus-gridnav",
    "maml-point-nav",
    "cavia-point-nav",
    "meta-sgd-point-nav",
    "pearl-point-nav",
]


def learners(name, mode="all"):
    config = recipe.load(name).config("smoke")
    trial = build.make_trial(config.env)
    task = trial.sample(jax.random.key(0))
    own = Trial(OneTask(trial.env, task), trial.n_episodes)
    return build.make_learner(config, trial), at_test_time.make_test_learner(config, own, SETTINGS, 4, mode).learner


@pytest.fixture(scope="module")
def rl2():
    """A fresh state of training, and what was there to make it."""
    trained, learner = learners("rl2-gridnav")
    return trained, learner, jax.jit(trained.init)(jax.random.key(1))


@pytest.mark.parametrize("name", RECIPES)
def test_every_agent_can_learn_on_from_where_training_ended(name):
    trained, learner = learners(name)

    def both(key):
        begun = carry_over(learner.init(key), trained.init(key))
        return begun, learner.update(begun)[0]

    begun, after = jax.eval_shape(both, jax.random.key(0))
    assert jax.tree.structure(begun) == jax.tree.structure(after)


def test_parameters_and_normalisers_go_on_but_the_optimiser_starts_anew(rl2):
    _, learner, state = rl2
    state = jax.tree.map(lambda x: x + 1 if jnp.issubdtype(x.dtype, jnp.floating) else x, state)
    begun = carry_over(jax.jit(lambda key: learner.init(key))(jax.random.key(2)), state)
    np.testing.assert_array_equal(ravel_pytree(begun.agent)[0], ravel_pytree(state.agent)[0])
    assert float(begun.rewards.stats.mean) == float(state.rewards.stats.mean) != 0.0
    assert all(float(jnp.abs(x).max()) == 0 for x in jax.tree.leaves(begun.optimiser) if x.dtype == jnp.float32)


def test_pearl_goes_on_with_its_networks_but_with_empty_buffers_and_fresh_optimisers():
    trained, learner = learners("pearl-point-nav")
    before, begun = jax.jit(lambda key: (s := trained.init(key), carry_over(learner.init(key), s)))(jax.random.key(1))
    for part in ("actor", "critics", "targets"):
        np.testing.assert_array_equal(*(ravel_pytree(getattr(s.sac, part))[0] for s in (before, begun)))
    moments = [x for x in jax.tree.leaves(begun.sac.optimisers) if x.dtype == jnp.float32]
    assert (begun.replay.n_written.tolist(), begun.recent.n_written.tolist()) == ([0], [0])
    assert all(float(jnp.abs(x).max()) == 0 for x in moments)


def test_pearl_takes_as_many_gradient_steps_for_an_environment_step_as_in_training():
    trained, learner = learners("pearl-point-nav")
    per_step = [x.settings.n_train_steps / x.steps_per_update for x in (trained, learner)]
    assert per_step[1] == pytest.approx(per_step[0], rel=0.5)  # 3 steps for two tasks are 1.5 for one: 2


def test_parts_of_pearl_do_not_learn_on_alone():
    with pytest.raises(ConfigError, match="learn on together"):
        learners("pearl-point-nav", "subset:actor")


def test_there_is_no_pearl_without_a_posterior():
    with pytest.raises(ConfigError, match="--adapt scratch"):
        at_test_time.without_memory(recipe.load("pearl-point-nav").config("smoke"))


def test_a_family_of_one_task_draws_nothing_else():
    env = OneTask(GridNav(), jnp.array([3, 4], jnp.int32))
    assert env.sample(jax.random.key(0), "ood").tolist() == [3, 4]


def test_the_learning_rate_warms_up(rl2):
    learner = rl2[1]
    warm = at_test_time.make_test_learner(
        recipe.load("rl2-gridnav").config("smoke"), learner.trial, AdaptSettings(n_envs=4, warmup_frac=0.5), 4
    ).learner
    parameter = {"x": jnp.zeros(1)}
    optimiser = warm.optimiser()
    state = optimiser.init(parameter)
    moves = []
    for _ in range(2 * warm.settings.n_epochs * warm.settings.n_minibatches):
        move, state = optimiser.update({"x": jnp.ones(1)}, state, parameter)
        moves.append(-float(move["x"][0]))
    # Two of four updates warm up: half the rate, then all of it (which itself decays by a quarter an update).
    np.testing.assert_allclose(moves[-1] / moves[0], 1.5, rtol=1e-3)


def test_an_agent_is_at_no_distance_from_itself(rl2):
    agent = rl2[2].agent
    assert {name: float(x) for name, x in distances(agent, agent).items()} == {
        "encoder": 0.0,
        "memory": 0.0,
        "policy": 0.0,
        "parameters": 0.0,
    }


def test_a_component_that_an_agent_has_not_is_refused(rl2):
    agent = rl2[2].agent
    with pytest.raises(ConfigError, match="Did you mean 'memory'"):
        check_mode("subset:memori", agent)
    assert check_mode("subset:memory,policy", agent) == ("memory", "policy")
    assert set(components(agent)) == {"encoder", "memory", "policy"}


def test_a_learner_of_which_nobody_has_said_what_goes_on_is_one_message():
    with pytest.raises(ContractError, match="Register it"):
        carry_over({}, {})


@pytest.mark.parametrize("wrong", [{"budget": 0}, {"n_envs": 0}, {"warmup_frac": 1.0}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        AdaptSettings(**wrong)
