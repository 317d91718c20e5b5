"""Meta-training of the models that ship: from a folder of assays to one file of weights, killed and resumed at will."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fledge.core.errors import ConfigError, unknown
from fledge.core.files import to_json
from fledge.data.assays import Assay, Library
from fledge.data.homology import clusters
from fledge.data.protein_splits import (
    PAPER_MULTIPLES,
    PAPER_SINGLES,
    Split,
    current_name,
    domain_split,
    paper_split,
    strict_split,
)
from fledge.nets.site_tokens import SiteTokenModel
from fledge.protein.evaluate import CONTEXT_ONLY, META, Measured, Protocol, evaluate, table
from fledge.protein.pretrain import (
    PretrainSettings,
    TrainState,
    begin,
    chunk_plan,
    make_chunk,
    make_validator,
    shares,
    validation_plan,
)
from fledge.protein.tasks import Spans, TaskArrays, spans_of, task_arrays
from fledge.protein.weights import Prior, described, save_prior, stack
from fledge.run import launch
from fledge.run.checkpoint import has_checkpoint, load_checkpoint, peek, save_checkpoint

SOURCE = "assays of ProteinGym 0.1 (SingleSiteProteinGYM, MIT); domains of Tsuboyama et al. 2023 (EvoStability)"
SHORT = 96
"""Residues of the longest of the short proteins."""
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
    validation: float = 0.0
    """This share of the training assays is kept apart: every second chunk ranks them, and the best model is taken."""
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
    """Short and long proteins apart, so that short ones are not filled up to long ones; or all, if either are few."""
    groups = [[a for a in assays if (len(a.wild_type) > SHORT) == long] for long in (False, True)]
    if settings.n_tasks > 1 and all(len(g) >= n for g, n in zip(groups, shares(2, settings), strict=True)):
        return groups
    return [list(assays)] if len(assays) >= settings.n_tasks else []


def kept_apart(assays: Sequence[Assay], share: float, seed: int = 0) -> list[Assay]:
    """Assays to choose by: about this share of each set, no protein of theirs alike to one of the others."""
    found: list[Assay] = []
    for kind in sorted({assay.set for assay in assays}):
        own = {assay.name: assay for assay in assays if assay.set == kind}
        groups = clusters({name: assay.wild_type for name, assay in own.items()})
        wanted = round(share * len(own))
        for k in np.random.default_rng(seed).permutation(len(groups)).tolist():
            if len(groups[k]) <= wanted:
                found += [own[name] for name in groups[k]]
                wanted -= len(groups[k])
    return found


@dataclass(frozen=True, eq=False)
class Tasks:
    """Assays as training takes them: groups of alike length."""

    arrays: tuple[TaskArrays, ...]
    counts: tuple[np.ndarray, ...]
    spans: tuple[list[Spans], ...]

    @classmethod
    def of(cls, groups: Sequence[Sequence[Assay]]) -> Tasks:
        """The arrays of groups of assays."""
        arrays = tuple(task_arrays(group) for group in groups)
        counts = tuple(np.asarray(part.counts) for part in arrays)
        return cls(arrays, counts, tuple([spans_of(assay) for assay in group] for group in groups))


class Kept(eqx.Module):
    """What a checkpoint holds: the state, and the model that ranked the validation assays best so far."""

    state: TrainState
    best: SiteTokenModel
    agreement: Float[Array, ""]
    at: Int[Array, ""]
    """Its step."""


def train_members(
    assays: Sequence[Assay],
    settings: MemberSettings,
    *,
    folder: Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Prior:
    """Train one member after the other.

    Args:
        assays: to learn from; a share of them is kept apart to choose by.
        settings: how.
        folder: where checkpoints go; what is there already is gone on with, bit for bit.
        tell: called with a line about every tenth chunk.
        advance: called with the steps that are done and all steps, after every chunk.

    Raises:
        ConfigError: there are fewer assays than a step takes tasks, a number is out of range, or the checkpoints are of
            another training.
    """
    train = settings.train
    if settings.n_members < 1 or train.n_steps < train.chunk or train.n_steps % train.chunk:
        raise ConfigError(
            f"There is at least 1 member, and steps are a multiple of {train.chunk}: {settings.n_members} members and "
            f"{train.n_steps} steps were asked for."
        )
    apart = kept_apart(assays, settings.validation) if settings.validation else []
    names = {assay.name for assay in apart}
    learnt = [assay for assay in assays if assay.name not in names]
    groups = groups_of(learnt, settings.train)
    if not groups:
        raise ConfigError(
            f"A step takes {settings.train.n_tasks} tasks, but there are {len(learnt)} assays to learn from. Give "
            "more assays, or a smaller n_tasks."
        )
    tasks, judge = Tasks.of(groups), _judge(apart, settings)
    chunk = make_chunk(settings.train)
    about = {**described(settings.train, [assay.name for assay in learnt]), **_origin(settings)}
    about["validation"] = {"assays": sorted(names), "members": []}
    kept = []
    for i in range(settings.n_members):
        place = None if folder is None else Path(folder) / f"member-{i}"
        run = _Run(settings.seed + i, i, chunk, tasks, judge, settings, place, about["train"], tell, advance)
        kept.append(run.all())
        if apart:
            row = {"step": int(kept[-1].at), "agreement": round(float(kept[-1].agreement), 4)}
            about["validation"]["members"].append(row)
    return Prior(stack([member.best for member in kept]), about)


def _origin(settings: MemberSettings) -> dict[str, Any]:
    more = {key: value for key, value in asdict(settings).items() if key != "train"}
    return {"members": more, "commit": launch.commit(), "versions": launch.versions()}


def _judge(apart: Sequence[Assay], settings: MemberSettings) -> Callable[[SiteTokenModel], dict[str, float]] | None:
    """What ranks the validation assays: set → mean agreement. None if there are none."""
    if not apart:
        return None
    validate = make_validator(settings.train)
    sets = {kind: [assay for assay in apart if assay.set == kind] for kind in sorted({a.set for a in apart})}
    tasks = Tasks.of(list(sets.values()))
    plans = [validation_plan(c, settings.train, s) for c, s in zip(tasks.counts, tasks.spans, strict=True)]

    def judge(model: SiteTokenModel) -> dict[str, float]:
        found = [validate(model, arrays, plan) for arrays, plan in zip(tasks.arrays, plans, strict=True)]
        return {kind: float(jnp.mean(values)) for kind, values in zip(sets, found, strict=True)}

    return judge


@dataclass(frozen=True, eq=False)
class _Run:
    """The training of one member."""

    seed: int
    number: int
    chunk: Callable
    tasks: Tasks
    judge: Callable[[SiteTokenModel], dict[str, float]] | None
    settings: MemberSettings
    place: Path | None
    names: Sequence[str]
    tell: Callable[[str], None]
    advance: Callable[[int, int], None]

    def all(self) -> Kept:
        """From the last checkpoint, or the beginning, to the end."""
        train = self.settings.train
        kept, first = self._start()
        n_chunks = train.n_steps // train.chunk
        before = self.number * n_chunks * train.chunk
        total = self.settings.n_members * n_chunks * train.chunk
        self.advance(before + first * train.chunk, total)
        started = time.perf_counter()
        for number in range(first, n_chunks):
            steps = chunk_plan(self.tasks.counts, number, train, self.seed, self.tasks.spans)
            state, losses = self.chunk(kept.state, self.tasks.arrays, steps)
            last = number + 1 == n_chunks
            kept, told = self._judged(kept, state, number, last)
            if self.place is not None and (last or number % 10 == 9):
                about = self._about()
                save_checkpoint(self.place, jax.device_get(kept), step=number + 1, about=about)
            done = (number + 1) * train.chunk
            self.advance(before + done, total)
            if last or number % 10 == 9:
                rate = (done - first * train.chunk) / (time.perf_counter() - started)
                loss = float(losses.mean())
                self.tell(f"seed {self.seed}: step {done} of {train.n_steps}, loss {loss:.3f}{told}, {rate:.1f}/s")
        return kept

    def _start(self) -> tuple[Kept, int]:
        state = begin(self.seed, self.settings.train)
        nothing = Kept(state, jax.tree.map(jnp.copy, state.model), jnp.asarray(-2.0), jnp.asarray(0))
        if self.place is None or not has_checkpoint(self.place):
            return nothing, 0
        found = peek(self.place)
        if found is not None and found[1] != self._about():
            raise ConfigError(
                f"The checkpoints in {self.place.parent} are of another training (other settings or assays). Delete "
                "that folder, or give another --out."
            )
        saved = load_checkpoint(self.place, nothing, tell=self.tell)
        return saved.tree, saved.step

    def _about(self) -> dict[str, Any]:
        """What has to be the same for a training to be gone on with (as JSON gives it back)."""
        return json.loads(to_json({"train": list(self.names), "settings": asdict(self.settings), "seed": self.seed}))

    def _judged(self, kept: Kept, state: TrainState, number: int, last: bool) -> tuple[Kept, str]:
        """The better of the two models, judged every second chunk; the newer one where nothing judges."""
        step = jnp.asarray((number + 1) * self.settings.train.chunk)
        if self.judge is None:
            best = jax.tree.map(jnp.copy, state.model) if last else kept.best
            return Kept(state, best, kept.agreement, step), ""
        if number % 2 == 0 and not last:
            return Kept(state, kept.best, kept.agreement, kept.at), ""
        found = self.judge(state.model)
        value = jnp.asarray(np.mean(list(found.values())), jnp.float32)
        told = "".join(f", {kind} {x:.3f}" for kind, x in found.items())
        if value > kept.agreement:
            return Kept(state, jax.tree.map(jnp.copy, state.model), value, step), told
        return Kept(state, kept.best, kept.agreement, kept.at), told


def pretrain(
    data: Path,
    out: Path,
    settings: MemberSettings,
    *,
    measure: bool = True,
    tell: Callable[[str], None] = lambda line: None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Prior, list[Measured]]:
    """Train on a folder of assays, measure on what is held out, and write the weights with all of it beside them.

    Args:
        data: a folder with `index.csv`, `assays/` and `domains/`.
        out: the file of weights (`….safetensors`); checkpoints go beside it and are taken up again.
        settings: how.
        measure: also rank the held-out assays.
        tell: called with a line now and then.
        advance: called with the steps that are done and all steps.
    """
    out = Path(out)
    library = Library(data)
    split = split_of(library, settings)
    if split.warning:
        tell(split.warning)
    tell(f"{len(split.train)} assays to learn from, {len(split.test)} held out")
    started = time.perf_counter()
    assays = [library.read(name) for name in split.train]
    prior = train_members(assays, settings, folder=_beside(out), tell=tell, advance=advance)
    wall = round(time.perf_counter() - started, 1)
    about = {**prior.about, "held_out": list(split.test), "train_s": wall, "source": SOURCE}
    prior = Prior(prior.members, about)
    save_prior(out, prior)  # measuring takes long, and may be stopped
    found: list[Measured] = []
    if measure and split.test:
        protocol = Protocol(arms=(META, CONTEXT_ONLY), repeats=2)
        found = evaluate(prior, [library.read(test) for test in split.test], protocol)
    prior = Prior(prior.members, {**about, "numbers": _numbers(found, library)})
    save_prior(out, prior)
    return prior, found


def _beside(out: Path) -> Path:
    return out.with_name(f"{out.stem}_checkpoints")


def _set_of(name: str, library: Library) -> str:
    """What a number is told of: the domains, the eight held-out assays of the paper, or others."""
    if library.sets[name] == "domain":
        return "domains"
    return "official assays" if current_name(name) in PAPER_SINGLES else "other assays"


def _numbers(found: Sequence[Measured], library: Library) -> dict[str, float]:
    """Mean Spearman of each arm over each set of assays, after each number of labels."""
    numbers = {}
    for (arm, shots), by in table(found).items():
        for kind in sorted({_set_of(name, library) for name in by}):
            values = [value for name, value in by.items() if _set_of(name, library) == kind]
            numbers[f"{len(values)} {kind}, {arm}, {shots} labels"] = round(float(np.mean(values)), 4)
    return numbers
