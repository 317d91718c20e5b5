"""Meta-training of the axial models on a folder of assays; goes on where it was stopped, ranks what is held out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fledge.core.errors import ConfigError, DataError, FledgeError, need
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
    fine_tuned,
    make_axial,
    make_axial_step,
)
from fledge.protein.episodes import walk
from fledge.protein.esm import EmbeddingCache, Encoder, load_encoder
from fledge.protein.metalic import AxialSettings
from fledge.run import launch
from fledge.run.checkpoint import has_checkpoint, load_checkpoint, peek, save_checkpoint
from fledge.run.protein_pretrain import MemberSettings, split_of

EVERY = 100
"""Steps between checkpoints."""
_KEY = "fledge-protein-axial"


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
    if settings.n_support < 0 or settings.n_query < 2 or settings.n_steps < 1:
        raise ConfigError("A support is 0 or more, a query at least 2, and steps at least 1.")
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
            contexts.append(context_of(assays[i], rows, settings.n_support, embed, settings.auxiliary))
        state, loss = step(state, contexts)
        advance(number + 1, settings.n_steps)
        if (number + 1) % EVERY == 0 or number + 1 == settings.n_steps:
            if folder is not None:
                save_checkpoint(folder, jax.device_get(state), step=number + 1, about=about)
            rate = (number + 1 - first) / (time.perf_counter() - started)
            tell(f"step {number + 1} of {settings.n_steps}, loss {loss:.3f}, {rate:.2f}/s")
    return state


def from_hub(name: str) -> Path:
    """The folder of a model that is downloaded from the Hugging Face hub, or was before.

    Raises:
        FledgeError: it cannot be had.
        MissingExtra: huggingface_hub is not installed.
    """
    hub = need("huggingface_hub", "protein")
    try:
        return Path(hub.snapshot_download(name, allow_patterns=["config.json", "model.safetensors"]))
    except Exception as error:  # the hub's own errors, those of its transport, and wrong names
        raise FledgeError(
            f"'{name}' cannot be downloaded ({type(error).__name__}). Where there is a network: huggingface-cli "
            f"download {name} --local-dir esm2; then copy the folder here and give 'path:esm2'."
        ) from None


def features(encoder: str, *, download: bool = False, cache: Path | None = None) -> Encoder | EmbeddingCache:
    """What makes features: an encoder, kept on disk if there is a folder for them."""
    made = load_encoder(encoder, fetch=from_hub if download else None)
    return made if cache is None else EmbeddingCache(cache, made)


def pretrain_axial(
    data: Path,
    out: Path,
    settings: AxialTraining,
    *,
    split: str = "strict",
    longest: int = 750,
    encoder: str = "",
    download: bool = False,
    cache: Path | None = None,
    measure: bool = True,
    tune_steps: int = 0,
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
        encoder: of "metalic": `path:FOLDER` with ESM-2, `hub:NAME`, or `random:…` to try things out.
        download: whether `hub:` may download.
        cache: a folder for its features.
        measure: also rank the held-out assays.
        tune_steps: of fine-tuning on the support before that; 0: in context alone.
        tell: called with progress.
        advance: called with the steps that are done and all steps.

    Returns:
        Spearman of each held-out assay.

    Raises:
        ConfigError: "metalic" has no encoder, or a setting is of the other model.
    """
    out, library = Path(out), Library(data)
    if settings.model == "metalic" and not encoder:
        raise ConfigError("The model 'metalic' reads features of ESM-2. Give --encoder path:FOLDER (or hub:NAME).")
    if settings.model != "metalic" and (encoder or settings.auxiliary):
        raise ConfigError(f"'{settings.model}' has an encoder of its own and no auxiliary scores. Give 'metalic'.")
    embed = features(encoder, download=download, cache=cache) if encoder else None
    if encoder.startswith("random:"):
        tell("untrained encoder: what is measured says nothing about ESM-2")
    found = split_of(library, MemberSettings(split=split, longest=longest))
    if found.warning:
        tell(found.warning)
    train = [library.read(name) for name in found.train]
    if settings.auxiliary and not any(settings.auxiliary in assay.columns for assay in train):
        raise ConfigError(f"No assay to learn from has a column '{settings.auxiliary}' of zero-shot scores.")
    tell(f"{len(train)} assays to learn from, {len(found.test)} held out")
    width, place = (embed.width if embed else None), out.with_name(f"{out.stem}_checkpoints")
    state = train_axial(train, settings, embed=embed, width=width, folder=place, tell=tell, advance=advance)
    about: dict[str, Any] = {"settings": asdict(settings), "train": list(found.train), "held_out": list(found.test)}
    about |= {"encoder": encoder, "width": width, "tune_steps": tune_steps, "numbers": {}}
    about |= {"commit": launch.commit(), "versions": launch.versions()}
    _write(out, state.model, about)
    for name in found.test if measure else ():
        rho = _ranked(state.model, library.read(name), settings, embed, longest, tune_steps, tell)
        if rho is not None:
            about["numbers"][name] = round(rho, 4)
            tell(f"{name}: {rho:.3f}")
            _write(out, state.model, about)
    return about["numbers"]


def _ranked(
    model: Any,
    assay: Assay,
    settings: AxialTraining,
    embed: Embed | None,
    longest: int,
    tune_steps: int,
    tell: Callable[[str], None],
) -> float | None:
    """Spearman of a held-out assay; None if it is too long or too small."""
    if len(assay.wild_type) > longest:
        return None
    try:
        shot = few_shot(len(assay), settings.n_support, 100, most=500)
    except FledgeError as error:
        tell(f"{assay.name}: {error}")
        return None
    if tune_steps and len(shot.support) >= 4:
        model = fine_tuned(model, assay, shot.support, settings, n_steps=tune_steps, embed=embed)
    how: dict[str, Any] = {"n_query": settings.n_query, "embed": embed, "auxiliary": settings.auxiliary}
    return axial_spearman(model, assay, shot.support, shot.query, **how)


def load_axial(path: Path) -> tuple[Any, dict[str, Any]]:
    """A model that `pretrain_axial` wrote, and what stands beside it.

    Raises:
        DataError: there is no such file, or it holds something else.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read as weights ({error}). Take it from a copy, or make it again.") from None
    if header.get(_KEY) != "1":
        raise DataError(f"{path} holds no axial model. Give a file of 'fledge protein pretrain --model metalic'.")
    about = json.loads(header["about"])
    sizes = about["settings"]["sizes"]
    settings = AxialTraining(**{**about["settings"], "sizes": None if sizes is None else AxialSettings(**sizes)})
    like = jax.eval_shape(lambda: make_axial(settings, about["width"]))
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    return jax.tree_util.tree_unflatten(
        structure, [jnp.asarray(arrays[jax.tree_util.keystr(p)]) for p, _ in leaves]
    ), about


def _write(out: Path, model: Any, about: dict[str, Any]) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(model)
    arrays = {jax.tree_util.keystr(place): np.asarray(leaf) for place, leaf in leaves}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(save(arrays, metadata={_KEY: "1", "about": to_json(about)}))
    out.with_suffix(".json").write_text(to_json(about, indent=1) + "\n", encoding="utf-8")
