"""Models trained on one condition's labels and tested on another's: every cell of train × test, for every seed.

Training is the costly part and depends on the training condition alone, so a cell is (construct, condition, seed) and
keeps the scores of all test items; every table afterwards is arithmetic on them (`fledge.annotation.crossed`).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from fledge.annotation.backends import Training, check_scores, name_of
from fledge.annotation.frame import EXTRA, Frame, Study, answered
from fledge.core.errors import DataError, need, unknown

LabelMode = Literal["rows", "majority", "soft"]
LABEL_MODES = ("rows", "majority", "soft")
Progress = Callable[[int, int], None]
"""Called with how many cells are done, and how many there are."""


@dataclass(frozen=True)
class Crossed:
    """Scores of the test items by the models of each condition, and the test labels of each condition."""

    construct: Any
    conditions: tuple[Any, ...]
    seeds: tuple[int, ...]
    items: tuple[Any, ...]
    """Of the test split."""
    scores: Float[np.ndarray, "seed train item"]
    positive: Float[np.ndarray, "test item"]
    """Test labels that are positive, by condition."""
    negative: Float[np.ndarray, "test item"]
    n_train: Mapping[Any, int]
    """Training labels of each condition."""


@dataclass(frozen=True)
class Job:
    """One cell to train."""

    key: str
    """Names its file; changes with the data, the back-end and the seed."""
    training: Training
    texts: tuple[str, ...]
    """To score."""


def training_rows(
    rows: Frame, mode: LabelMode, texts: Mapping[Any, str], seed: int, threshold: float = 0.5
) -> Training:
    """The labels of some rows as training material.

    Args:
        rows: answers of one construct under one condition, items of the training split only.
        mode: `rows`: every answer is a row (soft labels by repetition); `majority`: one label per item, ties are
            positive; `soft`: two rows per item, weighted by the shares of its answers.
        texts: item → text.
        seed: handed to the back-end.
        threshold: answers above it are positive.

    Raises:
        DataError: an item has no text.
    """
    if mode not in LABEL_MODES:
        raise unknown("label_mode", mode, LABEL_MODES)
    items = list(dict.fromkeys(rows["item"]))
    lacking = [item for item in items if item not in texts]
    if lacking:
        raise DataError(f"{len(lacking)} items have no text (the first is {lacking[0]}). Models are trained on texts.")
    place = {item: i for i, item in enumerate(items)}
    row = np.array([place[item] for item in rows["item"]], np.int64)
    label = (rows["value"].to_numpy(float) > threshold).astype(float)
    if mode != "rows":
        share = np.bincount(row, label) / np.bincount(row)
        row = np.arange(len(items))
        if mode == "majority":
            label = (share >= 0.5).astype(float)
        else:
            row, label = np.tile(row, 2), np.repeat([1.0, 0.0], len(items))
            share = np.r_[share, 1 - share]
            row, label, weight = row[share > 0], label[share > 0], share[share > 0]
            return Training([texts[item] for item in items], row, label, weight, seed)
    return Training([texts[item] for item in items], row, label, np.ones(len(row)), seed)


def equal_labels(rows: Frame, conditions: Sequence[Any], seed: int) -> Frame:
    """Rows cut down so that every item has the same number of answers in every condition (chosen at random).

    A condition whose annotators dropped out would otherwise train on fewer labels than the others.
    """
    shuffled = rows.sample(frac=1.0, random_state=seed)
    rank = shuffled.groupby(["condition", "item"]).cumcount()
    n = shuffled.groupby(["item", "condition"]).size().unstack("condition").reindex(columns=list(conditions))
    fewest = n.fillna(0).min(axis=1)
    kept = shuffled[rank.to_numpy() < shuffled["item"].map(fewest).to_numpy()]
    return kept.sort_index()


def suited(study: Study) -> tuple[list[Any], list[str]]:
    """The constructs that models can be trained on and tested for in every condition; and why the others cannot."""
    train, test = set(study.items("train")), set(study.items("test"))
    fine, remarks = [], []
    for name in study.constructs:
        rows = study.frame[(study.frame["construct"] == name) & study.frame["value"].notna()]
        per_part = [rows[rows["item"].isin(part)].groupby("condition").size() for part in (train, test)]
        bare = [str(c) for c in study.conditions if any(c not in counts.index for counts in per_part)]
        if not set(rows["value"]) <= {0.0, 1.0}:
            remarks.append(f"No models of {name}: its answers are not yes and no.")
        elif bare:
            remarks.append(f"No models of {name}: too few answers under {', '.join(bare)}.")
        else:
            fine.append(name)
    return fine, remarks


def cross_condition(
    study: Study,
    construct: Any,
    backend: Any,
    *,
    conditions: Sequence[Any] | None = None,
    seeds: Sequence[int] = (0,),
    label_mode: LabelMode = "rows",
    equal_size: bool = False,
    folder: Path | None = None,
    n_jobs: int = 1,
    progress: Progress | None = None,
) -> Crossed:
    """Train a model on each condition's labels, and score the test items with each.

    Args:
        study: answers, texts and a split by item.
        construct: which question.
        backend: see `fledge.annotation.backends`.
        conditions: which, in this order; by default all.
        seeds: one model each.
        label_mode: what training labels are; tests are always on single answers.
        equal_size: see `equal_labels`; the choice changes with the seed.
        folder: finished cells are kept here, and not trained again.
        n_jobs: processes that train side by side.
        progress: is told how far it is.

    Raises:
        ConfigError: an unknown construct, condition or mode.
        DataError: no split, no texts, or a condition without training labels.
    """
    names = tuple(study.conditions if conditions is None else conditions)
    rows = answered(study.frame, construct, names)
    train, test = set(study.items("train")), study.items("test")
    texts = tuple(study.texts.get(item, "") for item in test)
    learn = rows[rows["item"].isin(train)]
    jobs, n_train = [], {}
    for seed in seeds:
        chosen = equal_labels(learn, names, seed) if equal_size else learn
        for name in names:
            own = chosen[chosen["condition"] == name]
            if not len(own):
                raise DataError(f"Condition {name} has no label of '{construct}' to train on. Leave it out.")
            training = training_rows(own, label_mode, study.texts, seed)
            n_train[name] = len(training.label)
            jobs.append(job_of(training, texts, backend, f"{construct}-{name}-{seed}"))
    scores = np.array(list(train_all(jobs, backend, folder, n_jobs, progress)))
    positive, negative = label_counts(rows, names, test)
    shape = (len(seeds), len(names), len(test))
    return Crossed(construct, names, tuple(seeds), tuple(test), scores.reshape(shape), positive, negative, n_train)


def label_counts(
    rows: Frame, conditions: Sequence[Any], items: Sequence[Any], threshold: float = 0.5
) -> tuple[Float[np.ndarray, "condition item"], Float[np.ndarray, "condition item"]]:
    """How many positive and negative answers each item has in each condition."""
    place = {item: i for i, item in enumerate(items)}
    order = {name: i for i, name in enumerate(conditions)}
    kept = rows[rows["item"].isin(place)]
    at = (kept["condition"].map(order).to_numpy(), kept["item"].map(place).to_numpy())
    said = kept["value"].to_numpy(float) > threshold
    found = np.zeros((2, len(conditions), len(items)))
    np.add.at(found[0], at, said)
    np.add.at(found[1], at, ~said)
    return found[0], found[1]


def job_of(training: Training, texts: Sequence[str], backend: Any, label: str) -> Job:
    """A cell, its key made of everything that its scores depend on."""
    mark = hashlib.sha256(f"{name_of(backend)} {training.seed}".encode())
    for part in (training.row, training.label, training.weight):
        mark.update(np.ascontiguousarray(part).tobytes())
    for text in (*training.texts, "\x00", *texts):
        mark.update(text.encode("utf-8", "replace") + b"\x00")
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in label)
    return Job(f"{safe}-{mark.hexdigest()[:12]}", training, tuple(texts))


def train_all(
    jobs: Sequence[Job], backend: Any, folder: Path | None, n_jobs: int, progress: Progress | None
) -> Iterator[Float[np.ndarray, " text"]]:
    """The scores of each cell, in order; cells with a file are read, the others trained and written."""
    joblib = need("joblib", EXTRA)
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
    calls = (joblib.delayed(_train)(job, backend, folder) for job in jobs)
    workers = joblib.Parallel(n_jobs=n_jobs, return_as="generator")
    for done, scores in enumerate(workers(calls), 1):
        if progress is not None:
            progress(done, len(jobs))
        yield scores


def _train(job: Job, backend: Any, folder: Path | None) -> np.ndarray:
    path = Path(folder) / f"{job.key}.npy" if folder is not None else None
    if path is not None and path.exists():
        try:
            return check_scores(np.load(path), len(job.texts), backend)
        except (ValueError, OSError, EOFError, DataError):
            pass  # damaged: train it again
    scores = check_scores(backend(job.training, job.texts), len(job.texts), backend)
    if path is not None:
        beside = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.npy")
        np.save(beside, scores)
        beside.replace(path)
    return scores
