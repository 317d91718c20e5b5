"""Stored numbers of a short training. `make golden` renews them; a changed number is explained in the changelog.

Tolerance: matrix products may be summed in another order on another processor or XLA version; three updates magnify
that to about 1e-4.
"""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from fledge.agents.build import MemoryAgentSettings, memory_agent
from fledge.envs.gridnav import GridNav
from fledge.envs.trial import Trial
from fledge.learn.loop import Loop
from fledge.learn.ppo import PPO, PPOSettings

STORED = Path(__file__).with_name("training.json")
MEMORIES = ("gru", "linear", "lstm", "none", "splagger", "transformer")
METRICS = ("return/trial", "loss/policy", "loss/value", "loss/entropy", "grad/norm")


def numbers(memory):
    trial = Trial(GridNav(horizon=5), 2)
    make = memory_agent(MemoryAgentSettings(memory=memory, memory_size=8, joint_embedding=8), trial)
    loop = Loop(PPO(trial, make, PPOSettings(n_envs=8, n_minibatches=2), 3), chunk_len=3)
    (chunk,) = loop.run(loop.init(jax.random.split(jax.random.key(0), 1)), n_chunks=1)
    size = sum(leaf.size for leaf in jax.tree.leaves(chunk.state.agent))
    return {"parameters": size} | {name: chunk.metrics[name][:, 0].astype(float).tolist() for name in METRICS}


@pytest.mark.parametrize("memory", MEMORIES)
def test_three_updates_give_the_stored_numbers(memory, renew):
    found = numbers(memory)
    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    if renew:
        STORED.write_text(json.dumps(stored | {memory: found}, indent=1, sort_keys=True) + "\n")
        return
    assert memory in stored, f"No stored numbers for '{memory}'. Renew them with: make golden"
    for name, values in stored[memory].items():
        np.testing.assert_allclose(found[name], values, rtol=2e-3, atol=2e-4, err_msg=f"{memory}: {name}")
