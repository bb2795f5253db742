"""What browsers ask for before a page may call the service, and read its responses.

The bucket has the rule that the vendor recommends for its browser SDK: any origin, any header.
https://www.tencentcloud.com/document/product/436/8288
"""

from __future__ import annotations

from collections.abc import Mapping

from ci_live_audit.testing.render import Refusal

__all__ = ["NOT_ALLOWED", "permissions"]

METHODS = ["PUT", "GET", "POST", "DELETE", "HEAD"]
EXPOSED = ["Date", "Server", "Retry-After", "x-ci-request-id", "x-ci-trace-id"]
NOT_ALLOWED = Refusal(403, "AccessForbidden", "CORSResponse: This CORS request is not allowed.")


def permissions(method: str, headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that tell a browser what a page may do; none if it may do nothing.

    Args:
        method: HTTP method; ``OPTIONS`` is a preflight.
        headers: Headers of the request by lower-case name.
    """
    preflight = method == "OPTIONS"
    wanted = headers.get("access-control-request-method") if preflight else method
    if "origin" not in headers or wanted not in METHODS:
        return {}
    allowed = {
        "access-control-allow-origin": "*",
        "access-control-expose-headers": ", ".join(EXPOSED),
    }
    if preflight:
        allowed["access-control-allow-methods"] = ", ".join(METHODS)
        allowed["access-control-max-age"] = "600"
        # To a browser, "*" would not cover Authorization.
        if names := headers.get("access-control-request-headers"):
            allowed["access-control-allow-headers"] = names
    return allowed
