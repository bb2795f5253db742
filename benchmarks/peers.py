"""The subjects of comparison: limiters, and clients of ours and of the vendor."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import service
from aiolimiter import AsyncLimiter
from qcloud_cos import CosConfig, CosS3Client

from ci_live_audit import LiveAuditClient
from ci_live_audit.limits.limiter import RateLimiter
from ci_live_audit.limits.local import LocalRateLimiter

__all__ = ["LIMITERS", "OURS", "PACED", "RATE", "Make", "ours", "vendor"]

# Limiters

RATE = 20
#: Returns a limiter for the running loop.
Make = Callable[[], RateLimiter]


class Bare:
    """Bare aiolimiter as a `RateLimiter`."""

    def __init__(self, requests: float, seconds: float) -> None:
        self._bucket = AsyncLimiter(requests, seconds)

    async def acquire(self) -> float:
        """Wait for a slot."""
        await self._bucket.acquire()
        return 0.0

    def hold(self, seconds: float) -> None:
        """Do nothing: aiolimiter cannot be paused."""


OURS = "LocalRateLimiter(20)"
#: The peer: evenly spaced, the best setting of aiolimiter for a quota.
PACED = "AsyncLimiter(1, 1/20)"
#: The setting in its documentation.
BURST = "AsyncLimiter(20, 1)"
LIMITERS: dict[str, Make] = {
    OURS: partial(LocalRateLimiter, RATE),
    PACED: partial(Bare, 1, 1 / RATE),
    BURST: partial(Bare, RATE, 1),
}


# Clients


def ours(url: str) -> LiveAuditClient:
    """Return our client, without a rate limit."""
    return LiveAuditClient(
        service.BUCKET,
        service.REGION,
        credentials=service.CREDENTIALS,
        endpoint=url,
        rate=math.inf,
        timeout=120,
    )


def vendor(url: str) -> Any:
    """Return the SDK's client, with a connection for every thread that may use it."""
    config = CosConfig(
        Region=service.REGION,
        SecretId=service.CREDENTIALS.secret_id,
        SecretKey=service.CREDENTIALS.secret_key,
        Scheme="http",
        Domain=url.removeprefix("http://"),
        PoolMaxSize=64,
    )
    return CosS3Client(config)
