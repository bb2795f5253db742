"""What several processes share over Redis; needs the extra ``redis``."""

from ci_live_audit.following.redis_checkpoint import RedisCheckpoint

__all__ = ["RedisCheckpoint"]
