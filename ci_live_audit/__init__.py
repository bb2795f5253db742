"""Live stream moderation jobs of Tencent Cloud CI, for asyncio.

Start with `LiveAuditClient`; `ci_live_audit.testing` has the service to test against.
"""

import logging
from typing import TYPE_CHECKING

from ci_live_audit._lazy import attributes

if TYPE_CHECKING:
    from ci_live_audit import decode
    from ci_live_audit.client import LiveAuditClient
    from ci_live_audit.credentials.values import Credentials
    from ci_live_audit.errors import (
        AccessDenied,
        ConfigurationError,
        CredentialsError,
        DecodeError,
        InvalidArgument,
        JobFailed,
        JobNotFound,
        LiveAuditError,
        RequestTimeout,
        ServiceError,
        ServiceUnavailable,
        Throttled,
        TransportError,
        WaitTimeout,
    )
    from ci_live_audit.following.checkpoint import Checkpoint
    from ci_live_audit.following.findings import Finding, Findings
    from ci_live_audit.following.outcomes import Outcome, Outcomes, Progress
    from ci_live_audit.following.plan import Plan, plan
    from ci_live_audit.limits.limiter import RateLimiter
    from ci_live_audit.limits.local import LocalRateLimiter
    from ci_live_audit.models import (
        AudioSection,
        AuditJob,
        CancelledJob,
        HitFlag,
        JobState,
        Scene,
        Snapshot,
        SubmittedJob,
        UserInfo,
        Verdict,
    )
    from ci_live_audit.retry import Attempt, RetryPolicy
else:
    __getattr__, __dir__ = attributes(
        __name__,
        {
            "following.checkpoint": "Checkpoint",
            "client": "LiveAuditClient",
            "credentials.values": "Credentials",
            "decode": "",
            "errors": (
                "AccessDenied ConfigurationError CredentialsError DecodeError InvalidArgument "
                "JobFailed JobNotFound LiveAuditError RequestTimeout ServiceError "
                "ServiceUnavailable Throttled TransportError WaitTimeout"
            ),
            "following.findings": "Finding Findings",
            "limits.limiter": "RateLimiter",
            "limits.local": "LocalRateLimiter",
            "models": (
                "AudioSection AuditJob CancelledJob HitFlag JobState Scene Snapshot SubmittedJob "
                "UserInfo Verdict"
            ),
            "following.outcomes": "Outcome Outcomes Progress",
            "retry": "Attempt RetryPolicy",
            "following.plan": "Plan plan",
        },
    )

__all__ = [
    "AccessDenied",
    "Attempt",
    "AudioSection",
    "AuditJob",
    "CancelledJob",
    "Checkpoint",
    "ConfigurationError",
    "Credentials",
    "CredentialsError",
    "DecodeError",
    "Finding",
    "Findings",
    "HitFlag",
    "InvalidArgument",
    "JobFailed",
    "JobNotFound",
    "JobState",
    "LiveAuditClient",
    "LiveAuditError",
    "LocalRateLimiter",
    "Outcome",
    "Outcomes",
    "Plan",
    "Progress",
    "RateLimiter",
    "RequestTimeout",
    "RetryPolicy",
    "Scene",
    "ServiceError",
    "ServiceUnavailable",
    "Snapshot",
    "SubmittedJob",
    "Throttled",
    "TransportError",
    "UserInfo",
    "Verdict",
    "WaitTimeout",
    "decode",
    "plan",
]

logging.getLogger("ci_live_audit").addHandler(logging.NullHandler())
