"""PEARL's learner: what goes into which buffer, who learns from what, and a task whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float, Key

from fledge.agents.pearl import PEARLAgentSettings, pearl_agent
from fledge.core.contracts import Env
from fledge.core.errors import ConfigError
from fledge.core.spaces import Box
from fledge.core.types import TimeStep
from fledge.envs.trial import Trial
from fledge.learn.evaluate import evaluate
from fledge.learn.pearl import PEARL, PEARLSettings

KEY = jax.random.key(0)


class Match(Env):
    """Pays −(action − task)², the task being −½ or ½: every step tells all there is to know.

    An episode takes two steps; or, unless `steady`, one where the action is above 0.
    """

    steady: bool = eqx.field(static=True, default=True)
    horizon: int = eqx.field(static=True, default=2)

    @property
    def splits_disjoint(self) -> bool:
        return False

    @property
    def observation_space(self) -> Box:
        return Box(1)

    @property
    def action_space(self) -> Box:
        return Box(1, -1.0, 1.0)

    @property
    def fixed_length(self) -> bool:
        return self.steady

    def sample(self, key: Key[Array, ""], split: str = "train") -> Float[Array, ""]:
        return jnp.where(jax.random.bernoulli(key), 0.5, -0.5)

    def enumerate(self, split: str = "test") -> Float[Array, " task"]:
        return jnp.asarray([-0.5, 0.5])

    def describe(self, task: Float[Array, ""]) -> str:
        return f"{float(task)}"

    def task_vector(self, task: Float[Array, ""]) -> Float[Array, "1"]:
        return task[None]

    def reset(self, key: Key[Array, ""], task: Float[Array, ""]) -> tuple[Array, Float[Array, "1"]]:
        return jnp.asarray(0, jnp.int32), jnp.zeros(1)

    def step(
        self, key: Key[Array, ""], state: Array, action: Float[Array, "1"], task: Float[Array, ""]
    ) -> tuple[Array, TimeStep]:
        reward = -((action[0] - task) ** 2)
        early = False if self.steady else action[0] > 0
        info = {"twice": 2.0 * reward}
        return state + 1, TimeStep.of(
            jnp.zeros(1), reward, terminated=early, truncated=state + 1 >= self.horizon, info=info
        )


TINY = PEARLSettings(
    hidden=(16, 16),
    n_tasks=2,
    n_initial_steps=8,
    n_tasks_sample=1,
    n_steps_prior=3,
    n_steps_posterior=2,
    n_extra_rl_steps_posterior=2,
    n_train_steps=20,
    meta_batch=4,
    batch_size=16,
    context_batch_size=8,
    capacity=1000,
    discount=0.0,
    learning_rate=3e-3,
    temperature=0.05,
    reward_scale=1.0,
    kl_lambda=0.001,
)
AGENT = PEARLAgentSettings(latent_size=1, encoder_hidden=(16,))


def make(env=None, agent=AGENT, **settings):
    trial = Trial(env or Match(), 2)
    s = replace(TINY, **settings)
    return PEARL(trial, pearl_agent(agent, trial, s.hidden), s)


@pytest.fixture(scope="module")
def learner():
    return make()


@pytest.fixture(scope="module")
def update(learner):
    return jax.jit(learner.update)


@pytest.fixture(scope="module")
def first(learner):
    return jax.jit(learner.init)(KEY)


@pytest.fixture(scope="module")
def second(update, first):
    return update(first)[0]


def test_every_task_begins_with_data(first):
    assert (first.replay.n_written.tolist(), first.recent.n_written.tolist()) == ([8, 8], [8, 8])


def test_steps_are_rounded_up_to_whole_episodes(learner):
    assert learner.settings.episodes(2) == (2, 1, 1)
    assert learner.steps_per_update == 8


def test_a_visit_gives_actor_and_critics_everything_and_the_encoder_the_recent_part(first, second):
    visited = np.asarray(second.replay.n_written - first.replay.n_written)
    assert sorted(visited.tolist()) == [0, 8]
    assert second.recent.n_written.tolist() == [6 if n else 8 for n in visited]


def test_rows_are_those_of_their_own_task(first, second):
    rows = second.replay.rows
    size = np.minimum(second.replay.n_written, second.replay.capacity)
    for task in range(2):
        kept = slice(0, int(size[task]))
        reward = -((rows.action[task, kept, 0] - first.tasks[task]) ** 2)
        np.testing.assert_allclose(rows.reward[task, kept], reward, atol=1e-5)


def test_a_time_limit_is_no_termination(second):
    assert not np.any(second.replay.rows.terminated)


def test_the_state_keeps_its_types_so_that_an_update_is_compiled_once(learner):
    before = jax.eval_shape(learner.init, KEY)
    after, _ = jax.eval_shape(learner.update, before)
    kinds = [[(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(state)] for state in (before, after)]
    assert kinds[0] == kinds[1]


def test_a_second_update_is_not_compiled_again(update, second):
    update(second)
    assert update._cache_size() == 1


@pytest.fixture(scope="module")
def stepped(second):
    """Weight of the KL → encoder and actor after one gradient step on the same data."""
    carry = second.encoder, second.optimiser, second.sac
    found = {}
    for weight in (0.0, 100.0):
        step = jax.jit(make(kl_lambda=weight).train_step)
        (encoder, _, networks), _ = step(carry, second.replay, second.recent, KEY)
        found[weight] = encoder, networks.actor
    return found


def differ(one, other):
    return any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True))


def test_the_critics_error_alone_teaches_the_encoder(second, stepped):
    assert differ(stepped[0.0][0], second.encoder)


def test_the_weight_of_the_kl_is_felt_by_the_encoder_alone(stepped):
    (encoder, actor), (other, same) = stepped.values()
    assert differ(encoder, other) and not differ(actor, same)


def test_actor_and_critics_can_be_trained_on_another_reward_than_the_encoder_sees():
    shaped = make(train_reward="twice")
    state = jax.jit(shaped.init)(KEY)
    seen = state.recent.rows[..., 2]  # state, action, reward
    np.testing.assert_allclose(state.replay.rows.reward[:, :8], 2 * seen[:, :8], rtol=1e-6)


def test_an_unknown_reward_is_named():
    with pytest.raises(ConfigError, match=r"no extra 'twicee'\. There is: twice"):
        jax.eval_shape(make(train_reward="twicee").init, KEY)


def test_episodes_that_end_early_are_followed_by_others_on_the_same_task():
    early = make(Match(steady=False))
    state = jax.jit(early.init)(KEY)
    rows = state.replay.rows
    ended = np.asarray(rows.terminated[:, :8])
    assert np.any(ended) and not np.all(ended)
    reward = -((rows.action[:, :8, 0] - state.tasks[:, None]) ** 2)
    np.testing.assert_allclose(rows.reward[:, :8], reward, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_steps_prior": 0}, "n_steps_prior is at least 1, not 0"),
        ({"n_tasks_sample": 3}, "3 different tasks cannot be chosen of n_tasks = 2"),
        ({"split": "trian"}, "split is one of train, test, ood"),
        ({"kl_lambda": -1.0}, "kl_lambda is at least 0"),
    ],
)
def test_a_wrong_setting_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **changes)


def test_after_one_episode_it_acts_as_if_it_had_been_told(learner, update, first):
    """The prior's best action is 0 (return −½ in two steps); the task known, a mode of ±½ brings 0."""
    state = first
    for _ in range(60):
        state, _ = update(state)
    outcome = evaluate(learner.agent(state), learner.trial, learner.trial.enumerate(), KEY, greedy=True)
    returns = np.asarray(outcome.returns)
    assert np.all(returns[:, 1] > -0.1) and returns[:, 0].mean() < -0.3
