"""Decide what a response means: a success to be read, or the error it stands for.

Codes: https://www.tencentcloud.com/document/product/1045/43611 (CI) and
https://www.tencentcloud.com/document/product/436/7730 (COS, whose gateway may respond first).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any
from urllib.parse import unquote

from ci_live_audit.errors import (
    AccessDenied,
    DecodeError,
    InvalidArgument,
    JobNotFound,
    LiveAuditError,
    ServiceError,
    ServiceUnavailable,
    Throttled,
    TransportError,
)
from ci_live_audit.wire import documents
from ci_live_audit.wire.responses import Response
from ci_live_audit.wire.scalars import as_text

__all__ = ["Remedy", "error", "failure", "is_stale", "refusal", "remedy"]

CODES: dict[str, type[ServiceError]] = {
    "SlowDown": Throttled,
    "RequestLimitExceeded": Throttled,
    "AuditingJobNotFound": JobNotFound,
    "InternalError": ServiceUnavailable,
    "ServiceUnavailable": ServiceUnavailable,
    "RequestTimeout": ServiceUnavailable,
    "QueueSaturated": ServiceUnavailable,
    "QueuePaused": ServiceError,
    "UnavailableForLegalReasons": ServiceError,
    "NotImplemented": ServiceError,
    "ExpiredToken": AccessDenied,
    "CIRoleNotExist": AccessDenied,
}
# The status that each code is documented with, for error documents that come with 200. A code that
# is not listed there may be anything.
STATUS: dict[str, int] = {
    code: status
    for status, codes in {
        400: "InvalidArgument MissingContent InvalidContent InvalidHost ResourceNotFound "
        "ResourceAccessDenied ResourceDownloadFailed CIRoleNotExist ResourceNotSupported "
        "RequestTimeout ExpiredToken MalformedXML InvalidURI",
        401: "MissingAuthorization InvalidAuthorization SecretidNotExist SignatureExpired",
        403: "AccessDenied MediaBucketAlreadyBinded QueueSaturated QueuePaused "
        "RequestTimeTooSkewed SignatureDoesNotMatch InvalidAccessKeyId InvalidToken",
        404: "InvalidUrl AuditingJobNotFound NoSuchBucket",
        411: "MissingContentLength",
        429: "SlowDown RequestLimitExceeded",
        451: "UnavailableForLegalReasons",
        500: "InternalError",
        501: "NotImplemented",
        503: "ServiceUnavailable",
    }.items()
    for code in codes.split()
}
STALE_CREDENTIALS = {"ExpiredToken", "InvalidAccessKeyId", "SecretidNotExist", "InvalidToken"}
CLOCK_SKEW = {"RequestTimeTooSkewed", "SignatureExpired"}
# Bytes in which a page shows its title.
MAX_PAGE = 4096


class Remedy(Enum):
    """What another attempt can change, so that it need not wait."""

    #: Use a new connection: the server was just closing the idle one.
    NEW_CONNECTION = auto()
    #: Use other credentials, if there are any: the service does not accept these.
    NEW_CREDENTIALS = auto()
    #: Sign by the service's clock.
    NEW_TIME = auto()


def failure(response: Response, host: str = "") -> LiveAuditError | None:
    """Return the error that a response stands for; None if its body is to be read.

    Args:
        response: The response.
        host: The host that was signed.
    """
    # For a refusal to serve now, the status is enough.
    to_be_told = response.status < 500 and response.status != 429
    if isinstance(response.error, ServiceError) or (response.error is not None and to_be_told):
        return response.error
    if 200 <= response.status < 300:
        return None
    refused = refusal(response, host)
    refused.__cause__ = response.error
    return refused


def remedy(error: LiveAuditError) -> Remedy | None:
    """Return what another attempt can change about an error; None if it can only wait."""
    if isinstance(error, TransportError):
        return Remedy.NEW_CONNECTION if error.reused else None
    if not isinstance(error, ServiceError):
        return None
    if error.code in CLOCK_SKEW or "Request has expired" in error.message:
        return Remedy.NEW_TIME
    return Remedy.NEW_CREDENTIALS if isinstance(error, AccessDenied) or is_stale(error) else None


def is_stale(error: LiveAuditError) -> bool:
    """Return whether the service no longer knows the credentials; they may merely lack a right."""
    return isinstance(error, ServiceError) and error.code in STALE_CREDENTIALS


def error(status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
    """Return the error that a refusal means; any body will do: XML, JSON, HTML, none.

    The names of the headers are in lower case, and the body is no longer compressed.
    """
    return refusal(Response(status=status, headers=headers, body=body))


def refusal(response: Response, host: str = "") -> ServiceError:
    """Return the error that a response means that is not a success; see `failure` and `error`."""
    said = _error_document(response.body)
    code, message = said.get("code", ""), said.get("message", "")
    if 300 <= response.status < 400:
        target = response.headers.get("location", "nowhere")
        message = f"redirected to {target}; redirects are not followed"
    succeeded = 200 <= response.status < 300
    status = STATUS.get(code, response.status) if succeeded else response.status
    refused = _class(status, code)(
        message or "no reason given",
        status=response.status,
        code=code,
        request_id=said.get("requestid") or response.request_id,
        trace_id=said.get("traceid") or response.trace_id,
        retry_after=response.retry_after,
    )
    if code == "SignatureDoesNotMatch" and host:
        refused.hint = _about_host(host, said)
    if succeeded:  # a code that is not listed may mean anything
        unclear = status >= 500 or code not in STATUS
        refused.may_have_happened = unclear and not isinstance(refused, Throttled)
    return refused


def _about_host(signed: str, said: Mapping[str, str]) -> str:
    """Return which host was signed, and which one the service saw if its document tells.

    https://www.tencentcloud.com/document/product/436/7730 has ``FormatString`` and
    ``StringToSign``, what the service itself put together to be signed.
    """
    together = f"&{said.get('formatstring', '')}&{said.get('stringtosign', '')}"
    seen = re.search(r"(?:&|\s)host=([^&\s]{1,255})", together)
    if seen is None:
        return f"host {signed} was signed"
    host = unquote(seen[1])
    if host.lower() == signed.lower():
        return f"host {signed} was signed, and the service saw it"
    return f"host {signed} was signed, but the service saw {host}: does a proxy rewrite Host?"


def _class(status: int, code: str) -> type[ServiceError]:
    if status == 429:
        return Throttled
    if code in CODES:
        return CODES[code]
    if status in {401, 403}:
        return AccessDenied
    if status >= 500:
        return ServiceUnavailable
    return InvalidArgument if status >= 400 else ServiceError


def _error_document(body: bytes) -> dict[str, str]:
    """Return the texts of an error document by lower-case name (``Code`` and ``code`` are one)."""
    try:
        # An error document is never large, and this runs on the event loop.
        document = documents.read(body) if len(body) <= documents.LARGE_BODY else {}
        inside: Any = document.get("Response", document)
        inside = inside.get("Error", inside)
        found = {
            tag.lower().replace("_", ""): as_text(value).strip()
            for tag, value in inside.items()
            if isinstance(value, str | int | float) and value != ""
        }
    except (DecodeError, AttributeError):
        found = {}
    if "code" in found or "message" in found:
        return found
    page = body[:MAX_PAGE]
    title = re.search(rb"(?is)<title[^>]*>(.*?)</title>", page)
    words = b" ".join((title.group(1) if title else page).split())
    return {"message": documents.beginning(words)}
