"""Checking settings: what builds the same agent is built once, and what does not is looked at anew."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fledge.run import build, recipe


@pytest.fixture
def config():
    return recipe.load("rl2-bandit").config("smoke")


@pytest.fixture
def built(monkeypatch):
    """Grows by one each time an agent is built."""
    found, make = [], build.make_agent
    monkeypatch.setattr(build, "_EXAMINED", {})
    monkeypatch.setattr(build, "make_agent", lambda *args: found.append(args) or make(*args))
    return found


def test_settings_that_differ_in_training_only_build_one_agent(config, built):
    for seeds in (1, 2):
        assert build.faults_of(replace(config, train=replace(config.train, seeds=seeds))) == []
    assert len(built) == 1


def test_another_environment_is_looked_at_anew(config, built):
    for n_episodes in (3, 4):
        build.faults_of(replace(config, env=replace(config.env, n_episodes=n_episodes)))
    assert len(built) == 2


def test_a_faulty_agent_is_refused_each_time(config, built):
    wrong = replace(config, agent=replace(config.agent, activation="no such thing"))
    first, again = build.faults_of(wrong), build.faults_of(wrong)
    assert first == again and len(first) == 1 and "no such thing" in first[0]


def test_what_is_wrong_with_training_is_told_of_an_agent_already_built(config, built):
    build.faults_of(config)
    assert "train.seeds" in build.faults_of(replace(config, train=replace(config.train, seeds=0)))[0]
