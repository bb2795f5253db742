"""What is compared: the client's limiter and bare aiolimiter in its place, and the vendor's SDK."""

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
#: Makes a limiter for the running loop.
Make = Callable[[], RateLimiter]


class Bare:
    """aiolimiter as it is, where the client expects a `RateLimiter`."""

    def __init__(self, requests: float, seconds: float) -> None:
        self._bucket = AsyncLimiter(requests, seconds)

    async def acquire(self) -> float:
        """Wait for a slot."""
        await self._bucket.acquire()
        return 0.0

    def hold(self, seconds: float) -> None:
        """Nothing: aiolimiter cannot be told to wait."""


OURS = "LocalRateLimiter(20)"
#: The peer: spaced evenly, as aiolimiter is best set up for a quota.
PACED = "AsyncLimiter(1, 1/20)"
#: As it is set up in its documentation.
BURST = "AsyncLimiter(20, 1)"
LIMITERS: dict[str, Make] = {
    OURS: partial(LocalRateLimiter, RATE),
    PACED: partial(Bare, 1, 1 / RATE),
    BURST: partial(Bare, RATE, 1),
}


# Clients


def ours(url: str) -> LiveAuditClient:
    """Our client, at no limit."""
    return LiveAuditClient(
        service.BUCKET,
        service.REGION,
        credentials=service.CREDENTIALS,
        endpoint=url,
        rate=math.inf,
        timeout=120,
    )


def vendor(url: str) -> Any:
    """The SDK's client, with room in its pool for every thread that may use it."""
    config = CosConfig(
        Region=service.REGION,
        SecretId=service.CREDENTIALS.secret_id,
        SecretKey=service.CREDENTIALS.secret_key,
        Scheme="http",
        Domain=url.removeprefix("http://"),
        PoolMaxSize=64,
    )
    return CosS3Client(config)
