"""Text classifiers that a study trains on its labels: each is a callable `(training, texts) -> scores`.

A score is the probability of a positive answer. Anything that can be called like this will do; it is handed to worker
processes where cells are trained side by side, so it has to be picklable (a dataclass or a top-level function).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from fledge.annotation.frame import EXTRA
from fledge.core.errors import DataError, need


@dataclass(frozen=True)
class Training:
    """What a classifier learns from: rows of labels that point to texts. One text may have several labels."""

    texts: Sequence[str]
    """Each item once."""
    row: Int[np.ndarray, " row"]
    """Row → its text."""
    label: Float[np.ndarray, " row"]
    """0 or 1."""
    weight: Float[np.ndarray, " row"]
    seed: int = 0

    @property
    def row_texts(self) -> list[str]:
        """The text of each row."""
        return [self.texts[i] for i in self.row]


class Backend(Protocol):
    """Trains on labels and scores other texts."""

    def __call__(self, training: Training, texts: Sequence[str]) -> Float[np.ndarray, " text"]: ...


def check_scores(scores: Any, n: int, backend: Any) -> Float[np.ndarray, " text"]:
    """Scores as numbers, one for each text.

    Raises:
        DataError: another number of them, or one that is no probability.
    """
    found = np.asarray(scores, float)
    if found.shape != (n,) or not np.all((found >= 0) & (found <= 1)):
        raise DataError(
            f"{name_of(backend)} was to give one probability for each of {n} texts, but gave shape {found.shape}"
            + (f" from {np.nanmin(found):g} to {np.nanmax(found):g}" if found.size else "")
            + ". Return the probability of the positive class."
        )
    return found


def name_of(backend: Any) -> str:
    """What identifies a back-end and its settings, the same in every process."""
    if hasattr(backend, "__dataclass_fields__"):
        return repr(backend)
    return f"{getattr(backend, '__module__', '')}.{getattr(backend, '__qualname__', type(backend).__qualname__)}"


@dataclass(frozen=True)
class TfidfLogistic:
    """TF-IDF of words and pairs of words, then L2 logistic regression: seconds, and no download. The default."""

    ngrams: tuple[int, int] = (1, 2)
    min_items: int = 2
    """Texts that a word has to be in."""
    inverse_penalty: float = 1.0
    """C of the logistic regression."""

    def __call__(self, training: Training, texts: Sequence[str]) -> Float[np.ndarray, " text"]:
        """Scores of texts. Words are learnt from the training texts, each counted once."""
        words = need("sklearn.feature_extraction.text", EXTRA).TfidfVectorizer(
            ngram_range=self.ngrams, min_df=self.min_items, sublinear_tf=True
        )
        known = words.fit(list(dict.fromkeys(training.texts))).transform(training.texts)
        return _logistic(known[training.row], training, words.transform(texts), self.inverse_penalty)


@dataclass(frozen=True)
class EmbeddingLogistic:
    """Logistic regression on sentence embeddings. `embed` (texts → array (text, feature)) is handed in."""

    embed: Callable[[Sequence[str]], np.ndarray]
    name: str = "embeddings"
    inverse_penalty: float = 1.0

    def __call__(self, training: Training, texts: Sequence[str]) -> Float[np.ndarray, " text"]:
        """Scores of texts."""
        known, asked = np.asarray(self.embed(training.texts)), np.asarray(self.embed(texts))
        return _logistic(known[training.row], training, asked, self.inverse_penalty)

    def __repr__(self) -> str:
        return f"EmbeddingLogistic({self.name}, {self.inverse_penalty})"


def _logistic(features: Any, training: Training, asked: Any, inverse_penalty: float) -> np.ndarray:
    if len(np.unique(training.label)) < 2:  # a small subset may hold one class only
        return np.full(asked.shape[0], float(training.label[0]))
    model = need("sklearn.linear_model", EXTRA).LogisticRegression(C=inverse_penalty, max_iter=1000)
    model.fit(features, training.label, sample_weight=training.weight)
    return model.predict_proba(asked)[:, 1]
