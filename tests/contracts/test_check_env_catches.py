"""The exam sees what is broken: small environments with one fault each, and the message that each must get."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from fledge.core.contracts import Env
from fledge.core.errors import ContractError
from fledge.core.spaces import Box, Discrete
from fledge.core.types import TimeStep
from fledge.envs.check import CHECKS, check_env, require_env

CALLS = [0]


class Line(Env):
    """A line of four cells: right moves right; the goal cell is the task; three steps. Nothing is wrong with it."""

    horizon: int = eqx.field(static=True, default=3)

    splits_disjoint = property(lambda self: False)
    observation_space = property(lambda self: Box(1, 0.0, 3.0))
    action_space = property(lambda self: Discrete(2))
    fixed_length = property(lambda self: True)

    def sample(self, key, split="train"):
        return jax.random.randint(key, (), 0, 4)

    def describe(self, task):
        return f"goal {int(task)}"

    def task_vector(self, task):
        return task.astype(jnp.float32)[None]

    def reset(self, key, task):
        return {"x": jnp.asarray(0, jnp.int32), "t": jnp.asarray(0, jnp.int32)}, jnp.zeros(1)

    def step(self, key, state, action, task):
        x, t = jnp.clip(state["x"] + action, 0, 3), state["t"] + 1
        timestep = TimeStep.of(x.astype(jnp.float32)[None], x == task, truncated=t >= self.horizon)
        return {"x": x, "t": t}, timestep


def changed(**fields):
    """An environment whose time steps have other `fields`: each a function of the right time step."""

    class Changed(Line):
        def step(self, key, state, action, task):
            state, timestep = Line.step(self, key, state, action, task)
            values = [value(timestep, state) for value in fields.values()]
            return state, eqx.tree_at(lambda t: [getattr(t, name) for name in fields], timestep, values)

    return Changed()


def with_methods(**methods):
    """The good environment with some of its methods or properties replaced."""
    return type("Broken", (Line,), methods)()


def _counting_step(self, key, state, action, task):
    CALLS[0] += 1
    state, timestep = Line.step(self, key, state, action, task)
    return state, eqx.tree_at(lambda t: t.reward, timestep, jnp.asarray(float(CALLS[0])))


def _frozen_step(self, key, state, action, task):
    traced = isinstance(state["x"], jax.core.Tracer)
    state, timestep = Line.step(self, key, state, action, task)
    return state, eqx.tree_at(lambda t: t.reward, timestep, jnp.asarray(1.0 if traced else 2.0))


def _batched_reset(self, key, task):
    state, observation = Line.reset(self, key, task)
    return state, observation + (type(task).__name__ == "BatchTracer")


class LeakyCoin(Discrete):
    """Says 0 or 1, and draws 2 as well."""

    def sample(self, key):
        return jax.random.randint(key, (), 0, 3)


def _growing_step(self, key, state, action, task):
    state, timestep = Line.step(self, key, state, action, task)
    return {**state, "t": state["t"].astype(jnp.float32)}, timestep


def _another_entry_step(self, key, state, action, task):
    state, timestep = Line.step(self, key, state, action, task)
    return {**state, "extra": state["t"]}, timestep


def _branching_step(self, key, state, action, task):
    if action > 0:
        return Line.step(self, key, state, action, task)
    return Line.step(self, key, state, 0 * action, task)


def _two_halves(self, key, split="train"):
    return jax.random.randint(key, (), 0, 3 if split == "train" else 4)


def _other_dtype(self, key, split="train"):
    task = Line.sample(self, key, split)
    return task if split == "train" else task.astype(jnp.float32)


def _weak_reset(self, key, task):
    return {"x": jnp.asarray(0), "t": jnp.asarray(0) * 1}, jnp.zeros(1)


def _weak_step(self, key, state, action, task):
    state, timestep = Line.step(self, key, state, action, task)
    return {"x": state["x"], "t": jnp.asarray(1)}, timestep


BROKEN = {
    "a horizon that is no number": (Line(horizon="3"), "properties", "horizon is '3'"),
    "a space that is none": (with_methods(action_space=property(lambda self: 2)), "properties", "action_space is 2"),
    "a method that raises": (with_methods(reset=lambda self, key, task: 1 / 0), "runs", "reset raised ZeroDivision"),
    "a branch on an array": (with_methods(step=_branching_step), "traces", "jnp.where"),
    "tasks of two kinds": (
        with_methods(sample=_other_dtype),
        "tasks",
        "'test' has the value float32[]; wanted int32[]",
    ),
    "a description that is none": (with_methods(describe=lambda self, task: task), "describe", "a line of text"),
    "a list without the tasks drawn": (
        with_methods(enumerate=lambda self, split: jnp.arange(2)),
        "listed",
        "are not in enumerate",
    ),
    "a list of another shape": (
        with_methods(enumerate=lambda self, split: jnp.zeros((4, 2), jnp.int32)),
        "listed",
        "int32[2]; wanted int32[]",
    ),
    "splits that overlap": (
        with_methods(sample=_two_halves, splits_disjoint=property(lambda self: True)),
        "disjoint",
        "3 of 4 tasks of 'test' are also in 'train'",
    ),
    "an observation of another shape": (
        with_methods(observation_space=property(lambda self: Box(2, 0.0, 3.0))),
        "observation",
        "float32[1]; wanted float32[2]",
    ),
    "a final observation of another dtype": (
        changed(final_observation=lambda t, s: t.observation.astype(jnp.int32)),
        "observation",
        "final_observation of step is int32[1]; wanted float32[1]",
    ),
    "an observation outside": (
        with_methods(observation_space=property(lambda self: Box(1, 0.0, 1.0))),
        "inside",
        "observations lie outside observation_space, first at step",
    ),
    "a reward that is a vector": (
        changed(reward=lambda t, s: t.reward[None]),
        "timestep",
        "reward is float32[1]; wanted float32[]",
    ),
    "a flag that is a number": (
        changed(terminated=lambda t, s: t.terminated.astype(jnp.float32)),
        "timestep",
        "terminated is float32[]; wanted bool[]",
    ),
    "no TimeStep at all": (
        with_methods(step=lambda self, key, state, action, task: (state, jnp.zeros(1), 0.0, False)),
        "timestep",
        "wanted (state, TimeStep)",
    ),
    "a state that changes its dtype": (with_methods(step=_growing_step), "state", "['t'] float32[]; wanted int32[]"),
    "a state that changes its entries": (with_methods(step=_another_entry_step), "state", "['extra']"),
    "a restart unlike reset": (
        with_methods(restart=lambda self, key, state, task: (state, jnp.zeros(2))),
        "state",
        "restart returned [1] float32[2]; wanted float32[1]",
    ),
    "a weakly typed state": (with_methods(reset=_weak_reset, step=_weak_step), "compiles once", "['x']"),
    "state kept outside": (with_methods(step=_counting_step), "pure", "one key gave two results: [1].reward"),
    "another result under jit": (with_methods(step=_frozen_step), "jit", ".reward"),
    "another result in a batch": (with_methods(reset=_batched_reset), "vmap", "one by one and in a batch gave"),
    "an action space that draws outside": (
        with_methods(action_space=property(lambda self: LeakyCoin(2))),
        "action",
        "drew outside",
    ),
    "a task vector that is infinite": (
        with_methods(task_vector=lambda self, task: jnp.full(1, jnp.inf)),
        "task vector",
        "not finite",
    ),
    "a reward that is not a number": (
        changed(reward=lambda t, s: jnp.where(s["t"] == 2, jnp.nan, 0.0)),
        "reward",
        "first at step 2 of walk 1: nan",
    ),
    "an episode without end": (changed(truncated=lambda t, s: s["t"] >= 5), "horizon", "an end by step 3"),
    "a length that is not fixed": (
        changed(terminated=lambda t, s: s["t"] >= 2, truncated=lambda t, s: jnp.asarray(False)),
        "fixed length",
        "ended after 2 of 3 steps",
    ),
    "a trial ended by the environment": (changed(trial_end=lambda t, s: t.truncated), "no reset", "raised trial_end"),
    "a reset inside step": (
        changed(observation=lambda t, s: jnp.where(t.truncated, 3.0 - t.observation, t.observation)),
        "no reset",
        "observation and final_observation of step differ",
    ),
    "a task vector that is a number": (
        with_methods(task_vector=lambda self, task: task.astype(jnp.float32)),
        "task vector",
        "task_vector is float32[]; wanted float32[n]",
    ),
    "an optimum of another shape": (
        with_methods(optimal_return=lambda self, task, n_episodes=1: jnp.zeros(())),
        "optimum",
        "float32[]; wanted float32[3], or None",
    ),
    "an optimum that chance beats": (
        with_methods(optimal_return=lambda self, task, n_episodes=1: jnp.full(n_episodes, -1.0)),
        "optimum",
        "random play earned",
    ),
    "a position in space": (
        with_methods(position=lambda self, state: jnp.zeros(3)),
        "picture",
        "position is float32[3]; wanted float32[2]",
    ),
    "a scene of arrays": (with_methods(scene=lambda self, task: {"goal": task}), "picture", "not JSON serializable"),
}


def test_nothing_is_found_where_nothing_is_broken():
    assert check_env(Line()) == ()


@pytest.mark.parametrize("fault", BROKEN)
def test_check_env__one_fault__is_named_with_what_came_and_what_was_wanted(fault):
    env, check, text = BROKEN[fault]
    findings = check_env(env)
    assert [str(f) for f in findings if f.check == check and text in str(f)], [str(f) for f in findings]


@pytest.mark.parametrize("fault", BROKEN)
def test_no_fault_is_reported_under_a_name_that_the_list_of_checks_lacks(fault):
    assert BROKEN[fault][1] in CHECKS


def test_check_env__observations_that_are_not_numbers__are_outside_and_nothing_else():
    def nan(timestep, state):
        return timestep.observation / 0 * 0

    findings = check_env(changed(observation=nan, final_observation=nan))
    assert {finding.check for finding in findings} == {"inside"}


def test_check_env__two_faults__both_are_reported():
    env = with_methods(
        describe=lambda self, task: "", task_vector=lambda self, task: jnp.zeros((2, 2)), scene=lambda self, t: {1: t}
    )
    assert {finding.check for finding in check_env(env)} == {"describe", "task vector", "picture"}


def test_require_env__broken__raises_all_findings_in_one_error():
    env = with_methods(describe=lambda self, task: "", position=lambda self, state: jnp.zeros(3))
    with pytest.raises(ContractError, match=r"(?s)breaks 2 promise\(s\).*describe.*position"):
        require_env(env)


def test_require_env__good__says_nothing():
    assert require_env(Line()) is None
