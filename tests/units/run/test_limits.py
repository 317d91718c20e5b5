"""Rates and budgets with a clock of our own; what `Retry-After` says."""

from __future__ import annotations

import asyncio
import email.utils
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.core.errors import ConfigError
from fledge.data.prices import UNKNOWN, Price
from fledge.run.endpoint import checked_url, retry_after
from fledge.run.limits import Budget, BudgetSpent, Ledger, TokenBucket
from fledge.run.reply_cache import Spent

PRICE = Price(1.0, 2.0, 85, 85, 170)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.now += seconds


def passed(per_minute, burst, amounts):
    """When each amount was let through."""
    clock = Clock()
    bucket = TokenBucket(per_minute, burst, clock=clock, sleep=clock.sleep)

    async def run():
        times = []
        for amount in amounts:
            await bucket.take(amount)
            times.append(clock.now)
        return times

    return asyncio.run(run())


def test_a_full_bucket_lets_a_burst_through_and_then_drips():
    assert passed(60.0, 2.0, [1.0] * 4) == pytest.approx([0, 0, 1, 2])


@settings(max_examples=50, deadline=None)
@given(rate=st.floats(6, 6000), amounts=st.lists(st.floats(0.1, 50), min_size=1, max_size=20))
def test_no_more_passes_than_a_full_bucket_and_what_has_dripped_since(rate, amounts):
    burst = 5.0
    for i, at in enumerate(passed(rate, burst, amounts)):
        assert sum(amounts[: i + 1]) <= burst + at * rate / 60 + 1e-6


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 50), st.floats(0, 1.0), st.booleans()), max_size=40),
    tokens=st.integers(0, 3000),
    requests=st.integers(0, 20),
)
def test_a_budget_is_never_overdrawn_where_estimates_are_not_too_low(steps, tokens, requests):
    ledger = Ledger(Budget(requests, tokens, None), PRICE, Spent())
    on_the_way = []
    for i, (prompt, completion, share, settle) in enumerate(steps):
        try:
            promised = ledger.promise(prompt, completion)
        except BudgetSpent:
            continue
        ledger.sent(i, promised)
        on_the_way.append((i, int(prompt * share), completion))
        if settle:
            ledger.settle(*on_the_way.pop(0))
    for entry in on_the_way:
        ledger.settle(*entry)
    assert ledger.spent.requests <= requests and ledger.spent.tokens <= tokens


def test_money_is_counted_in_and_out():
    ledger = Ledger(Budget(money=3.5e-6), PRICE, Spent())
    ledger.sent(0, ledger.promise(1, 1))
    with pytest.raises(BudgetSpent, match=r"\$0\.00"):
        ledger.promise(1, 0)


def test_what_earlier_runs_spent_counts():
    with pytest.raises(BudgetSpent, match="5 requests"):
        Ledger(Budget(requests=5), PRICE, Spent(5, 0, 0)).promise(1, 1)


def test_an_estimate_that_was_too_low_is_corrected():
    ledger = Ledger(Budget(), PRICE, Spent())
    ledger.sent(0, ledger.promise(100, 1))
    ledger.settle(0, 150, 1)
    assert ledger.promise(100, 1)[0] == 150


def test_a_budget_in_money_needs_a_price():
    with pytest.raises(ConfigError, match="price"):
        Ledger(Budget(money=1.0), UNKNOWN, Spent())


@pytest.mark.parametrize(("text", "seconds"), [("3", 3), ("0.5", 0.5), ("-1", 0), ("soon", 0), ("nan", 0), ("", 0)])
def test_retry_after_in_seconds(text, seconds):
    assert retry_after({"retry-after": text}, 0.0) == seconds


def test_retry_after_as_a_date():
    date = email.utils.formatdate(1_000_030, usegmt=True)
    assert retry_after({"retry-after": date}, 1_000_000.0) == 30


@pytest.mark.parametrize("url", ["ftp://a/v1", "localhost", "https://me:secret@a/v1", "https://a/v1?key=secret"])
def test_an_address_with_a_secret_in_it_is_refused(url):
    with pytest.raises(ConfigError):
        checked_url(url)


def test_no_limit_never_waits():
    assert passed(math.inf, None, [1e9] * 3) == [0, 0, 0]
