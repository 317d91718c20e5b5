"""Agents whose policy is generated: replay equals acting, what the latent can do at first, settings that are wrong."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.agents.build import MemoryAgentSettings, memory_agent
from fledge.core.errors import ConfigError
from fledge.core.metrics import check_metric
from fledge.envs.gridnav import GridNav
from fledge.envs.trial import Trial
from fledge.learn.ppo import PPO, PPOSettings
from fledge.learn.rollout import begin, rollout, sample_tasks
from fledge.learn.sensitivity import latent_gradient_norms
from fledge.nets.conditioned import ConditionedActorCritic
from fledge.nets.policy import ActorCritic

TRIAL = Trial(GridNav(horizon=5), 2)
SMALL = {"memory_size": 8, "joint_embedding": 8, "latent_size": 3, "latent_embedding": 4, "state_embedding": 5}


def maker(**settings: object):
    return memory_agent(MemoryAgentSettings(**{**SMALL, "hidden": (6,), **settings}), TRIAL)


@pytest.fixture(scope="module")
def learnt():
    """Metrics of two updates with a hypernetwork, its unrolls crossing the ends of trials."""
    settings = PPOSettings(n_envs=4, n_minibatches=2, learning_rate=1e-2, unroll_len=7)
    ppo = PPO(TRIAL, maker(conditioning="hyper"), settings, 10)
    state, update = jax.jit(ppo.init)(jax.random.key(0)), jax.jit(ppo.update)
    rows = []
    for _ in range(2):
        state, metrics = update(state)
        rows.append(metrics)
    return state.agent, rows


def test_first_ratio__generated_policy__is_one(learnt) -> None:
    _, rows = learnt
    assert max(float(metrics["ppo/ratio_error"]) for metrics in rows) < 1e-5


@jax.jit
def measure(agent):
    state = begin(agent, TRIAL, jax.random.key(1), sample_tasks(TRIAL, jax.random.key(2), "train", 3))
    trajectory = rollout(agent, TRIAL, state, jax.random.key(3), n_steps=10)[1]
    return latent_gradient_norms(agent, state.memory, trajectory.token)


def norms(agent) -> dict[str, float]:
    return {name: float(x) for name, x in measure(agent).items()}


@pytest.fixture(scope="module")
def fresh() -> dict[str, dict[str, float]]:
    kinds = {"bias": "hyper", "kaiming": "hyper", "latent": "latent"}
    return {
        name: norms(
            maker(
                conditioning=kind,
                hyper_init="bias" if kind == "latent" else name,
                state_embedding=0 if kind == "latent" else 5,
            )(jax.random.key(0))
        )
        for name, kind in kinds.items()
    }


def test_the_gradient_by_the_latent_is_exactly_zero_at_first_under_bias_hyperinit_only(fresh) -> None:
    assert [name for name, found in fresh.items() if found["grad/value_by_latent"] == 0] == ["bias"]


def test_the_gradient_by_the_state_is_zero_where_the_policy_does_not_read_it(fresh) -> None:
    assert [name for name, found in fresh.items() if found["grad/value_by_state"] == 0] == ["latent"]


def test_the_gradient_by_the_latent_is_learnt(learnt) -> None:
    agent, _ = learnt
    assert norms(agent)["grad/value_by_latent"] > 0


def test_the_gradient_norms_are_metrics(fresh) -> None:
    assert all(check_metric(name) for name in fresh["bias"])


def test_latent_size_d_puts_a_linear_layer_of_width_2d_before_the_policy() -> None:
    agent = maker()(jax.random.key(0))
    assert (agent.to_latent.weight.shape, agent.policy.embed_latent.weight.shape) == ((8, 6), (6, 4))


@pytest.mark.parametrize(
    ("conditioning", "policy"),
    [
        ("latent", ActorCritic),
        ("state", ActorCritic),
        ("hyper", ConditionedActorCritic),
        ("film", ConditionedActorCritic),
    ],
)
def test_every_conditioning_builds_its_policy(conditioning: str, policy: type) -> None:
    assert isinstance(maker(conditioning=conditioning)(jax.random.key(0)).policy, policy)


def test_the_activation_is_that_of_the_settings() -> None:
    tanh, relu = (maker(conditioning="hyper", activation=name)(jax.random.key(0)) for name in ("tanh", "relu"))
    latent, state = jnp.ones(6), jnp.ones(2)
    assert not np.allclose(tanh.policy(latent, state)[1], relu.policy(latent, state)[1])


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        ({"conditioning": "state", "state_embedding": 0}, "needs a state_embedding of at least 1"),
        ({"conditioning": "hyper", "hyper_init": "kaimin"}, "Did you mean 'kaiming'"),
        ({"conditioning": "film", "hyper_init": "hfi"}, "There is no hyper_init 'hfi'"),
        ({"activation": "tan"}, "Did you mean 'tanh'"),
    ],
)
def test_wrong_settings_are_refused_with_the_cure(settings: dict[str, object], cure: str) -> None:
    with pytest.raises(ConfigError, match=cure):
        maker(**settings)
