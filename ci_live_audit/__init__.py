"""Live stream moderation jobs of Tencent Cloud CI, for asyncio.

Start with `LiveAuditClient`; `ci_live_audit.testing` has the service to test against.
"""

import logging
from typing import TYPE_CHECKING

from ci_live_audit.lazy import attributes

if TYPE_CHECKING:
    from ci_live_audit import decode
    from ci_live_audit.checkpoint import Checkpoint
    from ci_live_audit.client import LiveAuditClient
    from ci_live_audit.credentials import Credentials
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
    from ci_live_audit.findings import Finding, Findings
    from ci_live_audit.limiter import LocalRateLimiter, RateLimiter
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
    from ci_live_audit.outcomes import Outcome, Outcomes, Progress
    from ci_live_audit.retry import Attempt, RetryPolicy
    from ci_live_audit.schedule import Plan, plan
else:
    __getattr__, __dir__ = attributes(
        __name__,
        {
            "checkpoint": "Checkpoint",
            "client": "LiveAuditClient",
            "credentials": "Credentials",
            "decode": "",
            "errors": (
                "AccessDenied ConfigurationError CredentialsError DecodeError InvalidArgument "
                "JobFailed JobNotFound LiveAuditError RequestTimeout ServiceError "
                "ServiceUnavailable Throttled TransportError WaitTimeout"
            ),
            "findings": "Finding Findings",
            "limiter": "LocalRateLimiter RateLimiter",
            "models": (
                "AudioSection AuditJob CancelledJob HitFlag JobState Scene Snapshot SubmittedJob "
                "UserInfo Verdict"
            ),
            "outcomes": "Outcome Outcomes Progress",
            "retry": "Attempt RetryPolicy",
            "schedule": "Plan plan",
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
