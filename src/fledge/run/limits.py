"""How fast and how much may be asked: token buckets, and a budget that holds to the request."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fledge.core.errors import ConfigError
from fledge.data.prices import Price
from fledge.run.reply_cache import Spent


class TokenBucket:
    """Lets through so much a minute: a bucket that fills evenly and holds `burst` at most."""

    def __init__(
        self,
        per_minute: float,
        burst: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ):
        """
        Args:
            per_minute: requests or tokens; infinite for no limit.
            burst: what a full bucket holds; by default a twentieth of a second's worth, and at least one: endpoints
                count over short windows too.
            clock, sleep: of time, in seconds.
        """
        if not per_minute > 0:
            raise ConfigError(f"A rate is above 0 per minute, not {per_minute}.")
        self.rate = per_minute / 60
        self.burst = max(1.0, self.rate / 20) if burst is None else burst
        self._clock, self._sleep = clock, sleep
        self._level, self._at = self.burst, clock()

    async def take(self, amount: float = 1.0) -> None:
        """Wait until `amount` may pass. Whoever comes first goes first; more than a full bucket is let through late."""
        if math.isinf(self.rate):
            return
        now = self._clock()
        self._level = min(self.burst, self._level + (now - self._at) * self.rate) - amount
        self._at = now
        if self._level < 0:
            await self._sleep(-self._level / self.rate)


@dataclass(frozen=True)
class Budget:
    """What a labelling job may use at most, over all its runs; None for no limit."""

    requests: int | None = None
    tokens: int | None = None
    """In and out together."""
    money: float | None = None
    """US dollars."""


class BudgetSpent(Exception):
    """The next request would go over the budget."""


class Ledger:
    """What is spent and what is promised. A request is promised in full before it is sent, and settled after.

    Estimates of tokens are corrected by the largest ratio of real to estimated tokens seen so far.
    """

    def __init__(self, budget: Budget, price: Price, before: Spent):
        if budget.money is not None and math.isnan(price.input):
            raise ConfigError(
                "A budget in money needs a price, and this model is not in the table of prices. "
                "Add a row to a copy of the table (--prices FILE), or limit requests or tokens."
            )
        self.budget, self.price = budget, price
        self.spent = before
        self.ratio = 1.0
        self._promised: dict[int, tuple[int, int]] = {}

    @property
    def money(self) -> float:
        """US dollars spent."""
        return self.price.money(self.spent.prompt_tokens, self.spent.completion_tokens)

    def promise(self, prompt_tokens: int, completion_tokens: int) -> tuple[int, int]:
        """Tokens, in and out, that a request may cost, if there is room for it.

        Raises:
            BudgetSpent: there is not.
        """
        mine = (math.ceil(prompt_tokens * self.ratio), completion_tokens)
        inputs = self.spent.prompt_tokens + sum(p for p, _ in self._promised.values()) + mine[0]
        outputs = self.spent.completion_tokens + sum(c for _, c in self._promised.values()) + mine[1]
        limit = self.budget
        if limit.requests is not None and self.spent.requests + len(self._promised) + 1 > limit.requests:
            raise BudgetSpent(f"The budget of {limit.requests:,} requests is spent.")
        if limit.tokens is not None and inputs + outputs > limit.tokens:
            raise BudgetSpent(f"The next request could go over the budget of {limit.tokens:,} tokens.")
        if limit.money is not None and self.price.money(inputs, outputs) > limit.money:
            raise BudgetSpent(f"The next request could go over the budget of ${limit.money:,.2f}.")
        return mine

    @property
    def waiting(self) -> bool:
        """Whether something is on its way that may settle for less than was promised."""
        return bool(self._promised)

    def sent(self, attempt: int, promised: tuple[int, int]) -> None:
        """A promised request is on its way."""
        self._promised[attempt] = promised

    def settle(self, attempt: int, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        """A request came back with a reply, or (no tokens) without one."""
        estimated, _ = self._promised.pop(attempt)
        if estimated and prompt_tokens:
            self.ratio = max(self.ratio, prompt_tokens / (estimated / self.ratio))
        self.spent = Spent(
            self.spent.requests + 1,
            self.spent.prompt_tokens + prompt_tokens,
            self.spent.completion_tokens + completion_tokens,
        )
