"""Meta-training of the axial models on a folder of assays; goes on where it was stopped, ranks what is held out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save

from fledge.core.errors import ConfigError, FledgeError
from fledge.core.files import to_json
from fledge.data.assays import Assay, Library
from fledge.data.protein_splits import few_shot
from fledge.protein.axial_training import (
    AxialState,
    AxialTraining,
    Embed,
    axial_spearman,
    begin_axial,
    context_of,
    make_axial_step,
)
from fledge.protein.episodes import walk
from fledge.protein.esm import load_encoder
from fledge.run import launch
from fledge.run.checkpoint import has_checkpoint, load_checkpoint, peek, save_checkpoint
from fledge.run.protein_pretrain import MemberSettings, split_of

EVERY = 100
"""Steps between checkpoints."""


def train_axial(
    assays: Sequence[Assay],
    settings: AxialTraining,
    *,
    embed: Embed | None = None,
    width: int | None = None,
    folder: Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> AxialState:
    """Train on assays; what a step draws depends on its number and the seed alone.

    Args:
        assays: to learn from; each has room for a support and two queries.
        settings: how.
        embed: features of a language model; None for "tiny-axial".
        width: of these features.
        folder: of checkpoints, which are gone on with.
        tell: called with a line at every checkpoint.
        advance: called with the steps that are done and all steps.

    Raises:
        ConfigError: no assay is large enough, or the checkpoints are of another training.
    """
    assays = [assay for assay in assays if len(assay) >= settings.n_support + 2]
    if not assays:
        raise ConfigError(f"No assay has {settings.n_support + 2} variants to learn from. Ask for a smaller support.")
    about = json.loads(to_json({"settings": asdict(settings), "train": [assay.name for assay in assays]}))
    state, step = begin_axial(settings, width), make_axial_step(settings)
    if folder is not None and has_checkpoint(folder):
        found = peek(folder)
        if found is not None and found[1] != about:
            raise ConfigError(f"The checkpoints in {folder} are of another training. Delete them, or give another out.")
        state = load_checkpoint(folder, state, tell=tell).tree
    started, first = time.perf_counter(), int(state.step)
    for number in range(first, settings.n_steps):
        contexts = []
        for i in walk(len(assays), settings.n_tasks, number * settings.n_tasks, settings.seed).tolist():
            rng = np.random.default_rng((settings.seed, number, i))
            rows = rng.permutation(len(assays[i]))[: settings.n_support + settings.n_query]
            contexts.append(context_of(assays[i], rows, settings.n_support, embed))
        state, loss = step(state, contexts)
        advance(number + 1, settings.n_steps)
        if (number + 1) % EVERY == 0 or number + 1 == settings.n_steps:
            if folder is not None:
                save_checkpoint(folder, jax.device_get(state), step=number + 1, about=about)
            rate = (number + 1 - first) / (time.perf_counter() - started)
            tell(f"step {number + 1} of {settings.n_steps}, loss {loss:.3f}, {rate:.2f}/s")
    return state


def pretrain_axial(
    data: Path,
    out: Path,
    settings: AxialTraining,
    *,
    split: str = "strict",
    longest: int = 750,
    encoder: str = "",
    measure: bool = True,
    tell: Callable[[str], None] = lambda line: None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """Train on a folder of assays, rank the held-out ones, and write the weights with all of it beside them.

    Args:
        data: a folder with `index.csv`, `assays/` and `domains/`.
        out: the file of weights; checkpoints go beside it.
        settings: how.
        split: what is held out, as for the site-token models.
        longest: assays of longer proteins are left out.
        encoder: of "metalic": `path:FOLDER` with ESM-2, or `random:…` to try things out.
        measure: also rank the held-out assays, in context alone.
        tell: called with progress.
        advance: called with the steps that are done and all steps.

    Returns:
        Spearman of each held-out assay.

    Raises:
        ConfigError: "metalic" has no encoder.
    """
    out, library = Path(out), Library(data)
    if settings.model == "metalic" and not encoder:
        raise ConfigError("The model 'metalic' reads features of ESM-2. Give --encoder path:FOLDER (or hub:NAME).")
    embed = load_encoder(encoder) if settings.model == "metalic" else None
    found = split_of(library, MemberSettings(split=split, longest=longest))
    train = [library.read(name) for name in found.train]
    tell(f"{len(train)} assays to learn from, {len(found.test)} held out")
    width, place = (embed.width if embed else None), out.with_name(f"{out.stem}_checkpoints")
    state = train_axial(train, settings, embed=embed, width=width, folder=place, tell=tell, advance=advance)
    about: dict[str, Any] = {"settings": asdict(settings), "train": list(found.train), "held_out": list(found.test)}
    about |= {"encoder": encoder, "commit": launch.commit(), "versions": launch.versions(), "numbers": {}}
    _write(out, state, about)
    for name in found.test if measure else ():
        assay = library.read(name)
        if len(assay.wild_type) > longest:
            continue
        try:
            shot = few_shot(len(assay), settings.n_support, 100, most=500)
        except FledgeError as error:
            tell(f"{name}: {error}")
            continue
        rho = axial_spearman(state.model, assay, shot.support, shot.query, n_query=settings.n_query, embed=embed)
        about["numbers"][name] = round(rho, 4)
        tell(f"{name}: {rho:.3f}")
        _write(out, state, about)
    return about["numbers"]


def _write(out: Path, state: AxialState, about: dict[str, Any]) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(state.model)
    arrays = {jax.tree_util.keystr(place): np.asarray(leaf) for place, leaf in leaves}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(save(arrays, metadata={"fledge-protein-axial": "1", "about": to_json(about)}))
    out.with_suffix(".json").write_text(to_json(about, indent=1) + "\n", encoding="utf-8")
