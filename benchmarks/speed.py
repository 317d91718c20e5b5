"""Environment steps per second *including learning*, beside a plain PyTorch version and a counted floor.

    python benchmarks/speed.py [--quick] [--out DIR] [--no-peer]

Every row trains recurrent PPO on GridNavi (5×5, four episodes of 15 steps to a trial) as one compiled program. Fledge
and the peer run in turns, so that noise of the machine hits both; rates are medians over the turns. See README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Key, PyTree
from rich import box
from rich.console import Console
from rich.table import Table

from counted_floor import Floor, best_seconds, counted_floor, large_matrix_rate, piece_rows
from fledge.agents.recurrent import MemoryAgent
from fledge.core.contracts import Agent
from fledge.core.spaces import Space
from fledge.core.types import Decision, Token, Trajectory
from fledge.envs.gridnav import GridNav
from fledge.envs.trial import Trial
from fledge.learn.devices import Placement, place
from fledge.learn.ppo import PPO, PPOSettings, PPOState
from fledge.learn.rollout import RolloutState, begin, rollout, sample_tasks
from fledge.nets.policy import ActorCritic
from fledge.nets.recurrent import GRUMemory, LinearMemory
from fledge.nets.tokens import TokenEncoder

TRIAL = Trial(GridNav(), 4)
JOINT = 32
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
MEMORIES = {"gru": GRUMemory, "linear": LinearMemory}
SIZES = [("gru", 64), ("gru", 128), ("gru", 256), ("linear", 128)]
ENVIRONMENTS = [16, 128, 1024]
QUICK = [("gru", 64, 16), ("gru", 64, 128), ("linear", 128, 128)]


@dataclass(frozen=True)
class Row:
    """One line of the result: a memory, a size, a number of environments."""

    memory: str
    size: int
    n_envs: int
    steps_per_s: float
    steps_per_s_best: float
    compile_s: float
    cores_used: float
    """Processor seconds per second of wall time while training."""
    share_environment: float
    share_acting: float
    share_update: float
    fixed_share: float
    piece_rows: int
    n_parameters: int
    return_trial: float
    floor: dict[str, float]
    floor_share: float
    """Floor over achieved time: 1 is the floor itself."""
    bound: str
    peer_steps_per_s: float | None = None
    peer_steps_per_s_best: float | None = None
    peer_threads: int | None = None
    peer_share_rollout: float | None = None
    ratio: float | None = None


class RandomAgent(Agent):
    """Acts at random and computes nothing: a rollout with it is the environment, its tokens and its randomness."""

    action_space: Space

    def begin(self) -> tuple[()]:
        return ()

    def sample_noise(self, key: Key[Array, ""]) -> Array:
        return self.action_space.sample(key)

    def act(self, memory: tuple[()], token: Token, noise: PyTree[Array] | None = None) -> tuple[Decision, tuple[()]]:
        return Decision.plain(self.action_space.zeros() if noise is None else noise), memory


def make_learner(memory: str, size: int, n_envs: int) -> PPO:
    """The PPO of one row, on the library's default settings."""

    def make_agent(key: Key[Array, ""]) -> MemoryAgent:
        key_encoder, key_memory, key_policy = jax.random.split(key, 3)
        encoder = TokenEncoder.init(key_encoder, TRIAL.observation_space, TRIAL.action_space, joint=JOINT)
        recurrent = MEMORIES[memory].init(key_memory, encoder.out_size(), size)
        policy = ActorCritic.init(key_policy, recurrent.out_size, TRIAL.observation_space, TRIAL.action_space)
        return MemoryAgent(encoder, recurrent, policy, None)

    settings = PPOSettings(n_envs=n_envs)
    return PPO(TRIAL, make_agent, settings, 1000, placement_of(settings).split)


def placement_of(settings: PPOSettings) -> Placement:
    """Every core takes its share of each minibatch, where they divide it."""
    return place(1, settings.n_envs // settings.n_minibatches)


class Program:
    """A compiled training program, and the state that it carries on. The number of updates is an argument of it."""

    def __init__(self, learner: PPO) -> None:
        self.learner = learner
        mesh = placement_of(learner.settings).mesh
        self.shares = mesh.size
        everywhere = NamedSharding(mesh, PartitionSpec())
        shared = jax.shard_map(
            self._train, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(), check_vma=False
        )
        self.state: PPOState = jax.device_put(jax.jit(learner.init)(jax.random.key(0)), everywhere)
        program = jax.jit(shared, in_shardings=everywhere, out_shardings=everywhere)
        start = time.perf_counter()
        self.call = program.lower(self.state, jnp.asarray(1)).compile()  # refuses inputs that it was not compiled for
        self.compile_s = time.perf_counter() - start
        self.seconds(1)
        self.once = self.seconds(1)
        if self.once < 0.5:
            self.once = min(self.seconds(1) for _ in range(3))

    def _train(self, state: PPOState, n_updates: Array) -> tuple[PPOState, Array]:
        def update(_: Array, carry: tuple[PPOState, Array]) -> tuple[PPOState, Array]:
            state, metrics = self.learner.update(carry[0])
            return state, metrics["return/trial"]

        return jax.lax.fori_loop(0, n_updates, update, (state, jnp.zeros(())))

    def seconds(self, n_updates: int) -> float:
        """Seconds of one call of so many updates."""
        start = time.perf_counter()
        self.state, self.return_trial = jax.block_until_ready(self.call(self.state, jnp.asarray(n_updates)))
        return time.perf_counter() - start

    def rate(self, seconds: float) -> float:
        """Environment steps per second over one call of about `seconds`."""
        n_updates = max(1, round(seconds / self.once))
        return n_updates * self.learner.steps_per_update / self.seconds(n_updates)

    def cores_used(self, seconds: float) -> float:
        """Processor seconds per second of wall time."""
        wall, processor = time.perf_counter(), time.process_time()
        self.rate(seconds)
        return (time.process_time() - processor) / (time.perf_counter() - wall)


def rollout_seconds(agent: Agent, n_envs: int, length: int) -> float:
    """Seconds of `length` rollouts as a compiled program of their own. What learning reads is kept alive by a sum."""
    tasks = sample_tasks(TRIAL, jax.random.key(1), "train", n_envs)
    start = begin(agent, TRIAL, jax.random.key(2), tasks)

    def once(state: RolloutState, key: Key[Array, ""]) -> tuple[RolloutState, Array]:
        state, trajectory = rollout(agent, TRIAL, state, key, n_steps=TRIAL.horizon)
        return state, sum(jnp.sum(x.astype(jnp.float32)) for x in jax.tree.leaves(_read(trajectory)))

    program = jax.jit(lambda state, key: jax.lax.scan(once, state, jax.random.split(key, length))[1])
    return best_seconds(lambda: program(start, jax.random.key(3)), 0.3)


def _read(trajectory: Trajectory) -> PyTree[Array]:
    """What PPO reads of a trajectory."""
    token, step = trajectory.token, trajectory.timestep
    read = (token.observation, token.action, token.reward, token.done, token.final_observation, token.start)
    return (*read, trajectory.decision, step.reward, step.trial_end)


def make_peer(settings: PPOSettings, size: int, n_parameters: int) -> Any:
    """The PyTorch peer with the same settings, on whichever of one and two threads is faster here."""
    from torch_peer import Settings, TorchPeer

    names = set(Settings.__dataclass_fields__) & set(PPOSettings.__dataclass_fields__)
    same = {name: getattr(settings, name) for name in names}
    peers = [TorchPeer(Settings(hidden=size, joint=JOINT, **same), n_threads=n) for n in (1, 2)]
    if peers[0].network.n_parameters() != n_parameters:
        raise SystemExit(f"The peer has {peers[0].network.n_parameters()} parameters, Fledge {n_parameters}.")
    peer = min(peers, key=lambda peer: peer.gradient_seconds())
    peer.update()
    return peer


def in_turns(program: Program, peer: Any, seconds: float, turns: int) -> tuple[list[float], list[float]]:
    """Steps per second of both, one call of ours and a like time of the peer's updates in turns."""
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(turns if program.once < 2 * seconds else min(turns, 3)):
        ours.append(program.rate(seconds))
        if peer is not None:
            start, steps = time.perf_counter(), 0
            while (spent := time.perf_counter() - start) < seconds or steps == 0:
                peer.update()
                steps += peer.steps_per_update
            theirs.append(steps / spent)
            time.sleep(0.02)  # OpenMP's threads spin on for a moment: let them go to sleep
    return ours, theirs


def fixed_seconds(memory: str, size: int) -> float:
    """Seconds of one update with one environment to a minibatch: what every update costs, however few the data."""
    program = Program(make_learner(memory, size, PPOSettings().n_minibatches))
    return program.learner.steps_per_update / max(program.rate(0.1) for _ in range(3))


def bound(row_us: float, floor: Floor, fixed_share: float) -> str:
    """What takes the largest part of the time, in words; nothing is named that takes less than half."""
    parts = {"small kernels": fixed_share, "products": floor.us_shapes / row_us, "memory": floor.us_memory / row_us}
    name, share = max(parts.items(), key=lambda part: part[1])
    return f"{name} {min(share, 1.0):.0%}" if share >= 0.5 else "element-wise"


def measure(memory: str, size: int, n_envs: int, *, fixed: float, with_peer: bool, seconds: float, turns: int) -> Row:
    """One row of the table."""
    learner = make_learner(memory, size, n_envs)
    program = Program(learner)
    agent: Any = jax.device_put(program.state.agent, jax.devices()[0])
    n_parameters = sum(leaf.size for leaf in jax.tree.leaves(agent))
    peer = make_peer(learner.settings, size, n_parameters) if with_peer and memory == "gru" else None
    ours, theirs = in_turns(program, peer, seconds, turns)
    rate = statistics.median(ours)
    per_update = learner.steps_per_update / max(ours)
    repeats = max(1, round(0.1 / per_update))
    acted = rollout_seconds(agent, n_envs, repeats) / repeats / per_update
    environment = rollout_seconds(RandomAgent(TRIAL.action_space), n_envs, repeats) / repeats / per_update
    floor = counted_floor(agent, learner.settings, TRIAL.horizon, program.shares)
    fixed_share = min(1.0, fixed / per_update)
    row_us = 1e6 / rate
    return Row(
        memory=memory,
        size=size,
        n_envs=n_envs,
        steps_per_s=rate,
        steps_per_s_best=max(ours),
        compile_s=program.compile_s,
        cores_used=program.cores_used(seconds),
        share_environment=environment,
        share_acting=acted - environment,
        share_update=1 - acted,
        fixed_share=fixed_share,
        piece_rows=piece_rows(learner.settings, program.shares),
        n_parameters=n_parameters,
        return_trial=float(program.return_trial),
        floor=asdict(floor),
        floor_share=floor.us / row_us,
        bound=bound(1e6 / max(ours), floor, fixed_share),
        peer_steps_per_s=statistics.median(theirs) if theirs else None,
        peer_steps_per_s_best=max(theirs, default=None),
        peer_threads=peer.n_threads if peer else None,
        peer_share_rollout=peer.share_of_rollout() if peer else None,
        ratio=rate / statistics.median(theirs) if theirs else None,
    )


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")] if cpuinfo.exists() else []
    )
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": names[0].split(":", 1)[1].strip() if names else platform.processor(),
        "cores": CORES,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {
            name: _version(name) for name in ("fledge", "jax", "jaxlib", "equinox", "optax", "numpy", "torch")
        },
        "device": str(jax.devices()[0]),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "commit": _commit(),
        "load_at_start": os.getloadavg(),
        "matrix_gflops": large_matrix_rate() / 1e9,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    here = Path(__file__).parent
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None


COLUMNS: list[tuple[str, Callable[[Row], str]]] = [
    ("memory", lambda r: f"{r.memory} {r.size}"),
    ("envs", lambda r: f"{r.n_envs}"),
    ("steps/s", lambda r: f"{r.steps_per_s / 1e3:.0f}k"),
    ("peer", lambda r: f"{r.peer_steps_per_s / 1e3:.0f}k" if r.peer_steps_per_s else "–"),
    ("ratio", lambda r: f"{r.ratio:.1f}" if r.ratio else "–"),
    ("compile", lambda r: f"{r.compile_s:.1f} s"),
    ("env/act/update", lambda r: f"{r.share_environment:.0%} {r.share_acting:.0%} {r.share_update:.0%}"),
    ("of floor", lambda r: f"{r.floor_share:.0%}"),
    ("bound by", lambda r: r.bound),
]


def markdown(about: dict[str, Any], rows: list[Row]) -> str:
    """The table and the machine as Markdown."""
    versions = about["versions"]
    lines = [
        f"{about['cpu']}, {about['cores']} cores; JAX {versions['jax']}, PyTorch {versions['torch']}; {about['date']}; "
        f"commit {about['commit']}; large float32 products: {about['matrix_gflops']:.0f} GFLOP/s.",
        "",
        "| " + " | ".join(name for name, _ in COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(show(row) for _, show in COLUMNS) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def write(out: Path, about: dict[str, Any], rows: list[Row]) -> None:
    """`speed.json` and `speed.md`, rewritten after every row, so that a killed run leaves what it has."""
    out.mkdir(parents=True, exist_ok=True)
    document = {"command": " ".join(sys.argv), "machine": about, "rows": [asdict(row) for row in rows]}
    (out / "speed.json").write_text(json.dumps(document, indent=1))
    (out / "speed.md").write_text(markdown(about, rows))


def show(console: Console, rows: list[Row]) -> None:
    """The table on the terminal."""
    table = Table(title="Environment steps per second, learning included", box=box.SIMPLE, padding=(0, 1))
    for name, _ in COLUMNS:
        table.add_column(name, justify="left" if name in ("memory", "bound by") else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(cell(row) for _, cell in COLUMNS))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three rows instead of twelve")
    parser.add_argument("--row", nargs=3, metavar=("MEMORY", "SIZE", "ENVS"), help="one row, such as: gru 64 128")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a turn")
    parser.add_argument("--out", type=Path, default=Path("runs/speed"), help="folder of speed.json and speed.md")
    parser.add_argument("--no-peer", action="store_true", help="leave PyTorch out")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)  # compile seconds are measured
    jax.config.update("jax_num_cpu_devices", CORES)  # as the command `fledge` does it
    wanted = QUICK if arguments.quick else [(*size, n) for size in SIZES for n in ENVIRONMENTS]
    if arguments.row:
        memory, size, n_envs = arguments.row
        wanted = [(memory, int(size), int(n_envs))]
    about, rows, fixed = machine(), [], {}
    console = Console(width=max(110, Console().width))
    for memory, size, n_envs in wanted:
        if (memory, size) not in fixed:
            fixed[memory, size] = fixed_seconds(memory, size)
        console.print(f"{memory} {size}, {n_envs} environments …", style="dim")
        rows.append(
            measure(
                memory,
                size,
                n_envs,
                fixed=fixed[memory, size],
                with_peer=not arguments.no_peer,
                seconds=arguments.seconds,
                turns=5,
            )
        )
        write(arguments.out, about, rows)
    show(console, rows)
    console.print(f"Written to {arguments.out}/speed.json and speed.md.")


if __name__ == "__main__":
    main()
