"""One tiny update of each kind of supervision: what it changes, and what it must leave alone."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from worlds import Probe

from fledge.agents.build import MemoryAgentSettings, memory_agent
from fledge.agents.inference import inference_agent
from fledge.core.errors import ConfigError
from fledge.envs.gridnav import GridNav
from fledge.envs.trial import Trial
from fledge.learn.belief_gap import belief_gap
from fledge.learn.inference import InferenceLearner
from fledge.learn.ppo import PPO, PPOSettings, PPOState, ppo_loss
from fledge.learn.rollout import rollout
from fledge.learn.supervision import SupervisionSettings

TRIAL = Trial(GridNav(size=3, horizon=3), 2)
AGENT = MemoryAgentSettings(
    kind="varibad",
    memory_size=4,
    joint_embedding=4,
    latent_size=2,
    latent_embedding=3,
    state_embedding=3,
    normalise_observations=True,
)
KINDS = ("varibad", "ti-naive", "ti", "ti++", "bi++")


def weights_for(policy, tasks):
    """Stands for a hypernetwork: the first layer of the actor, scaled by the task embedding."""
    return policy.task_latent(tasks) @ policy.policy.actor.layers[0].weight[:3]


def learner_of(kind, trial=TRIAL, unroll_len=0, **settings):
    supervision = SupervisionSettings(
        kind=kind, **({"n_trials": 3, "capacity": 16, "decoder_hidden": (4,), "multi_task_updates": 1} | settings)
    )
    make = inference_agent(AGENT, trial, embeds_task=supervision.embeds_task, reads_task=supervision.decodes_task)
    ppo = PPO(trial, make, PPOSettings(n_envs=4, n_minibatches=2, learning_rate=1e-2, unroll_len=unroll_len), 10)
    return InferenceLearner(ppo, supervision, weights_for if kind == "bi++" else None)


class Course:
    """The states before and after two updates, the first of which is told the task where the kind says so."""

    def __init__(self, kind):
        self.learner = learner_of(kind)
        update = jax.jit(self.learner.update)
        self.states, self.metrics = [jax.jit(self.learner.init)(jax.random.key(0))], []
        for _ in range(2):
            state, metrics = update(self.states[-1])
            self.states.append(state)
            self.metrics.append(metrics)
        self.n_programs = update._cache_size()

    def moved(self, update, part):
        """The largest change of a part of the state in an update (counted from 0)."""
        before, after = (jax.tree.leaves(part(state)) for state in self.states[update : update + 2])
        return max(float(jnp.max(jnp.abs(a - b))) for a, b in zip(before, after, strict=True))


class Courses(dict):
    """Made when they are first asked for."""

    def __missing__(self, kind):
        self[kind] = Course(kind)
        return self[kind]


@pytest.fixture(scope="module")
def courses():
    return Courses()


def inferring(state):
    return state.agent.inference_part()


def decoding(state):
    return state.decoders


def acting(state):
    return state.agent.policy.policy


def embedding_tasks(state):
    return state.agent.policy.embed_task


@pytest.mark.parametrize("kind", KINDS)
def test_replay_is_acting_in_both_phases(courses, kind):
    assert max(float(metrics["ppo/ratio_error"]) for metrics in courses[kind].metrics) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_update_trains_encoder_decoders_and_policy(courses, kind):
    assert min(courses[kind].moved(1, part) for part in (inferring, decoding, acting)) > 1e-4


@pytest.mark.parametrize("kind", ["varibad", "ti-naive", "ti++", "bi++"])
def test_the_first_update_trains_encoder_and_decoders(courses, kind):
    assert min(courses[kind].moved(0, part) for part in (inferring, decoding)) > 1e-4


@pytest.mark.parametrize("part", [inferring, decoding])
def test_ti_infers_nothing_in_its_multi_task_phase(courses, part):
    assert courses["ti"].moved(0, part) == 0.0


@pytest.mark.parametrize("kind", ["ti", "ti++", "bi++"])
def test_the_task_embedding_is_learnt_in_the_multi_task_phase_only(courses, kind):
    assert courses[kind].moved(0, embedding_tasks) > 1e-4
    assert courses[kind].moved(1, embedding_tasks) == 0.0


def test_beliefs_that_mean_nothing_yet_do_not_move_the_statistics(courses):
    counts = [float(state.agent.statistics.belief.count) for state in courses["ti"].states]
    assert counts == pytest.approx([1e-4, 1e-4, 24], abs=1e-2)  # four environments, six steps


def test_the_statistics_of_tasks_stay_once_their_embedding_does(courses):
    counts = [float(state.agent.statistics.task.count) for state in courses["ti++"].states]
    assert counts == pytest.approx([1e-4, 24, 24], abs=1e-2)


@pytest.mark.parametrize("kind", ["ti", "ti++", "bi++"])
def test_the_policy_is_told_in_the_multi_task_phase_only(courses, kind):
    assert [float(state.agent.policy.use_task) for state in courses[kind].states[1:]] == [1.0, 0.0]


@pytest.mark.parametrize("kind", ["varibad", "ti-naive"])
def test_kinds_without_a_multi_task_phase_have_no_task_embedding(courses, kind):
    assert embedding_tasks(courses[kind].states[0]) is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_agent_that_is_evaluated_is_not_told_the_task(courses, kind):
    course = courses[kind]
    assert not course.learner.agent(course.states[2]).told


@pytest.mark.parametrize("kind", KINDS)
def test_two_phases_are_one_program(courses, kind):
    assert courses[kind].n_programs == 1


@pytest.mark.parametrize(("kind", "decoded"), [("varibad", True), ("ti-naive", False), ("ti", False), ("ti++", False)])
def test_rewards_are_decoded_where_nothing_else_is(courses, kind, decoded):
    assert (courses[kind].states[0].decoders.reward is not None) == decoded


def test_task_inference_can_decode_rewards_too():
    state = jax.eval_shape(learner_of("ti-naive", reward_decoder="mlp", state_decoder=True).init, jax.random.key(0))
    assert None not in (state.decoders.reward, state.decoders.state, state.decoders.task)


@pytest.fixture(scope="module")
def changing_over(courses):
    """The state of `ti` that enters its second phase, before and after."""
    course = courses["ti"]
    return course.states[1], course.learner._enter_phase(course.states[1])


def same(a, b):
    return all(bool(jnp.all(x == y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_ti_starts_its_policy_anew(changing_over):
    _, after = changing_over
    assert same(after.agent.policy.policy, after.fresh.policy)


def test_ti_keeps_its_task_embedding(changing_over):
    before, after = changing_over
    assert same(embedding_tasks(after), embedding_tasks(before))


def test_ti_forgets_the_trials_of_its_multi_task_phase(changing_over):
    assert [int(state.trials.size) for state in changing_over] == [4, 0]


def test_ti_forgets_adams_moments_and_keeps_the_schedule(changing_over):
    _, after = changing_over
    nodes = jax.tree.leaves(after.policy_optimiser, is_leaf=lambda x: isinstance(x, optax.ScaleByAdamState))
    adam = [node for node in nodes if isinstance(node, optax.ScaleByAdamState)]
    counts = [int(node) for node in nodes if not isinstance(node, optax.ScaleByAdamState)]
    assert float(jnp.max(jnp.abs(adam[0].mu))) == 0.0
    assert counts == [4]


def test_ti_plus_plus_keeps_its_policy(courses):
    course = courses["ti++"]
    after = course.learner._enter_phase(course.states[1])
    assert same(after.agent.policy.policy, course.states[1].agent.policy.policy)


def test_the_policy_loss_has_no_gradient_in_the_encoder(courses):
    course = courses["varibad"]
    state, ppo = course.states[1], course.learner.ppo
    rolled, walked = rollout(state.agent, TRIAL, state.rollout, state.key, n_steps=6)
    base = PPOState(state.agent, None, state.rollout, state.rewards, state.key, state.n_updates)
    _, batch = ppo.prepare(base, rolled, walked, state.rollout.memory)
    gradient, _ = jax.grad(ppo_loss, has_aux=True)(state.agent, batch, ppo.settings, jnp.asarray(0.1))
    assert float(optax.tree.norm(gradient.inference_part())) == 0.0
    assert float(optax.tree.norm(gradient.policy)) > 0.0


def test_the_inference_loss_has_no_gradient_in_the_policy(courses):
    course = courses["ti++"]
    state = course.states[1]
    rows, real = state.trials.sample(jax.random.key(0), 3)
    trials = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), rows)

    def loss(agent):
        return course.learner.loss((agent.inference_part(), state.decoders), agent, trials, real * 1.0, state.key)[0]

    gradient = jax.jit(jax.grad(loss))(state.agent)
    assert float(optax.tree.norm(gradient.policy)) == 0.0
    assert float(optax.tree.norm(gradient.inference_part())) > 0.0


def test_stored_trials_are_those_that_were_walked(courses):
    course = courses["ti-naive"]
    state = course.states[0]
    key_rollout = jax.random.split(state.key, 4)[1]
    _, walked = rollout(state.agent, TRIAL, state.rollout, key_rollout, n_steps=6)
    np.testing.assert_allclose(course.states[1].trials.rows.steps.reward[:4], walked.timestep.reward.T)
    np.testing.assert_allclose(course.states[1].trials.rows.steps.task[:4, 5], walked.token.task[5])


def test_an_ignorant_belief_is_as_far_from_the_exact_one_as_the_uniform_prior(courses):
    course = courses["varibad"]
    decoder = jax.tree.map(jnp.zeros_like, course.states[0].decoders.reward)
    gap = belief_gap(course.learner.agent(course.states[0]), decoder, TRIAL, jax.random.key(0), n_trials=5)
    # zero logits: uniform over nine cells, five of which can be the goal
    assert float(gap["prior"]) == pytest.approx(np.log(9 / 5), abs=1e-5)
    assert float(gap["gap"] - gap["ignorant"]) == pytest.approx(np.log(9 / 5), abs=1e-4)


def test_generated_weights_need_a_policy_that_generates_some():
    learner = replace(learner_of("bi++"), target=None)
    with pytest.raises(ConfigError, match="ActorCritic generates none"):
        jax.eval_shape(learner.init, jax.random.key(0))


def test_an_agent_without_beliefs_is_refused():
    learner = learner_of("varibad")
    plain = replace(learner.ppo, make_agent=memory_agent(AGENT, TRIAL))
    with pytest.raises(ConfigError, match="not MemoryAgent"):
        jax.eval_shape(replace(learner, ppo=plain).init, jax.random.key(0))


def test_cells_are_decoded_on_grids_only():
    with pytest.raises(ConfigError, match="Take 'mlp'"):
        jax.eval_shape(
            learner_of("varibad", trial=Trial(Probe("clock", 3), 2), reward_decoder="cells").init, jax.random.key(0)
        )
