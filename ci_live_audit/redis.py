"""What several processes share over Redis; needs the extra ``redis``."""

from ci_live_audit.limits.redis import RedisRateLimiter

__all__ = ["RedisRateLimiter"]
