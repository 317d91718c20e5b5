"""Annotators without a network: people's recorded answers, noise over another's answers, scores with a calibration."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from fledge.core.annotations import Annotation, Item
from fledge.core.contracts import Annotator
from fledge.core.errors import ConfigError, DataError
from fledge.core.instruments import Instrument
from fledge.data.annotations import read_answers

LEAST = 1e-3
"""The smallest probability whose logarithm noise is added to."""


def draw(*words: object) -> float:
    """A number in (0, 1) that depends on the words alone: the same noise for the same item, in any order."""
    digest = hashlib.sha256("\x1f".join(map(str, words)).encode()).digest()
    return ((int.from_bytes(digest[:7], "big") >> 4) + 0.5) / 2**52


def draw_normal(*words: object) -> float:
    """A standard normal number that depends on the words alone (Box and Muller)."""
    return math.sqrt(-2 * math.log(draw("u", *words))) * math.cos(2 * math.pi * draw("v", *words))


def asked(instrument: Instrument, condition: str) -> dict[str, int]:
    """The constructs of a condition, and which of them is asked first, second, … about an item."""
    blocks = instrument.condition(condition).blocks
    names = dict.fromkeys(name for block in blocks for ask in block.screens for name in ask.constructs)
    return {name: i for i, name in enumerate(names)}


class PeopleAnnotator(Annotator):
    """People's answers, collected before: from the annotation page or from any table.

    All answers about an item are given, one for each person. An item that nobody was asked about is "not asked".
    """

    def __init__(self, annotations: Iterable[Annotation]):
        self._of: dict[tuple[str, str], list[Annotation]] = defaultdict(list)
        for annotation in annotations:
            self._of[annotation.item, annotation.construct].append(annotation)

    @classmethod
    def read(cls, path: Path | str) -> PeopleAnnotator:
        """From a table of annotations (`fledge.data.annotations`), such as an export of the annotation page.

        Raises:
            DataError: the file is missing, lacks a column, or has a row that is neither an answer nor a missing code.
        """
        return cls(read_answers(path))

    def annotate(
        self, items: Sequence[Item], instrument: Instrument, *, condition: str = "", replicate: int = 0
    ) -> list[Annotation]:
        """What was answered about these items; answers under another condition are left out where one is named.

        Raises:
            DataError: an answer is none of the question's options.
        """
        found: list[Annotation] = []
        for position, item in enumerate(items):
            for name, order in asked(instrument, condition).items():
                options = [option.value for option in instrument.construct(name).options]
                given = [a for a in self._of[item.id, name] if a.condition in ("", condition) or not condition]
                for answer in given:
                    if answer.value is not None and options and answer.value not in options:
                        raise DataError(
                            f"{answer.annotator} answered '{answer.value}' about item '{item.id}', but the options of "
                            f"'{name}' are {options}. Rename the options, or mend the table."
                        )
                nobody = Annotation(item.id, name, "people", missing="not_asked", position=position, asked_order=order)
                found += given or [nobody]
        return found


class NoisyAnnotator(Annotator):
    """Another annotator's answers, made less certain and sometimes wrong.

    Noise depends on the item, the question, the replicate and the seed alone, so it is the same however often and in
    whatever order one asks.
    """

    def __init__(
        self,
        inner: Annotator,
        *,
        flip: float = 0.0,
        temperature: float = 1.0,
        jitter: float = 0.0,
        abstain: float = 0.0,
        seed: int = 0,
    ):
        """
        Args:
            inner: whose answers are spoilt.
            flip: how often an answer becomes another option of the question, drawn evenly.
            temperature: probabilities are raised to 1/temperature and scaled to sum to 1: above 1 is less certain.
                (Of probabilities, not of returns: a softmax over raw returns would be nearly deterministic.)
            jitter: standard deviation of normal noise on the log odds of two options; the likelier one is then the
                answer. Probabilities below 0.001 count as 0.001, so that certain answers can waver too.
            abstain: how often an answer is refused.
            seed: of the noise.
        """
        if not (0 <= flip <= 1 and 0 <= abstain <= 1 and temperature > 0 and jitter >= 0):
            raise ConfigError(
                "flip and abstain are from 0 to 1, temperature is above 0 and jitter at least 0; got "
                f"flip={flip}, abstain={abstain}, temperature={temperature}, jitter={jitter}."
            )
        self.inner, self.flip, self.temperature, self.jitter = inner, flip, temperature, jitter
        self.abstain, self.seed = abstain, seed

    def annotate(
        self, items: Sequence[Item], instrument: Instrument, *, condition: str = "", replicate: int = 0
    ) -> list[Annotation]:
        """The inner annotator's, with noise. What is missing stays missing."""
        found = self.inner.annotate(items, instrument, condition=condition, replicate=replicate)
        return [self._spoilt(answer, instrument, replicate) for answer in found]

    def _spoilt(self, answer: Annotation, instrument: Instrument, replicate: int) -> Annotation:
        options = [option.value for option in instrument.construct(answer.construct).options]
        if answer.value is None or len(options) < 2:
            return answer
        name, who = (
            f"noisy({answer.annotator})",
            (self.seed, answer.item, answer.construct, answer.annotator, replicate),
        )
        if draw("abstain", *who) < self.abstain:
            return replace(answer, annotator=name, value=None, missing="refused", probability=None)
        p, value = _tempered(dict(answer.probability or {answer.value: 1.0}), options, self.temperature), answer.value
        if self.jitter > 0:
            p = _jittered(p, self.jitter, who)
            value = max(p, key=lambda option: p[option])
        if draw("flip", *who) < self.flip:
            others = [option for option in options if option != value]
            other = others[int(draw("to", *who) * len(others))]
            p[value], p[other] = p[other], p[value]
            value = other
        return replace(answer, annotator=name, value=value, probability=p)


def _tempered(p: Mapping[str, float], options: Sequence[str], temperature: float) -> dict[str, float]:
    raised = {option: p.get(option, 0.0) ** (1 / temperature) for option in options}
    total = sum(raised.values())
    return {option: part / total for option, part in raised.items()} if total > 0 else dict(p)


def _jittered(p: Mapping[str, float], deviation: float, who: tuple[object, ...]) -> dict[str, float]:
    """Probabilities with normal noise on their logarithms, so that log odds have that deviation."""
    logs = {
        option: math.log(max(share, LEAST)) + deviation / math.sqrt(2) * draw_normal(option, *who)
        for option, share in p.items()
    }
    top = max(logs.values())
    parts = {option: math.exp(value - top) for option, value in logs.items()}
    total = sum(parts.values())
    return {option: part / total for option, part in parts.items()}


class EmbeddingAnnotator(Annotator):
    """A score in ℝ for each item (a picture-text similarity, say) as a probability of "yes".

    A logistic curve maps scores to probabilities. `calibrate` fits it on a few labels (Platt 1999: targets are drawn in
    by one example, so that few labels, or labels that a threshold separates, give a finite slope).
    """

    def __init__(
        self,
        score: Callable[[Sequence[Item]], Float[np.ndarray, " item"]],
        *,
        slope: float = 1.0,
        offset: float = 0.0,
        name: str = "embedding",
    ):
        """
        Args:
            score: of items; handed in, so that the model behind it may be anything.
            slope, offset: P(yes) = 1 / (1 + exp(-(slope * score + offset))).
            name: of the annotator.
        """
        self.score, self.slope, self.offset, self.name = score, slope, offset, name

    def calibrate(self, items: Sequence[Item], yes: Sequence[bool]) -> EmbeddingAnnotator:
        """The same scores with a curve fitted to labels.

        Raises:
            ConfigError: there are not as many labels as items, or not both answers among them.
        """
        y = np.asarray(yes, bool)
        if len(y) != len(items) or y.all() or not y.any():
            raise ConfigError(
                f"{len(items)} items and {len(y)} labels came, {int(y.sum())} of them yes. "
                "Give one label per item, with both answers among them."
            )
        slope, offset = logistic(self._scores(items), y)
        return EmbeddingAnnotator(self.score, slope=slope, offset=offset, name=self.name)

    def annotate(
        self, items: Sequence[Item], instrument: Instrument, *, condition: str = "", replicate: int = 0
    ) -> list[Annotation]:
        """P(yes) of each item, the same for every construct of the condition.

        Raises:
            ConfigError: a question has not exactly two options (the first of them is "yes").
        """
        probability = 1 / (1 + np.exp(-np.clip(self.slope * self._scores(items) + self.offset, -500, 500)))
        found = []
        for position, (item, p) in enumerate(zip(items, probability.tolist(), strict=True)):
            for name, order in asked(instrument, condition).items():
                options = [option.value for option in instrument.construct(name).options]
                if len(options) != 2:
                    raise ConfigError(f"A score answers questions with two options; '{name}' has {len(options)}.")
                found.append(
                    Annotation(
                        item.id,
                        name,
                        self.name,
                        options[0] if p >= 0.5 else options[1],
                        probability={options[0]: p, options[1]: 1 - p},
                        mode="score",
                        instrument=instrument.version,
                        condition=instrument.condition(condition).name,
                        position=position,
                        asked_order=order,
                        replicate=replicate,
                        source="vlm",
                    )
                )
        return found

    def _scores(self, items: Sequence[Item]) -> Float[np.ndarray, " item"]:
        scores = np.asarray(self.score(items), np.float64)
        if scores.shape != (len(items),) or not np.isfinite(scores).all():
            raise ConfigError(f"{len(items)} finite scores were wanted, one per item; got an array of {scores.shape}.")
        return scores


def logistic(score: Float[np.ndarray, " item"], yes: np.ndarray) -> tuple[float, float]:
    """Slope and offset of P(yes) by maximum likelihood with Platt's targets, by Newton's method.

    Reference: Platt, "Probabilistic outputs for support vector machines", 1999.
    """
    n_yes = int(yes.sum())
    target = np.where(yes, (n_yes + 1) / (n_yes + 2), 1 / (len(yes) - n_yes + 2))
    middle, spread = float(score.mean()), float(score.std()) or 1.0
    X = np.stack([(score - middle) / spread, np.ones_like(score)], axis=1)
    w = np.zeros(2)
    for _ in range(100):
        p = 1 / (1 + np.exp(-X @ w))
        hessian = X.T @ (X * (p * (1 - p))[:, None]) + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, X.T @ (target - p))
        w += step / max(1.0, float(np.abs(step).max()))  # never more than one unit of a standardised score
        if np.abs(step).max() < 1e-10:
            break
    return float(w[0] / spread), float(w[1] - w[0] * middle / spread)


def goal_baseline_score(
    state: Float[np.ndarray, "item latent"],
    goal: Float[np.ndarray, " latent"],
    baseline: Float[np.ndarray, " latent"],
    alpha: float = 0.5,
) -> Float[np.ndarray, " item"]:
    """1 - ½‖α·proj(s) + (1 - α)·s - g‖² of unit vectors; proj is onto the line through baseline and goal.

    Reference: Rocamonde et al., "Vision-language models are zero-shot reward models", 2023, definition 1.
    """
    state, goal, baseline = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (state, goal, baseline))
    along = (goal - baseline) / np.linalg.norm(goal - baseline)
    projected = baseline + ((state - baseline) @ along)[:, None] * along
    return 1 - 0.5 * np.sum((alpha * projected + (1 - alpha) * state - goal) ** 2, axis=1)
