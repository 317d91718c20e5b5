"""Text models from a local path or the Hugging Face hub: where the outside world is met on behalf of the studio.

Nothing is downloaded unless `download` says so; a name that is neither a path nor in the local cache is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from fledge.core.errors import DataError, need

EXTRA = "text"


@dataclass(frozen=True)
class PretrainedClassifier:
    """Loads a two-way sequence classifier and its tokenizer, afresh at every call; a new head is drawn each time."""

    name: str
    """A local folder, or a name on the hub."""
    download: bool = False

    def __call__(self) -> tuple[Any, Any]:
        """The model and the tokenizer.

        Raises:
            MissingExtra: PyTorch or transformers is not installed.
            DataError: it is not there, and may not be downloaded.
        """
        library = _transformers()
        model = _pretrained(library.AutoModelForSequenceClassification, self.name, self.download, num_labels=2)
        return model, _pretrained(library.AutoTokenizer, self.name, self.download)


@dataclass(frozen=True)
class MeanEmbedding:
    """Sentence embeddings: the mean of an encoder's last hidden states over the tokens of a text."""

    name: str
    download: bool = False
    batch_size: int = 64

    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "text feature"]:
        """One vector per text, of length 1."""
        torch, library = need("torch", EXTRA), _transformers()
        encoder = _pretrained(library.AutoModel, self.name, self.download).eval()
        tokenizer = _pretrained(library.AutoTokenizer, self.name, self.download)
        parts = []
        with torch.no_grad():
            for start in range(0, len(texts), self.batch_size):
                chosen = list(texts[start : start + self.batch_size])
                tokens = tokenizer(chosen, padding=True, truncation=True, return_tensors="pt")
                hidden = encoder(**tokens).last_hidden_state
                there = tokens["attention_mask"][..., None]
                parts.append(((hidden * there).sum(dim=1) / there.sum(dim=1)).float().numpy())
        found = np.concatenate(parts)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def _transformers() -> Any:
    need("torch", EXTRA)
    return need("transformers", EXTRA)


def _pretrained(kind: Any, name: str, download: bool, **how: Any) -> Any:
    try:
        return kind.from_pretrained(name, local_files_only=not download, **how)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"The text model '{name}' cannot be loaded ({first}). Give the path of a folder that holds it, or allow "
            "the download: model.download=true."
        ) from None
