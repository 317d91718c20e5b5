"""Half-cheetah control steps per second: the compiled program beside the raw engine and beside Gymnasium.

    python benchmarks/mujoco.py [--quick] [--out DIR]

All rows take random actions that were drawn beforehand. `fledge` is a rollout of 200 steps, one compiled program;
`engine` is `mujoco.rollout` on its own threads, driven step by step from Python, with nothing around it; `gymnasium`
is a `SyncVectorEnv` of HalfCheetah-v5. `learning` is recurrent PPO, its updates included. All are run in turns, so that
noise of the machine hits all of them; rates are medians over the turns, ratios medians of the turns' ratios.
"""

from __future__ import annotations

import sys

# This script has the name of the package that it measures: its folder comes last among those that are searched.
sys.path.append(sys.path.pop(0))

import argparse
import json
import statistics
import time
import types
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key
from mujoco.rollout import Rollout
from rich import box
from rich.console import Console
from rich.table import Table

import mujoco
from fledge.agents.build import MemoryAgentSettings, memory_agent
from fledge.envs.cheetah import CheetahDir
from fledge.envs.mujoco_body import silence
from fledge.envs.mujoco_engine import N_THREADS
from fledge.envs.trial import Trial
from fledge.learn.ppo import PPO, PPOSettings
from fledge.learn.rollout import RolloutState, begin, rollout, sample_tasks
from speed import RandomAgent, machine

TRIAL = Trial(CheetahDir(), 1)
ENVIRONMENTS = [16, 128, 512]
AGENT = MemoryAgentSettings(memory_size=128, hidden=(64,), state_embedding=32, normalise_observations=True)


@dataclass(frozen=True)
class Row:
    """One line of the result: control steps per second with so many environments."""

    n_envs: int
    fledge: float
    engine: float
    gymnasium: float
    of_engine: float
    """Ours over the raw engine."""
    over_gymnasium: float
    """Ours over Gymnasium."""
    learning: float | None = None
    learning_share: float | None = None
    """The rate with learning over the rate without."""


def ours(n_envs: int) -> Callable[[], int]:
    """One call: a rollout of whole episodes as a compiled program. Returns the control steps taken."""
    agent: Any = RandomAgent(TRIAL.action_space)

    def episode(state: RolloutState, key: Key[Array, ""]) -> tuple[RolloutState, Array]:
        state, trajectory = rollout(agent, TRIAL, state, key, n_steps=TRIAL.horizon)
        return state, jnp.sum(trajectory.timestep.reward) + jnp.sum(trajectory.token.observation)

    program = jax.jit(episode)
    tasks = sample_tasks(TRIAL, jax.random.key(1), "train", n_envs)
    start = begin(agent, TRIAL, jax.random.key(2), tasks)

    def call() -> int:
        jax.block_until_ready(program(start, jax.random.key(3)))
        return n_envs * TRIAL.horizon

    return call


def engine(n_envs: int) -> Callable[[], int]:
    """One call: as many control steps of `mujoco.rollout`, state in, state out, one Python call for each."""
    env = TRIAL.env.engine
    model, frame_skip = env.models.nominal, env.body.frame_skip
    threads = Rollout(nthread=N_THREADS)
    data = [mujoco.MjData(model) for _ in range(N_THREADS)]
    rng, full = np.random.default_rng(0), int(mujoco.mjtState.mjSTATE_FULLPHYSICS)
    start = np.zeros((n_envs, mujoco.mj_stateSize(model, full)))
    for row in start:
        data[0].qpos[:] = rng.uniform(-0.1, 0.1, model.nq)
        data[0].qvel[:] = rng.normal(0, 0.1, model.nv)
        mujoco.mj_getState(model, data[0], row, full)
    actions = rng.uniform(-1, 1, (TRIAL.horizon, n_envs, 1, model.nu)).repeat(frame_skip, 2)

    def call() -> int:
        state = start
        for action in actions:
            state = threads.rollout(model, data, state, action)[0][:, -1]
        return n_envs * TRIAL.horizon

    return call


def gymnasium_vector(n_envs: int) -> Callable[[], int]:
    """One call: a few steps of Gymnasium's vector environment, which steps one body after another."""
    sys.modules.setdefault("imageio", types.ModuleType("imageio"))  # Gymnasium's bodies want it, to save films
    import gymnasium

    with silence():
        envs = gymnasium.make_vec("HalfCheetah-v5", num_envs=n_envs, vectorization_mode="sync")
    envs.reset(seed=0)
    n_steps = max(2, 4096 // n_envs)
    actions = np.random.default_rng(0).uniform(-1, 1, (n_steps, n_envs, 6)).astype(np.float32)

    def call() -> int:
        for action in actions:
            envs.step(action)
        return n_steps * n_envs

    return call


def learning(n_envs: int) -> Callable[[], int]:
    """One call: one update of recurrent PPO (a rollout of whole episodes, two epochs of four minibatches)."""
    learner = PPO(TRIAL, memory_agent(AGENT, TRIAL.env), PPOSettings(n_envs=n_envs), 1000)
    state = jax.jit(learner.init)(jax.random.key(0))
    update = jax.jit(lambda state: learner.update(state)[0])

    def call() -> int:
        nonlocal state
        state = jax.block_until_ready(update(state))
        return learner.steps_per_update

    return call


def rate(call: Callable[[], int], seconds: float) -> float:
    """Control steps per second over calls that last at least so long."""
    start, steps = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < seconds or steps == 0:
        steps += call()
    return steps / spent


def measure(n_envs: int, seconds: float, turns: int, *, learns: bool) -> Row:
    """One row of the table."""
    makers = {"fledge": ours, "engine": engine, "gymnasium": gymnasium_vector}
    if learns:
        makers["learning"] = learning
    calls = {name: make(n_envs) for name, make in makers.items()}
    for call in calls.values():
        call()
    rates = [{name: rate(call, seconds) for name, call in calls.items()} for _ in range(turns)]

    def ratio(a: str, b: str) -> float:
        return statistics.median(turn[a] / turn[b] for turn in rates)

    return Row(
        n_envs,
        **{name: statistics.median(turn[name] for turn in rates) for name in calls},
        of_engine=ratio("fledge", "engine"),
        over_gymnasium=ratio("fledge", "gymnasium"),
        learning_share=ratio("learning", "fledge") if learns else None,
    )


COLUMNS: list[tuple[str, Callable[[Row], str]]] = [
    ("envs", lambda r: f"{r.n_envs}"),
    ("steps/s", lambda r: f"{r.fledge / 1e3:.1f}k"),
    ("engine", lambda r: f"{r.engine / 1e3:.1f}k"),
    ("of engine", lambda r: f"{r.of_engine:.2f}"),
    ("Gymnasium", lambda r: f"{r.gymnasium / 1e3:.1f}k"),
    ("over Gymnasium", lambda r: f"{r.over_gymnasium:.2f}"),
    ("with learning", lambda r: f"{r.learning / 1e3:.1f}k" if r.learning else "–"),
]


def markdown(about: dict[str, Any], rows: list[Row]) -> str:
    """The table and the machine as Markdown."""
    versions = about["versions"]
    lines = [
        f"{about['cpu']}, {about['cores']} cores; JAX {versions['jax']}, MuJoCo {versions['mujoco']}, "
        f"Gymnasium {versions['gymnasium']}; {about['date']}; commit {about['commit']}.",
        "",
        "| " + " | ".join(name for name, _ in COLUMNS) + " |",
        "|" + "---:|" * len(COLUMNS),
        *("| " + " | ".join(show(row) for _, show in COLUMNS) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def write(out: Path, about: dict[str, Any], rows: list[Row]) -> None:
    """`mujoco.json` and `mujoco.md`, rewritten after every row, so that a killed run leaves what it has."""
    out.mkdir(parents=True, exist_ok=True)
    document = {"command": " ".join(sys.argv), "machine": about, "rows": [asdict(row) for row in rows]}
    (out / "mujoco.json").write_text(json.dumps(document, indent=1))
    (out / "mujoco.md").write_text(markdown(about, rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short turns")
    parser.add_argument("--envs", type=int, nargs="+", default=ENVIRONMENTS, help="numbers of environments")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn, at least")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--no-learning", action="store_true", help="leave PPO out")
    parser.add_argument("--out", type=Path, default=Path("runs/mujoco"), help="folder of mujoco.json and mujoco.md")
    arguments = parser.parse_args()
    seconds, turns = (0.2, 3) if arguments.quick else (arguments.seconds, arguments.turns)
    about, rows = machine(), []
    about["versions"] |= {name: version(name) for name in ("mujoco", "gymnasium")}
    console = Console(width=max(110, Console().width))
    for n_envs in arguments.envs:
        console.print(f"{n_envs} environments …", style="dim")
        rows.append(measure(n_envs, seconds, turns, learns=not arguments.no_learning))
        write(arguments.out, about, rows)
    table = Table(title="Half-cheetah control steps per second", box=box.SIMPLE, padding=(0, 1))
    for name, _ in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(cell(row) for _, cell in COLUMNS))
    console.print(table)
    console.print(f"Written to {arguments.out}/mujoco.json and mujoco.md.")


if __name__ == "__main__":
    main()
