"""Reference agents: posteriors by hand, indices from the literature, and who beats whom."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.agents.references import (
    REFERENCES,
    UCB1,
    GittinsBandit,
    GreedyBandit,
    RandomAgent,
    ThompsonBernoulli,
    ThompsonGaussian,
    gittins_indices,
    make_reference,
    references_for,
)
from fledge.core.errors import ConfigError
from fledge.core.spaces import Discrete
from fledge.core.types import Token
from fledge.envs.bandits import Bandit
from fledge.envs.pointnav import PointNav
from fledge.envs.trial import Trial

N_TASKS, N_PULLS = 2_000, 100


def token(action, reward, start=False):
    zero = jnp.zeros(1)
    first = Token.first(zero, Discrete(3))
    if start:
        return first
    return Token(zero, zero, jnp.asarray(action), jnp.asarray(reward, jnp.float32), ~first.done, zero, ~first.start)


def played(agent, pulls):
    """The memory after a trial's first decision and these (action, reward) pairs, and the last decision's action."""
    decision, memory = agent.act(agent.begin(), token(0, 0.0, start=True))
    for action, reward in pulls:
        decision, memory = agent.act(memory, token(action, reward))
    return memory, int(decision.action)


def test__thompson_bernoulli__posterior_after_five_pulls__is_the_one_by_hand():
    agent = ThompsonBernoulli(3)
    memory, _ = played(agent, [(0, 1.0), (0, 0.0), (2, 1.0), (2, 1.0), (0, 0.0)])
    alpha, beta = agent.posterior(memory)
    np.testing.assert_array_equal(alpha, [2.0, 1.0, 3.0])
    np.testing.assert_array_equal(beta, [3.0, 1.0, 1.0])


def test__thompson_bernoulli__greedy__takes_the_best_posterior_mean():
    # Posterior means: 2/5, 1/2, 3/4.
    assert played(ThompsonBernoulli(3), [(0, 1.0), (0, 0.0), (2, 1.0), (2, 1.0), (0, 0.0)])[1] == 2


def test__thompson_gaussian__posterior_after_two_pulls__is_the_one_by_hand():
    agent = ThompsonGaussian(3, std=0.5, prior_mean=0.5, prior_variance=0.25)
    memory, _ = played(agent, [(1, 0.8), (1, 1.1)])
    mean, variance = agent.posterior(memory)
    # Precisions: prior 4, each pull 4. Mean (4·0.5 + 4·1.9) / 12.
    np.testing.assert_allclose(mean, [0.5, 0.8, 0.5], atol=1e-6)
    np.testing.assert_allclose(variance, [0.25, 1 / 12, 0.25], atol=1e-6)


def test__ucb1__once_all_arms_are_tried__takes_the_highest_bound():
    # Means 1, 0, ½ after 4, 1, 2 pulls: 1 + √(2 ln 7 / 4) = 1.99, 0 + √(2 ln 7) = 1.97, ½ + √(ln 7) = 1.89.
    pulls = [(0, 1.0)] * 4 + [(1, 0.0), (2, 1.0), (2, 0.0)]
    assert played(UCB1(3), pulls)[1] == 0
    # One more success of arm 0 narrows its bound to 1 + √(2 ln 8 / 5) = 1.91, below √(2 ln 8) = 2.04.
    assert played(UCB1(3), [*pulls, (0, 1.0)])[1] == 1


@pytest.mark.parametrize("agent", [UCB1(3), GreedyBandit(3)], ids=["ucb1", "greedy"])
def test__counting_agent__tries_every_arm_first(agent):
    assert [played(agent, [(arm, 1.0) for arm in range(n)])[1] for n in range(3)] == [0, 1, 2]


def test__new_trial__forgets_the_old_one():
    agent = ThompsonBernoulli(3)
    memory, _ = played(agent, [(0, 1.0), (2, 1.0)])
    _, fresh = agent.act(memory, token(0, 0.0, start=True))
    assert not jnp.any(fresh.pulls)


def test__random_agent__takes_every_action_about_equally_often():
    agent = RandomAgent(Discrete(3))
    first = token(0, 0.0, start=True)
    actions = jax.vmap(lambda key: agent.act((), first, key)[0].action)(jax.random.split(jax.random.key(0), 3_000))
    # Three standard deviations of a binomial count with n = 3000 and p = 1/3.
    assert np.max(np.abs(np.bincount(actions, minlength=3) - 1_000)) < 3 * (3_000 * 2 / 9) ** 0.5


def test__gittins_indices__agree_with_the_published_table():
    # Gittins, Multi-armed Bandit Allocation Indices, 1989, Bernoulli tables (discount 0.9, counts from 1): .7029 at
    # (1, 1), .8001 at (2, 1), .5001 at (1, 2).
    index = gittins_indices(4, 0.9)
    np.testing.assert_allclose([index[0, 0], index[1, 0], index[0, 1]], [0.7029, 0.8001, 0.5001], atol=1e-3)


@pytest.fixture(scope="module")
def regrets():
    """Expected regret over 100 pulls of 10 arms, for each task and reference."""
    trial = Trial(Bandit(10), N_PULLS)

    def one(agent, key):
        key_task, key_reset, key_steps = jax.random.split(key, 3)
        task = trial.sample(key_task)
        state, observation = trial.reset(key_reset, task)

        def step(carry, key):
            state, memory, token = carry
            key_act, key_step = jax.random.split(key)
            decision, memory = agent.act(memory, token, agent.sample_noise(key_act))
            state, timestep = trial.step(key_step, state, decision.action, task)
            return (state, memory, token.next(decision.action, timestep)), timestep.info["regret"]

        first = (state, agent.begin(), Token.first(observation, trial.action_space))
        return jnp.sum(jax.lax.scan(step, first, jax.random.split(key_steps, N_PULLS))[1])

    run = jax.jit(jax.vmap(one, in_axes=(None, 0)))
    keys = jax.random.split(jax.random.key(0), N_TASKS)
    return {name: np.asarray(run(make_reference(name, trial), keys)) for name in references_for(trial)}


def standard_error(values):
    return float(np.std(values) / len(values) ** 0.5)


def test__thompson__regret_over_100_pulls_of_10_arms__is_13_point_85(regrets):
    # 13.85 ± 0.03 (standard error over 20,000 tasks, other keys); 2,000 tasks here give ± 0.11.
    assert abs(np.mean(regrets["thompson"]) - 13.85) < 4 * standard_error(regrets["thompson"])


def test__random__regret_over_100_pulls__is_the_best_mean_less_one_half(regrets):
    # E max of ten U(0, 1) is 10/11, the mean arm ½: 100 · (10/11 − ½) = 40.91.
    assert abs(np.mean(regrets["random"]) - 40.91) < 4 * standard_error(regrets["random"])


@pytest.mark.parametrize(("better", "worse"), [("thompson", "ucb1"), ("ucb1", "random"), ("gittins", "thompson")])
def test__references__are_ordered_as_known(regrets, better, worse):
    gap = regrets[worse] - regrets[better]
    assert np.mean(gap) > 4 * standard_error(gap)


def test__references_for__lists_what_applies_to_the_environment():
    assert references_for(Trial(Bandit(5, "gaussian"), 10)) == ["random", "thompson-gaussian", "ucb1", "greedy"]
    assert references_for(PointNav()) == ["random"]


def test__make_reference__where_it_does_not_apply__lists_what_does():
    with pytest.raises(ConfigError, match="These do: random"):
        make_reference("thompson", PointNav())


def test__make_reference__with_a_misspelt_name__names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'thompson'"):
        make_reference("tompson", Bandit())


def test__gittins__is_made_for_the_pulls_of_the_trial():
    agent = make_reference("gittins", Trial(Bandit(5), 20))
    assert isinstance(agent, GittinsBandit)
    assert agent.index.shape == (21, 21)


def test__every_reference__says_what_it_is():
    assert all(row.about for row in REFERENCES.values())
