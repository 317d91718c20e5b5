"""Fine-tuning a Hugging Face classifier (PyTorch), with the settings of the annotation-sensitivity paper."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from fledge.annotation.backends import Training
from fledge.core.errors import need

EXTRA = "text"


@dataclass(frozen=True)
class FineTuning:
    """How a classifier is fine-tuned; defaults are those of Kern et al. 2023 (released code)."""

    learning_rate: float = 5e-5
    """Of AdamW; falls linearly to 0, without warm-up."""
    adam_epsilon: float = 1e-12
    batch_size: int = 64
    epochs: int = 20
    max_grad_norm: float = 1.0
    dev_frac: float = 0.2
    """The first rows, unshuffled, are held out; the epoch with the best accuracy on them is kept."""
    max_length: int = 0
    """Tokens; 0 takes the longest training text."""
    device: str = ""
    """`cpu`, `cuda` …; empty takes an accelerator where there is one."""


@dataclass(frozen=True)
class HuggingFaceClassifier:
    """A two-way sequence classifier, fine-tuned anew for every cell.

    `load()` hands in a fresh (model, tokenizer); this room opens no sockets. It is called after seeding, so that a
    new head depends on the cell's seed. `name` identifies what it loads.
    """

    load: Callable[[], tuple[Any, Any]]
    name: str
    settings: FineTuning = FineTuning()

    def __repr__(self) -> str:
        return f"HuggingFaceClassifier({self.name}, {self.settings})"

    def __call__(self, training: Training, texts: Sequence[str]) -> Float[np.ndarray, " text"]:
        """Scores of texts by the epoch with the best held-out accuracy.

        Raises:
            MissingExtra: PyTorch or transformers is not installed.
        """
        torch = need("torch", EXTRA)
        torch.manual_seed(training.seed)
        model, tokenizer = self.load()
        device = self.settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
        model = model.to(device)
        tokens = _Tokens(torch, tokenizer, training.texts, self.settings.max_length, device)
        n_dev = int(self.settings.dev_frac * len(training.row))
        _fit(torch, model, tokens, training, n_dev, self.settings)
        asked = _Tokens(torch, tokenizer, texts, tokens.length, device)
        return _scores(torch, model, asked, np.arange(len(texts)), self.settings.batch_size)


class _Tokens:
    """Texts as padded token ids, turned into batches on the device."""

    def __init__(self, torch: Any, tokenizer: Any, texts: Sequence[str], length: int, device: str) -> None:
        how: dict[str, Any] = {"truncation": True, "max_length": length} if length else {}
        table = tokenizer(list(texts), padding=True, return_tensors="pt", **how)
        self.columns = dict(table.items())
        self.length = int(self.columns["input_ids"].shape[1])
        self.torch, self.device = torch, device

    def batch(self, index: np.ndarray) -> dict[str, Any]:
        """The texts of these numbers, cut to the longest among them."""
        chosen = self.torch.as_tensor(np.ascontiguousarray(index), dtype=self.torch.long)
        used = int(self.columns["attention_mask"][chosen].sum(dim=1).max())
        return {name: column[chosen][:, :used].to(self.device) for name, column in self.columns.items()}


def _fit(torch: Any, model: Any, tokens: _Tokens, training: Training, n_dev: int, settings: FineTuning) -> None:
    """Fine-tune in place, and go back to the best epoch."""
    dev, rows = np.arange(n_dev), np.arange(n_dev, len(training.row))
    label = torch.as_tensor(training.label, dtype=torch.long, device=tokens.device)
    weight = torch.as_tensor(training.weight, dtype=torch.float32, device=tokens.device)
    n_steps = settings.epochs * -(-len(rows) // settings.batch_size)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, eps=settings.adam_epsilon)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: max(0.0, 1 - step / n_steps))
    rng = np.random.default_rng(training.seed)
    best, kept = -1.0, None
    for _ in range(settings.epochs):
        model.train()
        order = rng.permutation(rows)
        for start in range(0, len(order), settings.batch_size):
            chosen = order[start : start + settings.batch_size]
            logits = model(**tokens.batch(training.row[chosen])).logits
            losses = torch.nn.functional.cross_entropy(logits, label[chosen], reduction="none")
            loss = (losses * weight[chosen]).sum() / weight[chosen].sum()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            optimiser.step()
            schedule.step()
        if not n_dev:
            continue
        said = _scores(torch, model, tokens, training.row[dev], settings.batch_size) > 0.5
        accuracy = float(np.average(said == (training.label[dev] > 0.5), weights=training.weight[dev]))
        if accuracy > best:
            best, kept = accuracy, copy.deepcopy(model.state_dict())
    if kept is not None:
        model.load_state_dict(kept)


def _scores(torch: Any, model: Any, tokens: _Tokens, index: np.ndarray, batch_size: int) -> np.ndarray:
    model.eval()
    found = []
    with torch.no_grad():
        for start in range(0, len(index), batch_size):
            logits = model(**tokens.batch(index[start : start + batch_size])).logits
            found.append(torch.softmax(logits.float(), dim=1)[:, 1].cpu().numpy())
    return np.concatenate(found).astype(float)
