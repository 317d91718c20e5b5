"""Every family of the table takes the exam. A new row is a new test."""

from __future__ import annotations

import pytest

from fledge.envs.check import check_env
from fledge.envs.families import FAMILIES, make, settings_of
from fledge.envs.mujoco import MujocoEnv


def examined(name):
    """The family; where physics makes steps dear with short episodes, so that whole trials are still walked."""
    env = make(name)
    return make(name, horizon=20) if isinstance(env, MujocoEnv) else env


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_passes_the_exam(name):
    assert [str(finding) for finding in check_env(examined(name))] == []


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_can_be_made_again_from_its_listed_settings(name):
    assert make(name, **settings_of(name)) == make(name)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_row_says_what_it_is_in_one_short_line_and_names_a_paper(name):
    row = FAMILIES[name]
    assert 0 < len(row.about) <= 72
    assert "\n" not in row.about
    assert row.paper
