"""What the service says without being asked: decode the bodies of callbacks."""

from ci_live_audit.wire.callbacks import Callback, decode

__all__ = ["Callback", "decode"]
