"""What a consistency study found: numbers of each way to adapt, the signs that are claimed, and a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from fledge.core.records import Result
from fledge.core.stats import Estimate, bootstrap, probability_of_improvement
from fledge.run.adapt import Adapted
from fledge.run.judge import UNTESTED, row_of

GAP = 0.1
"""Of the oracle: an agent that ends nearer than this on a task is consistent there."""
MOST = 0.9
"""Share of tasks on which it has to."""
EARLY = 0.05
"""Share of the budget in which negative transfer is looked for."""

Scores = Float[np.ndarray, "seed task"]


def auc(shares: Float[np.ndarray, "seed task point"]) -> Scores:
    """Mean share of the oracle over the budget (trapezium rule)."""
    return ((shares[..., 1:] + shares[..., :-1]) / 2).mean(-1) if shares.shape[-1] > 1 else shares[..., 0]


def steps_to(shares: Float[np.ndarray, "seed task point"], env_steps: np.ndarray, level: float = 1 - GAP) -> Scores:
    """Environment steps at the first point from which a share is at least `level`; infinite where it never is."""
    there = shares >= level
    first = np.where(there.any(-1), there.argmax(-1), -1)
    return np.where(first >= 0, env_steps[np.maximum(first, 0)].astype(float), np.inf)


def results_of(study: str, arm: str, found: Mapping[str, Adapted], scale: str) -> list[Result]:
    """The rows of one arm under one shift.

    Args:
        study: name in the first column, the shift behind it.
        arm: the agent.
        found: mode → what was measured.
        scale: at `smoke` nothing is judged.
    """
    rows = []
    for mode, adapted in found.items():
        shares, name = adapted.shares, f"{arm}: {mode}"
        rows.append(_row(study, name, "share of the oracle, zero-shot", shares[..., 0]))
        rows.append(_row(study, name, "share of the oracle, end", shares[..., -1]))
        if shares.shape[-1] > 1:
            rows.append(_row(study, name, "share of the oracle, mean over the budget", auc(shares)))
            needed = steps_to(shares, adapted.env_steps)
            reached = np.isfinite(needed)
            rows.append(Result(study, name, "share of runs that reach 0.9 of the oracle", float(reached.mean())))
            if reached.any():
                median = float(np.median(needed[reached]))
                rows.append(Result(study, name, "steps to 0.9 of the oracle, median of those", median))
        old = adapted.log["return/old_tasks"]
        rows.append(_row(study, name, "return on old tasks, end minus start", old[..., -1] - old[..., 0]))
    return rows + _signs(study, arm, found, scale)


def _signs(study: str, arm: str, found: Mapping[str, Adapted], scale: str) -> list[Result]:
    rows = []
    end = {mode: adapted.shares[..., -1] for mode, adapted in found.items()}

    def judged(holds: bool) -> str:
        return UNTESTED if scale == "smoke" else "reproduced" if holds else "not reproduced"

    if {"default", "all"} <= set(end):
        chance = probability_of_improvement(end["all"], end["default"])
        rows.append(_chance(study, f"{arm}: all > default, end", chance, judged(float(chance[1]) > 0.5)))
        estimate = bootstrap(end["all"])
        reaches = judged(float(estimate[0]) >= 1 - GAP)
        rows.append(_row(study, f"{arm}: all reaches 0.9 of the oracle", "share, end", end["all"], reaches))
    if {"all", "scratch"} <= set(end):
        ours, theirs = found["all"].shares, found["scratch"].shares
        chance = probability_of_improvement(auc(ours), auc(theirs))
        rows.append(_chance(study, f"{arm}: all > scratch, budget", chance, judged(float(chance[1]) > 0.5)))
        steps = found["all"].env_steps
        early = steps <= max(EARLY * steps[-1], steps[min(1, len(steps) - 1)])
        regret = (theirs - ours)[..., early].mean(-1)
        rows.append(_row(study, arm, "regret of all against scratch, first 5 % of steps", regret))
    return rows


def verdict(arm: str, shift: str, found: Mapping[str, Adapted]) -> str:
    """One line: how each way to adapt ended, whether that is consistent in practice, and whether the prior helped."""
    end = {mode: adapted.shares[..., -1] for mode, adapted in found.items()}
    parts = [f"{mode} {float(bootstrap(x)[0]):.2f}" for mode, x in end.items()]
    line = f"{arm}, {shift}: of the oracle " + ", ".join(parts)
    for mode, shares in end.items():
        if mode != "scratch":
            near = float((shares >= 1 - GAP).mean())
            word = "consistent in practice" if near >= MOST else "not consistent in practice"
            line += f"; {mode} is {word} (within {GAP:g} on {near:.0%})"
    if {"all", "scratch"} <= set(found):
        ours, theirs = (float(auc(found[mode].shares).mean()) for mode in ("all", "scratch"))
        line += f"; {'helped' if ours > theirs else 'not helped'} by the prior ({ours:.2f} against {theirs:.2f})"
    return line + "."


def _row(study: str, arm: str, metric: str, scores: Scores, verdict: str = "") -> Result:
    return replace(row_of(study, arm, metric, bootstrap(scores)), verdict=verdict)


def _chance(study: str, arm: str, chance: Estimate, verdict: str) -> Result:
    row = row_of(study, arm, "chance of improvement", chance)
    return replace(row, verdict=UNTESTED if row.lo is None else verdict)
