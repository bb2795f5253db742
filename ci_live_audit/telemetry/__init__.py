"""Metrics and spans by OpenTelemetry; needs the extra ``otel``.

``LiveAuditClient(…, on_attempt=OpenTelemetry())``, beside an SDK that the application sets up.
"""

try:
    from ci_live_audit.telemetry.observer import OpenTelemetry as OpenTelemetry
except ModuleNotFoundError as _missing:
    if not f"{_missing.name}".startswith("opentelemetry"):
        raise
    raise ModuleNotFoundError(
        'ci_live_audit.telemetry needs OpenTelemetry: pip install "ci-live-audit[otel]"',
        name=_missing.name,
    ) from None

__all__ = ["OpenTelemetry"]
