"""Inner steps, outer objectives and trust regions, against numpy, finite differences and hand-made cases."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

sys.path.insert(0, str(Path(__file__).parent))

from worlds import Probe

from fledge.agents.maml import MAMLAgent, MAMLAgentSettings, adaptive_policy
from fledge.core.errors import ConfigError
from fledge.envs.pointnav import PointNav
from fledge.envs.trial import Trial
from fledge.learn.episodes import advantages, collect, linear_values, solve
from fledge.learn.inner import InnerSettings, Meta, adapt_chain, inner_step
from fledge.learn.maml import MAML, MAMLSettings
from fledge.learn.outer import OuterSettings, objective, others_mean
from fledge.learn.trpo import conjugate_gradient, trust_region_step

ENV = PointNav(goals="square", horizon=6, stop_within=0.3, action_limit=0.1, step_size=1.0)
INNER = InnerSettings(batch_size=4, learning_rate=0.5)


@pytest.fixture(scope="module")
def policy():
    make = adaptive_policy(MAMLAgentSettings(hidden=(3,), context_size=2), ENV)
    return jax.jit(make)(jax.random.key(0))


@pytest.fixture(scope="module")
def episodes(policy):
    return jax.jit(lambda p, key: collect(p, Trial(ENV, 1), jnp.array([0.3, -0.35]), key, 4))(policy, jax.random.key(1))


@pytest.fixture(scope="module")
def learner():
    settings = MAMLSettings(outer="pg", n_tasks=4, inner=InnerSettings(batch_size=3))
    return MAML(Trial(ENV, 1), adaptive_policy(MAMLAgentSettings(hidden=(3,)), ENV), _wrap, settings)


@pytest.fixture(scope="module")
def played(learner):
    def play(key):
        meta = Meta(learner.make_policy(key))
        tasks = jax.vmap(ENV.sample)(jax.random.split(jax.random.key(2), 4))
        return meta, learner.play(meta, tasks, jax.random.key(3))

    return jax.jit(play)(jax.random.key(0))


VARIANTS = {
    "all": INNER,
    "context": replace(INNER, adapts="context"),
    "head": replace(INNER, adapts="head"),
    "ratio": replace(INNER, objective="ratio"),
}


@jax.jit
def stepped(policy, episodes):
    """The policy after an inner step of every variant, in one program; `sizes` has learnt step sizes."""
    found = {name: inner_step(Meta(policy), policy, episodes, s) for name, s in VARIANTS.items()}
    return found | {"sizes": inner_step(Meta.init(policy, INNER, learn_step_sizes=True), policy, episodes, INNER)}


@pytest.fixture(scope="module")
def steps(policy, episodes):
    return stepped(policy, episodes)


def _flat(policy):
    return np.asarray(ravel_pytree(policy)[0])


def _wrap(meta):
    return MAMLAgent(meta, INNER, ENV.horizon)


def test_elimination_solves_what_numpy_solves():
    rng = np.random.default_rng(0)
    half = rng.normal(size=(7, 7))
    matrix, vector = half @ half.T + np.eye(7), rng.normal(size=7)
    found = jax.jit(solve)(jnp.asarray(matrix, jnp.float32), jnp.asarray(vector, jnp.float32))
    np.testing.assert_allclose(found, np.linalg.solve(matrix, vector), rtol=1e-3)


def test_the_mask_ends_with_the_first_episode(episodes):
    mask = np.asarray(episodes.mask)
    assert mask[0].all() and (np.diff(mask.astype(int), axis=0) <= 0).all() and not mask.all()


def test_the_baseline_fits_returns_that_are_linear_in_its_features(episodes):
    returns = 2.0 * episodes.features[..., 0] - 1.0
    values = jax.jit(linear_values)(episodes, returns)
    np.testing.assert_allclose(values[episodes.mask], returns[episodes.mask], atol=2e-3)


def test_advantages_have_mean_zero_and_scale_one_over_real_steps(episodes):
    found, _ = jax.jit(lambda e: advantages(e, discount=0.9, gae_lambda=1.0))(episodes)
    real = np.asarray(found)[np.asarray(episodes.mask)]
    np.testing.assert_allclose([real.mean(), real.std()], [0.0, 1.0], atol=1e-2)


def test_padding_changes_no_inner_step(policy, episodes):
    cut = jax.tree.map(lambda x: x, episodes)
    noise = jnp.where(episodes.mask, 0.0, 100.0)
    changed = replace(cut, rewards=cut.rewards + noise, features=cut.features + noise[..., None])
    found = [_flat(stepped(policy, e)["all"]) for e in (episodes, changed)]
    np.testing.assert_allclose(*found, atol=1e-6)


@pytest.fixture(scope="module")
def two_steps(policy, episodes):
    """A program: weights → those after two inner steps, the derivative of that along a direction, and the latter for
    steps of first order. And the weights, and the direction."""
    flat, unravel = ravel_pytree(policy)
    along = jax.random.normal(jax.random.key(5), flat.shape)
    batches = jax.tree.map(lambda x: jnp.stack([x, x]), episodes)

    @jax.jit
    def program(x):
        def after(x, settings):
            return ravel_pytree(adapt_chain(Meta(unravel(x)), batches, settings)[0])[0]

        found, slope = jax.jvp(lambda x: after(x, INNER), (x,), (along,))
        return found, slope, jax.jvp(lambda x: after(x, replace(INNER, first_order=True)), (x,), (along,))[1]

    return program, flat, along


def test_the_derivative_of_two_inner_steps_is_that_of_finite_differences(two_steps):
    program, flat, along = two_steps
    step = 1e-3
    both = [program(flat + s * along)[0] for s in (step, -step)]
    np.testing.assert_allclose(program(flat)[1], (both[0] - both[1]) / (2 * step), atol=2e-2)


def test_to_first_order_adaptation_is_a_shift(two_steps):
    program, flat, along = two_steps
    np.testing.assert_allclose(program(flat)[2], along)


def test_both_inner_objectives_take_the_same_step(steps):
    np.testing.assert_allclose(_flat(steps["all"]), _flat(steps["ratio"]), atol=1e-5)


@pytest.mark.parametrize(("part", "moves"), [("context", {"context"}), ("head", {"net"}), ("all", {"net", "context"})])
def test_only_the_chosen_part_adapts(policy, steps, part, moves):
    after = steps[part]
    changed = {
        name
        for name in ("net", "context")
        if _flat(getattr(policy, name)).tolist() != _flat(getattr(after, name)).tolist()
    }
    assert changed == moves


def test_anil_leaves_the_first_layer_alone(policy, steps):
    np.testing.assert_array_equal(steps["head"].net.layers[0].weight, policy.net.layers[0].weight)


def test_learnt_step_sizes_start_as_the_setting(steps):
    np.testing.assert_allclose(_flat(steps["all"]), _flat(steps["sizes"]), rtol=1e-5)


def test_others_mean_leaves_each_one_out():
    np.testing.assert_allclose(others_mean(jnp.array([1.0, 3.0, 5.0, 7.0]), 2), [3.0, 1.0, 7.0, 5.0])
    np.testing.assert_allclose(others_mean(jnp.array([1.0, 2.0, 6.0]), 1), [4.0, 3.5, 1.5])


def test_the_sampling_correction_is_credit_times_the_scores_of_the_whole_batch(played):
    meta, data = played
    inner = InnerSettings(batch_size=3)
    flat, unravel = ravel_pytree(meta)

    @jax.jit
    def corrected(x):
        with_, without = (
            jax.grad(lambda y, o=o: objective(unravel(y), data, inner, o, 1, clip=False))(x)
            for o in (OuterSettings(sc_coef=1.0), OuterSettings())
        )
        return with_ - without

    @jax.jit
    def scores(x):
        def whole_batch(x, before):
            return jnp.sum(unravel(x).policy(before.features[0]).log_prob(before.actions[0]) * before.mask[0])

        return jax.vmap(jax.grad(whole_batch), in_axes=(None, 0))(x, data.before)

    rewards, mask = np.asarray(data.after.rewards), np.asarray(data.after.mask)
    scale = jax.jit(jax.vmap(lambda e: advantages(e, discount=inner.discount, gae_lambda=1.0)[1]))(data.after)
    start = (rewards * mask * inner.discount ** np.arange(ENV.horizon)[:, None]).sum(1).mean(1)
    earned = start / (mask.sum(1).mean(1) * np.asarray(scale))
    credit = earned - (earned.sum() - earned) / 3
    np.testing.assert_allclose(
        corrected(flat), np.mean(credit[:, None] * np.asarray(scores(flat)), axis=0), rtol=1e-3, atol=1e-4
    )


def test_conjugate_gradients_solve_a_system():
    matrix = jnp.array([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]])
    b = jnp.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(matrix @ conjugate_gradient(lambda v: matrix @ v, b, 3), b, atol=1e-4)


def _trust(objective_):
    sizes = {"max_kl": 0.01, "n_cg": 5, "damping": 0.0, "n_line_search": 5, "shrink": 0.8}

    def kl(x):
        return 0.5 * jnp.sum(jnp.array([4.0, 1.0]) * x**2)

    return jax.jit(lambda x, g: trust_region_step(objective_, kl, x, g, **sizes))(jnp.zeros(2), jnp.ones(2))


def test_a_trust_region_step_is_the_natural_gradient_at_the_border():
    after, metrics = _trust(lambda x: x[0] + x[1])
    direction = np.array([0.25, 1.0])
    length = np.sqrt(2 * 0.01 / (direction @ [1.0, 1.0]))
    # The first try lies on the border itself, where rounding decides; the second is 0.8 of it.
    assert any(np.allclose(after, s * length * direction, atol=1e-5) for s in (1.0, 0.8))
    assert float(metrics["ppo/kl"]) <= 0.01


def test_a_line_search_that_finds_nothing_better_stays():
    after, metrics = _trust(lambda x: -jnp.sum(x**2))
    np.testing.assert_array_equal(after, jnp.zeros(2))
    assert float(metrics["trpo/accepted"]) == 0.0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"n_tasks": 3, "lifetimes_per_task": 2}, "cannot be cut into groups"),
        ({"outer": "es", "objective": OuterSettings(sc_coef=1.0)}, "sc_coef has no effect"),
        ({"outer": "reptile", "learn_step_sizes": True}, "learn_step_sizes has no gradient"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(wrong, said):
    with pytest.raises(ConfigError, match=said):
        MAMLSettings(**wrong)


def test_something_to_learn_that_no_inner_step_moves_is_refused(learner):
    settings = MAMLSettings(learn_step_sizes=True, inner=InnerSettings(n_steps=0))
    with pytest.raises(ConfigError, match="gradient would be zero"):
        MAML(learner.trial, learner.make_policy, _wrap, settings)


@pytest.mark.parametrize("changes", [{"outer": "trpo"}, {"outer": "reptile"}, {"outer": "es", "es_pairs": 1}])
def test_an_update_keeps_the_shapes_of_its_state(learner, changes):
    changed = MAML(learner.trial, learner.make_policy, _wrap, replace(learner.settings, **changes))
    state = jax.eval_shape(changed.init, jax.random.key(0))
    after, metrics = jax.eval_shape(changed.update, state)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert {"return/before", "return/after"} <= set(metrics)


def test_one_step_learns_a_hidden_sign_that_no_single_policy_can():
    env = Probe("hidden", 1)
    inner = InnerSettings(batch_size=10, learning_rate=2.0)
    settings = MAMLSettings(outer="pg", n_tasks=20, learning_rate=0.1, learn_step_sizes=True, inner=inner)
    make = adaptive_policy(MAMLAgentSettings(hidden=()), env)
    learner = MAML(Trial(env, 1), make, lambda meta: MAMLAgent(meta, inner, 1), settings)
    run = jax.jit(lambda s: jax.lax.scan(lambda s, _: learner.update(s), s, None, length=60))
    _, metrics = run(jax.jit(learner.init)(jax.random.key(0)))
    before, after = (np.asarray(metrics[f"return/{when}"])[-10:].mean() for when in ("before", "after"))
    assert (abs(before) < 0.2, after > 0.9) == (True, True)
