"""Live stream moderation jobs of Tencent Cloud CI, for asyncio.

Start with `LiveAuditClient`; `ci_live_audit.testing` has the service to test against.
"""

import logging
from typing import TYPE_CHECKING

from ci_live_audit._lazy import exports
from ci_live_audit._version import __version__ as __version__

if TYPE_CHECKING:
    from ci_live_audit import callbacks as callbacks, decode as decode, report as report
    from ci_live_audit.callbacks.receiver import CallbackReceiver as CallbackReceiver
    from ci_live_audit.client import LiveAuditClient as LiveAuditClient
    from ci_live_audit.credentials.values import Credentials as Credentials
    from ci_live_audit.errors import (
        AccessDenied as AccessDenied,
        ConfigurationError as ConfigurationError,
        CredentialsError as CredentialsError,
        DecodeError as DecodeError,
        InvalidArgument as InvalidArgument,
        InvalidInput as InvalidInput,
        JobFailed as JobFailed,
        JobNotFound as JobNotFound,
        LiveAuditError as LiveAuditError,
        RequestTimeout as RequestTimeout,
        ServiceError as ServiceError,
        ServiceUnavailable as ServiceUnavailable,
        Throttled as Throttled,
        TransportError as TransportError,
        WaitTimeout as WaitTimeout,
    )
    from ci_live_audit.following.checkpoint import Checkpoint as Checkpoint
    from ci_live_audit.following.finding import (
        AudioFinding as AudioFinding,
        Finding as Finding,
        SnapshotFinding as SnapshotFinding,
        StateChange as StateChange,
        VerdictChange as VerdictChange,
        WatchFailed as WatchFailed,
    )
    from ci_live_audit.following.findings import Findings as Findings
    from ci_live_audit.following.moderation import Moderation as Moderation
    from ci_live_audit.following.outcomes import (
        Outcome as Outcome,
        Outcomes as Outcomes,
        Progress as Progress,
    )
    from ci_live_audit.following.plan import Plan as Plan, plan as plan
    from ci_live_audit.following.stopping import Cancellation as Cancellation
    from ci_live_audit.following.streams import Stream as Stream
    from ci_live_audit.limits.limiter import RateLimiter as RateLimiter
    from ci_live_audit.limits.local import LocalRateLimiter as LocalRateLimiter
    from ci_live_audit.models import (
        AudioSection as AudioSection,
        AuditJob as AuditJob,
        CancelledJob as CancelledJob,
        HitFlag as HitFlag,
        JobState as JobState,
        Scene as Scene,
        Snapshot as Snapshot,
        SubmittedJob as SubmittedJob,
        UserInfo as UserInfo,
        Verdict as Verdict,
    )
    from ci_live_audit.observers import Observer as Observer
    from ci_live_audit.retry import Attempt as Attempt, RetryPolicy as RetryPolicy
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "callbacks": "",
            "callbacks.receiver": "CallbackReceiver",
            "client": "LiveAuditClient",
            "credentials.values": "Credentials",
            "decode": "",
            "errors": (
                "AccessDenied ConfigurationError CredentialsError DecodeError InvalidArgument "
                "InvalidInput JobFailed JobNotFound LiveAuditError RequestTimeout ServiceError "
                "ServiceUnavailable Throttled TransportError WaitTimeout"
            ),
            "following.checkpoint": "Checkpoint",
            "following.finding": (
                "AudioFinding Finding SnapshotFinding StateChange VerdictChange WatchFailed"
            ),
            "following.findings": "Findings",
            "following.moderation": "Moderation",
            "following.outcomes": "Outcome Outcomes Progress",
            "following.plan": "Plan plan",
            "following.stopping": "Cancellation",
            "following.streams": "Stream",
            "limits.limiter": "RateLimiter",
            "limits.local": "LocalRateLimiter",
            "models": (
                "AudioSection AuditJob CancelledJob HitFlag JobState Scene Snapshot SubmittedJob "
                "UserInfo Verdict"
            ),
            "observers": "Observer",
            "report": "",
            "retry": "Attempt RetryPolicy",
        },
    )

logging.getLogger("ci_live_audit").addHandler(logging.NullHandler())
