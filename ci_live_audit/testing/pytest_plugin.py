"""Fixtures that pytest finds by itself wherever this package is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ci_live_audit import LiveAuditClient
    from ci_live_audit.testing import Emulator


@pytest.fixture
def live_audit_emulator() -> Emulator:
    """A fresh emulator: ``emulator.client()`` in process, ``emulator.serve()`` on a socket."""
    from ci_live_audit.testing import Emulator  # noqa: PLC0415 - for who uses it

    return Emulator()


@pytest.fixture
def live_audit_client(live_audit_emulator: Emulator) -> LiveAuditClient:
    """A client of ``live_audit_emulator``, in process; nothing has to be closed."""
    return live_audit_emulator.client()
