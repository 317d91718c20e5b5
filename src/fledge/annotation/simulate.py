"""Simulated studies with planted effects: dry runs before money is spent, and the truth that estimates are tested on.

Answers are drawn from probabilities that add up, so planted effects are exact differences of shares:

    p = level(item) + severity(annotator) + split + blocked + second + fatigue · (position − middle)

Levels of items are drawn inside the range that keeps every p between 0 and 1: nothing is ever clipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from fledge.annotation.effects import regress
from fledge.annotation.frame import Frame, Study, check_frame, pandas, split_items
from fledge.core.errors import ConfigError, unknown


@dataclass(frozen=True)
class Asked:
    """How a condition asks: what the planted effects act through."""

    split: bool = False
    """A screen for each construct, instead of one for all."""
    first: str = ""
    """The construct that is asked first; empty for a joint screen."""
    blocked: bool = False
    """All items for one construct, then all for the next."""


FIVE_CONDITIONS: dict[str, Asked] = {
    "A": Asked(),
    "B": Asked(True, "hate_speech"),
    "C": Asked(True, "offensive_language"),
    "D": Asked(True, "hate_speech", True),
    "E": Asked(True, "offensive_language", True),
}
"""One screen; two screens in either order; two passes in either order (Kern et al. 2023)."""


@dataclass(frozen=True)
class Planted:
    """One construct: how common it is, and what the instrument does to its share."""

    share: float = 0.3
    """Of positive answers on a joint screen."""
    split: float = 0.0
    """Added where each construct has a screen of its own."""
    blocked: float = 0.0
    """Added where items come in a pass for each construct."""
    second: float = 0.0
    """Added where another construct is asked first."""
    fatigue: float = 0.0
    """Added per step of the sequence, counted from its middle."""
    severity: float = 0.08
    """Half-width of annotators' own deviation, uniform."""
    concentration: float = 1.0
    """Of the items' levels: small means that items are clear cases, large that all are alike."""

    def effect(self, name: str, asked: Asked) -> float:
        """What a condition adds to the share of this construct."""
        second = asked.first not in ("", name)
        return self.split * asked.split + self.blocked * asked.blocked + self.second * second


EFFECTS = tuple(one.name for one in fields(Planted))


@dataclass(frozen=True)
class Simulation:
    """A study to draw: who labels what, and what is planted."""

    n_items: int = 300
    labels: int = 3
    """Per item and condition."""
    batch: int = 20
    """Items of one annotator."""
    dropout: float = 0.0
    """Share of annotators who leave before the second pass of a blocked condition."""
    constructs: Mapping[str, Planted] = field(
        default_factory=lambda: {"hate_speech": Planted(0.3), "offensive_language": Planted(0.5)}
    )
    conditions: Mapping[str, Asked] = field(default_factory=lambda: dict(FIVE_CONDITIONS))

    @property
    def n_annotators(self) -> int:
        """In all conditions together."""
        return self.labels * len(self.conditions) * -(-self.n_items // self.batch)

    def truth(self, construct: str) -> dict[str, float]:
        """Condition → expected share of positive answers.

        Raises:
            ConfigError: there is no such construct.
        """
        if construct not in self.constructs:
            raise unknown("construct", construct, self.constructs)
        planted = self.constructs[construct]
        return {name: planted.share + planted.effect(construct, asked) for name, asked in self.conditions.items()}


def faults(plan: Simulation) -> list[str]:
    """Everything that is wrong with a plan."""
    found = [
        f"{name} is {value}; 1 or more is wanted."
        for name, value in (("n_items", plan.n_items), ("labels", plan.labels), ("batch", plan.batch))
        if value < 1
    ]
    if not 0 <= plan.dropout < 1:
        found.append(f"dropout is a share in [0, 1), not {plan.dropout}.")
    for name in plan.constructs:
        low, high = _range(plan, name)
        if not low < plan.constructs[name].share < high:
            found.append(
                f"{name}: a share of {plan.constructs[name].share:g} leaves no room for its effects: with these it has "
                f"to lie between {low:g} and {high:g}. Plant smaller effects, or choose a share nearer the middle."
            )
    return found


def _range(plan: Simulation, name: str) -> tuple[float, float]:
    """Between which levels of an item every probability stays in [0, 1]."""
    planted = plan.constructs[name]
    effects = [planted.effect(name, asked) for asked in plan.conditions.values()]
    spread = planted.severity + abs(planted.fatigue) * (plan.batch - 1) / 2
    return spread - min(effects, default=0.0), 1 - spread - max(effects, default=0.0)


def simulate(plan: Simulation, seed: int = 0, *, texts: bool = True) -> Study:
    """One study drawn from a plan, items split 3 : 1 into train and test.

    Annotators see their batch in an order of their own, so position is not confounded with items. The constructs'
    levels rise and fall together over items. Texts are nonsense words, some of which go with a construct's level.

    Raises:
        ConfigError: lists what is wrong with the plan.
    """
    if wrong := faults(plan):
        raise ConfigError("This study cannot be simulated:\n" + "\n".join(f"  {fault}" for fault in wrong))
    rng = np.random.default_rng(seed)
    levels = _levels(plan, rng)
    item, annotator, position, condition = _assign(plan, rng)
    names = list(plan.conditions)
    parts = []
    for name, planted in plan.constructs.items():
        severity = rng.uniform(-planted.severity, planted.severity, plan.n_annotators)
        effect = np.array([planted.effect(name, asked) for asked in plan.conditions.values()])
        middle = (plan.batch + 1) / 2
        p = levels[name][item] + severity[annotator] + effect[condition] + planted.fatigue * (position - middle)
        value = (rng.random(len(item)) < p).astype(float)
        second = np.array([a.blocked and a.first not in ("", name) for a in plan.conditions.values()])
        parts.append((name, value, second[condition]))
    left = rng.random(plan.n_annotators) < plan.dropout
    frames = []
    for name, value, second in parts:
        gone = left[annotator] & second
        frames.append(
            pandas().DataFrame(
                {
                    "item": item,
                    "annotator": annotator,
                    "condition": np.array(names, object)[condition],
                    "construct": name,
                    "value": np.where(gone, np.nan, value),
                    "missing_code": np.where(gone, "dropped_out", ""),
                    "position": position,
                }
            )
        )
    frame = check_frame(pandas().concat(frames, ignore_index=True))
    found = Study(frame, _texts(levels, rng) if texts else {}, name="simulated")
    return split_items(found, seed=seed)


def _levels(plan: Simulation, rng: np.random.Generator) -> dict[str, Float[np.ndarray, " item"]]:
    """Construct → level of each item, with exactly the planted mean over the sampling of items."""
    from scipy.stats import beta, norm

    shared = rng.normal(size=plan.n_items)
    levels = {}
    for name, planted in plan.constructs.items():
        low, high = _range(plan, name)
        mean = (planted.share - low) / (high - low)
        rank = norm.cdf(np.sqrt(0.5) * shared + np.sqrt(0.5) * rng.normal(size=plan.n_items))
        k = planted.concentration
        levels[name] = low + (high - low) * beta.ppf(rank, mean * k, (1 - mean) * k)
    return levels


def _assign(plan: Simulation, rng: np.random.Generator) -> tuple[Int[np.ndarray, " row"], ...]:
    """Item, annotator, position and condition of each row: every batch goes to `labels` annotators per condition."""
    batches = np.array_split(rng.permutation(plan.n_items), -(-plan.n_items // plan.batch))
    parts: list[tuple[np.ndarray, ...]] = []
    annotator = 0
    for condition in range(len(plan.conditions)):
        for batch in batches:
            for _ in range(plan.labels):
                n = len(batch)
                parts.append(
                    (rng.permutation(batch), np.full(n, annotator), np.arange(1, n + 1), np.full(n, condition))
                )
                annotator += 1
    item, who, position, condition_of = (np.concatenate(column) for column in zip(*parts, strict=True))
    return item, who, position, condition_of


_SYLLABLES = ("ba", "do", "fi", "ga", "ku", "lo", "mi", "nu", "po", "ra", "se", "ti", "vo", "wa", "ze")


def _texts(levels: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict[Any, str]:
    """Item → nonsense: common words, and for each construct words that are likelier the higher its level."""
    words = np.array([a + b + c for a in _SYLLABLES for b in _SYLLABLES for c in ("", "n", "s")], object)
    words = rng.permutation(words)
    n_marks, common = 12, words[12 * len(levels) :]
    found = {}
    for item in range(len(next(iter(levels.values())))):
        text = rng.choice(common, int(rng.integers(5, 12))).tolist()
        for i, level in enumerate(levels.values()):
            marks = words[n_marks * i : n_marks * (i + 1)]
            text += rng.choice(marks, int(rng.binomial(8, 0.02 + 0.8 * level[item]))).tolist()
        found[item] = " ".join(rng.permutation(text))
    return found


@dataclass(frozen=True)
class Power:
    """What many simulated studies found of one construct."""

    joint: float
    """Share of studies whose joint test of all conditions was significant (p < 0.05). Under no effect: the size."""
    detected: dict[str, float]
    """Condition → share of studies in which its difference from the first was significant."""
    coverage: dict[str, float]
    """Condition → share of studies whose 95 % interval held the planted difference."""
    bias: dict[str, float]
    """Condition → mean estimate less planted difference."""
    n_studies: int
    n_annotators: int
    """Of one study."""


def power(plan: Simulation, construct: str, *, n_studies: int = 200, seed: int = 0, level: float = 0.05) -> Power:
    """How often a study like this finds what is planted, by the two-way clustered linear model.

    Raises:
        ConfigError: there is no such construct, or the plan is wrong.
    """
    truth = plan.truth(construct)
    first, *others = truth
    planted = np.array([truth[name] - truth[first] for name in others])
    joint, tables = [], []
    for i in range(n_studies):
        frame = simulate(plan, seed + i, texts=False).frame
        fit = regress(frame, construct, reference=first, few_clusters=True)
        joint.append(fit.joint_p() < level)
        table = fit.table().set_index("term")
        tables.append(table.loc[[f"condition[{name}]" for name in others], ["value", "lo", "hi", "p"]].to_numpy())
    value, lo, hi, p = np.moveaxis(np.array(tables), -1, 0)
    return Power(
        float(np.mean(joint)),
        _by(others, (p < level).mean(axis=0)),
        _by(others, ((lo <= planted) & (planted <= hi)).mean(axis=0)),
        _by(others, (value - planted).mean(axis=0)),
        n_studies,
        plan.n_annotators,
    )


def _by(names: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))


def permute_conditions(frame: Frame, seed: int = 0) -> Frame:
    """The same answers with annotators' conditions dealt out anew: what a study without any effect would look like."""
    owner = frame.drop_duplicates("annotator").set_index("annotator")["condition"]
    dealt = np.random.default_rng(seed).permutation(owner.to_numpy())
    return frame.assign(condition=frame["annotator"].map(dict(zip(owner.index, dealt, strict=True))))
