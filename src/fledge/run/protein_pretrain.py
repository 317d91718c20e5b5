"""Meta-training of the models that ship: from a folder of assays to one file of weights, killed and resumed at will."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fledge.core.errors import ConfigError, unknown
from fledge.data.assays import Assay, Library
from fledge.data.protein_splits import (
    PAPER_MULTIPLES,
    PAPER_SINGLES,
    Split,
    current_name,
    domain_split,
    paper_split,
    strict_split,
)
from fledge.protein.episodes import Plan
from fledge.protein.evaluate import CONTEXT_ONLY, META, Measured, Protocol, evaluate, table
from fledge.protein.pretrain import PretrainSettings, TrainState, begin, chunk_plan, make_chunk
from fledge.protein.tasks import task_arrays
from fledge.protein.weights import Prior, described, save_prior, stack
from fledge.run import launch
from fledge.run.checkpoint import has_checkpoint, load_checkpoint, save_checkpoint

SOURCE = "assays of ProteinGym 0.1 (SingleSiteProteinGYM, MIT); domains of Tsuboyama et al. 2023 (EvoStability)"
SPLITS = ("domains", "strict", "paper", "all")


@dataclass(frozen=True)
class MemberSettings:
    """What models are made of: which assays, how many members, how each is trained."""

    split: str = "strict"
    """"domains": small domains only, 20 of them held out; "strict": also assays, none of a held-out protein or alike;
    "paper": assays by name, as published; "all": everything."""
    n_members: int = 3
    seed: int = 0
    sets: tuple[str, ...] = ("domain", "assay")
    longest: int = 1024
    """Assays of longer proteins are left out: their wild types cost most and teach least."""
    train: PretrainSettings = field(default_factory=PretrainSettings)


def split_of(library: Library, settings: MemberSettings) -> Split:
    """Names to learn from and to hold out.

    Raises:
        ConfigError: there is no such split.
    """
    domains = {name: library.wild_types[name] for name in library.names("domain")}
    usable = {
        name: wild_type
        for name, wild_type in library.wild_types.items()
        if library.sets[name] in settings.sets and _short(library, name, settings)
    }
    if settings.split == "domains":
        return domain_split(domains)
    if settings.split == "strict":
        held = domain_split(domains).test if domains else ()
        return strict_split(usable, [*PAPER_SINGLES, *PAPER_MULTIPLES, *held])
    if settings.split == "paper":
        return paper_split(library.names("assay"))
    if settings.split == "all":
        return Split(tuple(usable), ())
    raise unknown("split", settings.split, SPLITS)


def _short(library: Library, name: str, settings: MemberSettings) -> bool:
    """Whether an assay is short enough to learn from, or is held out."""
    held = current_name(name) in (*PAPER_SINGLES, *PAPER_MULTIPLES)
    return held or library.sets[name] == "domain" or len(library.wild_types[name]) <= settings.longest


def groups_of(assays: Sequence[Assay], settings: PretrainSettings) -> list[list[Assay]]:
    """Assays of alike length, so that a chunk of training is not filled up to the longest protein of all."""
    short = [assay for assay in assays if len(assay.wild_type) <= 96]
    long = [assay for assay in assays if len(assay.wild_type) > 96]
    return [group for group in (short, long) if len(group) >= settings.n_tasks]


def train_members(
    assays: Sequence[Assay],
    settings: MemberSettings,
    *,
    folder: Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Prior:
    """Train one member after the other.

    Args:
        assays: to learn from.
        settings: how.
        folder: where checkpoints go; what is there already is gone on with, bit for bit.
        tell: called with a line about every tenth chunk.

    Raises:
        ConfigError: there are fewer assays than a step takes tasks.
    """
    groups = groups_of(assays, settings.train)
    if not groups:
        raise ConfigError(
            f"A step takes {settings.train.n_tasks} tasks of alike length, but there are {len(assays)} assays. Give "
            "more assays, or a smaller n_tasks."
        )
    arrays = [task_arrays(group) for group in groups]
    counts = [np.asarray(part.counts) for part in arrays]
    chunk = make_chunk(settings.train)
    members = []
    for i in range(settings.n_members):
        seed = settings.seed + i
        place = None if folder is None else Path(folder) / f"member-{i}"
        members.append(_train(seed, chunk, arrays, counts, settings, place, tell).model)
    return Prior(stack(members), described(settings.train, [assay.name for assay in assays], **_origin(settings)))


def _origin(settings: MemberSettings) -> dict[str, Any]:
    more = {key: value for key, value in asdict(settings).items() if key != "train"}
    return {"members": more, "commit": launch.commit(), "versions": launch.versions()}


def _train(
    seed: int,
    chunk: Callable,
    arrays: Sequence[Any],
    counts: Sequence[np.ndarray],
    settings: MemberSettings,
    place: Path | None,
    tell: Callable[[str], None],
) -> TrainState:
    state = begin(seed, settings.train)
    first = 0
    if place is not None and has_checkpoint(place):
        saved = load_checkpoint(place, state, tell=tell)
        state, first = saved.tree, saved.step
    n_chunks = settings.train.n_steps // settings.train.chunk
    started = time.perf_counter()
    for number in range(first, n_chunks):
        group, local = group_of(number, counts)
        steps: Plan = chunk_plan(counts[group], local, settings.train, seed)
        state, losses = chunk(state, arrays[group], steps)
        last = number + 1 == n_chunks
        if place is not None and (last or number % 10 == 9):
            save_checkpoint(place, jax.device_get(state), step=number + 1)
        if last or number % 10 == 9:
            rate = (number + 1 - first) * settings.train.chunk / (time.perf_counter() - started)
            done = (number + 1) * settings.train.chunk
            tell(f"seed {seed}: step {done} of {settings.train.n_steps}, loss {float(losses.mean()):.3f}, {rate:.0f}/s")
    return state


def group_of(number: int, counts: Sequence[np.ndarray]) -> tuple[int, int]:
    """Which group of assays chunk `number` takes, and its number within the group: in proportion to their assays."""
    if len(counts) == 1:
        return 0, number
    share = len(counts[1]) / sum(map(len, counts))
    before, after = int(number * share), int((number + 1) * share)
    return (1, before) if after > before else (0, number - before)


def pretrain(
    data: Path,
    out: Path,
    settings: MemberSettings,
    *,
    measure: bool = True,
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[Prior, list[Measured]]:
    """Train on a folder of assays, measure on what is held out, and write the weights with all of it beside them.

    Args:
        data: a folder with `index.csv`, `assays/` and `domains/`.
        out: the file of weights (`….safetensors`); checkpoints go beside it and are taken up again.
        settings: how.
        measure: also rank the held-out assays.
        tell: called with progress.
    """
    out = Path(out)
    library = Library(data)
    split = split_of(library, settings)
    if split.warning:
        tell(split.warning)
    tell(f"{len(split.train)} assays to learn from, {len(split.test)} held out")
    started = time.perf_counter()
    prior = train_members([library.read(name) for name in split.train], settings, folder=_beside(out), tell=tell)
    wall = round(time.perf_counter() - started, 1)
    about = {**prior.about, "held_out": list(split.test), "train_s": wall, "source": SOURCE}
    prior = Prior(prior.members, about)
    save_prior(out, prior)  # measuring takes long, and may be stopped
    found: list[Measured] = []
    if measure and split.test:
        protocol = Protocol(arms=(META, CONTEXT_ONLY), repeats=2)
        for name in ("domain", "assay"):
            names = [test for test in split.test if library.sets[test] == name]
            found += evaluate(prior, [library.read(test) for test in names], protocol)
    prior = Prior(prior.members, {**about, "numbers": _numbers(found, library)})
    save_prior(out, prior)
    return prior, found


def _beside(out: Path) -> Path:
    return out.with_name(f"{out.stem}_checkpoints")


def _numbers(found: Sequence[Measured], library: Library) -> dict[str, float]:
    """Mean Spearman of each arm over each set of assays, after each number of labels."""
    numbers = {}
    for (arm, shots), by in table(found).items():
        for kind in ("domain", "assay"):
            values = [value for name, value in by.items() if library.sets[name] == kind]
            if values:
                numbers[f"{kind}, {arm}, {shots} labels"] = round(float(np.mean(values)), 4)
    return numbers
