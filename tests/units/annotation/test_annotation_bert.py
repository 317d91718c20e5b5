"""Fine-tuning on a tiny random BERT and a tiny vocabulary, both made here: nothing is downloaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra text (PyTorch): pip install 'fledge[text]'")
library = pytest.importorskip("transformers", reason="needs the extra text (transformers): pip install 'fledge[text]'")

from fledge.annotation.backends import Training, check_scores  # noqa: E402
from fledge.annotation.bert import FineTuning, HuggingFaceClassifier  # noqa: E402
from fledge.annotation.matrix import cross_condition  # noqa: E402
from fledge.annotation.simulate import Planted, Simulation, simulate  # noqa: E402
from fledge.core.errors import DataError  # noqa: E402
from fledge.run.text import MeanEmbedding, PretrainedClassifier  # noqa: E402

WORDS = [f"w{i}" for i in range(20)]
QUICK = FineTuning(learning_rate=1e-2, batch_size=16, epochs=12, device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A saved classifier: two layers of width 16, a vocabulary of twenty words."""
    home = tmp_path_factory.mktemp("tiny-bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (home / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    torch.manual_seed(0)
    config = library.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    library.BertModel(config).save_pretrained(home)
    library.BertTokenizer(str(home / "vocab.txt")).save_pretrained(home)
    return home


@pytest.fixture(scope="module")
def classifier(folder) -> HuggingFaceClassifier:
    return HuggingFaceClassifier(PretrainedClassifier(str(folder)), "tiny", QUICK)


@pytest.fixture(scope="module")
def training() -> Training:
    """Texts with the word w0 are positive."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS[1:], 5)) + (" w0" if i % 2 else "") for i in range(120)]
    label = np.array([float(i % 2) for i in range(120)])
    return Training(texts, np.arange(120), label, np.ones(120), seed=3)


@pytest.fixture(scope="module")
def scores(classifier, training):
    return classifier(training, training.texts[:40])


def test_the_defaults_are_the_papers():
    assert FineTuning() == FineTuning(5e-5, 1e-12, 64, 20, 1.0, 0.2, 0, "")


def test_a_word_that_decides_is_learnt(scores, training):
    assert np.mean((scores > 0.5) == (training.label[:40] > 0.5)) > 0.9


def test_scores_are_probabilities(scores):
    assert check_scores(scores, 40, "tiny").shape == (40,)


def test_the_same_seed_gives_the_same_model(scores, classifier, training):
    assert np.array_equal(classifier(training, training.texts[:40]), scores)


def test_another_seed_gives_another_model(scores, classifier, training):
    assert not np.array_equal(classifier(replace(training, seed=4), training.texts[:40]), scores)


def test_the_epoch_with_the_best_held_out_accuracy_is_kept(classifier, training, monkeypatch):
    from fledge.annotation import bert

    told = iter([0.5, 1.0, 0.5, 0.5, 0.5, 0.5])
    states, real = [], bert._scores

    def pretended(torch_, model, tokens, index, batch_size):
        if len(index) != 24:  # the test texts
            return real(torch_, model, tokens, index, batch_size)
        states.append(model.classifier.weight.detach().clone())
        right = next(told)
        label = training.label[:24]
        return np.where(np.arange(24) < 24 * right, label, 1 - label)

    monkeypatch.setattr(bert, "_scores", pretended)
    made = []
    short = replace(QUICK, epochs=6)
    spied = replace(
        classifier, settings=short, load=lambda: made.append(PretrainedClassifier(classifier.load.name)()) or made[-1]
    )
    spied(training, training.texts[:3])
    assert torch.equal(made[0][0].classifier.weight.detach(), states[1])


def test_texts_longer_than_any_in_training_are_cut(classifier, training):
    assert classifier(training, [" ".join(WORDS * 10)]).shape == (1,)


def test_a_condition_is_a_cell_like_any_other(classifier):
    study = simulate(Simulation(n_items=24, constructs={"q": Planted(0.5)}), 1)
    quick = replace(classifier, settings=replace(QUICK, epochs=1))
    assert cross_condition(study, "q", quick, conditions=["A", "B"]).scores.shape == (1, 2, 6)


def test_an_encoder_gives_embeddings_of_length_one(folder):
    found = MeanEmbedding(str(folder))(["w0 w1", "w2", "w3 w4 w5"])
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(3), abs=1e-5)


def test_nothing_is_downloaded_unasked(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(DataError, match=r"model\.download=true"):
        PretrainedClassifier("nobody/no-such-model")()
