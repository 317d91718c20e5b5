"""Losses against numbers made by hand, and learners where the answer is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.core.errors import ConfigError, DataError, ShapeError
from fledge.core.spaces import Box
from fledge.data.trajectories import from_arrays
from fledge.feedback.arms import ARMS, PUBLISHED
from fledge.feedback.domain import domain
from fledge.feedback.evaluate import rollouts
from fledge.feedback.items import items_of
from fledge.feedback.oracle import OracleAnnotator
from fledge.feedback.sfbc import SFBC
from fledge.learn.actors import ActionScale, Actor
from fledge.learn.clone import CloneSettings, Examples, clone, clone_loss
from fledge.learn.offline import (
    Networks,
    OfflineSettings,
    Transitions,
    awac_actor_loss,
    expectile_loss,
    iql_actor_loss,
    learn_offline,
    td3bc_actor_loss,
    td3bc_critic_loss,
)
from fledge.learn.prefer import (
    Pairs,
    PreferenceSettings,
    RewardModel,
    RewardSettings,
    learn_preferences,
    learn_reward,
    pair_loss,
    reward_loss,
    segment_scores,
)
from fledge.learn.seeds import keys_of, over_seeds
from fledge.nets.blocks import MLP, Linear


def linear_actor(weight, head="deterministic"):
    """π(s) = tanh(w s) for one number."""
    raw = jnp.zeros(1) if head == "stochastic" else None
    return Actor(MLP((Linear(jnp.full((1, 1), weight), jnp.zeros(1)),), "relu"), raw)


STATES, ACTIONS = jnp.array([[0.0], [1.0]]), jnp.array([[0.5], [0.0]])
WEIGHTS = jnp.array([1.0, 0.5])


def test_the_weighted_loss_is_the_plain_mean_of_weighted_squares():
    wanted = (1.0 * 0.25 + 0.5 * np.tanh(1.0) ** 2) / 2
    assert float(clone_loss(linear_actor(1.0), STATES, ACTIONS, WEIGHTS)) == pytest.approx(wanted)


def test_a_normalised_loss_is_divided_by_the_sum_of_weights():
    wanted = (1.0 * 0.25 + 0.5 * np.tanh(1.0) ** 2) / 1.5
    assert float(clone_loss(linear_actor(1.0), STATES, ACTIONS, WEIGHTS, True)) == pytest.approx(wanted)


def test_a_normalised_loss_does_not_see_the_scale_of_weights():
    losses = [clone_loss(linear_actor(1.0), STATES, ACTIONS, scale * WEIGHTS, True) for scale in (1.0, 7.0)]
    assert float(losses[0]) == pytest.approx(float(losses[1]))


def test_the_stochastic_loss_is_a_log_likelihood():
    actor = linear_actor(0.0, "stochastic")
    log_std = -5 + 0.5 * 7
    wanted = np.mean(np.array([1.0, 0.5]) * (0.5 * (np.array([0.5, 0.0]) / np.exp(log_std)) ** 2 + log_std))
    wanted += 0.75 * 0.5 * np.log(2 * np.pi)
    assert float(clone_loss(actor, STATES, ACTIONS, WEIGHTS)) == pytest.approx(wanted, rel=1e-5)


def test_s_dpo_by_hand():
    scores = segment_scores(
        linear_actor(0.0), jnp.ones((2, 1, 4, 1)), jnp.stack([jnp.zeros((1, 4, 1)), jnp.ones((1, 4, 1))])
    )
    loss = pair_loss(scores[0], scores[1], jnp.array([1.0]))
    assert float(loss) == pytest.approx(np.log1p(np.exp(-0.5)))


def test_a_sum_over_a_segment_is_k_times_the_mean():
    data = jnp.ones((1, 4, 1)), jnp.zeros((1, 4, 1))
    mean, total = (segment_scores(linear_actor(1.0), *data, how) for how in ("mean", "sum"))
    assert float(total[0]) == pytest.approx(4 * float(mean[0]))


def test_no_preference_teaches_nothing():
    gradient = jax.grad(lambda x: pair_loss(x, jnp.zeros(1), jnp.array([0.5])))(jnp.ones(1))
    assert float(gradient[0]) == 0.0


def test_soft_labels_weigh_both_orders():
    first, second = jnp.array([1.0]), jnp.array([0.0])
    wanted = 0.8 * np.log1p(np.exp(-1.0)) + 0.2 * np.log1p(np.exp(1.0))
    assert float(pair_loss(first, second, jnp.array([0.8]), soft=True)) == pytest.approx(wanted)


def test_cpl_discounts_the_rejected_segment():
    loss = pair_loss(jnp.array([-1.0]), jnp.array([-2.0]), jnp.array([1.0]), beta=0.1, conservative=0.5)
    assert float(loss) == pytest.approx(np.log1p(np.exp(-0.1 * (-1.0 + 1.0))))


def linear(*weights):
    """One linear layer with these weights and no bias."""
    return MLP((Linear(jnp.array(weights, jnp.float32)[:, None], jnp.zeros(1)),), "relu")


def test_the_reward_model_by_hand():
    """r = tanh(a); segments of two steps with actions ½ and −½, the first preferred with ¾."""
    model = RewardModel(jax.tree.map(lambda leaf: leaf[None], linear(0.0, 1.0)))
    actions = jnp.stack([jnp.full((1, 2, 1), 0.5), jnp.full((1, 2, 1), -0.5)])
    gap = 4 * np.tanh(0.5)
    wanted = 0.75 * np.log1p(np.exp(-gap)) + 0.25 * np.log1p(np.exp(gap))
    assert float(reward_loss(model, jnp.ones((2, 1, 2, 1)), actions, jnp.array([0.75]))) == pytest.approx(
        wanted, rel=1e-5
    )


BATCH = Transitions(
    jnp.ones((2, 1)), jnp.array([[0.5], [-0.5]]), jnp.array([1.0, 0.0]), jnp.ones((2, 1)), jnp.array([False, True])
)
"""Two steps in one state; the second is terminal."""


def networks_of(actor):
    """Q = 2 a in both critics, V = 0.5 s."""
    critics = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), linear(0.0, 2.0))
    return Networks(actor, critics, linear(0.5), actor, critics)


def test_the_actor_loss_of_td3bc_by_hand():
    actor = linear_actor(1.0)
    action = np.tanh(1.0)
    wanted = -2.5 + np.mean([(action - 0.5) ** 2, (action + 0.5) ** 2])
    found = td3bc_actor_loss(actor, networks_of(actor), BATCH, jax.random.key(0), OfflineSettings())
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_the_critic_loss_of_td3bc_by_hand():
    actor = linear_actor(1.0)
    networks = networks_of(actor)
    settings = OfflineSettings(smoothing=0.0)
    target = 1.0 + 0.99 * 2 * np.tanh(1.0)
    wanted = 2 * np.mean([(1.0 - target) ** 2, (-1.0 - 0.0) ** 2])
    found = td3bc_critic_loss((networks.critics, None), networks, BATCH, jax.random.key(0), settings)
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_the_actor_loss_of_iql_by_hand():
    actor = linear_actor(0.0, "stochastic")
    weights = np.minimum(np.exp(3.0 * np.array([1.0 - 0.5, -1.0 - 0.5])), 100.0)
    log_prob = np.asarray(actor.log_prob(BATCH.observations, BATCH.actions))
    found = iql_actor_loss(actor, networks_of(actor), BATCH, jax.random.key(0), OfflineSettings("iql"))
    assert float(found) == pytest.approx(-np.mean(weights * log_prob), rel=1e-5)


def test_the_weights_of_awac_add_up_to_the_batch():
    """The policy always takes −1 (clipped), so advantages are 2 a + 2: weights are a softmax of 3 and 1."""
    actor = Actor(linear(-50.0), jnp.full(1, -50.0), (-6.0, 0.0))
    share = 1 / (1 + np.exp(-2.0))
    log_prob = np.asarray(actor.log_prob(BATCH.observations, BATCH.actions))
    found = awac_actor_loss(actor, networks_of(actor), BATCH, jax.random.key(0), OfflineSettings("awac"))
    assert float(found) == pytest.approx(-(share * log_prob[0] + (1 - share) * log_prob[1]), rel=1e-3)


def test_the_expectile_by_hand():
    assert expectile_loss(jnp.array([2.0, -2.0]), 0.7).tolist() == pytest.approx([2.8, 1.2])


def pairs_of(n_episodes=8, length=6, k=3):
    """Episodes whose even steps' actions are +½ in the first segment and −½ in the second."""
    n = n_episodes * length
    actions = np.where(np.arange(n) % length < k, 0.5, -0.5)[:, None]
    starts = np.arange(n_episodes) * length
    return Pairs(
        jnp.ones((n, 1)),
        jnp.asarray(actions, jnp.float32),
        jnp.asarray(starts, jnp.int32),
        jnp.asarray(starts + k, jnp.int32),
        jnp.ones(n_episodes),
        length=k,
    )


def test_pairs_are_laid_out_by_pair_and_step():
    observations, actions, preference = pairs_of().gather(jnp.array([1, 2]))
    assert (observations.shape, preference.shape) == ((2, 2, 3, 1), (2,))
    assert actions[0].min() == 0.5
    assert actions[1].max() == -0.5


SMALL = {"hidden": (8,), "batch_size": 4, "n_steps": 60}


@pytest.mark.parametrize("loss", ["sdpo", "cpl"])
def test_a_policy_learns_the_actions_that_were_preferred(loss):
    settings = PreferenceSettings(loss=loss, learning_rate=0.05, **SMALL)
    actor, _ = learn_preferences(jax.random.key(0), pairs_of(), settings)
    assert float(actor(jnp.ones(1))[0]) > 0.2


def test_a_reference_policy_holds_the_score_at_the_start():
    reference = linear_actor(0.0)
    settings = PreferenceSettings(learning_rate=0.0, **{**SMALL, "n_steps": 1})
    _, losses = learn_preferences(jax.random.key(0), pairs_of(), settings, reference)
    assert float(losses[0]) == pytest.approx(np.log(2.0))


def test_a_reward_model_pays_the_preferred_segment_more():
    settings = RewardSettings(hidden=(8,), batch_size=4, n_steps=100, learning_rate=0.02)
    model, _ = learn_reward(jax.random.key(0), pairs_of(), settings)
    assert float(model(jnp.ones(1), jnp.array([0.5]))) > float(model(jnp.ones(1), jnp.array([-0.5])))


def table_examples(weights=(1.0, 1.0), n_rows=2):
    """Two states, two actions."""
    rows = jnp.array([0, 1], jnp.int32)
    return Examples(
        jnp.array([[-1.0], [1.0]]), jnp.array([[0.6], [-0.6]]), jnp.array(weights), rows, jnp.asarray(n_rows)
    )


def test_cloning_recovers_a_table():
    settings = CloneSettings(hidden=(16,), learning_rate=0.02, batch_size=8, n_steps=300)
    actor, _ = clone(jax.random.key(0), table_examples(), settings)
    assert actor(jnp.array([[-1.0], [1.0]]))[:, 0].tolist() == pytest.approx([0.6, -0.6], abs=0.05)


def test_steps_that_were_filtered_out_are_never_drawn():
    drawn = table_examples(n_rows=1).draw(jax.random.key(0), 50)[1]
    assert float(drawn.min()) > 0


def test_a_seed_alone_is_the_same_seed_among_others():
    settings = CloneSettings(hidden=(4,), batch_size=4, n_steps=5)
    alone = over_seeds(clone, keys_of([3]), table_examples(), settings)[1]
    among = over_seeds(clone, keys_of([1, 2, 3]), table_examples(), settings)[1]
    assert np.allclose(alone[0], among[2], rtol=1e-5)


@pytest.mark.parametrize("method", ["td3bc", "awac", "iql"])
def test_offline_learning_finds_the_better_action_of_a_bandit(method):
    """One state, one step, actions ±½ equally often; +½ pays 1."""
    rng = np.random.default_rng(0)
    actions = np.where(rng.random(200) < 0.5, 0.5, -0.5)[:, None].astype(np.float32)
    data = Transitions(
        jnp.ones((200, 1)),
        jnp.asarray(actions),
        jnp.asarray(actions[:, 0] > 0, jnp.float32),
        jnp.ones((200, 1)),
        jnp.ones(200, bool),
    )
    # AWAC's weights are softmax(advantage): its mean is at most ½ (e − 1) / (e + 1) = 0.23
    wanted = 0.08 if method == "awac" else 0.2
    settings = OfflineSettings(method, hidden=(16,), learning_rate=0.01, batch_size=32, n_steps=300)
    actor, _ = learn_offline(jax.random.key(0), data, settings)
    assert float(actor(jnp.ones(1))[0]) > wanted


def test_tanh1_leaves_actions_as_they_are_and_env_scales_them():
    box = Box(1, -2.0, 2.0)
    units = [float(ActionScale.of(box, bound).to_unit(jnp.array([2.0]))[0]) for bound in ("tanh1", "env")]
    assert units == [2.0, 1.0]


def test_an_unknown_bound_is_refused():
    with pytest.raises(ConfigError, match="tanh1"):
        ActionScale.of(Box(1, -2.0, 2.0), "tanh2")


@pytest.fixture(scope="module")
def fitted():
    where = domain("pendulum")
    logged = where.make_data(20, 0)
    settings = CloneSettings(hidden=(32, 32), n_steps=50)

    def fit(bound):
        model = SFBC(k=100, action_bound=bound, seed=(0, 1), settings=settings)
        from fledge.data.segments import segment

        table = segment(logged, 100)
        oracle = OracleAnnotator(logged, table, where.judges)
        return model.fit(logged, oracle.annotate(list(items_of(logged, table)), where.instrument))

    return {bound: fit(bound) for bound in ("env", "tanh1")}


@pytest.mark.parametrize(("bound", "limit"), [("env", 2.0), ("tanh1", 1.0)])
def test_a_fitted_policy_stays_in_its_bound(fitted, bound, limit):
    actions = fitted[bound].act(np.random.default_rng(0).normal(size=(500, 3)) * 50)
    assert limit * 0.9 < np.abs(actions).max() <= limit


def test_a_fitted_model_says_what_it_kept(fitted):
    assert fitted["env"].selection.kept.mean() == pytest.approx(0.5)


def test_an_observation_of_another_length_is_refused(fitted):
    with pytest.raises(ShapeError, match="length 3"):
        fitted["env"].act(np.zeros(4))


def test_a_model_that_was_not_fitted_says_so():
    with pytest.raises(DataError, match="fit"):
        SFBC().act(np.zeros(3))


def test_all_seeds_are_measured_from_the_same_starts(fitted):
    policies = fitted["env"].policies
    same = jax.tree.map(lambda leaf: leaf[jnp.array([0, 0])], policies.actor)
    found = rollouts(
        type(policies)(same, policies.centre, policies.half), domain("pendulum").env, (0, 1), n_starts=3, n_steps=20
    )
    assert np.allclose(found.returns[0], found.returns[1])


def test_the_faithful_mode_starts_where_the_seed_says(fitted):
    policies = fitted["env"].policies
    same = jax.tree.map(lambda leaf: leaf[jnp.array([0, 0])], policies.actor)
    found = rollouts(
        type(policies)(same, policies.centre, policies.half), domain("pendulum").env, (0, 1), n_starts=1, n_steps=20
    )
    assert found.returns[0] != found.returns[1]


def test_the_table_has_the_eleven_published_rows():
    assert [ARMS[name].published.returned for name in PUBLISHED] == [
        -4716, -5131, -5234, -7840, -1585, -5013, -6859, -4164, -4229, -3459, -5562,
    ]  # fmt: skip


def test_arrays_without_an_end_are_one_episode():
    assert from_arrays(np.zeros((3, 1)), np.zeros(3), np.zeros(3)).n_episodes == 1
