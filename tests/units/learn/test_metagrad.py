"""Meta-gradients where the answer is known: quadratics in closed form, and estimators that must agree."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from fledge.core.errors import ConfigError, ContractError
from fledge.learn.es import ES, PES
from fledge.learn.lifetime_bandit import BanditLifetime
from fledge.learn.lifetime_mdp import TabularLifetime
from fledge.learn.lifetime_quadratic import QuadraticLifetime
from fledge.learn.lifetimes import outer_weights
from fledge.learn.metagrad import MetaGrad
from fledge.learn.metagrad_truth import Enumerated, ExpectedUpdate, FiniteDifferences
from fledge.learn.surrogates import DiCE, PolicyGradient, lvc

ETA = {"log_step": jnp.array(-0.7), "start": jnp.array([1.0, -0.5])}
SUMMIT = jnp.array([0.3, 0.4])
QUADRATIC = QuadraticLifetime(n_updates=4)
BANDIT = BanditLifetime(n_updates=3, batch_size=2, n_arms=3, noise=0.5, means="given", n_early=1)
SCHEDULE = jnp.array([1.0, 0.5])
KEY = jax.random.key(0)


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


@pytest.fixture(scope="module")
def on_a_quadratic():
    """Name → gradient, every way to take it; one program."""

    def all_of_them(eta):
        closed = jax.grad(lambda e: jnp.sum(outer_weights("auc", 5) * QUADRATIC.closed_form(e, SUMMIT)))(eta)
        ways = {
            "unrolled": MetaGrad(QUADRATIC),
            "forward": MetaGrad(QUADRATIC, mode="forward"),
            "remat": MetaGrad(QUADRATIC, remat=True),
            "differences": FiniteDifferences(QUADRATIC, step=1e-4, n_lifetimes=1),
            "first-order": MetaGrad(QUADRATIC, surrogate=PolicyGradient(first_order=True)),
        }
        return {"closed": closed} | {name: way.estimate(KEY, eta, SUMMIT)[0] for name, way in ways.items()}

    with jax.enable_x64(True):
        eta, summit = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (ETA, SUMMIT))
        assert summit.dtype == jnp.float64
        return {name: flat(gradient) for name, gradient in jax.jit(all_of_them)(eta).items()}


@pytest.mark.parametrize("way", ["unrolled", "forward", "remat", "differences"])
def test_a_gradient_through_updates_on_a_quadratic_is_the_closed_form(on_a_quadratic, way):
    np.testing.assert_allclose(on_a_quadratic[way], on_a_quadratic["closed"], atol=1e-7)


def test_a_first_order_gradient_on_a_curved_quadratic_is_another_one(on_a_quadratic):
    assert np.abs(on_a_quadratic["first-order"] - on_a_quadratic["closed"]).max() > 1e-2


def test_without_curvature_the_first_order_gradient_is_the_full_one():
    level = QuadraticLifetime(n_updates=2, curvature=(0.0, 0.0))
    both = [
        jax.jit(MetaGrad(level, surrogate=PolicyGradient(first_order=first_order)).estimate)(KEY, ETA, SUMMIT)[0]
        for first_order in (False, True)
    ]
    np.testing.assert_array_equal(flat(both[0]), flat(both[1]))


@pytest.fixture(scope="module")
def perturbed():
    """2,000 estimates each of ES, PES with one window and PES with windows of 2 batches, on a quadratic."""

    def estimates(key):
        ways = (ES(QUADRATIC), PES(QUADRATIC), PES(QUADRATIC, window_batches=2))
        return [ravel_pytree(way.estimate(key, ETA, SUMMIT)[0])[0] for way in ways]

    return [np.asarray(x) for x in jax.jit(jax.vmap(estimates))(jax.random.split(KEY, 2_000))]


@pytest.mark.parametrize("way", [0, 1, 2], ids=["ES", "PES, one window", "PES, windows of 2"])
def test_a_perturbed_estimate_is_right_on_average(perturbed, on_a_quadratic, way):
    found = perturbed[way]
    # σ = .1 smooths by less than .01 here.
    error = 4 * found.std(0) / len(found) ** 0.5 + 0.01
    assert (np.abs(found.mean(0) - on_a_quadratic["closed"]) < error).all()


def test_pes_with_one_window_is_es(perturbed):
    es, pes, _ = perturbed
    np.testing.assert_allclose(pes.std(0), es.std(0), rtol=0.15)


@pytest.fixture(scope="module")
def exactly_the_same_noise():
    """An estimate of one PES window, and the ES formula for the perturbation that it drew."""
    pes = PES(QUADRATIC, n_workers=1)
    state = pes.begin(KEY, ETA, SUMMIT)
    _, gradient = jax.jit(pes.advance)(KEY, state, ETA, SUMMIT)
    # The worker's key, and the part of it that draws the noise.
    noise = 0.1 * jax.random.normal(jax.random.split(jax.random.split(KEY, 1)[0])[0], (3,))
    point, unravel = ravel_pytree(ETA)

    def height(x):
        return jnp.mean(QUADRATIC.closed_form(unravel(x), SUMMIT))

    return flat(gradient), np.asarray((height(point + noise) - height(point - noise)) * noise / (2 * 0.1**2))


def test_one_window_of_pes_is_the_antithetic_formula_to_the_digit(exactly_the_same_noise):
    np.testing.assert_allclose(*exactly_the_same_noise, rtol=2e-4, atol=1e-6)


def test_a_life_that_ends_inside_a_window_is_followed_by_one_that_owes_it_nothing():
    pes = PES(QUADRATIC, window_batches=3)
    state = pes.begin(KEY, ETA, SUMMIT)
    advance = jax.jit(pes.advance)
    state, _ = advance(jax.random.key(1), state, ETA, SUMMIT)
    first = state.noise
    state, _ = advance(jax.random.key(2), state, ETA, SUMMIT)
    assert int(state.n[0]) == 1  # 3 + 3 batches: five of the first life, one of the next
    second = 0.1 * jax.random.normal(jax.random.split(jax.random.split(jax.random.key(2), 1)[0])[0], (3,))
    np.testing.assert_allclose(state.noise[0], second, rtol=1e-6)
    assert not np.allclose(first, state.noise)


@pytest.fixture(scope="module")
def on_a_bandit():
    """Estimates with one key, in reverse and forward mode, whole and in parts."""

    def estimates(key):
        reverse, forward = (MetaGrad(BANDIT, sc_coef=0.3, mode=mode) for mode in ("reverse", "forward"))
        parts = forward.parts(key, SCHEDULE, None)[0]
        return reverse.estimate(key, SCHEDULE, None)[0], forward.estimate(key, SCHEDULE, None)[0], parts

    return jax.jit(estimates)(KEY)


def test_forward_and_reverse_mode_agree(on_a_bandit):
    np.testing.assert_allclose(on_a_bandit[0], on_a_bandit[1], rtol=1e-4, atol=1e-6)


def test_an_estimate_is_its_parts_with_the_correction_weighed(on_a_bandit):
    naive, correction = on_a_bandit[2]
    np.testing.assert_allclose(on_a_bandit[1], naive + 0.3 * correction, rtol=1e-6)


@pytest.fixture(scope="module")
def many_on_a_bandit():
    """4,000 estimates of the corrected gradient, with and without a leave-one-out baseline, and ES."""

    def estimates(key):
        ways = (
            MetaGrad(BANDIT, n_lifetimes=4),
            MetaGrad(BANDIT, n_lifetimes=4, baseline="none"),
            ES(BANDIT, n_pairs=4),
        )
        return [way.estimate(key, SCHEDULE, jnp.array([1.0, 0.2, 0.0]))[0] for way in ways]

    return [np.asarray(x) for x in jax.jit(jax.vmap(estimates))(jax.random.split(KEY, 4_000))]


def test_a_leave_one_out_baseline_lowers_the_variance(many_on_a_bandit):
    loo, none, _ = many_on_a_bandit
    assert loo.var(0).sum() < 0.8 * none.var(0).sum()


def test_a_leave_one_out_baseline_leaves_the_mean(many_on_a_bandit):
    loo, none, _ = many_on_a_bandit
    error = 4 * np.sqrt((loo.var(0) + none.var(0)) / len(loo))
    assert (np.abs(loo.mean(0) - none.mean(0)) < error).all()


def test_evolution_strategies_and_the_corrected_gradient_agree_on_average(many_on_a_bandit):
    loo, _, es = many_on_a_bandit
    error = 4 * np.sqrt((loo.var(0) + es.var(0)) / len(loo)) + 0.003
    assert (np.abs(loo.mean(0) - es.mean(0)) < error).all()


def test_a_window_as_long_as_the_life_is_the_whole_life():
    whole, windowed = (jax.jit(MetaGrad(BANDIT, window=k).estimate)(KEY, SCHEDULE, None)[0] for k in (None, 3))
    np.testing.assert_array_equal(whole, windowed)


def test_a_random_window_meets_the_same_luck_as_the_whole_life():
    seen = []
    for window in (None, 1):
        _, aux = jax.jit(MetaGrad(BANDIT, window=window).estimate)(KEY, SCHEDULE, None)
        seen.append(aux)
    first = int(seen[1]["first_batch"])
    np.testing.assert_allclose(seen[0]["returns"][first : first + 2], seen[1]["returns"], rtol=1e-5)


MDP = TabularLifetime(n_updates=1)


@pytest.fixture(scope="module")
def on_a_process():
    """The mean over 4,000 batches of one trajectory, for inner surrogates; both exact gradients."""
    task, eta = MDP.sample_task(jax.random.key(3)), MDP.starting_eta(0.5)
    eta["logits"] = jax.random.normal(jax.random.key(4), (2, 2))

    def estimates(key):
        ways = {"corrected": {}, "dice": {"surrogate": DiCE(), "sc_coef": 0.0}, "lvc": {"surrogate": lvc()}}
        return {
            name: ravel_pytree(MetaGrad(MDP, objective="final", **settings).estimate(key, eta, task)[0])[0]
            for name, settings in ways.items()
        }

    found = jax.jit(jax.vmap(estimates))(jax.random.split(KEY, 4_000))
    lifetime, _ = jax.jit(Enumerated(MDP, objective="final").estimate)(KEY, eta, task)
    expected, _ = jax.jit(ExpectedUpdate(MDP).estimate)(KEY, eta, task)
    return {name: np.asarray(x) for name, x in found.items()}, flat(lifetime), flat(expected)


def test_the_corrected_gradient_of_a_process_is_the_enumerated_one_on_average(on_a_process):
    found, lifetime, _ = on_a_process
    error = 4.5 * found["corrected"].std(0) / len(found["corrected"]) ** 0.5 + 1e-6
    assert (np.abs(found["corrected"].mean(0) - lifetime) < error).all()


def test_a_lifetime_of_sampled_updates_has_another_gradient_than_one_of_expected_updates(on_a_process):
    _, lifetime, expected = on_a_process
    assert np.linalg.norm(lifetime - expected) > 0.02


# What is refused


@pytest.mark.parametrize("make", [lambda: MetaGrad(BANDIT, window=4), lambda: ES(BANDIT, window=4)])
def test_a_window_longer_than_the_lifetime_is_refused(make):
    with pytest.raises(ConfigError, match=r"A window of 4 updates was asked for, and the lifetime has 3\. Take"):
        make()


def test_a_pes_window_longer_than_the_lifetime_is_refused():
    with pytest.raises(ConfigError, match=r"A window of 5 batches was asked for, and the lifetime has 4\."):
        PES(BANDIT, window_batches=5)


def test_a_leave_one_out_baseline_of_one_lifetime_is_refused():
    with pytest.raises(ConfigError, match="needs two lifetimes or more"):
        MetaGrad(BANDIT, n_lifetimes=1)


class Rounds(eqx.Module):
    """An update that leaves JAX."""

    inner: QuadraticLifetime

    def __call__(self, theta):
        return jax.pure_callback(lambda x: np.asarray(x) * 0.5, theta, theta, vmap_method="sequential")


def test_an_update_that_has_no_derivative_is_refused_by_name(monkeypatch):
    def update(self, n, life, data, eta, surrogate):
        return Rounds(self)(life[0]), life[1]

    monkeypatch.setattr(QuadraticLifetime, "update", update)
    with pytest.raises(ContractError, match=r"QuadraticLifetime's update cannot be differentiated: .* ES or PES"):
        MetaGrad(QuadraticLifetime(n_updates=2)).estimate(KEY, ETA, SUMMIT)
