"""A small model that has learnt nothing, as a file of weights, and made-up proteins."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from fledge.data.assays import Assay
from fledge.data.mutations import all_singles
from fledge.protein.pretrain import PretrainSettings, make_model
from fledge.protein.weights import Prior, described, save_prior, stack

SMALL = PretrainSettings(
    n_steps=8, chunk=2, n_tasks=2, n_rows=16, shots=(0, 4, 8), width=8, n_layers=1, n_heads=2, multi_every=0
)
WILD = "MKTAYLVCAGDEFHIKLNPQ"


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    models = [make_model(jax.random.key(i), SMALL) for i in range(2)]
    noisy = [jax.tree.map(lambda x, i=i: x + 0.05 * jax.random.normal(jax.random.key(i), x.shape), m)
             for i, m in enumerate(models)]  # fmt: skip
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    return save_prior(path, Prior(stack(noisy), described(SMALL, ["nothing"])))


def additive(seed: int, name: str = "", wild_type: str = WILD) -> Assay:
    """A protein whose mutations have effects of their own that add up."""
    rng = np.random.default_rng(seed)
    variants = all_singles(wild_type)
    scores = rng.normal(size=len(wild_type))[variants.sites[:, 0]] + 0.5 * rng.normal(size=20)[variants.residues[:, 0]]
    return Assay(name or f"additive-{seed}", wild_type, variants, scores, {}, "assay")
