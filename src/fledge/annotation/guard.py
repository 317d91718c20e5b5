"""What stands before every request: size, rate, headers."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
"""On every reply. The referrer is kept back because the first address carries the platform's ids."""


@dataclass(frozen=True)
class Limits:
    """How many requests are let through: so many at once, and so many a second on average."""

    address_burst: int = 3_000
    """Of one address: a whole lab or village can share one."""
    address_rate: float = 100.0
    session_burst: int = 60
    session_rate: float = 5.0
    login_burst: int = 10
    """Wrong tokens of researchers, from one address."""
    login_rate: float = 1 / 60


class Buckets:
    """Token buckets by key; the ones used longest ago are forgotten."""

    def __init__(self, burst: int, rate: float, most: int = 50_000) -> None:
        self.burst, self.rate, self.most = burst, rate, most
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: str, now: float) -> bool:
        """Whether one more may pass."""
        with self._lock:
            left, since = self._left.pop(key, (float(self.burst), now))
            left = min(float(self.burst), left + max(0.0, now - since) * self.rate)
            passed = left >= 1
            self._left[key] = (left - passed, now)
            if len(self._left) > self.most:
                self._left.popitem(last=False)
        return passed


class Refusals:
    """Logs what was refused, at most `most` an hour, so that a flood does not fill the disk."""

    def __init__(self, write: Callable[[dict[str, str], float], None], most: int = 2_000) -> None:
        self._write, self._buckets = write, Buckets(most, most / 3600)

    def note(self, now: float, **detail: str) -> None:
        """Log one."""
        if self._buckets.take("", now):
            self._write({name: value[:200] for name, value in detail.items()}, now)
