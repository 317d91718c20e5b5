"""An agent in use, and an exported one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fledge
from fledge.core.errors import ConfigError, ShapeError
from fledge.core.records import read_curves
from fledge.run.export import export_agent


@pytest.fixture(scope="module")
def agent(gridnav_run):
    return fledge.load(gridnav_run)


def walk(agent, *, greedy: bool, seed: int = 0):
    """One whole trial on the first test task: what was handed to the agent, and what it did."""
    trial = agent.trial
    task = jax.tree.map(lambda leaf: leaf[0], trial.enumerate("test"))
    reset, step = jax.jit(trial.reset), jax.jit(trial.step)
    state, observation = reset(jax.random.key(0), task)
    memory = agent.begin(seed=seed)
    reward, done, final = 0.0, False, observation
    rows, actions, rewards = [], [], []
    for t in range(trial.horizon):
        key = np.asarray(jax.random.key_data(jax.random.split(memory.key)[1]))
        row = {"observation": observation, "reward": reward, "done": done, "final_observation": final, "key": key}
        action, memory = agent.act(
            memory, observation, reward=reward, done=done, final_observation=final, greedy=greedy
        )
        state, timestep = step(jax.random.key(t), state, jnp.asarray(action), task)
        observation, final = np.asarray(timestep.observation), np.asarray(timestep.final_observation)
        reward, done = float(timestep.reward), bool(timestep.done)
        rows.append(row)
        actions.append(int(action))
        rewards.append(reward)
    return rows, np.array(actions), np.array(rewards)


def test_an_agent_in_use_does_what_it_did_when_it_was_measured(agent, gridnav_run):
    _, _, rewards = walk(agent, greedy=True)
    measured = read_curves(gridnav_run / "curves.csv").where(recipe="rl2-gridnav", metric="return_greedy", seed=0)
    name = agent.trial.describe(agent.trial.enumerate("test")[0])
    np.testing.assert_allclose(rewards.reshape(4, -1).sum(1), measured.where(task=name).value, atol=1e-4)


def test_the_same_seed_gives_the_same_sampled_actions(agent):
    assert np.array_equal(walk(agent, greedy=False, seed=3)[1], walk(agent, greedy=False, seed=3)[1])


def test_another_seed_gives_others(agent):
    assert not np.array_equal(walk(agent, greedy=False, seed=3)[1], walk(agent, greedy=False, seed=4)[1])


def test_what_is_handed_over_at_a_trials_start_besides_the_observation_is_ignored(agent):
    first, _ = agent.act(agent.begin(), [0.0, 0.0], greedy=True)
    odd, _ = agent.act(agent.begin(), [0.0, 0.0], reward=9.0, done=True, greedy=True)
    assert first == odd


def test_an_observation_of_another_shape_is_refused_naming_both(agent):
    with pytest.raises(ShapeError, match=r"shape \(3,\), but this agent sees arrays of shape \(2,\)"):
        agent.act(agent.begin(), np.zeros(3))


def test_an_agent_that_finds_out_by_itself_is_not_told(agent):
    with pytest.raises(ConfigError, match="finds out the task by itself"):
        agent.begin(task=[1.0, 2.0])


def test_a_seed_that_was_not_trained_is_refused(gridnav_run):
    with pytest.raises(ConfigError, match="There is no seed 7"):
        fledge.load(gridnav_run, seed=7)


def test_evaluating_again_gives_the_curve_of_the_run(agent, gridnav_run):
    again = fledge.evaluate(agent).returns
    assert np.array_equal(
        again, read_curves(gridnav_run / "curves.csv").where(recipe="rl2-gridnav", metric="return").cube().scores
    )


def test_a_trial_can_be_longer_than_in_training(agent):
    assert fledge.evaluate(agent, episodes=6, greedy=True, references=False).cube("return_greedy").scores.shape == (
        2,
        5,
        6,
    )


def test_an_agent_that_learns_on_is_not_evaluated_by_episodes(agent):
    with pytest.raises(ConfigError, match="fledge eval DIR --adapt all"):
        fledge.evaluate(agent, adapt="all")


def test_a_split_that_is_none_is_refused(agent):
    with pytest.raises(ConfigError, match="one of 'train', 'test', 'ood', not 'tset'"):
        fledge.evaluate(agent, split="tset")


RUNNER = """
import sys
sys.modules["fledge"] = None  # importing it fails
import json, zipfile
import numpy as np
folder, archive = sys.argv[1:]
zipfile.ZipFile(archive).extract("load.py", folder)
sys.path.insert(0, folder)
from load import load
about, functions = load(archive)
rows = np.load(folder + "/rows.npz")
found = {}
for mode in ("greedy", "sampled"):
    memory, action, actions = functions["begin"](), np.zeros((), np.int32), []
    for t in range(len(rows["reward_" + mode])):
        names = ["observation", "reward", "done", "final_observation"] + (["key"] if mode == "sampled" else [])
        inputs = {name: rows[f"{name}_{mode}"][t] for name in names}
        inputs |= {"memory": memory, "last_action": action, "start": np.bool_(t == 0)}
        action, memory = functions[mode](inputs)
        actions.append(int(action))
    found[mode] = actions
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def exported(gridnav_run, tmp_path_factory):
    return export_agent(gridnav_run, tmp_path_factory.mktemp("export") / "agent.zip")


def test_an_exported_agent_acts_like_the_library_without_the_library(agent, exported, tmp_path):
    walked = {"greedy": walk(agent, greedy=True), "sampled": walk(agent, greedy=False, seed=5)}
    kinds = {
        "observation": np.float32,
        "reward": np.float32,
        "final_observation": np.float32,
        "done": bool,
        "key": np.uint32,
    }
    arrays = {
        f"{n}_{mode}": np.array([r[n] for r in w[0]], kind) for mode, w in walked.items() for n, kind in kinds.items()
    }
    np.savez(tmp_path / "rows.npz", **arrays)
    (tmp_path / "runner.py").write_text(RUNNER)
    command = [sys.executable, "-I", str(tmp_path / "runner.py"), str(tmp_path), str(exported)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {mode: w[1].tolist() for mode, w in walked.items()}


def test_the_file_describes_its_inputs(exported):
    about = json.loads(zipfile.ZipFile(exported).read("agent.json"))
    assert about["inputs"]["observation"]["arrays"] == {"shape": [2], "dtype": "float32"}


def test_an_export_never_overwrites(gridnav_run, exported):
    with pytest.raises(ConfigError, match="is there already"):
        export_agent(gridnav_run, exported)
