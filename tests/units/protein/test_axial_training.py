"""Training of the axial models: from two small assays and a folder with ESM-2, or none, to a file of weights."""

from __future__ import annotations

import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from protein_cases import WILD, additive

from fledge.core.errors import ConfigError
from fledge.protein.axial_training import AxialTraining, begin_axial, context_of, forward
from fledge.protein.esm import load_encoder
from fledge.protein.metalic import AxialSettings
from fledge.run.protein_axial import pretrain_axial, train_axial

SIZES = AxialSettings(embedding=8, width=8, n_blocks=1, n_heads=2, hidden=8, head_layers=1, auxiliary=False)
TINY = AxialTraining("tiny-axial", 60, 60, 2, n_tasks=2, n_support=4, n_query=12, learning_rate=1e-2, sizes=SIZES)
ASSAYS = [additive(0), additive(1, wild_type=WILD[::-1][:17])]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder, losses = tmp_path_factory.mktemp("axial"), []
    train_axial(ASSAYS, replace(TINY, n_steps=2), tell=losses.append)
    return train_axial(ASSAYS, TINY, folder=folder, tell=losses.append), losses, folder


def test_the_tiny_one_learns(trained):
    early, late = (float(line.split("loss ")[1].split(",")[0]) for line in trained[1])
    assert late < early - 0.05


def test_a_finished_training_is_not_begun_again(trained):
    state, lines, folder = trained
    again = train_axial(ASSAYS, TINY, folder=folder, tell=lines.append)
    assert np.array_equal(again.model.axial.label.weight, state.model.axial.label.weight)
    assert len(lines) == 2


def test_a_label_that_is_not_shown_changes_nothing():
    data = context_of(ASSAYS[0], np.arange(10), 4)
    other = ASSAYS[0].scores.copy()
    other[4:10] += 9.0
    changed = context_of(replace(ASSAYS[0], scores=other), np.arange(10), 4)
    assert np.array_equal(data.labels[:4], changed.labels[:4])


def test_what_only_fills_up_changes_nothing():
    model, data = begin_axial(TINY).model, context_of(ASSAYS[1], np.arange(10), 4)  # 17 sites filled up to 32
    other = data.x.copy()
    other[:, 21:] = 5  # beyond the reach of the encoder's convolution
    found = (forward(model, context) for context in (data, replace_x(data, other)))
    assert np.allclose(*found, atol=1e-6)


def replace_x(data, x):
    import equinox as eqx

    return eqx.tree_at(lambda d: d.x, data, x)


def test_metalic_is_trained_on_features_of_a_frozen_encoder():
    pytest.importorskip("esm2quinox")
    encoder = load_encoder("random:d=16,layers=3,heads=2")
    settings = AxialTraining("metalic", 2, 4, 1, n_tasks=2, n_support=4, n_query=8, learning_rate=1e-2, sizes=SIZES)
    state = train_axial(ASSAYS, settings, embed=encoder, width=encoder.width)
    before = begin_axial(settings, encoder.width).model
    assert int(state.step) == 2
    assert not jnp.allclose(state.model.label.weight, before.label.weight)


def test_weights_are_written_with_what_they_were_made_from(tmp_path, library):
    settings = replace(TINY, n_steps=1, n_query=8)
    found = pretrain_axial(library, tmp_path / "w.safetensors", settings, split="all")
    about = json.loads((tmp_path / "w.json").read_text())
    assert (found, len(about["train"]), about["settings"]["model"]) == ({}, 2, "tiny-axial")
    assert (tmp_path / "w.safetensors").stat().st_size > 1000


def test_metalic_without_an_encoder_is_refused(tmp_path, library):
    with pytest.raises(ConfigError, match="Give --encoder"):
        pretrain_axial(library, tmp_path / "w.safetensors", AxialTraining())


@pytest.fixture
def library(tmp_path):
    folder = tmp_path / "data"
    (folder / "domains").mkdir(parents=True)
    lines = ["name,set,length,variants,target_seq"]
    for assay in ASSAYS:
        lines.append(f"{assay.name},domain,{len(assay.wild_type)},{len(assay)},{assay.wild_type}")
        rows = zip(assay.variants.names(assay.wild_type), assay.scores, strict=True)
        text = "mutant,DMS_score\n" + "".join(f"{mutant},{score}\n" for mutant, score in rows)
        (folder / "domains" / f"{assay.name}.csv").write_text(text)
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder
