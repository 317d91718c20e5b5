"""η that learns along long lives: windows, staggered ages, guards, and what η can be."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

sys.path.insert(0, str(Path(__file__).parent))

from worlds import Probe

from fledge.agents.maml import MAMLAgentSettings, adaptive_policy
from fledge.core.errors import ConfigError
from fledge.core.spaces import Box
from fledge.envs.trial import Trial
from fledge.learn.episodes import collect
from fledge.learn.eta import WEIGHTS, EntropySchedule, IntrinsicReward, LossWeights, ignored_parts
from fledge.learn.lpg import LearnedPolicyGradient
from fledge.learn.online_meta import OnlineMeta, OnlineMetaSettings

ENV = Probe("hidden", 1)
SETTINGS = OnlineMetaSettings(n_lives=4, life_len=12, window=3, batch_size=4, critic_hidden=())
ETAS = {
    "weights": lambda key: LossWeights.init({"policy_coef": 0.5, "entropy_coef": 0.5, "gae_lambda": 0.9}),
    "reward": lambda key: IntrinsicReward.init(key, ENV.observation_space, ENV.action_space, hidden=4),
    "schedule": lambda key: EntropySchedule.init(key, hidden=4),
    "lpg": lambda key: LearnedPolicyGradient.init(key, ENV.action_space, hidden=3, n_predictions=2, embedding=8),
}
IGNORED = {"weights": ["logits['gae_lambda']"], "lpg": ["memory.weight"]}
"""Episodes of one step have no use for λ or a memory."""


def learner(eta="weights", **changes):
    make = adaptive_policy(MAMLAgentSettings(hidden=()), ENV)
    return OnlineMeta(Trial(ENV, 1), make, ETAS[eta], replace(SETTINGS, **changes))


@pytest.fixture(scope="module")
def weights():
    """A learner of loss weights, its state, and its compiled update."""
    made = learner()
    return made, jax.jit(made.init)(jax.random.key(0)), jax.jit(made.update)


@cache
def gradient(eta="weights", **changes):
    """Of a window's outer loss, at the start."""
    made = learner(eta, **changes)

    def of_window(key):
        state = made.init(key)
        return jax.grad(lambda e: made.window(e, state.lives, state.tasks, jax.random.key(1))[0])(state.eta)

    return jax.jit(of_window)(jax.random.key(0))


@pytest.mark.parametrize("eta", ETAS)
def test_every_eta_has_a_gradient_and_the_parts_that_the_update_ignores_are_named(eta):
    assert ignored_parts(gradient(eta)) == IGNORED.get(eta, [])


def test_recomputing_changes_no_gradient():
    for one, other in zip(*(jax.tree.leaves(g) for g in (gradient(), gradient(remat=True))), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_adam_inside_has_a_finite_meta_gradient():
    found = ravel_pytree(gradient(optimiser="adam"))[0]
    assert (bool(jnp.isfinite(found).all()), bool(jnp.any(found != 0))) == (True, True)


def test_lives_start_at_different_ages_and_start_anew_when_they_are_over(weights):
    _, state, update = weights
    ages = [np.asarray(state.age)]
    for _ in range(4):
        state, _ = update(state)
        ages.append(np.asarray(state.age))
    assert len(set(ages[0])) > 1 and (np.diff(ages, axis=0) < 0).any(0).all()


def test_a_life_goes_on_where_its_window_ended(weights):
    made, state, update = weights
    state = eqx.tree_at(lambda s: s.age, state, jnp.zeros_like(state.age))
    _, (lives, _) = jax.jit(made.window)(state.eta, state.lives, state.tasks, jax.random.split(state.key, 4)[1])
    after, _ = update(state)
    np.testing.assert_allclose(
        after.lives.theta.policy.net.layers[0].bias, lives.theta.policy.net.layers[0].bias, atol=1e-6
    )


def test_a_window_with_something_that_is_no_number_is_dropped_and_counted(weights):
    _, state, update = weights
    broken = eqx.tree_at(lambda s: s.lives.recent, state, state.lives.recent.at[0, 0].set(jnp.nan))
    broken = eqx.tree_at(lambda s: s.lives.theta.critic.layers[0].bias, broken, jnp.full((4, 1), jnp.nan))
    after, metrics = update(broken)
    assert (float(metrics["meta/dropped"]), float(after.eta.logits["policy_coef"])) == (
        1.0,
        float(state.eta.logits["policy_coef"]),
    )


def test_learning_faster_is_learnt(weights):
    _, state, update = weights
    run = jax.jit(lambda s: jax.lax.scan(lambda s, _: update(s), s, None, length=150)[0])
    after = run(state)
    gained = {name: float(after.eta.logits[name] - state.eta.logits[name]) for name in ("policy_coef", "entropy_coef")}
    assert (gained["policy_coef"] > 0.3, gained["entropy_coef"] < -0.3) == (True, True)


def test_a_window_longer_than_a_life_is_refused():
    with pytest.raises(ConfigError, match="window of 13 updates is longer than a life of 12"):
        replace(SETTINGS, window=13)


def test_a_number_that_no_loss_has_is_refused():
    with pytest.raises(ConfigError, match="Did you mean 'discount'"):
        LossWeights.init({"discout": 0.9})


@pytest.fixture(scope="module")
def lpg():
    """A learner of update rules on episodes of two steps, a life, and a batch of it."""
    env = Probe("hidden", 2)
    make = adaptive_policy(MAMLAgentSettings(hidden=()), env)
    made = OnlineMeta(Trial(env, 1), make, ETAS["lpg"], SETTINGS)
    life = made.born(jax.random.key(1))
    return (
        made,
        made.make_eta(jax.random.key(0)),
        life,
        collect(life.theta.policy, made.trial, jnp.asarray(1.0), jax.random.key(2), 3),
    )


@pytest.mark.parametrize("what", ["rule", "weights"])
def test_the_derivative_of_two_updates_is_that_of_finite_differences(lpg, what):
    made, eta, life, episodes = lpg
    if what == "weights":
        eta = LossWeights.init({**WEIGHTS, "policy_coef": 0.9})
    flat, unravel = ravel_pytree(eta)

    @jax.jit
    def after(x):  # the second update reads what the first one made of θ
        once, _ = made.inner_update(unravel(x), life, episodes)
        twice, cost = made.inner_update(unravel(x), once, episodes)
        return jnp.append(ravel_pytree(twice.theta)[0], cost)

    along = jax.random.normal(jax.random.key(3), flat.shape)
    exact = jax.jit(lambda x: jax.jvp(after, (x,), (along,))[1])(flat)
    differences = (after(flat + 1e-2 * along) - after(flat - 1e-2 * along)) / 2e-2
    largest = float(jnp.abs(exact).max())
    np.testing.assert_allclose(exact, differences, atol=0.1 * largest)
    assert largest > 1e-3


def test_the_weight_of_the_critics_loss_has_a_meta_gradient(lpg):
    made, _, life, episodes = lpg

    def after(coef):  # the critic learns in the first update, and the policy from it in the second
        eta = LossWeights({"value_coef": coef})
        once, _ = made.inner_update(eta, life, episodes)
        return ravel_pytree(made.inner_update(eta, once, episodes)[0].theta.policy)[0]

    slope = jax.jit(jax.jacfwd(after))(jnp.asarray(0.0))
    assert float(jnp.abs(slope).max()) > 1e-6  # exactly 0 if advantages forgot where their critic came from


def test_a_learnt_rule_reads_backwards_and_stops_at_the_episodes_end(lpg):
    _, eta, life, episodes = lpg

    def gains(changed):
        return np.asarray(eta(changed, life.recent, life.theta).targets.gains)

    before = gains(episodes)
    last = gains(replace(episodes, rewards=episodes.rewards.at[1].add(1.0)))
    first = gains(replace(episodes, rewards=episodes.rewards.at[0].add(1.0)))
    assert (np.abs(last - before)[0].min() > 0, np.abs(first - before)[1].max()) == (True, 0.0)


def test_the_policy_of_a_learnt_rule_never_hears_of_the_critic(lpg):
    made, eta, life, episodes = lpg
    other = eqx.tree_at(lambda x: x.theta.critic.layers[0].bias, life, jnp.full(1, 5.0))
    found = [made.inner_update(eta, some, episodes)[0].theta for some in (life, other)]
    for name in ("policy", "predictor"):
        one, two = (ravel_pytree(getattr(theta, name))[0] for theta in found)
        np.testing.assert_array_equal(one, two)


def test_a_learnt_rule_needs_actions_that_have_a_probability():
    with pytest.raises(ConfigError, match="discrete actions"):
        LearnedPolicyGradient.init(jax.random.key(0), Box(2))
