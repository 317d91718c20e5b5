"""The inference loss where the evidence is known, and where the sums can be done by hand."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.core.errors import ConfigError
from fledge.core.spaces import Box, Discrete
from fledge.core.types import Token
from fledge.learn.elbo import Decoders, ELBOSettings, Trials, inference_loss
from fledge.nets.blocks import Linear
from fledge.nets.decoders import CellRewardDecoder, PairMLP, RewardDecoder, TaskDecoder, TransitionFeatures

WEIGHT, REWARDS = 0.8, (1.0, 0.3, -0.4)
N_COPIES = 20_000
STANDARD = ELBOSettings(kl_to_standard=True)


def steps_of(rewards, n_copies, cells=None):
    """The same trial many times over; leaves (step, batch)."""
    n = len(rewards)
    cells = jnp.zeros((n, 2)) if cells is None else jnp.asarray(cells, jnp.float32)
    cells = jnp.broadcast_to(cells[:, None], (n, n_copies, 2))
    no = jnp.zeros((n, n_copies), bool)
    reward = jnp.broadcast_to(jnp.asarray(rewards, jnp.float32)[:, None], (n, n_copies))
    return Token(cells, cells, jnp.zeros((n, n_copies), jnp.int32), reward, no, cells, no)


@pytest.fixture(scope="module")
def linear_gaussian():
    """m ~ N(0, 1), r_i = 0.8 m + noise of variance ½: mean ELBO of N(mean, var), in nats, constants included.

    A squared error is −log N(r; r̂, ½) − ½ log π.
    """
    features = TransitionFeatures.init(jax.random.key(0), Box(2), Discrete(5), ("final_observation",))
    net = PairMLP(Linear(jnp.full((1, 1), WEIGHT), jnp.zeros(1)), jnp.zeros((features.out_size, 1)), None)
    steps = steps_of(REWARDS, N_COPIES)
    trials = Trials(steps, jnp.ones(steps.start.shape, bool))

    @jax.jit
    def elbo(mean, var):
        belief = jnp.stack([mean, jnp.log(var)])
        beliefs = jnp.broadcast_to(belief, (len(REWARDS) + 1, N_COPIES, 2))
        decoders = Decoders(reward=RewardDecoder(features, net))
        loss, _ = inference_loss(jax.random.key(1), beliefs, decoders, trials, STANDARD)
        return -loss / (len(REWARDS) + 1) - 0.5 * len(REWARDS) * jnp.log(jnp.pi)

    return elbo


def exact_posterior():
    var = 1 / (1 + 2 * len(REWARDS) * WEIGHT**2)
    return jnp.asarray(2 * WEIGHT * sum(REWARDS) * var), jnp.asarray(var)


def log_evidence():
    n, r = len(REWARDS), np.asarray(REWARDS)
    covariance = 0.5 * np.eye(n) + WEIGHT**2 * np.ones((n, n))
    return -0.5 * (r @ np.linalg.solve(covariance, r) + np.linalg.slogdet(2 * np.pi * covariance)[1])


def test__elbo__exact_posterior__is_the_log_evidence(linear_gaussian):
    # 80,000 latents: a standard error of about 0.004
    assert float(linear_gaussian(*exact_posterior())) == pytest.approx(log_evidence(), abs=0.02)


@pytest.mark.parametrize(("shift", "scale"), [(0.3, 1.0), (-0.3, 1.0), (0.0, 2.0), (0.0, 0.5), (1.0, 3.0)])
def test__elbo__another_posterior__lies_below_by_its_divergence(linear_gaussian, shift, scale):
    mean, var = exact_posterior()
    divergence = 0.5 * (scale - 1 - np.log(scale) + shift**2 / float(var))
    found = float(linear_gaussian(mean + shift, var * scale))
    assert found == pytest.approx(log_evidence() - divergence, abs=0.04)


CELLS = [[0, 1], [1, 1], [1, 0], [1, 1]]


@pytest.fixture(scope="module")
def walked():
    """Beliefs without spread (a sample is the mean), decoders, and one trial of four steps, many times over."""
    n = 4000
    steps = steps_of([-0.1, 1.0, -0.1, 1.0], n, CELLS)
    keys = jax.random.split(jax.random.key(3), 3)
    means = jax.random.normal(keys[0], (5, 1, 3))
    beliefs = jnp.broadcast_to(jnp.concatenate([means, jnp.full((5, 1, 3), -18.0)], axis=-1), (5, n, 6))
    decoders = Decoders(
        reward=CellRewardDecoder.init(keys[1], 3, 2, 2, (8,)), task=TaskDecoder.init(keys[2], 3, (8,), 2)
    )
    return beliefs, decoders, steps


def loss_of(walked, settings, real=None, n=None, counts=None):
    beliefs, decoders, steps = walked
    beliefs, steps = jax.tree.map(lambda leaf: leaf[:, :n], (beliefs, steps))
    real = jnp.ones(steps.start.shape, bool) if real is None else real
    target = jnp.ones((real.shape[1], 2))
    counts = jnp.ones(real.shape[1]) if counts is None else counts
    return run(beliefs, decoders, Trials(steps, real), settings, target, counts)


@partial(jax.jit, static_argnums=3)
def run(beliefs, decoders, trials, settings, target, counts):
    return inference_loss(jax.random.key(5), beliefs, decoders, trials, settings, target=target, counts=counts)


@pytest.mark.parametrize("sizes", [(2, 0), (0, 2), (2, 2), (7, 3)])
def test__sub_sampled_loss__on_average__is_the_full_one(walked, sizes):
    full = float(loss_of(walked, ELBOSettings(kl_weight=0.0), n=3)[0])
    sampled = float(loss_of(walked, ELBOSettings(kl_weight=0.0, n_terms=sizes[0], n_decoded=sizes[1]))[0])
    assert sampled == pytest.approx(full, rel=0.03)  # 4,000 trials


def test__loss__more_copies_of_a_trial__stays_the_same(walked):
    """The released code's KL and task terms grow with the number of trials."""
    one, many = (float(loss_of(walked, ELBOSettings(), n=n)[0]) for n in (3, 50))
    assert many == pytest.approx(one, rel=1e-4)


def test__loss__padded_trial__is_that_of_its_real_part(walked):
    beliefs, decoders, steps = jax.tree.map(lambda leaf: leaf, walked)
    real = jnp.asarray([[True] * 3, [True] * 3, [False] * 3, [False] * 3])
    padded = float(loss_of(walked, ELBOSettings(), real=real, n=3)[0])
    short = (beliefs[:3], decoders, jax.tree.map(lambda leaf: leaf[:2], steps))
    assert padded == pytest.approx(float(loss_of(short, ELBOSettings(), n=3)[0]), rel=1e-5)


def test__loss__trials_that_count_nothing__change_nothing(walked):
    beliefs, decoders, steps = walked
    counts = jnp.asarray([1.0, 0.0, 0.0])
    other = (beliefs.at[:, 1:].add(1.0), decoders, steps)
    found = float(loss_of(other, ELBOSettings(), n=3, counts=counts)[0])
    assert found == pytest.approx(float(loss_of(walked, ELBOSettings(), n=3)[0]), rel=1e-4)


def test__loss__its_parts__add_up_with_their_weights(walked):
    settings = ELBOSettings(kl_weight=0.5, reward_coef=2.0, task_coef=3.0)
    _, parts = loss_of(walked, settings, n=3)
    total = 0.5 * parts["loss/latent_kl"] + 2 * parts["loss/reward_model"] + 3 * parts["loss/task"]
    assert float(total) == pytest.approx(float(parts["loss/elbo"]), rel=1e-5)


def test_a_task_decoder_without_a_target_is_refused(walked):
    beliefs, decoders, steps = walked
    with pytest.raises(ConfigError, match="hand in `target`"):
        inference_loss(
            jax.random.key(0), beliefs, decoders, Trials(steps, jnp.ones(steps.start.shape, bool)), ELBOSettings()
        )


def test_negative_sample_sizes_are_refused():
    with pytest.raises(ConfigError, match="0 for all"):
        ELBOSettings(n_terms=-1)
