"""Agents that are told which training task it is: what they share between tasks, and where there is no such number."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from fledge.agents.build import MemoryAgentSettings, memory_agent, strange_tasks, task_rows
from fledge.core.errors import ConfigError
from fledge.core.types import Token
from fledge.envs.gridnav import GridNav
from fledge.envs.pointnav import PointNav
from fledge.envs.trial import Trial
from fledge.learn.beliefs import BeliefPolicy
from fledge.learn.inference import base_weights
from fledge.nets.blocks import Linear
from fledge.nets.conditioned import ConditionedActorCritic
from fledge.run import recipe
from fledge.run.build import faults_of

TRIAL = Trial(GridNav(size=3, horizon=3), 2)
ROWS = jax.vmap(TRIAL.task_vector)(TRIAL.enumerate("train"))
N_TASKS = 5
SEEN = jnp.asarray([1.0, 2.0])


def agent_of(kind, **settings):
    sizes = {"hidden": (4,), "state_embedding": 3, "latent_embedding": 2 if kind == "multi-task" else 0}
    return memory_agent(MemoryAgentSettings(kind=kind, **(sizes | settings)), TRIAL)(jax.random.key(0))


def told(row):
    return Token.first(SEEN, TRIAL.action_space, jnp.asarray(row))


def logits(agent, row):
    return agent.replay(agent.begin(), jax.tree.map(lambda leaf: leaf[None], told(row)))[0].logits[0]


def moved_by(agent, row):
    """Which tasks' first logit changes when the policy is trained to raise that of one task."""
    gradient = jax.grad(lambda agent: logits(agent, row)[0])(agent)
    after = jax.tree.map(lambda a, g: a + 10 * g, agent, gradient)
    return [abs(float(logits(after, other)[0] - logits(agent, other)[0])) > 1e-6 for other in ROWS]


@pytest.mark.parametrize("kind", ["multi-task", "multi-head", "multi-net"])
def test_an_agent_told_the_number_of_the_task_reads_the_task_and_remembers_nothing(kind):
    agent = agent_of(kind)
    assert agent.told
    assert jax.tree.leaves(agent.begin()) == []


@pytest.mark.parametrize("kind", ["multi-task", "multi-head", "multi-net"])
def test_training_on_one_task_teaches_the_others_through_what_is_shared(kind):
    assert all(moved_by(agent_of(kind), ROWS[1]))


def test_networks_without_a_shared_embedding_share_nothing():
    assert moved_by(agent_of("multi-net", state_embedding=0), ROWS[1]) == [False, True, False, False, False]


def test_only_the_heads_of_a_multi_head_agent_differ_between_tasks():
    agent = agent_of("multi-head")
    actors = [agent.policy.materialise(jax.nn.one_hot(i, N_TASKS))[0] for i in (0, 1)]
    same = [bool(jnp.all(a.weight == b.weight)) for a, b in zip(*(actor.layers for actor in actors), strict=True)]
    assert same == [True, False]


def test_under_bias_hyperinit_all_tasks_begin_with_one_policy():
    agent = agent_of("multi-task", conditioning="hyper")
    np.testing.assert_allclose(logits(agent, ROWS[0]), logits(agent, ROWS[3]), atol=1e-6)


def test_the_table_of_tasks_is_not_trained():
    gradient = jax.grad(lambda agent: jnp.sum(logits(agent, ROWS[0]) ** 2))(agent_of("multi-head"))
    assert float(jnp.max(jnp.abs(gradient.encoder.rows))) == 0.0


def test_a_token_without_a_task_is_refused():
    with pytest.raises(ConfigError, match="must fill"):
        agent_of("multi-head").encoder(Token.first(SEEN, TRIAL.action_space))


def test_families_whose_tasks_cannot_be_listed_are_refused():
    with pytest.raises(ConfigError, match='Tell it the task as a vector instead: kind = "oracle"'):
        task_rows("multi-head", Trial(PointNav(), 1))


def test_a_multi_task_policy_that_sees_nothing_is_refused():
    with pytest.raises(ConfigError, match="give it a state_embedding"):
        agent_of("multi-task", state_embedding=0)


def test_a_latent_between_the_number_and_the_networks_it_picks_is_refused():
    with pytest.raises(ConfigError, match="leave latent_size at 0"):
        agent_of("multi-head", latent_size=2)


@pytest.mark.parametrize(("kind", "n"), [("multi-head", 1), ("oracle", 0)])
def test_held_out_tasks_are_strange_to_who_knows_training_tasks_only(kind, n):
    assert strange_tasks(kind, Trial(GridNav(size=3, held_out=0.2), 2), "test") == n


def test_measuring_on_strange_tasks_is_found_before_training():
    changes = {"env": {"settings": {"held_out": 0.2}}, "evaluation": {"split": "test", "n_tasks": 2}}
    faults = faults_of(recipe.load("multi-head-gridnav").config("smoke", changes))
    assert faults == [
        "evaluation.split: 'multi-head' knows the training tasks only, and 4 tasks of 'test' are none of them. "
        "Measure it on 'train'."
    ]


def test_behaviour_imitation_regresses_every_weight_that_the_policy_generates():
    """The numbers of actor and critic, by hand: (3·4 + 4) + (4·5 + 5) and (3·4 + 4) + (4·1 + 1)."""
    key = jax.random.key(0)
    policy = ConditionedActorCritic.init(
        key,
        3,
        TRIAL.observation_space,
        TRIAL.action_space,
        hidden=(4,),
        hyper_init="both",
        latent_embedding=0,
        state_embedding=3,
    )
    told = BeliefPolicy(Linear.init(key, 4, 3), Linear.init(key, 2, 3), policy, jnp.asarray(1.0))
    weights = base_weights(told, jnp.asarray([[0.0, 1.0], [1.0, 0.0]]))
    assert weights.shape == (2, 41 + 21)
    wanted, _ = ravel_pytree(policy.materialise(told.task_latent(jnp.asarray([1.0, 0.0]))))
    np.testing.assert_allclose(weights[1], wanted, atol=1e-6)
