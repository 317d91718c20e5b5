"""Meta-gradients per second: one compiled estimate of sc(1) on the bandit, beside PyTorch and TorchOpt in the same run.

    python benchmarks/metagrad.py [--lifetimes 2 64 512] [--updates 80] [--turns 5] [--out DIR]

The same work for all: N inner updates of 10 pulls on 30 arms, differentiated end to end, naive surrogate plus the full
sampling correction with a leave-one-out baseline, all lifetimes of an estimate side by side. `fledge` is the compiled
estimate (reverse mode), `forward` the same in forward mode; `torch` takes `torch.autograd.grad(create_graph=True)` and
updates by hand; `torchopt` leaves the update to TorchOpt's differentiable SGD (it takes part where TorchOpt is
installed). Rows are run in turns, so that noise of the machine hits all of them.

Before anything is timed, every peer differentiates the very pulls that one of our estimates drew, and has to find the
same gradient (`off_torch`, `off_torchopt`: distance over the gradient's norm).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor, nn

from fledge.learn.lifetime_bandit import BanditLifetime, Pulls
from fledge.learn.lifetimes import start_life
from fledge.learn.metagrad import MetaGrad
from fledge.learn.surrogates import PolicyGradient
from speed import machine

N_ARMS, N_PULLS, NOISE, N_EARLY = 30, 10, 2.0, 8
ETA = (1.5, 1.5)
MOST_OFF = 1e-2
"""Single precision, over eighty updates in a row."""


def ours(n_lifetimes: int, n_updates: int, mode: Any) -> Callable[[], Any]:
    """One call: an estimate from the compiled program."""
    lifetime = BanditLifetime(n_updates=n_updates)
    estimator = MetaGrad(lifetime, n_lifetimes=n_lifetimes, mode=mode)
    program = jax.jit(lambda key, eta: estimator.estimate(key, eta, None)[0])
    eta, key = jnp.array(ETA), jax.random.key(0)
    return lambda: jax.block_until_ready(program(key, eta))


def recorded(n_lifetimes: int, n_updates: int) -> tuple[np.ndarray, Pulls]:
    """Our estimate with key 0, and the pulls that it drew; their axes are (batch, lifetime, pull)."""
    lifetime, eta, key = BanditLifetime(n_updates=n_updates), jnp.array(ETA), jax.random.key(0)
    estimate = jax.jit(MetaGrad(lifetime, n_lifetimes=n_lifetimes).estimate)(key, eta, None)[0]

    def lived(key: Any) -> Pulls:
        life, task, key_data = start_life(lifetime, key, eta, None)

        def step(life: Any, n: Any) -> tuple[Any, Pulls]:
            pulls = lifetime.collect(jax.random.fold_in(key_data, n), n, life, eta, task)
            return lifetime.update(n, life, pulls, eta, PolicyGradient()), pulls

        return jax.lax.scan(step, life, jnp.arange(n_updates + 1))[1]

    keys = jax.random.split(jax.random.split(key)[1], n_lifetimes)
    return np.asarray(estimate), jax.jit(jax.vmap(lived, out_axes=1))(keys)


def peer(n_lifetimes: int, n_updates: int, *, torchopt: Any = None, pulls: Pulls | None = None) -> Callable[[], Any]:
    """One call: an estimate as a careful PyTorch user would write it, batched over lifetimes.

    Args:
        n_lifetimes, n_updates: of an estimate.
        torchopt: the package, if it is to take the updates.
        pulls: what is pulled; None draws anew in each call.
    """
    given = None if pulls is None else [torch.from_numpy(np.array(x)) for x in (pulls.action, pulls.reward)]

    def call() -> Tensor:
        eta = torch.tensor(ETA, requires_grad=True)
        means = torch.exp(torch.rand(n_lifetimes, N_ARMS) * 101 - 100)
        noise = NOISE * torch.randn(n_updates + 1, n_lifetimes, N_PULLS)
        steps = nn.functional.softplus(eta)
        logits = torch.zeros(n_lifetimes, N_ARMS, requires_grad=True)
        if torchopt is not None:
            optimiser = torchopt.sgd(lr=1.0)
            state = optimiser.init((logits,))
        credit, total = torch.zeros(n_lifetimes), torch.zeros(())
        for n in range(n_updates + 1):
            logs = torch.log_softmax(logits, dim=1)
            with torch.no_grad():
                if given is None:
                    actions = torch.multinomial(logs.exp(), N_PULLS, replacement=True)
                    rewards = means.gather(1, actions) + noise[n]
                else:
                    actions, rewards = given[0][n].long(), given[1][n]
                returns = rewards.mean(1)
                baseline = (returns.sum() - returns) / (n_lifetimes - 1)
            chosen = logs.gather(1, actions)
            direct = ((rewards - baseline[:, None]) * chosen).mean(1)
            total = total + (direct + (returns - baseline) * credit).mean()
            credit = credit + chosen.sum(1)
            gain = (rewards * chosen).mean(1).sum()
            step = steps[0] if n < N_EARLY else steps[1]
            if torchopt is not None:  # it descends, and its own step size is a constant: η weighs the loss
                gradients = torch.autograd.grad(-step * gain, (logits,), create_graph=True)
                moves, state = optimiser.update(gradients, state, inplace=False)
                (logits,) = torchopt.apply_updates((logits,), moves, inplace=False)
            else:
                logits = logits + step * torch.autograd.grad(gain, logits, create_graph=True)[0]
        return torch.autograd.grad(total / (n_updates + 1), eta)[0]

    return call


def milliseconds(call: Callable[[], Any], seconds: float) -> float:
    """Of one call, over calls that last at least so long."""
    begun, calls = time.perf_counter(), 0
    while (spent := time.perf_counter() - begun) < seconds or calls == 0:
        call()
        calls += 1
    return 1e3 * spent / calls


def measure(n_lifetimes: int, n_updates: int, turns: int, seconds: float) -> dict[str, Any]:
    """One row: milliseconds of an estimate, medians over turns, and ratios of the turns."""
    packages: dict[str, Any] = {"torch": None}
    if importlib.util.find_spec("torchopt") is not None:
        packages["torchopt"] = importlib.import_module("torchopt")
    calls = {
        "fledge": ours(n_lifetimes, n_updates, "reverse"),
        "forward": ours(n_lifetimes, n_updates, "forward"),
        **{name: peer(n_lifetimes, n_updates, torchopt=package) for name, package in packages.items()},
    }
    row: dict[str, Any] = {"lifetimes": n_lifetimes, "updates": n_updates}
    ours_found, pulls = recorded(n_lifetimes, n_updates)
    for name, package in packages.items():
        found = peer(n_lifetimes, n_updates, torchopt=package, pulls=pulls)().numpy()
        row[f"off_{name}"] = off = float(np.linalg.norm(found - ours_found) / np.linalg.norm(ours_found))
        if off > MOST_OFF:
            raise SystemExit(f"On the same pulls {name} finds {found} and fledge {ours_found}: not the same estimate.")
    begun = time.perf_counter()
    calls["fledge"]()
    row["compile_s"] = time.perf_counter() - begun
    for call in calls.values():
        call()
    found = [{name: milliseconds(call, seconds) for name, call in calls.items()} for _ in range(turns)]
    row |= {f"{name}_ms": statistics.median(turn[name] for turn in found) for name in calls}
    for name in packages:
        row[f"over_{name}"] = statistics.median(turn[name] / turn["fledge"] for turn in found)
    return row


def markdown(about: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The table and the machine as Markdown."""
    columns = list(rows[0])
    lines = [
        f"{about['cpu']}, {about['cores']} cores; PyTorch {torch.__version__}; JAX {jax.__version__}; {about['date']}.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "---:|" * len(columns),
        *(
            "| " + " | ".join(f"{row[c]:.3g}" if row.get(c) is not None else "–" for c in columns) + " |"
            for row in rows
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lifetimes", type=int, nargs="+", default=[2, 64, 512], help="lifetimes of one estimate")
    parser.add_argument("--updates", type=int, default=80, help="inner updates")
    parser.add_argument("--turns", type=int, default=5, help="measurements, one after the other for all")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement, at least")
    parser.add_argument("--out", type=Path, default=Path("runs/metagrad"), help="folder for metagrad.json")
    words = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(n, words.updates, words.turns, words.seconds) for n in words.lifetimes]
    about = machine()
    words.out.mkdir(parents=True, exist_ok=True)
    (words.out / "metagrad.json").write_text(json.dumps({"machine": about, "rows": rows}, indent=2) + "\n")
    print(markdown(about, rows))


if __name__ == "__main__":
    main()
