"""What the environment says of the bucket, where the caller says nothing."""

from __future__ import annotations

import os

from ci_live_audit.errors import ConfigurationError

__all__ = ["resolve"]


def resolve(
    bucket: str | None, region: str | None, endpoint: str | None
) -> tuple[str, str, str | None]:
    """Return the arguments, and for each that is None the value of its variable.

    The variables are those that ``ci-live-audit emulate`` prints; an empty one is none.

    Raises:
        ConfigurationError: There is no bucket or no region.
    """
    environ = os.environ
    bucket = environ.get("CI_LIVE_AUDIT_BUCKET") if bucket is None else bucket
    region = environ.get("TENCENTCLOUD_REGION") if region is None else region
    endpoint = (environ.get("CI_LIVE_AUDIT_ENDPOINT") or None) if endpoint is None else endpoint
    if not bucket:
        raise ConfigurationError("bucket: pass one (name-appid) or set CI_LIVE_AUDIT_BUCKET")
    if not region:
        raise ConfigurationError("region: pass one (ap-beijing, …) or set TENCENTCLOUD_REGION")
    return bucket, region, endpoint
