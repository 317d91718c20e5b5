"""Who annotates what under which condition: randomised, filled to the label, and logged with its probabilities.

An annotator gets an *arm* and a *batch* of items. Between subjects (the default) an arm is one condition; within
subjects it is a row of a Latin square: the batch is cut into as many parts as there are conditions, and each part is
annotated under another one, so that over the arms every part meets every condition once. A *cell* is a batch under an
arm; it is full when `labels` annotators hold or finished it. A place is held by a reservation that runs out.

The choice is a function of the plan and of the log of what was assigned before: run inside one transaction, a thousand
annotators at once fill every cell exactly.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fledge.core.errors import ConfigError

METHODS = ("simple", "blocked", "stratified", "least_filled")
OUTCOMES = ("active", "completed", "timed_out", "withdrawn")
"""Of a reservation. A place that was timed out or withdrawn is open again; its answers are kept."""
TAKEN = ("active", "completed")


@dataclass(frozen=True)
class Arm:
    """What an annotator can be randomised to."""

    name: str
    sequence: tuple[str, ...]
    """Conditions in the order in which they are met; part `i` of the batch is annotated under the `i`-th."""


@dataclass(frozen=True)
class Assignment:
    """One randomisation, as it is logged."""

    annotator: str
    arm: str
    batch: str
    draw: int
    """How many were assigned before, in this stratum."""
    probabilities: Mapping[str, float]
    """Arm → probability with which it could have been drawn, given everything before."""
    reason: str
    time: float
    """Unix time in seconds."""
    until: float
    """When the reservation runs out, unless something is answered before."""
    seed: int = 0
    stratum: str = ""
    outcome: str = "active"
    outcome_time: float | None = None


@dataclass(frozen=True)
class Plan:
    """How annotators are assigned.

    Raises:
        ConfigError: there is no arm, no batch, or a number that makes no sense.
    """

    arms: tuple[Arm, ...]
    batches: tuple[str, ...]
    labels: int = 3
    """R: how many annotators each batch gets under each arm."""
    method: Literal["simple", "blocked", "stratified", "least_filled"] = "least_filled"
    seed: int = 0
    strata: tuple[str, ...] = ()
    """Attributes whose combinations have permuted blocks of their own (`stratified`)."""
    block: int = 1
    """How often each arm is in a permuted block (`blocked`, `stratified`)."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Arm → weight of a `simple` draw; 1 where none is given."""
    timeout: float = 3600.0
    """Seconds without an answer after which a place is open again."""

    def __post_init__(self) -> None:
        if not self.arms or not self.batches:
            raise ConfigError("An assignment needs at least one arm and one batch of items.")
        if self.labels < 1 or self.block < 1 or self.timeout <= 0 or any(w <= 0 for w in self.weights.values()):
            raise ConfigError("labels, block, timeout and weights of an assignment are above zero.")
        if self.method == "stratified" and not self.strata:
            raise ConfigError("A stratified assignment names the attributes to stratify by: 'strata: [name]'.")

    @property
    def places(self) -> int:
        """How many annotators the study takes in all."""
        return len(self.arms) * len(self.batches) * self.labels

    def arm(self, name: str) -> Arm:
        """An arm by name."""
        return next(arm for arm in self.arms if arm.name == name)


def arms_of(conditions: Sequence[str], within: bool = False) -> tuple[Arm, ...]:
    """One arm for each condition, or, within subjects, one for each row of a Latin square.

    With an even number of conditions the square is Williams' (1949): each condition follows each other one equally
    often. With an odd number it is cyclic: each condition is equally often in each place, but what precedes it is not
    balanced (that needs twice the rows).
    """
    if not within:
        return tuple(Arm(name, (name,)) for name in conditions)
    k = len(conditions)
    first = list(range(k))
    if k % 2 == 0:  # 0, 1, k-1, 2, k-2, …: all differences once
        first = [0, *(i // 2 + 1 if i % 2 == 0 else k - i // 2 - 1 for i in range(k - 1))]
    rows = [tuple(conditions[(i + shift) % k] for i in first) for shift in range(k)]
    return tuple(Arm(">".join(row), row) for row in rows)


def parts(n_items: int, n: int) -> list[range]:
    """`n` consecutive parts of a batch, as equal as they can be."""
    edges = [round(i * n_items / n) for i in range(n + 1)]
    return [range(a, b) for a, b in itertools.pairwise(edges)]


def filled(log: Sequence[Assignment], now: float) -> Counter[tuple[str, str]]:
    """(arm, batch) → places that are taken: finished, or reserved and not run out."""
    return Counter((row.arm, row.batch) for row in log if row.outcome == "completed" or _held(row, now))


def expired(log: Sequence[Assignment], now: float) -> list[Assignment]:
    """The reservations that have run out."""
    return [row for row in log if row.outcome == "active" and row.until <= now]


def assign(
    plan: Plan, log: Sequence[Assignment], annotator: str, now: float, attributes: Mapping[str, str] | None = None
) -> Assignment | None:
    """The next annotator's arm and batch, or None when every cell is full.

    Args:
        plan: how.
        log: everything that was assigned before, in order.
        annotator: who is new.
        now: Unix time in seconds.
        attributes: the annotator's, where the plan is stratified.
    """
    taken = filled(log, now)
    room = {arm.name: [b for b in plan.batches if taken[arm.name, b] < plan.labels] for arm in plan.arms}
    open_arms = [name for name, batches in room.items() if batches]
    if not open_arms:
        return None
    stratum = "/".join((attributes or {}).get(name, "") for name in plan.strata) if plan.method == "stratified" else ""
    draw = sum(row.stratum == stratum for row in log)
    dice = random.Random(f"{plan.seed}/{stratum}/{draw}")
    if plan.method == "simple":
        chances, reason = _simple(plan, open_arms)
    elif plan.method == "least_filled":
        chances, reason = _least(plan, open_arms, taken)
    else:
        chances, reason = _permuted(plan, open_arms, [row for row in log if row.stratum == stratum])
    names = sorted(chances)
    arm = dice.choices(names, [chances[name] for name in names])[0]
    fewest = min(taken[arm, b] for b in room[arm])
    batch = dice.choice([b for b in room[arm] if taken[arm, b] == fewest])
    return Assignment(annotator, arm, batch, draw, chances, reason, now, now + plan.timeout, plan.seed, stratum)


def revivable(plan: Plan, log: Sequence[Assignment], row: Assignment, now: float) -> bool:
    """Whether somebody whose reservation ran out can go on: the place was not given away."""
    others = [other for other in log if other.annotator != row.annotator]
    return filled(others, now)[row.arm, row.batch] < plan.labels


def _held(row: Assignment, now: float) -> bool:
    return row.outcome == "active" and row.until > now


def _simple(plan: Plan, open_arms: Sequence[str]) -> tuple[dict[str, float], str]:
    weights = {name: plan.weights.get(name, 1.0) for name in open_arms}
    total = sum(weights.values())
    full = len(plan.arms) - len(open_arms)
    return {n: w / total for n, w in weights.items()}, "simple" + (f", {full} arms full" if full else "")


def _least(plan: Plan, open_arms: Sequence[str], taken: Counter[tuple[str, str]]) -> tuple[dict[str, float], str]:
    """Equal chances among the arms that hold a cell with the fewest places taken, then with the fewest in all."""
    emptiest = {n: min(taken[n, b] for b in plan.batches if taken[n, b] < plan.labels) for n in open_arms}
    in_all = {n: sum(taken[n, b] for b in plan.batches) for n in open_arms}
    least = min((emptiest[n], in_all[n]) for n in open_arms)
    tied = [n for n in open_arms if (emptiest[n], in_all[n]) == least]
    return {n: 1 / len(tied) for n in tied}, f"least filled ({least[0]} of {plan.labels} in its emptiest batch)"


def _permuted(plan: Plan, open_arms: Sequence[str], log: Sequence[Assignment]) -> tuple[dict[str, float], str]:
    """Chances in proportion to what is left of the current permuted block, full arms left out."""
    left = Counter({arm.name: plan.block for arm in plan.arms})
    for row in log:
        left[row.arm] -= 1
        if max(left.values()) <= 0:
            left = Counter({arm.name: plan.block for arm in plan.arms})
    chances = {name: left[name] for name in open_arms if left[name] > 0}
    if not chances:  # what is left of the block is full
        chances = dict.fromkeys(open_arms, plan.block)
    total = sum(chances.values())
    full = len(plan.arms) - len(open_arms)
    reason = f"{plan.method}, {total} left of the block" + (f", {full} arms full" if full else "")
    return {name: n / total for name, n in chances.items()}, reason
