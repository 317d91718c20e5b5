"""The next batch to measure: the best candidates, but not all of one kind."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from fledge.core.errors import ConfigError, unknown
from fledge.data.mutations import Variants

Strategy = Literal["greedy", "ucb", "thompson"]
STRATEGIES = ("greedy", "ucb", "thompson")


def distance(a: Variants, b: Variants) -> Int[np.ndarray, "variant other"]:
    """At how many positions variants differ."""
    equal_site = a.sites[:, None, :, None] == b.sites[None, :, None, :]
    both = equal_site & (a.sites[:, None, :, None] >= 0)
    same = both & (a.residues[:, None, :, None] == b.residues[None, :, None, :])
    return a.counts[:, None] + b.counts[None, :] - both.sum((2, 3)) - same.sum((2, 3))


def choose(
    candidates: Variants,
    values: Float[np.ndarray, "copy variant"],
    n: int,
    *,
    strategy: str = "greedy",
    diversity: float = 0.0,
    per_site: int | None = None,
    exploration: float = 1.0,
    random_share: float = 0.0,
    seed: int = 0,
) -> Int[np.ndarray, " pick"]:
    """Numbers of the candidates to measure next, best first.

    Args:
        candidates: what can be made.
        values: of each copy of an ensemble.
        n: how many.
        strategy: "greedy" takes the highest mean, "ucb" the highest mean + `exploration` · deviation, "thompson" the
            best of a copy drawn for each pick.
        diversity: taken off a candidate's value, in standard deviations of all values, for each pick that is one
            mutation away; half of it for two, a third for three …
        per_site: at most so many picks with a mutation at one position.
        exploration: of "ucb".
        random_share: this share of the batch is drawn blindly, so that a wrong model finds out.
        seed: of draws.

    Raises:
        ConfigError: the strategy is unknown, a number out of range, or `per_site` leaves too few candidates.
    """
    if strategy not in STRATEGIES:
        raise unknown("strategy", strategy, STRATEGIES)
    if not 1 <= n <= len(candidates):
        raise ConfigError(f"{n} picks were wanted of {len(candidates)} candidates. Ask for 1 … {len(candidates)}.")
    if not 0 <= random_share <= 1 or diversity < 0:
        raise ConfigError("random_share lies in 0 … 1 and diversity is not negative.")
    rng = np.random.default_rng(seed)
    mean = values.mean(axis=0)
    penalty = np.zeros(len(candidates))
    scale = float(mean.std()) or 1.0
    free = np.ones(len(candidates), bool)
    blind = set(rng.permutation(n)[: round(random_share * n)].tolist())
    used: dict[int, int] = {}
    picks: list[int] = []
    for i in range(n):
        if not free.any():
            raise ConfigError(
                f"At most {per_site} picks at a position leave only {len(picks)} of {n}. Allow more, or ask for fewer."
            )
        if i in blind:
            wanted = rng.random(len(candidates))
        elif strategy == "thompson":
            wanted = values[rng.integers(len(values))] - penalty
        else:
            wanted = mean - penalty + (exploration * values.std(axis=0) if strategy == "ucb" else 0.0)
        pick = int(np.argmax(np.where(free, wanted, -np.inf)))
        picks.append(pick)
        free[pick] = False
        one = candidates.take(np.array([pick]))
        if diversity:
            penalty += diversity * scale / np.maximum(distance(candidates, one)[:, 0], 1)
        if per_site is not None:
            for site in one.sites[0][one.sites[0] >= 0].tolist():
                used[site] = used.get(site, 0) + 1
                if used[site] >= per_site:
                    free &= ~(candidates.sites == site).any(axis=1)
    return np.array(picks, np.int64)
