"""Residue features of ESM-2 from a local folder or, when asked for, the hub; made once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from safetensors import SafetensorError, safe_open

from fledge.core.errors import ConfigError, DataError, need

ESM_ALPHABET = "LAGVSERTIDPKQNFYMHWCXBUZO.-"
"""Residues in the order of their tokens, which begin at 4."""
CLS, PADDING, EOS, UNKNOWN, MASK = 0, 1, 2, 3, 32
LAYER = 3
"""Metalic reads the representation after the third of six blocks."""
_TOKENS = {letter: i + 4 for i, letter in enumerate(ESM_ALPHABET)}


def tokenise(sequence: str) -> Int[np.ndarray, " token"]:
    """CLS, one token per residue, EOS: "MKTLC" is 0 20 15 11 4 23 2."""
    return np.array([CLS, *(_TOKENS.get(letter, UNKNOWN) for letter in sequence.upper()), EOS], np.int32)


@dataclass(frozen=True, eq=False)
class Encoder:
    """A frozen ESM-2 and the name of its weights."""

    model: Any
    layer: int
    digest: str
    """Of the weights: what an embedding on disk belongs to."""
    trained: bool = True

    @property
    def width(self) -> int:
        """Numbers per residue."""
        return self.model.embed_size

    def get(self, name: str, sequences: Sequence[str]) -> Float[np.ndarray, "row column width"]:
        """Features of sequences of one protein, whatever its name: as of an `EmbeddingCache`."""
        return self(sequences)

    def __call__(self, sequences: Sequence[str]) -> Float[np.ndarray, "row column width"]:
        """Features after the layer; CLS and EOS stay in.

        Raises:
            DataError: the sequences are not of one length.
        """
        if len({len(sequence) for sequence in sequences}) > 1:
            raise DataError("Sequences of one length were wanted: only substitutions share a context.")
        tokens = np.stack([tokenise(sequence) for sequence in sequences])
        return np.concatenate([np.asarray(_hidden(self.model, part, self.layer)) for part in _parts(tokens, 16)])


def _parts(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]


@eqx.filter_jit
def _hidden(model: Any, tokens: Int[Array | np.ndarray, "row token"], layer: int) -> Float[Array, "row token width"]:
    """Hidden states after `layer` blocks, before any final norm (the last one after it, as elsewhere)."""
    first = jax.tree.map(lambda leaf: leaf[:layer], eqx.filter(model.layers, eqx.is_array))
    rest = eqx.filter(model.layers, eqx.is_array, inverse=True)

    def one(row: Array) -> Array:
        x = jax.vmap(model.embedding)(row)
        if model.token_dropout:
            x = x * (1 - 0.15 * 0.8)  # nothing is masked, but training scaled by its share of masks

        def block(x: Array, arrays: Any) -> tuple[Array, None]:
            return eqx.combine(arrays, rest)(x, is_pad=jnp.zeros(x.shape[0], bool)), None

        x = jax.lax.scan(block, x, first)[0]
        return jax.vmap(model.layer_norm)(x) if layer == model.num_layers else x

    return jax.lax.map(one, jnp.asarray(tokens))


def load_encoder(
    spec: str, *, layer: int = LAYER, fetch: Callable[[str], Path] | None = None, seed: int = 0
) -> Encoder:
    """An encoder by its specification.

    Args:
        spec: `path:/folder` with config.json and model.safetensors, as transformers saves them;
            `hub:facebook/esm2_t6_8M_UR50D`, which `fetch` turns into a folder;
            `random:d=64,layers=2,heads=4`, untrained, for tests.
        layer: after how many blocks features are read.
        fetch: what downloads, if anything may.
        seed: of `random`.

    Raises:
        ConfigError: the specification is none of these, or the model has fewer blocks.
        DataError: the folder lacks a file, or its arrays do not fit.
        MissingExtra: esm2quinox is not installed.
    """
    kind, _, rest = spec.partition(":")
    if kind == "path":
        encoder = _from_folder(Path(rest), layer)
    elif kind == "hub":
        if fetch is None:
            raise ConfigError(
                f"'{spec}' would download weights, which nobody asked for. Download them once (huggingface-cli "
                f"download {rest} --local-dir esm2), then give 'path:esm2'; or allow it (--download)."
            )
        encoder = _from_folder(fetch(rest), layer)
    elif kind == "random":
        encoder = _random(rest, layer, seed)
    else:
        raise ConfigError(f"An encoder is 'path:FOLDER', 'hub:NAME' or 'random:d=64,layers=2,heads=4', not '{spec}'.")
    if layer > encoder.model.num_layers:
        raise ConfigError(f"Layer {layer} was asked for, but the model has {encoder.model.num_layers}.")
    return encoder


def _random(text: str, layer: int, seed: int) -> Encoder:
    esm = need("esm2quinox", "protein")
    sizes = {"d": 64, "layers": 3, "heads": 4}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in sizes or not value.isdigit():
            raise ConfigError(f"'{part}' is not d=…, layers=… or heads=… with a whole number.")
        sizes[name] = int(value)
    model = esm.ESM2(sizes["layers"], sizes["d"], sizes["heads"], True, jax.random.key(seed))
    return Encoder(model, layer, f"random-{seed}-{sizes}", trained=False)


def _usual(name: str) -> str:
    """The name of an array, whichever version of transformers wrote it (some call a norm's scale and shift so)."""
    name = name.removeprefix("esm.")
    for other, usual in ((".gamma", ".weight"), (".beta", ".bias")):
        name = name.removesuffix(other) + usual if name.endswith(other) else name
    return name


def _from_folder(folder: Path, layer: int) -> Encoder:
    config_file, weights = folder / "config.json", folder / "model.safetensors"
    for file in (config_file, weights):
        if not file.is_file():
            raise DataError(
                f"{file} is not there. A folder of ESM-2 has config.json and model.safetensors: download it once with "
                f"huggingface-cli download facebook/esm2_t6_8M_UR50D --local-dir {folder}"
            )
    config = json.loads(config_file.read_text(encoding="utf-8"))
    try:
        with safe_open(weights, framework="numpy") as file:
            arrays = {_usual(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        raise DataError(f"{weights} is damaged ({error}). Download it again.") from None
    return Encoder(_filled(config, arrays, weights), layer, _digest(weights))


def _filled(config: dict[str, Any], arrays: dict[str, np.ndarray], weights: Path) -> Any:
    """esm2quinox's model with the arrays of a transformers checkpoint."""
    esm = need("esm2quinox", "protein")
    n, width = config["num_hidden_layers"], config["hidden_size"]
    dropout = bool(config.get("token_dropout", True))

    def empty() -> Any:
        return esm.ESM2(n, width, config["num_attention_heads"], dropout, jax.random.key(0))

    def take(name: str, shape: tuple[int, ...]) -> Array:
        if name not in arrays:
            raise DataError(f"{weights} has no array '{name}': it is no ESM-2 checkpoint of transformers.")
        if arrays[name].shape != shape:
            raise DataError(f"{weights}: '{name}' has shape {arrays[name].shape} where {shape} was wanted.")
        return jnp.asarray(arrays[name], jnp.float32)

    model = eqx.filter_eval_shape(empty)
    leaves, structure = jax.tree_util.tree_flatten_with_path(model)
    filled = []
    for place, leaf in leaves:
        path = jax.tree_util.keystr(place)
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            filled.append(leaf)
        elif path.startswith(".layers"):
            name = _LAYER_NAMES[path.removeprefix(".layers")]
            shape = tuple(leaf.shape[1:])
            filled.append(jnp.stack([take(f"encoder.layer.{i}.{name}", shape) for i in range(n)]))
        elif path == ".logit_head.linear2.weight":
            filled.append(take("embeddings.word_embeddings.weight", tuple(leaf.shape)))
        elif path.startswith(".layer_norm"):
            filled.append(take(f"encoder.emb_layer_norm_after{path.removeprefix('.layer_norm')}", tuple(leaf.shape)))
        else:
            filled.append(jnp.zeros(leaf.shape, leaf.dtype))  # the head for masked residues is not used
    return jax.tree_util.tree_unflatten(structure, filled)


_LAYER_NAMES = {
    f"{ours}.{part}": f"{theirs}.{part}"
    for ours, theirs in {
        ".attn.query_proj": "attention.self.query",
        ".attn.key_proj": "attention.self.key",
        ".attn.value_proj": "attention.self.value",
        ".attn.output_proj": "attention.output.dense",
        ".layer_norm1": "attention.LayerNorm",
        ".layer_norm2": "LayerNorm",
        ".linear1": "intermediate.dense",
        ".linear2": "output.dense",
    }.items()
    for part in ("weight", "bias")
}


@lru_cache(maxsize=8)
def _digest(weights: Path) -> str:
    found = hashlib.sha256()
    with weights.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()[:16]


class EmbeddingCache:
    """Features on disk in half precision: a folder for each protein, keyed by weights, layer and sequence.

    What is missing is made and written as one more file, so that a cache grows without being written anew.
    """

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        self.folder = Path(folder) / f"{encoder.digest}-{encoder.layer}".replace(" ", "")
        self.encoder = encoder
        self._known: dict[str, dict[str, Path]] = {}

    @property
    def width(self) -> int:
        """Numbers per residue."""
        return self.encoder.width

    def get(self, name: str, sequences: Sequence[str]) -> Float[np.ndarray, "row column width"]:
        """Features of sequences of one protein; those that are not there yet are made and kept."""
        place = self.folder / re.sub(r"[^\w.-]", "_", name)
        where = self._known.setdefault(name, {})
        if not where:
            for path in sorted(place.glob("[!.]*.npz")):
                where.update(dict.fromkeys(_arrays(path), path))
        keys = [hashlib.sha256(sequence.encode()).hexdigest()[:20] for sequence in sequences]
        found: dict[str, np.ndarray] = {}
        for path in {where[key] for key in keys if key in where}:
            found |= _arrays(path, {key for key in keys if where.get(key) == path})
        missing = {key: sequence for key, sequence in zip(keys, sequences, strict=True) if key not in found}
        if missing:
            made = dict(zip(missing, self.encoder(list(missing.values())).astype(np.float16), strict=True))
            path = place / f"{secrets.token_hex(6)}.npz"
            place.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f".{path.name}")
            np.savez(beside, **made)
            os.replace(beside, path)
            found |= made
            where.update(dict.fromkeys(made, path))
        return np.stack([found[key] for key in keys]).astype(np.float32)


def _arrays(path: Path, keys: Collection[str] | None = None) -> dict[str, Any]:
    """Some arrays of a file, or the names of all (without reading them); nothing of a file that was cut short."""
    try:
        with np.load(path) as file:
            return {key: file[key] for key in keys} if keys is not None else dict.fromkeys(file.files)
    except (OSError, EOFError, ValueError, KeyError, BadZipFile):
        return {}
