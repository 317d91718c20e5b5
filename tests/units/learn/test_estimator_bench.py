"""How estimators are measured, examined and refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.core.contracts import EstimatorCard, GradientEstimator
from fledge.core.errors import ConfigError, ContractError
from fledge.learn.estimator_bench import Measure, Moments, Quality, cosine, frontier, ignored, judge, paired_sampler
from fledge.learn.estimator_check import check_estimator, require_estimator
from fledge.learn.estimators import ESTIMATORS, make_estimator, require_card
from fledge.learn.lifetime_bandit import golden_bandit
from fledge.learn.lifetime_mdp import TabularLifetime
from fledge.learn.metagrad import MetaGrad

LIFETIME, ETA, TASK = golden_bandit()
EXACT = Moments(0, np.array([1.0, 0.0]), np.zeros((2, 2)))


class Guess(GradientEstimator):
    """A user's own: ones for everything, whatever it is told to say of itself."""

    said: object = EstimatorCard("lifetime")

    @property
    def card(self):
        return self.said

    def estimate(self, key, eta, task):
        return jax.tree.map(jnp.ones_like, eta), {}


class Half(GradientEstimator):
    """Leaves a part of η out of its answer."""

    @property
    def card(self):
        return EstimatorCard("lifetime")

    def estimate(self, key, eta, task):
        return {"logits": eta["logits"]}, {}


def test_moments_of_two_batches_are_those_of_both_together():
    draws = np.random.default_rng(0).normal(size=(10, 2))

    def moments(x):
        return Moments(len(x), x.mean(0), np.cov(x.T, bias=True))

    joined, whole = moments(draws[:4]).join(moments(draws[4:])), moments(draws)
    np.testing.assert_allclose(joined.covariance, whole.covariance)
    np.testing.assert_allclose(joined.mean, whole.mean)


def test_moments_of_a_weighed_correction_follow_from_its_parts():
    draws = np.random.default_rng(1).normal(size=(50, 4))
    parts = Moments(50, draws.mean(0), np.cov(draws.T, bias=True))
    mixed = draws[:, :2] + 0.3 * draws[:, 2:]
    np.testing.assert_allclose(parts.sc(0.3).covariance, np.cov(mixed.T, bias=True))


def test_sampling_noise_is_taken_out_of_the_squared_bias():
    """200 unbiased estimators, measured with 10 samples each: what is called bias averages to nought."""
    rng = np.random.default_rng(2)
    found = []
    for _ in range(200):
        draws = EXACT.mean + rng.normal(size=(10, 2))
        moments = Moments(10, draws.mean(0), np.cov(draws.T))
        found.append(judge([moments], [moments], [EXACT]).bias2)
    assert abs(np.mean(found)) < 4 * np.std(found) / 200**0.5


@pytest.fixture(scope="module")
def critic_beside_unbiased():
    """4,000 pairs on the golden bandit: the critic as baseline, and leave-one-out alone, on the same lives."""
    critic, unbiased = (MetaGrad(LIFETIME, objective="final", n_lifetimes=4, baseline=b) for b in ("critic-loo", "loo"))
    return Measure(paired_sampler(critic, unbiased, LIFETIME), 4_000)(jax.random.key(0), ETA, TASK, 4_000)


def test_a_critic_with_leave_one_out_has_the_bias_of_the_critic(critic_beside_unbiased):
    """A perfect critic leaves the naive gradient: bias (d/dη, d/dθ_0) of the golden table."""
    found = critic_beside_unbiased.apart()
    known = np.array([-0.02073, 0.07481 - 0.19395, -0.03190 + 0.10237, -0.04291 + 0.09158])
    error = np.sqrt(np.diag(found.of_mean))
    assert np.all(np.abs(found.mean - known) < 4 * error)
    assert np.linalg.norm(known) > 10 * np.linalg.norm(error)


def test_a_bias_is_judged_by_pairs_where_they_were_drawn(critic_beside_unbiased):
    known, nobody = 0.14672**2 + 0.02073**2, Moments(1, np.zeros(4), np.eye(4))
    quality = judge([nobody], [nobody], [nobody], bias_of=[critic_beside_unbiased.apart()])
    lo, hi = np.quantile(quality.draws["bias2"], [0.001, 0.999])
    assert lo < known / 4 < hi
    assert hi < 2 * known / 4


def test_the_cosine_of_a_gradient_that_is_nought_is_nought():
    found = cosine(np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([[1.0, 0.0], [2.0, 2.0]]))
    np.testing.assert_allclose(found, [0, 1])


def test_the_frontier_holds_whom_nobody_beats_in_both():
    qualities = {name: Quality(b, v, 1.0, {}) for name, (b, v) in {"a": (0, 3), "b": (1, 1), "c": (2, 2)}.items()}
    assert frontier(qualities) == ["a", "b"]


def test_a_part_of_eta_that_gets_no_gradient_is_named():
    moments = Moments(3, np.array([0.0, 1.0, 2.0, 3.0]), np.diag([0.0, 1.0, 1.0, 1.0]))
    assert ignored([moments], ETA) == ["eta['log_step']"]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_of_the_table_carries_a_card(name):
    card = require_card(make_estimator(name, TabularLifetime(n_updates=2)), name)
    assert card.estimand in ("lifetime", "expected_update")
    assert card.memory and card.trajectories


def test_what_truncation_biases_stands_on_the_card():
    card = make_estimator("sc", LIFETIME, {"window": 1}).card
    assert card.biased_by == ("truncation: credit older than 1 of 2 updates",)


@pytest.mark.parametrize(("name", "wrong"), [("scc", "Did you mean 'sc'"), ("mdp:Nothing", "cannot be imported")])
def test_an_estimator_that_is_not_there_is_refused(name, wrong):
    with pytest.raises(ConfigError, match=wrong):
        make_estimator(name, LIFETIME)


def test_a_setting_that_an_estimator_does_not_have_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"no setting 'sc_coeff'\. Did you mean 'sc_coef'"):
        make_estimator("sc", LIFETIME, {"sc_coeff": 1.0})


def test_an_estimator_without_a_card_is_refused():
    (finding,) = check_estimator(lambda life: Guess(said=None), "Guess").findings
    assert finding.check == "card"
    assert "The card of Guess is missing: it is None. Return EstimatorCard(" in finding.came


def test_shaped_fitness_is_refused():
    with pytest.raises(ConfigError, match="shapes its fitness"):
        check_estimator(lambda life: make_estimator("es", life, {"shaping": "rank"}))


def test_a_gradient_of_another_shape_than_eta_is_found():
    (finding,) = check_estimator(lambda life: Half()).findings
    assert finding.check == "shape"


def test_a_bias_that_the_card_does_not_name_is_found():
    with pytest.raises(ContractError, match="the card names no bias, and the mean of"):
        require_estimator(lambda life: Guess(), "Guess")


@pytest.fixture(scope="module")
def exam():
    return check_estimator(lambda life: MetaGrad(life, window=1, start=1), n=2_000)


def test_an_honest_estimator_passes_the_exam(exam):
    assert exam.findings == ()


def test_an_eta_that_a_cut_path_does_not_reach_is_named(exam):
    assert exam.ignored == ("eta['logits']",)


def test_the_corrected_gradient_passes_as_unbiased():
    exam = check_estimator(lambda life: make_estimator("sc", life), n=8_000)
    assert exam.card is not None and exam.card.biased_by == ()
    assert exam.findings == ()
