"""The published architecture: its size, its symmetries, and ESM-2 checkpoints from a folder."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fledge.core.errors import ConfigError, DataError, FledgeError
from fledge.protein.esm import EmbeddingCache, load_encoder, tokenise
from fledge.protein.metalic import AxialModel, AxialSettings, TinyAxial, axial_loss, count_parameters
from fledge.run.protein_axial import features

SMALL = AxialSettings(embedding=16, width=8, n_blocks=1, n_heads=2, hidden=8, head_layers=1)
X = jax.random.normal(jax.random.key(1), (6, 5, 16))
Y = jnp.array([1.0, -1.0, 0.5, 0.3, -0.2, 0.9])
KNOWN = jnp.array([True, True, True, False, False, False])


@pytest.fixture(scope="module")
def run():
    model = AxialModel.init(jax.random.key(0), SMALL)
    return jax.jit(lambda x, y, known: model(x, y, known))


def test_the_published_model_has_its_published_number_of_parameters():
    assert count_parameters() == 29_930_961


def test_its_parts_have_their_published_numbers_too():
    shapes = jax.eval_shape(lambda: AxialModel.init(jax.random.key(0)))
    sizes = [count(part) for part in (shapes.project, shapes.label, shapes.auxiliary, shapes.blocks[0], shapes.head)]
    assert sizes == [246_528, 2_304, 1_536, 5_344_912, 2_952_961]
    assert (len(shapes.blocks), count((shapes.norm_in, shapes.norm_out))) == (5, 3_072)


def count(part) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(part))


def test_the_tiny_one_has_the_number_of_the_pilot():
    shapes = jax.eval_shape(lambda: TinyAxial.init(jax.random.key(0)))
    assert count(shapes) == 82_417


def test_permuting_queries_permutes_predictions_and_the_support_changes_nothing(run):
    order = jnp.array([2, 0, 1, 5, 3, 4])
    whole, turned = run(X, Y, KNOWN), run(X[order], Y[order], KNOWN[order])
    assert np.allclose(whole[order][3:], turned[3:], atol=1e-5)


def test_labels_of_queries_change_nothing(run):
    assert np.array_equal(run(X, Y, KNOWN), run(X, Y.at[3:].set(9.0), KNOWN))


def test_labels_of_the_support_change_predictions(run):
    assert not np.allclose(run(X, Y, KNOWN)[3:], run(X, Y.at[0].set(-3.0), KNOWN)[3:], atol=1e-5)


def test_without_context_labels_of_others_change_nothing():
    model = AxialModel.init(jax.random.key(0), SMALL)
    alone = jax.jit(lambda y: model(X, y, KNOWN, context=False))
    assert np.allclose(alone(Y)[3:], alone(-Y)[3:], atol=1e-6)


def test_an_auxiliary_score_is_seen():
    model = AxialModel.init(jax.random.key(0), SMALL)
    with_score = jax.jit(lambda score: model(X, Y, KNOWN, auxiliary=jnp.full(6, score)))
    assert not np.allclose(with_score(0.0), with_score(1.0), atol=1e-6)


def test_the_tokens_are_those_of_esm():
    assert tokenise("MKTLC").tolist() == [0, 20, 15, 11, 4, 23, 2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    pytest.importorskip("esm2quinox")
    torch.manual_seed(0)
    config = transformers.EsmConfig(
        vocab_size=33, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64,
        position_embedding_type="rotary", token_dropout=True, emb_layer_norm_before=False, pad_token_id=1,
        mask_token_id=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, layer_norm_eps=1e-5,
    )  # fmt: skip
    place = tmp_path_factory.mktemp("esm")
    transformers.EsmModel(config, add_pooling_layer=False).eval().save_pretrained(place)
    return place


@pytest.mark.parametrize("layer", [3, 4])
def test_features_are_those_of_transformers(folder, layer):
    import torch
    import transformers

    ours = load_encoder(f"path:{folder}", layer=layer)(["MKTLC", "MKTLA"])
    model = transformers.EsmModel.from_pretrained(folder, add_pooling_layer=False, local_files_only=True).eval()
    tokens = torch.tensor(np.stack([tokenise("MKTLC"), tokenise("MKTLA")]), dtype=torch.long)
    with torch.no_grad():
        states = model(tokens, attention_mask=torch.ones_like(tokens), output_hidden_states=True).hidden_states
    assert np.allclose(ours, states[layer].numpy(), atol=2e-5)


def test_two_assays_are_trained_on_end_to_end_with_features_from_disk(folder, tmp_path):
    encoder = load_encoder(f"path:{folder}")
    cache = EmbeddingCache(tmp_path, encoder)
    assays = {name: [wild[:i] + "A" + wild[i + 1 :] for i in range(6)] for name, wild in
              (("one", "MKTLCW"), ("two", "WYVDEF"))}  # fmt: skip
    features = {name: jnp.asarray(cache.get(name, sequences)) for name, sequences in assays.items()}
    model = AxialModel.init(jax.random.key(0), SMALL)
    optimiser = optax.adam(1e-2)
    memory = optimiser.init(model)

    @jax.jit
    def step(model, memory, x):
        loss, gradient = jax.value_and_grad(axial_loss)(model, x, Y, KNOWN)
        updates, memory = optimiser.update(gradient, memory, model)
        return optax.apply_updates(model, updates), memory, loss

    losses = []
    for i in range(200):
        model, memory, loss = step(model, memory, features[("one", "two")[i % 2]])
        losses.append(float(loss))
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])


def test_features_on_disk_are_not_made_again(folder, tmp_path, monkeypatch):
    encoder = load_encoder(f"path:{folder}")
    first = EmbeddingCache(tmp_path, encoder).get("p", ["MKTLC", "MKTLA"])
    monkeypatch.setattr("fledge.protein.esm._hidden", None)
    again = EmbeddingCache(tmp_path, encoder).get("p", ["MKTLA", "MKTLC"])
    assert np.array_equal(first[::-1], again)


def test_a_damaged_file_of_features_is_made_again(folder, tmp_path):
    cache = EmbeddingCache(tmp_path, load_encoder(f"path:{folder}"))
    first = cache.get("p", ["MKTLC"])
    [file] = (cache.folder / "p").iterdir()
    file.write_bytes(file.read_bytes()[:-30])
    again = EmbeddingCache(tmp_path, cache.encoder)
    assert np.array_equal(first, again.get("p", ["MKTLC"]))
    assert np.array_equal(first, cache.get("p", ["MKTLC"]))  # which thinks that the file is whole


def test_a_cache_grows_by_what_is_missing(folder, tmp_path):
    cache = EmbeddingCache(tmp_path, load_encoder(f"path:{folder}"))
    first, more = cache.get("p/q", ["MKTLC"]), cache.get("p/q", ["MKTLA", "MKTLC"])
    assert np.array_equal(first[0], more[1])
    assert [len(np.load(file).files) for file in (cache.folder / "p_q").iterdir()] == [1, 1]


def test_a_model_of_the_hub_is_fetched_when_that_is_allowed(folder):
    asked = []
    encoder = load_encoder("hub:some/esm2", fetch=lambda name: asked.append(name) or folder)
    assert (asked, encoder.width) == (["some/esm2"], 16)


def test_a_hub_that_cannot_be_reached_says_how_to_get_the_files(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    def unreachable(*given, **named):
        raise OSError("no network")

    monkeypatch.setattr(hub, "snapshot_download", unreachable)
    with pytest.raises(FledgeError, match=r"cannot be downloaded \(OSError\).*huggingface-cli download some/esm2"):
        features("hub:some/esm2", download=True)


@pytest.mark.parametrize(
    ("spec", "error", "said"),
    [
        ("hub:facebook/esm2_t6_8M_UR50D", ConfigError, "would download weights, which nobody asked for"),
        ("path:/nowhere", DataError, r"config\.json is not there.*huggingface-cli download"),
        ("esm2", ConfigError, "An encoder is 'path:FOLDER'"),
        ("random:d=x", ConfigError, "'d=x' is not d="),
    ],
)
def test_an_encoder_that_cannot_be_had_is_one_clear_message(spec, error, said):
    pytest.importorskip("esm2quinox")
    with pytest.raises(error, match=said):
        load_encoder(spec)


def test_a_deeper_layer_than_there_is_is_refused(folder):
    with pytest.raises(ConfigError, match="Layer 9 was asked for, but the model has 4"):
        load_encoder(f"path:{folder}", layer=9)


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    pytest.importorskip("esm2quinox")
    from safetensors.numpy import save_file

    (tmp_path / "config.json").write_text(
        json.dumps({"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2})
    )
    save_file({"other": np.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="it is no ESM-2 checkpoint"):
        load_encoder(f"path:{tmp_path}", layer=1)


def test_sequences_of_different_lengths_share_no_context(folder):
    with pytest.raises(DataError, match="Sequences of one length were wanted"):
        load_encoder(f"path:{folder}")(["MKT", "MK"])
