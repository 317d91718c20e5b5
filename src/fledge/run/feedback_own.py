"""One's own logged behaviour: items to ask about, and a policy from what was answered. No environment is needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from rich.console import Console

from fledge.core.errors import ConfigError, DataError
from fledge.core.files import to_json, write_text
from fledge.core.records import Result, write_results
from fledge.core.spaces import Box
from fledge.data.annotations import read_answers
from fledge.data.pictures import png
from fledge.data.segments import SegmentTable, segment
from fledge.data.trajectories import Trajectories, read_trajectories
from fledge.feedback.arms import Feedback
from fledge.feedback.diagnose import diagnose
from fledge.feedback.labels import probabilities
from fledge.feedback.sfbc import SFBC
from fledge.learn.actors import Bound
from fledge.learn.clone import CloneSettings
from fledge.report.feedback import write_feedback_report
from fledge.run.feedback_settings import FilterSettings
from fledge.run.job import Clock, Job, begin_record

POLICY = "policy.npz"
FORMAT = 1
Tail = Literal["error", "drop", "keep"]


@dataclass(frozen=True)
class OwnSettings:
    """Which behaviour and answers, and how they become a policy."""

    data: str = ""
    """An .npz or HDF5 file, or the id of a Minari data set on this machine."""
    group: str = "/"
    """Of the HDF5 file."""
    answers: str = ""
    """A table of answers about segments (.jsonl, .csv, .parquet)."""
    k: int = 100
    """Steps of a segment."""
    stride: int = 0
    """From one segment's start to the next; 0 is k."""
    tail: Tail = "error"
    """What to do with steps that k leaves over."""
    filter: FilterSettings = field(default_factory=FilterSettings)
    action_bound: Bound = "env"
    bounds: tuple[float, ...] = ()
    """The smallest and the largest action; empty: the largest magnitude in the data, both ways."""
    learner: CloneSettings = field(default_factory=CloneSettings)
    training_seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class OwnRun:
    """A finished run."""

    dir: Path
    n_segments: int
    kept: float
    """Share of segments."""

    def show(self, console: Console) -> None:
        """Print what was kept, and where everything lies."""
        console.print(f"{self.n_segments:,} segments, {self.kept:.1%} of them kept and cloned", highlight=False)
        console.print(f"policy: {self.dir / POLICY}", highlight=False, soft_wrap=True)
        console.print(f"report: {self.dir / 'report.html'}", highlight=False, soft_wrap=True)


class OwnProgram:
    """Cuts, filters, clones; writes the policy and the page about its labels."""

    def faults(self, config: OwnSettings) -> list[str]:
        """Everything that is wrong with the settings."""
        found = [f"{name}: a file is wanted." for name in ("data", "answers") if not getattr(config, name)]
        if config.answers and not Path(config.answers).is_file():
            found.append(f"answers: there is no file {config.answers}.")
        found += [] if config.training_seeds else ["training_seeds: at least one is wanted."]
        if config.bounds and not (len(config.bounds) == 2 and config.bounds[0] < config.bounds[1]):
            found.append(f"bounds are the smallest and the largest action, not {list(config.bounds)}.")
        return found

    def seeded(self, config: OwnSettings, seeds: int) -> Mapping[str, Any]:
        """The change that trains so many seeds."""
        return {"training_seeds": list(range(seeds))}

    def run(self, job: Job) -> OwnRun:
        """Learn from the answers, and report."""
        config: OwnSettings = job.config
        clock = Clock(job.folder.record, begin_record(job, config.training_seeds))
        logged, answers, own = read_trajectories(config.data, config.group), read_answers(config.answers), config.filter
        space = Box(logged.actions.shape[1], *config.bounds) if config.bounds else None
        model = SFBC(
            config.k,
            own.alpha,
            own.retro_k,
            prob_mode=own.prob_mode,
            action_bound=config.action_bound,
            stride=config.stride or None,
            tail=config.tail,
            seed=config.training_seeds,
            settings=config.learner,
        ).fit(logged, answers, space)
        table = segment(logged, config.k, config.stride or None, config.tail)
        parts = probabilities(answers, table, mode=own.prob_mode)
        feedback = Feedback(logged, table, parts, table, {}, np.zeros((0, 2), np.int64), np.zeros(0))
        found = diagnose(feedback, alpha=own.alpha, retro_k=own.retro_k)
        found |= {"annotators": sorted({a.annotator for a in answers}), "answers": len(answers), "questions": {}}
        found |= {"prob_mode": own.prob_mode, "strips": []}
        write_text(job.folder.path / "diagnosis.json", to_json(found, indent=1) + "\n")
        write_results(job.folder.results, [Result(job.recipe.name, "SF-BC", "kept", found["kept"], n=1)])
        write_policy(job.folder.path / POLICY, model)
        clock.note(finished=True)
        write_feedback_report(job.folder.path)
        return OwnRun(job.folder.path, len(table), found["kept"])

    def report(self, folder: Path, page: Path) -> Path:
        """The page, from the folder's files."""
        return write_feedback_report(folder, page)


PROGRAM = OwnProgram()


def write_policy(path: Path, model: SFBC) -> Path:
    """Write policies as plain arrays: `weight_i` (seed, in, out), `bias_i` (seed, out), `centre`, `half`.

    action = centre + half · tanh(net(observation)), where net has ReLU between its layers: any program can run it.
    """
    if model.policies is None:
        raise DataError("This SFBC was not fitted yet; call fit(trajectories, annotations) first.")
    layers = model.policies.actor.net.layers
    arrays = {f"weight_{i}": np.asarray(layer.weight) for i, layer in enumerate(layers)}
    arrays |= {f"bias_{i}": np.asarray(layer.bias) for i, layer in enumerate(layers)}
    centre, half = (float(np.ravel(x)[0]) for x in (model.policies.centre, model.policies.half))
    about = json.dumps({"format": FORMAT, "layers": len(layers), "seeds": list(model.seeds)})
    beside = path.with_name(f".{path.name}.part.npz")
    np.savez(beside, about=np.array(about), centre=np.float32(centre), half=np.float32(half), **arrays)  # type: ignore[arg-type]
    beside.replace(path)
    return path


@dataclass(frozen=True, eq=False)
class SavedPolicy:
    """A policy that `write_policy` wrote, in plain NumPy."""

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    centre: float
    half: float

    def act(self, observation: Any) -> Float[np.ndarray, "*batch act"]:
        """The greedy action for an observation, or for rows of them."""
        x = np.asarray(observation, np.float32)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight + bias
            x = np.maximum(x, 0) if i < len(self.weights) - 1 else x
        return self.centre + self.half * np.tanh(x)


def read_policy(path: Path | str, seed: int = 0) -> SavedPolicy:
    """The policy of a file, by the number of its seed from 0.

    Raises:
        DataError: it is no such file, or has fewer seeds.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            n = int(about["layers"])
            weights, biases = (tuple(file[f"{name}_{i}"][seed] for i in range(n)) for name in ("weight", "bias"))
            return SavedPolicy(weights, biases, float(file["centre"]), float(file["half"]))
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise DataError(f"{path} has no policy number {seed} of `fledge feedback train` ({error}).") from None


def write_items(trajectories: Trajectories, table: SegmentTable, out: Path, n_frames: int = 5) -> Path:
    """Write the pictures of segments as PNG files and a table of items; returns the table's path.

    A model (`fledge feedback label`) and the annotation page (`items: items.jsonl`) read the same table. The names of
    the items are those that `fledge feedback train` looks for.

    Raises:
        DataError: the behaviour has no `frames` (step, height, width, 3) of uint8.
        ConfigError: there is a table already.
    """
    frames = trajectories.extras.get("frames")
    if frames is None or frames.ndim != 4 or frames.dtype != np.uint8:
        raise DataError(
            "This behaviour has no pictures: an array 'frames' (step, height, width, 3) of uint8 was wanted beside "
            "observations and actions. Draw the states, or make items by fledge.feedback.items with a renderer."
        )
    target = out / "items.jsonl"
    if target.exists():
        raise ConfigError(f"{target} is there already. Choose another folder, or delete it first.")
    out.mkdir(parents=True, exist_ok=True)
    lines = []
    for i, (one, rows) in enumerate(zip(table, table.frames(n_frames), strict=True)):
        names = [f"{i:05d}-{j}.png" for j in range(n_frames)]
        for name, row in zip(names, rows, strict=True):
            (out / name).write_bytes(png(frames[row]))
        lines.append(to_json({"id": one.id, "frames": names}) + "\n")
    return write_text(target, "".join(lines))


def items_from(data: str, out: Path, *, k: int, n_frames: int, group: str = "/", tail: Tail = "error") -> Path:
    """`write_items` of a file's behaviour."""
    logged = read_trajectories(data, group)
    return write_items(logged, segment(logged, k, None, tail), out, n_frames)
