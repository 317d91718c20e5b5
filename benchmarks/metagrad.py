"""Meta-gradients per second: one compiled estimate of sc(1) on the bandit, beside PyTorch and TorchOpt in the same run.

    python benchmarks/metagrad.py [--lifetimes 2 64 512] [--updates 80] [--turns 5] [--out DIR]

The same work for all: N inner updates of 10 pulls on 30 arms, differentiated end to end, naive surrogate plus the full
sampling correction with a leave-one-out baseline, all lifetimes of an estimate side by side. `fledge` is the compiled
estimate (reverse mode), `forward` the same in forward mode; `torch` takes `torch.autograd.grad(create_graph=True)` and
updates by hand; `torchopt` leaves the update to TorchOpt's differentiable SGD (it takes part where TorchOpt is
installed). Rows are run in turns, so that noise of the machine hits all of them.
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
import torch
from torch import Tensor, nn

from fledge.learn.lifetime_bandit import BanditLifetime
from fledge.learn.metagrad import MetaGrad
from speed import machine

N_ARMS, N_PULLS, NOISE, N_EARLY = 30, 10, 2.0, 8
ETA = (1.5, 1.5)


def ours(n_lifetimes: int, n_updates: int, mode: Any) -> Callable[[], Any]:
    """One call: an estimate from the compiled program."""
    lifetime = BanditLifetime(n_updates=n_updates)
    estimator = MetaGrad(lifetime, n_lifetimes=n_lifetimes, mode=mode)
    program = jax.jit(lambda key, eta: estimator.estimate(key, eta, None)[0])
    eta, key = jnp.array(ETA), jax.random.key(0)
    return lambda: jax.block_until_ready(program(key, eta))


def peer(n_lifetimes: int, n_updates: int, *, torchopt: Any = None) -> Callable[[], Any]:
    """One call: an estimate as a careful PyTorch user would write it, batched over lifetimes."""

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
                actions = torch.multinomial(logs.exp(), N_PULLS, replacement=True)
                rewards = means.gather(1, actions) + noise[n]
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
    calls = {
        "fledge": ours(n_lifetimes, n_updates, "reverse"),
        "forward": ours(n_lifetimes, n_updates, "forward"),
        "torch": peer(n_lifetimes, n_updates),
    }
    if importlib.util.find_spec("torchopt") is not None:
        import torchopt

        calls["torchopt"] = peer(n_lifetimes, n_updates, torchopt=torchopt)
    row: dict[str, Any] = {"lifetimes": n_lifetimes, "updates": n_updates}
    begun = time.perf_counter()
    calls["fledge"]()
    row["compile_s"] = time.perf_counter() - begun
    for call in calls.values():
        call()
    found = [{name: milliseconds(call, seconds) for name, call in calls.items()} for _ in range(turns)]
    row |= {f"{name}_ms": statistics.median(turn[name] for turn in found) for name in calls}
    for name in ("torch", "torchopt"):
        if name in calls:
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
