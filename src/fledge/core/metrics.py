"""The names of everything that is measured, each defined once, and the file that training writes them to."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, SupportsFloat

import numpy as np
from jaxtyping import Float, Int

from fledge.core.errors import DataError, nearest, unknown
from fledge.core.files import parse_json, read_text, to_json


class Metric(NamedTuple):
    """What a metric's number means."""

    unit: str
    about: str
    lower_is_better: bool = False


METRICS: dict[str, Metric] = {
    # Adaptation curves (curves.csv). The name tells how actions were chosen: plain = sampled, `_greedy` = the mode.
    "return": Metric("reward", "undiscounted return of one episode, actions sampled"),
    "return_greedy": Metric("reward", "undiscounted return of one episode, the most likely action each step"),
    "success": Metric("share", "episodes that reached the goal, actions sampled"),
    "success_greedy": Metric("share", "episodes that reached the goal, the most likely action each step"),
    "regret": Metric("reward", "optimal return minus return of one episode, actions sampled", True),
    "regret_greedy": Metric("reward", "optimal return minus return, the most likely action each step", True),
    "belief_gap": Metric("nats", "KL from the exact Bayes belief to the decoded one, mean over steps", True),
    "oracle_share": Metric("share", "return of a trial, 0 for random actions and 1 for the best that is told the task"),
    "spearman": Metric("correlation", "rank correlation of predicted and measured values"),
    "ndcg": Metric("share", "discounted gain of the predicted ranking, 1 = ideal"),
    "top_recall": Metric("share", "of the truly best items, those ranked at the top"),
    "mse": Metric("squared error", "mean squared error of predictions", True),
    "accuracy": Metric("share", "labels predicted right"),
    "balanced_accuracy": Metric("share", "mean over classes of labels predicted right"),
    "auc": Metric("share", "area under the ROC curve, 0.5 = chance"),
    "log_loss": Metric("nats", "mean negative log likelihood of the true labels", True),
    "calibration_error": Metric("share", "expected distance of stated confidence from frequency", True),
    # Training (metrics.jsonl).
    "return/per_step": Metric("reward", "mean reward of a step"),
    "return/trial": Metric("reward", "summed return of all episodes of a trial"),
    "return/episode_{n}": Metric("reward", "return of the n-th episode of a trial, counted from 1"),
    "return/best": Metric("reward", "best return of an evaluation so far"),
    "return/eval": Metric("reward", "return of an evaluation during training"),
    "success/trial": Metric("share", "trials in which the goal was reached"),
    "success/episode_{n}": Metric("share", "n-th episodes in which the goal was reached, counted from 1"),
    "return/old_tasks": Metric("reward", "mean return of an episode on tasks of training, while learning on another"),
    "return/before": Metric("reward", "mean return of an episode before the first inner step"),
    "return/after": Metric("reward", "mean return of an episode after the last inner step"),
    "kl/from_meta": Metric("nats", "mean KL from the policy to the meta-trained one, on the policy's own trials"),
    "distance/parameters": Metric("", "Euclidean distance of all parameters from the meta-trained ones"),
    "distance/encoder": Metric("", "the same of the encoder"),
    "distance/memory": Metric("", "the same of the memory"),
    "distance/to_latent": Metric("", "the same of the layer between memory and policy"),
    "distance/posterior": Metric("", "the same of the posterior's head"),
    "distance/policy": Metric("", "the same of the policy, its value included"),
    "distance/actor": Metric("", "the same of an actor without its critics"),
    "loss/total": Metric("", "what the optimiser descends", True),
    "loss/policy": Metric("", "the policy's part of the loss", True),
    "loss/value": Metric("reward²", "squared error of the value", True),
    "loss/entropy": Metric("nats", "entropy of the action distribution"),
    "loss/elbo": Metric("nats", "negative evidence lower bound", True),
    "loss/latent_kl": Metric("nats", "KL from the prior to the posterior of the task latent", True),
    "loss/reward_model": Metric("", "error of the predicted rewards", True),
    "loss/transition_model": Metric("", "error of the predicted next observations", True),
    "loss/task": Metric("", "error of the inferred task", True),
    "loss/clone": Metric("nats", "negative log likelihood of recorded actions", True),
    "loss/critic": Metric("reward²", "temporal-difference error of the critic", True),
    "loss/actor": Metric("", "the actor's loss", True),
    "loss/train": Metric("", "loss on training examples", True),
    "loss/valid": Metric("", "loss on held-out examples", True),
    "ppo/kl": Metric("nats", "mean KL from the policy that collected to the updated one (k3 estimate)"),
    "ppo/clip_frac": Metric("share", "decisions whose ratio was clipped"),
    "ppo/ratio_error": Metric(
        "", "largest |ratio − 1| at the first minibatch; 0 unless replay differs from acting", True
    ),
    "ppo/explained_variance": Metric("share", "variance of the value targets that the value explains"),
    "sac/temperature": Metric("", "weight of the entropy in the actor's and the critics' targets"),
    "return/life": Metric("reward", "mean return of a trajectory over the batches of a lifetime"),
    "meta/eta_{n}": Metric("", "the n-th number of the meta-parameters, counted from 1"),
    "meta/dropped": Metric("", "windows dropped so far because something in them was no number", True),
    "trpo/accepted": Metric("share", "trust-region steps that were taken"),
    "trpo/tries": Metric("", "step sizes that the line search tried"),
    "grad/norm": Metric("", "global norm of the gradient before clipping"),
    "grad/value_by_latent": Metric("", "mean norm of the value's gradient by the latent"),
    "grad/value_by_state": Metric("", "mean norm of the value's gradient by the state that the policy reads"),
    "norm/latent": Metric("", "mean norm of the latent"),
    "norm/state": Metric("", "mean norm of the state that the policy reads"),
    "optim/learning_rate": Metric("", "step size of the optimiser"),
    "speed/steps_per_s": Metric("env_step/s", "environment steps per second, learning included"),
    "time/compile_s": Metric("s", "wall time to compile"),
    "time/wall_s": Metric("s", "wall time since the start"),
}
"""Name (`{n}` stands for any whole number) → unit and meaning. A new metric is a new line here."""


def check_metric(name: str) -> Metric:
    """What the metric of this name means.

    Raises:
        ConfigError: nobody defined it; names the nearest that is.
    """
    key = re.sub(r"(?<=_)\d+$", "{n}", name)
    if key not in METRICS:
        raise unknown("metric", name, METRICS)
    return METRICS[key]


STEP_KEYS = ("update", "env_steps", "seed")


@dataclass(frozen=True, eq=False)
class Metrics:
    """What training said, row by row. A metric that a row does not mention is NaN there."""

    update: Int[np.ndarray, " row"]
    env_steps: Int[np.ndarray, " row"]
    seed: Int[np.ndarray, " row"]
    values: Mapping[str, Float[np.ndarray, " row"]]

    def __len__(self) -> int:
        return len(self.update)


def metrics_line(update: int, env_steps: int, seed: int, values: Mapping[str, SupportsFloat]) -> str:
    """One line of metrics.jsonl, its names checked.

    Raises:
        ConfigError: a name is not in `METRICS`.
    """
    for name in values:
        check_metric(name)
    numbers = {name: float(value) for name, value in values.items()}
    return to_json({"update": int(update), "env_steps": int(env_steps), "seed": int(seed), **numbers}) + "\n"


def append_metrics(path: Path, lines: Iterable[str]) -> None:
    """Append lines made by `metrics_line`. Half a line that a kill left at the end is cut off first."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if size and file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
        file.write("".join(lines).encode())
        file.flush()


def read_metrics(path: Path, *, whole_lines: bool = False) -> Metrics:
    """What training wrote.

    Args:
        path: of metrics.jsonl.
        whole_lines: leave out a last line without line end (what a kill leaves) instead of refusing the file.

    Raises:
        DataError: the file is missing, or names the line that is damaged or holds an undefined metric.
    """
    lines = read_text(path, "metrics (metrics.jsonl)").split("\n")
    if whole_lines:
        lines[-1] = ""
    rows = [_parse_line(line, Path(path), i) for i, line in enumerate(lines, 1) if line.strip()]
    names = {name: None for row in rows for name in row if name not in STEP_KEYS}
    update, env_steps, seed = (np.array([row[key] for row in rows], np.int64) for key in STEP_KEYS)
    values = {name: np.array([row.get(name, np.nan) for row in rows], float) for name in names}
    return Metrics(update, env_steps, seed, values)


def _parse_line(text: str, path: Path, line: int) -> dict[str, Any]:
    row = parse_json(text, path, "run's metrics", line=line)
    if not isinstance(row, dict) or any(not isinstance(row.get(key), int) for key in STEP_KEYS):
        raise DataError(
            f"{path}, line {line}: an object with whole numbers {', '.join(STEP_KEYS)} was wanted, "
            f"but {json.dumps(row)[:80]} came. Mend or delete that line."
        )
    for name, value in row.items():
        if value is None:
            row[name] = np.nan
        elif isinstance(value, bool) or not isinstance(value, (int, float)):
            raise DataError(f"{path}, line {line}: '{name}' is {value!r}, not a number. Mend or delete that line.")
        if name not in STEP_KEYS and re.sub(r"(?<=_)\d+$", "{n}", name) not in METRICS:
            raise DataError(f"{path}, line {line}: there is no metric '{name}'. {nearest(name, METRICS)}")
    return row
