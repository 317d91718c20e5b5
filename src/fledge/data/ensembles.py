"""Several annotators as one: the mean of their probabilities, their vote, or what they say weighed by their errors."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from fledge.core.annotations import Annotation, Item
from fledge.core.consensus import dawid_skene
from fledge.core.contracts import Annotator
from fledge.core.errors import ConfigError, unknown
from fledge.core.instruments import Instrument

Combine = Literal["mean", "vote", "dawid_skene"]
COMBINE = ("mean", "vote", "dawid_skene")


class EnsembleAnnotator(Annotator):
    """One answer per item and question, made of several annotators' answers.

    Missing answers are left out. Where nobody answered, the commonest reason stands; a tie is "don't know". The
    members' own answers are what `members[i].annotate` gives: nothing is lost by asking an ensemble.
    """

    def __init__(self, members: Sequence[Annotator], *, combine: Combine = "mean", name: str = "ensemble"):
        """
        Args:
            members: who answers.
            combine: `mean` of probabilities (an answer without one counts as certain), `vote` of answers, or
                `dawid_skene`: the likeliest truth under a model of each annotator's errors, fitted to the items given.
            name: of the ensemble.
        """
        if combine not in COMBINE:
            raise unknown("way to combine", combine, COMBINE)
        if not members:
            raise ConfigError("An ensemble has at least one member.")
        self.members, self.combine, self.name = tuple(members), combine, name

    def annotate(
        self, items: Sequence[Item], instrument: Instrument, *, condition: str = "", replicate: int = 0
    ) -> list[Annotation]:
        """One annotation per item and question."""
        groups: dict[tuple[str, str], list[tuple[str, Annotation]]] = defaultdict(list)
        for i, member in enumerate(self.members):
            for answer in member.annotate(items, instrument, condition=condition, replicate=replicate):
                groups[answer.construct, answer.item].append((f"{i}/{answer.annotator}", answer))
        found: list[Annotation] = []
        for name in dict.fromkeys(construct for construct, _ in groups):
            options = [option.value for option in instrument.construct(name).options]
            mine = {item: answers for (construct, item), answers in groups.items() if construct == name}
            shares = self._shares(mine, options)
            found += [self._answer(answers, shares.get(item)) for item, answers in mine.items()]
        return found

    def _shares(
        self, mine: dict[str, list[tuple[str, Annotation]]], options: Sequence[str]
    ) -> dict[str, dict[str, float]]:
        given = {item: [(who, a) for who, a in answers if a.value is not None] for item, answers in mine.items()}
        given = {item: answers for item, answers in given.items() if answers}
        if not options:
            options = sorted({str(a.value) for answers in given.values() for _, a in answers})
        if self.combine == "dawid_skene" and given:
            names = sorted({who for answers in given.values() for who, _ in answers})
            rows = [
                (i, names.index(who), list(options).index(str(a.value)))
                for i, answers in enumerate(given.values())
                for who, a in answers
            ]
            item, annotator, category = np.asarray(rows, np.int64).T
            truth = dawid_skene(item, annotator, category, n_categories=len(options))
            return {name: dict(zip(options, row.tolist(), strict=True)) for name, row in zip(given, truth, strict=True)}
        return {name: self._mean([a for _, a in answers], options) for name, answers in given.items()}

    def _mean(self, answers: Sequence[Annotation], options: Sequence[str]) -> dict[str, float]:
        certain = self.combine == "vote"
        each = [{str(a.value): 1.0} if certain or a.probability is None else a.probability for a in answers]
        return {option: sum(p.get(option, 0.0) for p in each) / len(each) for option in options}

    def _answer(self, answers: Sequence[tuple[str, Annotation]], shares: dict[str, float] | None) -> Annotation:
        first = answers[0][1]
        value, missing = None, ""
        if shares is None:
            missing = Counter(a.missing for _, a in answers).most_common(1)[0][0]
        else:
            best = max(shares.values())
            top = [option for option, share in shares.items() if share > best - 1e-9]
            value, missing = (top[0], "") if len(top) == 1 else (None, "dont_know")
        return replace(
            first,
            annotator=self.name,
            value=value,
            missing=missing,
            probability=shares,
            mode=self.combine,
            raw="",
            screen=-1,
        )
