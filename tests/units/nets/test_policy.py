"""Action heads."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from fledge.agents.build import MemoryAgentSettings, make_policy
from fledge.core.errors import ConfigError
from fledge.core.spaces import Box, Discrete
from fledge.envs import families
from fledge.nets.policy import ActionHead

BEYOND = jnp.array([[-50.0, 0.0], [0.0, 50.0]])


def test_a_bounded_mean_reaches_the_bounds_of_the_actions_and_no_further():
    head = ActionHead.init(Box(2, -1.0, 3.0), bounded=True)
    assert jnp.array_equal(head(BEYOND).mode(), jnp.array([[-1.0, 1.0], [1.0, 3.0]]))


def test_a_mean_that_is_not_bounded_is_what_the_actor_puts_out():
    assert jnp.array_equal(ActionHead.init(Box(2, -1.0, 3.0))(BEYOND).mode(), BEYOND)


def test_a_bounded_mean_says_nothing_about_discrete_actions():
    head = ActionHead.init(Discrete(2), bounded=True)
    assert jnp.array_equal(head(BEYOND).mode(), jnp.array([1, 1]))


def test_actions_without_bounds_cannot_have_a_bounded_mean():
    with pytest.raises(ConfigError, match=r"needs actions with bounds.*\[-inf, inf\]"):
        ActionHead.init(Box(2), bounded=True)


@pytest.mark.parametrize("conditioning", ["latent", "hyper", "film"])
def test_the_setting_reaches_every_conditioning(conditioning):
    settings = MemoryAgentSettings(
        conditioning=conditioning,
        hyper_init="bias",
        latent_embedding=3,
        state_embedding=3,
        bounded_mean=True,
    )
    assert make_policy(jax.random.key(0), settings, families.make("point-nav"), 4).head.bounds == (-1.0, 1.0)
