"""Training of the axial models: from two small assays and a folder with ESM-2, or none, to a file of weights."""

from __future__ import annotations

import json
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from protein_cases import WILD, additive

from fledge.core.errors import ConfigError, DataError
from fledge.protein.axial_training import (
    AxialTraining,
    auxiliary_scores,
    begin_axial,
    context_of,
    fine_tuned,
    forward,
)
from fledge.protein.esm import load_encoder
from fledge.protein.metalic import AxialSettings
from fledge.run.protein_axial import load_axial, pretrain_axial, train_axial

SIZES = AxialSettings(embedding=8, width=8, n_blocks=1, n_heads=2, hidden=8, head_layers=1, auxiliary=False)
TINY = AxialTraining("tiny-axial", 60, 60, 2, n_tasks=2, n_support=4, n_query=12, learning_rate=1e-2, sizes=SIZES)
ASSAYS = [additive(0), additive(1, wild_type=WILD[::-1][:17])]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder, losses = tmp_path_factory.mktemp("axial"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fledge.run.protein_axial.EVERY", 10)
        return train_axial(ASSAYS, TINY, folder=folder, tell=losses.append), losses, folder


def test_the_tiny_one_learns(trained):
    early, late = (float(line.split("loss ")[1].split(",")[0]) for line in (trained[1][0], trained[1][-1]))
    assert late < early - 0.05


def test_a_finished_training_is_not_begun_again(trained):
    state, lines, folder = trained
    again = train_axial(ASSAYS, TINY, folder=folder, tell=lines.append)
    assert np.array_equal(again.model.axial.label.weight, state.model.axial.label.weight)
    assert len(lines) == 6


def test_a_training_that_was_killed_goes_on_bit_for_bit(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("fledge.run.protein_axial.EVERY", 10)

    def killed(done, total):
        if done == 27:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_axial(ASSAYS, TINY, folder=tmp_path, advance=killed)
    steps = []
    again = train_axial(ASSAYS, TINY, folder=tmp_path, advance=lambda done, total: steps.append(done))
    assert steps[0] == 21
    leaves = map(jax.tree.leaves, (again.model, trained[0].model))
    assert all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True))


def test_fine_tuning_moves_a_copy_and_uses_the_support_alone(trained):
    model, support = trained[0].model, np.arange(0, 320, 20)
    hidden = ASSAYS[0].scores.copy()
    hidden[np.setdiff1d(np.arange(len(hidden)), support)] = 99.0
    both = [fine_tuned(model, assay, support, TINY, n_steps=3, n_splits=1) for assay in
            (ASSAYS[0], replace(ASSAYS[0], scores=hidden))]  # fmt: skip
    weights = [np.asarray(m.axial.label.weight) for m in (*both, model)]
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_fine_tuning_takes_labels_to_split(trained):
    with pytest.raises(ConfigError, match="at least 4 labels to split, not 3"):
        fine_tuned(trained[0].model, ASSAYS[0], np.arange(3), TINY)


def test_auxiliary_scores_are_found_in_the_rows_own_column_and_standardised():
    cells = ["", *map(str, range(len(ASSAYS[0]) - 1))]
    assay = replace(ASSAYS[0], columns={"GEMME_epi": cells})
    found = context_of(assay, np.array([5, 0, 3]), 1, auxiliary="GEMME_epi").auxiliary
    assert found[0] > found[2] and found[1] == 0
    assert auxiliary_scores(assay, "GEMME_epi")[1:].std() == pytest.approx(1, abs=1e-3)
    assert context_of(ASSAYS[0], np.array([5, 0]), 1, auxiliary="GEMME_epi").auxiliary.tolist() == [0, 0]


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
    found = (eqx.filter_jit(forward)(model, context) for context in (data, replace_x(data, other)))
    assert np.allclose(*found, atol=1e-6)


def replace_x(data, x):
    return eqx.tree_at(lambda d: d.x, data, x)


def test_metalic_is_trained_on_features_of_a_frozen_encoder():
    pytest.importorskip("esm2quinox")
    encoder = load_encoder("random:d=16,layers=3,heads=2")
    settings = AxialTraining("metalic", 2, 4, 1, n_tasks=2, n_support=4, n_query=8, learning_rate=1e-2, sizes=SIZES)
    state = train_axial([ASSAYS[0], additive(2)], settings, embed=encoder, width=encoder.width)
    before = begin_axial(settings, encoder.width).model
    assert int(state.step) == 2
    assert not jnp.allclose(state.model.label.weight, before.label.weight)


def test_weights_are_written_with_what_they_were_made_from(tmp_path, library):
    found = pretrain_axial(library, tmp_path / "w.safetensors", TINY, split="all")
    about = json.loads((tmp_path / "w.json").read_text())
    assert (found, len(about["train"]), about["settings"]["model"]) == ({}, 2, "tiny-axial")
    model, beside = load_axial(tmp_path / "w.safetensors")
    assert np.isfinite(forward(model, context_of(ASSAYS[0], np.arange(6), 2))).all()
    assert beside == about


def test_what_is_no_axial_model_is_refused(tmp_path, weights):
    with pytest.raises(DataError, match="holds no axial model"):
        load_axial(weights)
    with pytest.raises(DataError, match="cannot be read as weights"):
        load_axial(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("change", "said"),
    [({"n_support": -1}, "A support is 0 or more"), ({"auxiliary": "x"}, "no auxiliary scores"),
     ({"n_support": 999}, "No assay has 1001 variants")],
)  # fmt: skip
def test_a_setting_that_cannot_be_is_one_clear_message(tmp_path, library, change, said):
    with pytest.raises(ConfigError, match=said):
        pretrain_axial(library, tmp_path / "w.safetensors", replace(TINY, **change), split="all")


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
