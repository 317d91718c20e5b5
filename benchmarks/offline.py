"""Gradient steps per second of behaviour cloning and TD3+BC, beside d3rlpy's (or plain PyTorch of the same sizes).

    python benchmarks/offline.py [--steps 400] [--seeds 1] [--json FILE]

Ours is one compiled scan, as in every feedback recipe. The peer is d3rlpy where it is installed; otherwise the same
network, batch and Adam written in plain PyTorch with the minibatch drawn by index, which is what d3rlpy does without
its bookkeeping. Both run in this process, one after the other, with the threads that the environment allows.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fledge.learn.clone import CloneSettings, Examples, clone
from fledge.learn.offline import OfflineSettings, Transitions, learn_offline
from fledge.learn.seeds import keys_of

ROWS, OBS, ACT, WIDTH = 300_000, 3, 1, 256


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observations, actions in ±1 and rewards of the size of the stitched pendulum set."""
    rng = np.random.default_rng(0)
    return (
        rng.standard_normal((ROWS, OBS)).astype(np.float32),
        rng.uniform(-1, 1, (ROWS, ACT)).astype(np.float32),
        rng.standard_normal(ROWS).astype(np.float32),
    )


def ours(method: str, n_steps: int, n_seeds: int) -> float:
    """Gradient steps per second, all seeds together, compilation left out."""
    obs, act, reward = map(jnp.asarray, data())
    keys = keys_of(range(n_seeds))
    if method == "bc":
        examples = Examples(obs, act, jnp.ones(ROWS), jnp.arange(ROWS, dtype=jnp.int32), jnp.asarray(ROWS, jnp.int32))
        settings = CloneSettings(n_steps=n_steps)
        program = jax.jit(lambda keys, x: jax.vmap(lambda key: clone(key, x, settings))(keys))
        return speed(lambda: program(keys, examples), n_steps * n_seeds)
    own = OfflineSettings("td3bc", n_steps=n_steps)
    transitions = Transitions(obs, act, reward, obs, jnp.zeros(ROWS, bool))
    offline = jax.jit(lambda keys, x: jax.vmap(lambda key: learn_offline(key, x, own))(keys))
    return speed(lambda: offline(keys, transitions), n_steps * n_seeds)


def speed(run: Callable[[], Any], steps: int, repeats: int = 3) -> float:
    """Steps per second: the best of a few runs after one that compiles."""
    jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - started)
    return steps / min(times)


def peer(method: str, n_steps: int) -> tuple[str, float]:
    """Name and gradient steps per second of d3rlpy, or of plain PyTorch where it is not installed."""
    try:
        import d3rlpy
    except ImportError:
        return "torch", (torch_bc if method == "bc" else torch_td3bc)(n_steps)
    return "d3rlpy", with_d3rlpy(d3rlpy, method, n_steps)


def with_d3rlpy(d3rlpy: Any, method: str, n_steps: int) -> float:
    """d3rlpy's own update on batches of its own replay buffer."""
    obs, act, reward = data()
    ends = np.zeros(ROWS, np.float32)
    ends[599::600] = 1
    dataset = d3rlpy.dataset.MDPDataset(obs, act, reward, np.zeros(ROWS), ends)
    config = d3rlpy.algos.BCConfig() if method == "bc" else d3rlpy.algos.TD3PlusBCConfig()
    algo = config.create(device="cpu:0")
    algo.build_with_dataset(dataset)
    size = config.batch_size

    def run() -> None:
        for _ in range(n_steps):
            algo.update(dataset.sample_transition_batch(size))

    return speed(run, n_steps, 1)


def torch_net(torch: Any, n_in: int, n_out: int) -> Any:
    """An MLP of two hidden layers of 256."""
    nn = torch.nn
    return nn.Sequential(nn.Linear(n_in, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, n_out))


def torch_bc(n_steps: int) -> float:
    """BC of the same sizes."""
    import torch

    obs, act, _ = map(torch.from_numpy, data())
    net = torch_net(torch, OBS, ACT)
    adam = torch.optim.Adam(net.parameters(), 1e-3)

    def run() -> None:
        for _ in range(n_steps):
            at = torch.randint(ROWS, (100,))
            loss = ((torch.tanh(net(obs[at])) - act[at]) ** 2).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()

    return speed(run, n_steps, 2)


def torch_td3bc(n_steps: int) -> float:
    """TD3+BC of the same sizes and order of updates."""
    import torch

    obs, act, reward = map(torch.from_numpy, data())
    actor, critics = torch_net(torch, OBS, ACT), [torch_net(torch, OBS + ACT, 1) for _ in range(2)]
    slow_actor, slow_critics = copy.deepcopy(actor), copy.deepcopy(critics)
    of_actor = torch.optim.Adam(actor.parameters(), 3e-4)
    of_critics = torch.optim.Adam([p for c in critics for p in c.parameters()], 3e-4)

    def step(i: int) -> None:
        at = torch.randint(ROWS, (256,))
        s, a, r = obs[at], act[at], reward[at]
        with torch.no_grad():
            noise = (0.2 * torch.randn_like(a)).clamp(-0.5, 0.5)
            following = torch.cat([s, (torch.tanh(slow_actor(s)) + noise).clamp(-1, 1)], 1)
            target = r[:, None] + 0.99 * torch.min(*(c(following) for c in slow_critics))
        loss = sum(((c(torch.cat([s, a], 1)) - target) ** 2).mean() for c in critics)
        of_critics.zero_grad()
        loss.backward()
        of_critics.step()
        if i % 2:
            action = torch.tanh(actor(s))
            q = critics[0](torch.cat([s, action], 1))
            cost = -2.5 / q.abs().mean().detach() * q.mean() + ((action - a) ** 2).mean()
            of_actor.zero_grad()
            cost.backward()
            of_actor.step()
            with torch.no_grad():
                for slow, fast in ((slow_actor, actor), *zip(slow_critics, critics, strict=True)):
                    for p, q_ in zip(slow.parameters(), fast.parameters(), strict=True):
                        p.lerp_(q_, 0.005)

    def run() -> None:
        for i in range(n_steps):
            step(i)

    return speed(run, n_steps, 2)


def main() -> None:
    """Print one row for each method."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=1, help="ours only: seeds trained side by side")
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    rows = []
    for method in ("bc", "td3bc"):
        own = ours(method, options.steps, options.seeds)
        name, other = peer(method, options.steps)
        rows.append({"method": method, "ours": own, "peer": name, "peer_steps_per_s": other, "ratio": own / other})
        print(f"{method:6s} ours {own:8.0f} gradient steps/s   {name} {other:8.0f}   ratio {own / other:.2f}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"seeds": options.seeds, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
