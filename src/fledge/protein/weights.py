"""The models that ship with the package, and files of one's own: members of an ensemble in one small file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fledge.core.errors import DataError
from fledge.core.files import to_json
from fledge.nets.site_tokens import SiteTokenModel
from fledge.protein.pretrain import PretrainSettings, make_model

SHIPPED = "site-token.safetensors"
_KEY = "fledge-protein"
_FORMAT = "1"


@dataclass(frozen=True)
class Prior:
    """Meta-trained models and what they were made from."""

    members: SiteTokenModel
    """With a leading axis for members."""
    about: Mapping[str, Any]
    """`settings`, `train` (names of assays), `commit`, `numbers` …"""

    @property
    def n_members(self) -> int:
        """Models in the ensemble."""
        return self.members.additive.shape[0]

    @property
    def in_context(self) -> bool:
        """Whether the models were trained to look at labels."""
        return bool(self.about.get("settings", {}).get("context", True))


def stack(models: Sequence[SiteTokenModel]) -> SiteTokenModel:
    """Models as members of an ensemble."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)


def save_prior(path: Path, prior: Prior) -> Path:
    """Write weights in half precision, with `about` in the header and as JSON beside the file."""
    path = Path(path)
    leaves = jax.tree_util.tree_leaves_with_path(prior.members)
    arrays = {jax.tree_util.keystr(place): np.asarray(leaf, np.float16) for place, leaf in leaves}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = to_json(dict(prior.about), indent=1)
    path.write_bytes(save(arrays, metadata={_KEY: _FORMAT, "about": to_json(dict(prior.about))}))
    path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    return path


def load_prior(path: Path | str | None = None) -> Prior:
    """The shipped models, or those of a file that `fledge protein pretrain` wrote.

    Raises:
        DataError: there is no such file, or it is no such file.
    """
    return _load(None if path is None else Path(path))


@lru_cache(maxsize=4)
def _load(path: Path | None) -> Prior:
    if path is None:
        with resources.as_file(resources.files("fledge.protein") / "weights" / SHIPPED) as shipped:
            return _read(shipped)
    return _read(path)


def _read(path: Path) -> Prior:
    if not path.is_file():
        raise DataError(
            f"There are no weights at {path}. Make them with: fledge protein pretrain --data DIR --out {path}"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            arrays = {name: np.asarray(file.get_tensor(name), np.float32) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        raise DataError(f"{path} is damaged ({error}). Take it from a copy, or make it again.") from None
    if header.get(_KEY) != _FORMAT:
        raise DataError(f"{path} holds no weights that rank proteins. Give a file of 'fledge protein pretrain'.")
    about = json.loads(header["about"])
    like = jax.eval_shape(lambda: make_model(jax.random.key(0), settings_of(about)))
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    wrong = [
        name
        for place, leaf in leaves
        if (name := jax.tree_util.keystr(place)) not in arrays or arrays[name].shape[1:] != leaf.shape
    ]
    if wrong:
        raise DataError(f"{path} was written by another version: {wrong[0]} does not fit. Make it again.")
    parts = [jnp.asarray(arrays[jax.tree_util.keystr(place)]) for place, _ in leaves]
    return Prior(jax.tree_util.tree_unflatten(structure, parts), about)


def settings_of(about: Mapping[str, Any]) -> PretrainSettings:
    """The settings that weights were made with."""
    known = {f.name for f in fields(PretrainSettings)}
    given = {key: value for key, value in about.get("settings", {}).items() if key in known}
    kept: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}
    return PretrainSettings(**kept)


def described(settings: PretrainSettings, train: Sequence[str], **more: Any) -> dict[str, Any]:
    """What stands beside weights."""
    return {"settings": asdict(settings), "train": list(train), **more}
