"""What several processes share over Redis; needs the extra ``redis``."""

from ci_live_audit.following.redis_checkpoint import RedisCheckpoint
from ci_live_audit.limits.redis import RedisRateLimiter

__all__ = ["RedisCheckpoint", "RedisRateLimiter"]
