"""`RateLimit`: how many requests per minute one client may send."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from medvar_engine.serve.limits import Refused

_MOST_CLIENTS = 10_000  # largest number of clients in memory


class RateLimit:
    """A token bucket for each client: it holds the requests of one minute and is filled at a constant rate.

    Args:
        rate: requests per minute.
        clock: gives seconds.
    """

    def __init__(self, rate: int, clock: Callable[[], float]) -> None:
        self._rate, self._clock = rate, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client → (requests left, time)

    def take(self, client: str) -> None:
        """Count one request of ``client``. Raises `Refused` with status 429 when its bucket is empty."""
        now = self._clock()
        left, then = self._buckets.pop(client, (float(self._rate), now))
        left = min(self._rate, left + (now - then) * self._rate / 60)
        self._buckets[client] = (left - 1 if left >= 1 else left, now)
        if len(self._buckets) > _MOST_CLIENTS:
            self._buckets.popitem(last=False)
        if left < 1:
            wait = max(1, round(60 / self._rate))
            text = (
                f"Too many requests: {self._rate} per minute are allowed. Wait, or start the server with a "
                "higher --rate."
            )
            raise Refused(429, text, {"Retry-After": str(wait)})
